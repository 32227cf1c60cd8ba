"""Sudoku 9x9: a policy that searches, guesses and takes back. `sudoku9_baselines` has those that never do.

python -m experiments.anyprocess --config=experiments/configs/sudoku9.py --workdir=runs/sudoku9

On one core: 46 minutes of training and about 35 of tests, for which a puzzle may take 3,000 steps. To expect: 75 % of
the held-out puzzles, 100 and 94 % of those whose search is as long as what was learned, without and with guesses that
fail. `--config.data.path=FILE` adds tests on puzzles of a file.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess
from experiments.configs.sudoku4 import QUICK


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.update(task="sudoku", arms=("any_process",))
    config.data.update(rows=1024, problems=192, box=3, givens=(21, 25), givens_judged=(20, 28), limit=3000)
    config.data.update(together=0.4, alone=0.125, sums=4)
    config.network.update(width=128, depth=4, heads=16)
    config.loss.remask = 10.0  # three of 324 positions are remasked: their share of the loss is small
    config.train.update(steps=16_000, batch=16, learning_rate=2e-3, muon=0.02, warmup=400)
    config.train.update(average=0.999, evaluate_every=2000)
    quick = QUICK | dict(data__givens=(30, 34), data__givens_judged=(30, 34), data__sums=1, network__heads=4)
    return variant(config, name, **quick)
