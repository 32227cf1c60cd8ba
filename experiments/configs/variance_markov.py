"""What the draws of a training step are worth, in little: a linear denoiser, eight tokens, exact bounds.

python -m experiments.variance_study --config=experiments/configs/variance_markov.py --workdir=runs/variance-markov

The training toy of "Bringing Stability to Diffusion" (arXiv 2511.18159) as this library has it: 256 rows of a Markov
chain, plain gradient descent, every bound over all 256 masks of a row. A law is fitted to the rows of the batch that is
trained on next, 8 or 4, and the first parameters are small random numbers. `:quick` takes half a minute and has learned
little. 6 minutes on 2 CPU cores with other work beside it: against uniform rates the noise of the gradient's norm is 28
times lower with exact counts and 3.5 times with p_pots, and pairs of masks change nothing.
"""

from experiments.configs.base import study, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = study()
    config.task = "markov"
    config.seeds = 32
    config.arms = (
        "base", "base@strata", "base+copies", "base+mirror", "p_pots", "p_pots+mirror", "exact_count",
        "exact_count+mirror", "clipped",
    )  # fmt: skip
    config.data.update(length=8, states=4, rows=256)
    config.network.name = "linear"
    config.law.update(refit_every=400, probe_rows=8, probe_masks=20)
    config.train.update(
        steps=1200, batch=8, optimizer="sgd", learning_rate=0.5, warmup=0, final=0.0, weight_decay=0.0, average=0.0,
        evaluate_every=100,
    )  # fmt: skip
    config.evaluate.update(rows=64, draws=0)
    return variant(config, name, seeds=4, train__steps=60, train__evaluate_every=20, law__refit_every=30)
