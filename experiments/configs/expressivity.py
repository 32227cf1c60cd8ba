"""Steps, cells, weights and orders of masked diffusion on word problems: constructions that run, nothing is learned.

python -m experiments.expressivity --config=experiments/configs/expressivity.py --workdir=runs/expressivity

"""

from experiments.configs.base import variant
from experiments.configs.base_expressivity import expressivity


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    quick = dict(
        automata=("parity", "s3"),
        lengths=(1, 7, 64, 1024),
        engine__lengths=(256,),
        engine__rounds=3,
        weights__lengths=(16,),
        orders__lengths=(2, 4, 16, 32),
        orders__rows=1000,
        orders__length=8,
        orders__steps=(3, 7),
        orders__words=200,
        orders__accuracy_lengths=(4, 8),
        equal__bits=(6,),
        equal__widths=(8,),
        equal__steps=(5,),
    )
    return variant(expressivity(), name, **{f"constructions__{key}": value for key, value in quick.items()})
