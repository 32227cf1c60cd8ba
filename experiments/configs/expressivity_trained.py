"""Models of equal size that learn parity, S3 and A5: in log2 N supervised steps, in one step, in loops, as a chain.

python -m experiments.expressivity --config=experiments/configs/expressivity_trained.py --workdir=runs/trained

To expect: log_steps has every word of 64 bits right with each of 5 seeds by step 1400, within two or three minutes on
one core. With `parts=False`, `mix=(64,)` that takes 600 steps, each of which costs three times as much.
"""

from experiments.configs.base import variant
from experiments.configs.base_expressivity import expressivity


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = expressivity()
    config.study = "trained"
    quick = dict(
        trained__seeds=2, trained__tasks=("parity",), trained__parity__length=4, trained__parity__lengths=(4, 8),
        trained__parity__width=16, trained__parity__steps=40, trained__parity__mix=(2, 4), trained__parity__batch=8,
        trained__train__warmup=5,
        trained__train__evaluate_every=20, trained__evaluate__rows=32, trained__evaluate__chain_rows=32,
        trained__evaluate__watched=32, trained__evaluate__batch=32,
    )  # fmt: skip
    return variant(config, name, **quick)
