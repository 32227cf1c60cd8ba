"""What turning the columns around and sorting the rows saves on tiles of bell-shaped weights, and what it costs.

    python -m experiments.crossbar --config=experiments/configs/bell_weights.py --workdir=runs/bell-weights

6 minutes on one CPU core, nearly all of it swaps. To expect: the nonideality factor falls by 36 % (Gauss) and 45 %
(Laplace) where devices that are off do not conduct; at an on/off ratio of 10 by 25 % and 32 %, where the weighted error
of the products rises all the same.
"""

from experiments.configs.base import variant
from experiments.configs.base_crossbar import crossbar


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = crossbar()
    config.update(study="bell_weights", tiles=12)
    config.mappings = (
        "conventional", "sorted", "reversed", "full", "greedy", "column", "sorted+swaps", "full+swaps",
    )  # fmt: skip
    return variant(
        config, name, seeds=2, tiles=3, layer__laws=("laplace",), layer__inputs=256, tile__swaps=1,
        mappings=("conventional", "sorted", "reversed", "full", "full+swaps"),
    )  # fmt: skip
