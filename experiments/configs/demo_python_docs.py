"""A small character model of the Python language reference, on any machine, without a download.

    python -m experiments.train --config=experiments/configs/demo_python_docs.py --workdir=runs/demo

The numbers to expect, with wall time and machine, are in the first table of the README.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    config = base()
    return variant(config, name, **QUICK)
