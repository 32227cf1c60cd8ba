"""Parity of up to 10,000 bits by a policy of fewer than 200 parameters, learned from the seven moves on two bits.

python -m experiments.anyprocess --config=experiments/configs/parity.py --workdir=runs/parity

Fifteen minutes on 2 CPU cores, of which the policies of all five seeds take 17 seconds to train and 50 with all their
tests (`--config.arms="('any_process',)"`); `:quick` takes a minute. To expect: 100 % at every length, and the others at
chance for strings longer than those they have seen.
"""

from experiments.configs.base import variant
from experiments.configs.base_anyprocess import anyprocess


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = anyprocess()
    config.update(task="parity", seeds=5)
    config.data.update(rows=20_000, problems=64)
    config.network.update(width=4, depth=1, heads=1, ff=4, qk_norm=False)
    config.baseline.update(width=64, depth=2, heads=4, batch=64)
    config.train.update(steps=2000, batch=16, learning_rate=1e-2, warmup=20, weight_decay=0.0, evaluate_every=1000)
    quick = dict(
        seeds=2, data__rows=200, data__problems=4, data__questions=16, data__lengths=(2, 10), data__beyond=(30,),
        train__steps=60, train__evaluate_every=30, evaluate__slots=16, baseline__width=16, baseline__depth=1,
    )  # fmt: skip
    return variant(config, name, **quick)
