"""What the draws of a training step are worth where an answer must be exactly right: sums of two numbers.

python -m experiments.variance_study --config=experiments/configs/variance_sums.py --workdir=runs/variance-sums
"""

from experiments.configs.base import study, variant
from experiments.configs.variance_text import QUICK_STUDY


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = study()
    config.task = "sums"
    config.arms = tuple("syrm" if name == "isad" else name for name in config.arms)  # an answer has no delimiters
    config.train.update(steps=700, batch=32, learning_rate=4e-3, evaluate_every=50)
    return variant(config, name, **QUICK_STUDY)
