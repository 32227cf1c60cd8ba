"""Rewards for expressions that reach a target, of which there are many, by every policy gradient.

python -m experiments.reinforce --config=experiments/configs/reinforce_countdown.py --workdir=runs/countdown

13 minutes on one core. To expect: 20 % right answers before, 21 to 23 % after; rewards go on rising.
"""

from experiments.configs.base import variant
from experiments.configs.base_reinforce import reinforce
from experiments.configs.reinforce_arithmetic import QUICK


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = reinforce()
    config.task = "countdown"
    config.data.update(rows=1000, prompts=600, judged=350)
    config.start.steps = 450
    config.train.update(steps=200, learning_rate=2e-4, warmup=5)
    return variant(config, name, **QUICK)
