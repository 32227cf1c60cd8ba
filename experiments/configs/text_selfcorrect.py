"""Text that puts itself right: filling, taking back, inserting and deleting, all learned from clean characters alone.

python -m experiments.anyprocess --config=experiments/configs/text_selfcorrect.py --workdir=runs/text_selfcorrect

41 minutes on one core. To expect: areas under the curve of 0.91, 0.62 and 0.83 for wrong letters, gaps and surplus
masks, and samples in one call of 9.6 bits/char for a 4-gram model that have 8.1 when they are put right; real text with
faults gets worse.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.update(task="text", arms=("any_process",))
    config.data.update(problems=200, rates=(0.3, 0.3, 0.3))  # mostly clean letters, or there is no text to learn
    config.network.update(width=128, depth=4, heads=4)
    config.train.update(steps=2400, batch=64, learning_rate=2e-3, muon=0.02, evaluate_every=400)
    quick = dict(
        data__problems=8, data__length=16, data__stride=64, network__width=16, network__depth=1, train__steps=20,
        train__batch=8, train__warmup=4, train__evaluate_every=10, evaluate__batch=16, evaluate__slots=8,
    )  # fmt: skip
    return variant(config, name, **quick)
