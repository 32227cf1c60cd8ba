"""Beta schedules for a trained character model at 8 and 16 steps, searched on validation text, compared on test text.

    make demo
    python -m experiments.schedules --config=experiments/configs/schedules_text.py --workdir=runs/schedules-text

`:quick` searches four schedules for the model that `:quick` of a training config leaves in runs/quick.
"""

from experiments.configs.base import search, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = search()
    config.update(target="checkpoint", metric="infill", steps=(8, 16), planners=("confidence",), temperature=0.0)
    config.update(rungs=(60, 180, 360), held_out=360, batch=60)
    config.checkpoint.curve_rows = 256
    return variant(
        config, name, checkpoint__run="runs/quick", checkpoint__curve_rows=8, steps=(4,),
        grid__a=(0.3, 0.9), grid__b=(0.3, 0.9), rungs=(16,), held_out=16, batch=16,
    )  # fmt: skip
