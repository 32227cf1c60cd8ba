"""What each way of estimating the score is worth: the number of draws, how they are shared out, and who sees them.

python -m experiments.prefer --config=experiments/configs/prefer_ablation.py --workdir=runs/prefer-ablation
"""

from experiments.configs.base import variant
from experiments.configs.base_prefer import prefer
from experiments.configs.prefer_arithmetic import QUICK


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = prefer()
    config.arms = (
        "1x1+apart+iid", "1x1+iid", "4x1+iid", "8x1+apart+iid", "1x8+iid", "8x1+iid", "8x1", "8x1+together",
        "fine_tuning",
    )  # fmt: skip
    return variant(config, name, **QUICK | dict(arms=("1x1+apart+iid", "2x1", "fine_tuning")))
