"""Right sums preferred to those with a slip of the carry, from a model that has read as many of one as of the other.

python -m experiments.prefer --config=experiments/configs/prefer_arithmetic.py --workdir=runs/prefer

3 minutes on one core. To expect: 61 % right answers where the start has 51 %, and 73 % by fine-tuning alone; a variance
of the score of 0.025, and 2.6 for one draw that the reference does not share.
"""

from experiments.configs.base import variant
from experiments.configs.base_prefer import prefer

QUICK = dict(
    seeds=2, data__rows=64, data__pairs=32, data__judged=16, data__held_out=8, data__digits=2, start__steps=10,
    start__batch=16, start__warmup=1, network__width=16, network__depth=1, network__heads=2, train__steps=6,
    train__batch=4, train__warmup=1, train__evaluate_every=3, evaluate__pairs=4, evaluate__repeats=3,
)  # fmt: skip


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = prefer()
    config.arms = ("8x1", "1x1+apart+iid", "fine_tuning")
    return variant(config, name, **QUICK)
