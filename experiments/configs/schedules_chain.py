"""Beta schedules for a Markov chain of 32 tokens with its true conditionals: what is lost is the sampler's alone.

python -m experiments.schedules --config=experiments/configs/schedules_chain.py --workdir=runs/schedules-chain
"""

from experiments.configs.base import search, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = search()
    config.update(target="chain", planners=("ancestral", "random_count"), steps=(4, 8, 16, 32), batch=128)
    config.update(rungs=(128, 512), held_out=1024)
    quick = dict(steps=(4,), planners=("ancestral",), grid__a=(0.3, 0.9), grid__b=(0.3, 0.9), rungs=(64,), held_out=64)
    return variant(config, name, **quick, batch=64)
