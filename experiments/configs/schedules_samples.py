"""Beta schedules for the samples of a trained character model at 8 and 16 steps: what they cost under an n-gram judge.

    make demo
    python -m experiments.schedules --config=experiments/configs/schedules_samples.py --workdir=runs/schedules-samples

`:quick` searches four schedules for the model that `:quick` of a training config leaves in runs/quick.
"""

from experiments.configs import schedules_text


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = schedules_text.get_config(name)
    config.update(metric="ngram", planners=("ancestral",), temperature=1.0)
    return config
