"""Sudoku 9x9 by models that never take back, on the puzzles of `sudoku9` and at the cost of its training.

python -m experiments.anyprocess --config=experiments/configs/sudoku9_baselines.py --workdir=runs/sudoku9-baselines

On one core, beside other work, the two took 2 1/2 hours. To expect: 47 % of the held-out puzzles from the any-order
model in the order of its confidence, none from the autoregressive one.
"""

from experiments.configs.sudoku9 import get_config as sudoku9


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = sudoku9(name)
    config.arms = ("any_order", "autoregressive")
    return config
