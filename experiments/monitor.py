"""The monitor of a training run, from its config: what it may cost is known before the run starts."""

import jax
import numpy as np

from experiments import build
from mdmjax import training, variance

SHARE = 50  # the monitor takes at most one part in so many of the denoiser's work


def monitor(experiment: build.Experiment, source) -> training.Monitor | None:
    """What measures the variance during training, on rows of the source that are evenly spaced; None for every=0.

    Work is counted in denoiser rows, 1 forward and 2 backward, so that it is the same on every machine and in every
    process: `examples * rates * masks` draws against 3 `batch` of each step (a row that is hidden in several ways is so
    in both). A gradient counts 9 a draw: they are made one row at a time, which takes two to three times what a row
    takes in a batch (measured on 2 CPU cores). Compiling, once, is not counted. ValueError that names the field,
    with the smallest `every` that will do where that is what is wrong.
    """
    c, train = experiment.config.monitor, experiment.config.train
    if c.every == 0:
        return None
    for name, least in (("every", 1), ("examples", 3), ("rates", 2), ("masks", 2)):
        if c[name] < least:
            reason = "0 is off" if name == "every" else "there is no variance, or no error bar, of fewer"
            raise ValueError(f"monitor.{name}={c[name]}: must be at least {least}; {reason}")
    if experiment.config.network.attention == "splash":
        raise ValueError("monitor.every: it takes one row at a time, which network.attention='splash' cannot; use 0")
    devices = jax.device_count() if experiment.layout.axis else experiment.layout.shards
    if c.examples % devices:
        raise ValueError(f"monitor.examples={c.examples}: must be a multiple of {devices}, the devices that share them")
    if c.examples > len(source):
        raise ValueError(f"monitor.examples={c.examples}: there are {len(source)} training rows")
    draws, passes = c.examples * c.rates * c.masks, 9 if c.gradient else 1
    least = -(-SHARE * draws * passes // (3 * train.batch))
    if c.every < least:
        raise ValueError(
            f"monitor.every={c.every}: {draws} draws would be more than {100 // SHARE} % of the work of so many steps "
            f"of {train.batch} rows; use monitor.every={least} or more, or fewer examples, rates or masks"
        )
    if c.every > train.steps:
        raise ValueError(f"monitor.every={c.every}: more than train.steps={train.steps}, so nothing would be measured")
    rows = source.gather(np.arange(c.examples) * len(source) // c.examples)
    law = None if experiment.autoregressive else experiment.law
    groups = {"all": "."} if c.gradient else {}
    size = float(rows["eligible"].sum(1).mean()) if "eligible" in rows else None  # by which training divides
    statistic = variance.DrawStatistic(
        experiment.model.bind, law, experiment.vocab, groups, experiment.nll(groups=1), size
    )
    return training.Monitor(statistic, experiment.layout, rows, every=c.every, rates=c.rates, masks=c.masks)
