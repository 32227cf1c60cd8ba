"""What the draws of a training step are worth: every law, many seeds, on characters of the Python language reference.

python -m experiments.variance_study --config=experiments/configs/variance_text.py --workdir=runs/variance-text

50 minutes on 2 CPU cores with other work beside it; `:quick` takes half a minute and has learned nothing. Of 20 seeds
each, the last bounds are 3.85 bits/char with uniform mask rates (`base`), 3.82 with exact counts spread over the batch,
3.89 with p_pots+mirror, 3.69 with clipped rates, 2.75 with an autoregressive model. The learning rate is that of 0.003,
0.006 and 0.012 which was best for `base` on seeds of their own.
"""

from experiments.configs.base import study, variant

QUICK_STUDY = dict(
    seeds=4, arms=("base", "p_pots+mirror", "autoregressive"), network__width=16, network__depth=1, network__heads=2,
    train__steps=24, train__batch=8, train__warmup=4, train__evaluate_every=8, law__refit_every=8, law__probe_rows=2,
    law__probe_masks=2, evaluate__rows=32, evaluate__batch=32,
)  # fmt: skip


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = study()
    config.train.update(steps=500, learning_rate=3e-3, evaluate_every=50)
    config.evaluate.update(rows=128, draws=2)
    return variant(config, name, **QUICK_STUDY)
