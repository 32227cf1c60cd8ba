"""Minimum cuts by editing the text of a graph, learned on 4 to 6 nodes; beside a model that writes the cut.

python -m experiments.anyprocess --config=experiments/configs/mincut.py --workdir=runs/mincut

100 minutes on one CPU core, half of it for the policy, and some minutes for the tests; `:quick` takes a minute and has
learned nothing. To expect of new graphs: 100 % right cuts at 4 and 5 nodes, 99.5 % at 6, and 97 % at 7 and 88 % at 8,
which it has not learned from; of the autoregressive model 40 % at 4 nodes and 11 % at 6.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.update(task="mincut", arms=("any_process", "autoregressive"))
    config.data.update(rows=10_000, problems=200, terminal=0, limit=200)
    config.network.update(width=96, depth=6, heads=3)
    config.loss.update(remask=10.0, insert=10.0, delete=10.0)  # few positions are decided for: their share is small
    config.train.update(steps=12_000, batch=16, parts=8, learning_rate=2e-3, warmup=200, evaluate_every=500)
    quick = dict(
        data__rows=20, data__problems=4, data__nodes_of=(3, 4), data__judged=(3,), data__limit=12, network__width=24,
        network__depth=1, train__steps=20, train__batch=8, train__warmup=4, train__evaluate_every=10,
        evaluate__batch=16, evaluate__slots=4, evaluate__failures=2,
    )  # fmt: skip
    return variant(config, name, **quick)
