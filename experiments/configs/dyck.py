"""Two-sided Dyck words: a policy that inserts pairs reaches every word and no other, at lengths it has not seen too.

python -m experiments.anyprocess --config=experiments/configs/dyck.py --workdir=runs/dyck

45 minutes on 2 CPU cores; `:quick` takes a minute and has learned nothing. To expect over three seeds: all words drawn
up to 12 letters are legal, and 98 % at 20; of 6 letters all 232 words are found.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.update(task="dyck", seeds=3)
    config.data.update(rows=4000, problems=10_000, most=12, limit=600)
    config.decode.update(draw=True, least=0.01, single=True)
    config.network.update(width=32, depth=3, heads=4)
    config.train.update(steps=3000, batch=128, learning_rate=2e-3, evaluate_every=1000)
    config.evaluate.update(slots=500)
    quick = dict(
        seeds=1, data__rows=40, data__problems=8, data__most=4, data__limit=40, data__letters=(2,), network__width=16,
        network__depth=1, train__steps=20, train__batch=8, train__warmup=4, train__evaluate_every=10,
        evaluate__batch=16, evaluate__slots=8,
    )  # fmt: skip
    return variant(config, name, **quick)
