"""A small character model of the Python language reference, on any machine, without a download.

    python -m experiments.train --config=experiments/configs/demo_python_docs.py --workdir=runs/demo

The numbers to expect, with wall time and machine, are in the first table of the README.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.length = 64
    config.network.update(width=128, depth=4, heads=4, qk_norm=True)
    config.train.update(steps=3000, batch=16, learning_rate=6e-3, warmup=100, evaluate_every=500, checkpoint_every=500)
    return variant(config, name, **QUICK)
