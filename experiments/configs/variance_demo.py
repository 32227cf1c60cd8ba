"""Where the variance of training comes from: a small character model of the Python language reference, half trained.

    python -m experiments.variance --config=experiments/configs/variance_demo.py --workdir=runs/variance

It trains the model and its autoregressive twin first; with --config.checkpoint.run=DIR it takes those of `train`.
Less than five minutes on 2 CPU cores; `:quick` takes half a minute. The numbers to expect are in the README.
"""

from experiments.configs.base import QUICK, variance, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = variance()
    config.spreads = ("base", "exact_count")
    config.model.data.length = 64
    config.model.network.update(width=64, depth=2, heads=4, qk_norm=True)
    config.model.train.update(
        steps=400, batch=16, learning_rate=6e-3, warmup=40, evaluate_every=400, checkpoint_every=400
    )
    config.model.evaluate.update(rows=64, baselines=False, splits=("validation",))
    quick = {f"model__{field}": value for field, value in QUICK.items()}
    return variant(
        config, name, **quick, laws=("base", "p_pots", "exact_count"), spreads=(),
        examples=6, rates=2, masks=2, probe_rows=4, probe_masks=2, batch=6, replicates=6,
    )  # fmt: skip
