"""Is what a crossbar loses proportional to the Manhattan distance of its active cells? Random tiles, exact solves.

    python -m experiments.crossbar --config=experiments/configs/manhattan_law.py --workdir=runs/manhattan-law

A quarter of a minute on 2 CPU cores. To expect: over tiles of many densities the nonideality factor follows the
Manhattan score (R2 .9996), mostly because both count active cells; at one density it explains 90 %, and the quadratic
form of the segment currents, of which the score is the diagonal, all but 3e-6 of it.
"""

from experiments.configs.base import variant
from experiments.configs.base_crossbar import crossbar


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = crossbar()
    config.update(study="manhattan_law")
    return variant(config, name, seeds=2, tiles=8, tile__rows=32, tile__columns=32)
