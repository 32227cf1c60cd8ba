"""Models of equal size that learn parity, S3 and A5: in log2 N supervised steps, in one step, in loops, as a chain.

python -m experiments.expressivity --config=experiments/configs/expressivity_trained.py --workdir=runs/trained

24 minutes on two cores; `:quick` 45 s. To expect: log_steps has every word of 64 bits and of S3 with each of 5 seeds,
and 98 % of A5; a chain of thought has all of them; one step guesses, and loops learn level after level. At twice the
length all guess, but log_steps not always.
"""

from experiments.configs.base import variant
from experiments.configs.base_expressivity import expressivity


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = expressivity()
    config.study = "trained"
    quick = dict(
        trained__seeds=2, trained__tasks=("parity",), trained__parity__length=4, trained__parity__lengths=(4,),
        trained__parity__width=16, trained__parity__steps=240, trained__parity__mix=(4,), trained__parity__parts=False,
        trained__parity__batch=32, trained__parity__learning_rate=1e-2, trained__train__warmup=20,
        trained__train__evaluate_every=60, trained__evaluate__rows=64, trained__evaluate__watched=64,
        trained__evaluate__chain=1,
    )  # fmt: skip
    return variant(config, name, **quick)
