"""Steps, cells, weights and orders of masked diffusion on word problems: constructions that run, nothing is learned.

python -m experiments.expressivity --config=experiments/configs/expressivity.py --workdir=runs/expressivity

Six minutes of CPU time, much of it compilation; `:quick` 35 s. To expect: no errors, and all 216 runs with the steps
and cells of the accounting (N = 4,096: a tree has 12 steps, two sweeps 23, a chain of thought 4,096). On the engine the
chain takes 250 times as long as the tree there for S3, 20 times for A5, whose calls have 60 logits for every cell, so
that at 64 symbols the chain is faster. The transformer that is written down has no errors in float32 nor in bfloat16,
to 1,024 symbols (A5: 256), with margins above .98; it fails at c = .2 and .5, and not from c = 1.5 on. Of the orders of
a tree of 16 symbols one in 59,535 is valid: in a uniform one S3 is right as often as a guess, one in six.
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
