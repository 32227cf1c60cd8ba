"""What the draws of a training step are worth where an answer must be exactly right: sums of two numbers.

python -m experiments.variance_study --config=experiments/configs/variance_sums.py --workdir=runs/variance-sums

40 minutes on 2 CPU cores with other work beside it; `:quick` takes half a minute and has learned nothing. Of 20 seeds
each: 56 ± 8 % right answers with uniform mask rates (`base`), 86 ± 5 % with exact counts whose sizes are spread over
the batch, 31 ± 7 % with p_pots+mirror, 84 ± 5 % with an autoregressive model. The learning rate is that of 0.002, 0.004
and 0.008 which was best for `base` on seeds of their own, at 900 steps.
"""

from experiments.configs.base import study, variant
from experiments.configs.variance_text import QUICK_STUDY


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = study()
    config.task = "sums"
    config.arms = tuple("syrm" if name == "isad" else name for name in config.arms)  # an answer has no delimiters
    config.train.update(steps=700, batch=32, learning_rate=4e-3, evaluate_every=50)
    return variant(config, name, **QUICK_STUDY)
