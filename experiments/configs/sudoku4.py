"""Sudoku 4x4: a policy that guesses and takes back, beside models that do not.

python -m experiments.anyprocess --config=experiments/configs/sudoku4.py --workdir=runs/sudoku4

Twenty minutes on 2 CPU cores; `:quick` takes a minute and has learned nothing. To expect on held-out puzzles: 100 % for
the policy and in the order of confidence, 95 % filled in one call, 78 % from left to right.

With the fewest candidates first no 4x4 puzzle of one solution needs a guess: so the search takes the first empty cell.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess

QUICK = dict(
    seeds=1, data__rows=6, data__problems=4, data__held_out=2, data__limit=60, network__width=16, network__depth=1,
    train__steps=20, train__batch=8, train__warmup=4, train__evaluate_every=10, evaluate__batch=16, evaluate__slots=4,
    evaluate__failures=2,
)  # fmt: skip


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.task = "sudoku"
    config.data.update(rows=2000, box=2, givens=(4, 8), fewest=False, limit=1000)
    config.network.update(width=64, depth=3, heads=4)
    config.train.update(steps=4000, batch=64, learning_rate=2e-3)
    return variant(config, name, **QUICK)
