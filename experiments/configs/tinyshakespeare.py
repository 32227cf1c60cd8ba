"""Character model of tiny Shakespeare: 6 layers, width 384, length 256, the usual small model. Give the file's path.

    python -m experiments.train --config=experiments/configs/tinyshakespeare.py --workdir=runs/shakespeare \
        --config.data.path=tinyshakespeare.txt

5,000 steps of 16 rows: about four hours on 2 CPU cores, from the time of a step; the whole was not run here. No paper
gives a bound for it: the n-grams of its report are what to compare with. The variant `quick` is a small model of the
Python docs.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.source = "text"
    config.data.path = "tinyshakespeare.txt"
    config.data.length = 256
    config.network.width = 384
    config.network.depth = 6
    config.network.heads = 6
    config.train.steps = 5000
    config.train.batch = 16
    config.train.learning_rate = 1e-3
    config.train.average = 0.999
    return variant(config, name, **QUICK)
