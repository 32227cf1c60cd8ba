"""What the draws of a training step are worth where an answer must be exactly right: sums of two numbers.

python -m experiments.variance_study --config=experiments/configs/variance_sums.py --workdir=runs/variance-sums
"""

from experiments.configs.base import study, variant
from experiments.configs.variance_text import QUICK_STUDY


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = study()
    config.task = "sums"
    config.train.update(steps=1500, batch=32, evaluate_every=75)
    return variant(config, name, **QUICK_STUDY)
