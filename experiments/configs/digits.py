"""A classifier of handwritten digits on crossbars: accuracy against wire resistance, mapped and calibrated or not.

    pip install 'mdmjax[digits]'
    python -m experiments.crossbar --config=experiments/configs/digits.py --workdir=runs/digits

12 minutes on one CPU core, half of it for +swaps. The digits are those that come with scikit-learn. To expect: 97.4 %
before; at 1e-3 R_on a segment the crossbar as it is loses 3.8 points, with a gain for each output 2.6; with full
mapping 4.2 and 0.4.
"""

from experiments.configs.base import variant
from experiments.configs.base_crossbar import crossbar


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = crossbar()
    config.update(study="digits", resistances=(0.0, 8e-5, 2.5e-4, 5e-4, 1e-3))
    config.mappings = ("conventional", "sorted", "reversed", "full", "full+active", "full+bus", "sorted+swaps")
    config.train.update(steps=500, learning_rate=3e-3)
    return variant(
        config, name, seeds=2, hidden=16, resistances=(1e-3,), mappings=("conventional", "full", "full+active"),
        variations=(0.1,), read_noises=(0.1,), tile__swaps=1,
    )  # fmt: skip
