"""Where the variance of training comes from, and what each way of drawing rates and masks does to it.

For a model and its data: A (masking pattern), B (masking rate) and C (data) of the loss and of the gradient, with error
bars, under every law; variance times denoiser calls, by which laws are compared; and the noise of the draws of a whole
batch where its rates are spread. Losses are in nats a token, variances in their square.
"""

import dataclasses
import math
import re
import shlex
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, cli, law_names, laws, runs, train, variance_report
from experiments.configs import base as fields
from mdmjax import data, process, training, variance
from mdmjax.reports import write_report

GRADIENT = "gradient"


def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    runs.quiet_orbax()
    check(config)
    where, twin = config.checkpoint.run, config.checkpoint.autoregressive
    if not where:
        if config.path:
            raise ValueError(
                f"path={config.path!r} is for a run that is there, checkpoint.run: the model that is trained here is "
                "measured on its own data (--config.model.data.path)"
            )
        cli.check_workdir(workdir, config)
        where, twin = (trained_here(config, workdir / name, name) for name in ("masked_diffusion", "autoregressive"))
        if not (where and twin):
            return
    trained = runs.load(where, config.checkpoint.which, cli.log)
    if trained.experiment.autoregressive:
        raise ValueError(f"checkpoint.run={where}: an autoregressive model draws nothing; give it as autoregressive")
    probe, examples = rows_of(config, trained)
    bench = Bench(config, trained, probe, examples)
    other = Bench(config, twin_of(config, twin, trained), probe, examples) if twin else None
    cli.check_workdir(workdir, config)
    cli.started()

    found, spread, spreads = {}, {}, spreads_of(config)
    with cli.progress(len(config.laws) + len(config.spreads) * len(spreads) + bool(twin), unit="law") as bar:
        for name in config.laws:
            found[name] = bench.measure(bench.fitted(name))
            bar.update(len(found))
        if other:
            found["autoregressive"] = other.measure(None)
            bar.update(len(found))
        for name in config.spreads:
            law = bench.fitted(name)
            spread[name] = {s: bench.noise(dataclasses.replace(law, spread=spreads[s])) for s in spreads}
            bar.update(len(found) + len(spread) * len(spreads))
    report = variance_report.report(
        config, trained, found, spread, bench.edges, time.monotonic() - began,
        f"python -m experiments.variance {shlex.join(sys.argv[1:])}",
    )  # fmt: skip
    page = write_report(workdir, report)
    print(cli.summary(report))
    print(f"\n{variance_report.table(report)}\n\n{report.facts['recommendation']}")
    cli.log(f"report: {page}")


def check(config) -> None:
    """ValueError that names the field of the config that will not do."""
    for name, least in (("examples", 3), ("rates", 2), ("masks", 2), ("batch", 2), ("replicates", 3)):
        if config[name] < least:
            raise ValueError(f"{name}={config[name]}: must be at least {least}, for there is no variance of fewer")
    if config.bins < 1:
        raise ValueError(f"bins={config.bins}: must be at least 1")
    for name in (*config.laws, *config.spreads):
        law_of(config, name)  # whatever is wrong with one shows here
    laws.refit_of(config, 2, gradient=False)
    if config.batch > config.examples:
        raise ValueError(f"batch={config.batch}: must be at most examples={config.examples}, which it is made of")
    if "base" not in config.laws:
        raise ValueError(f"laws={tuple(config.laws)}: must hold base, which the others are compared with")
    for group in config.groups:
        try:
            _, expression = group
            re.compile(expression)
        except (ValueError, TypeError, re.error) as error:
            raise ValueError(
                f"groups={tuple(config.groups)}: {group!r} is no pair of a name and a regular expression ({error})"
            ) from None


def twin_of(config, twin: str, trained: runs.Run) -> runs.Run:
    """The autoregressive run beside another. ValueError where it is not one of the same tokens and length."""
    other = runs.load(twin, config.checkpoint.which, cli.log)
    if not other.experiment.autoregressive:
        raise ValueError(f"checkpoint.autoregressive={twin}: its objective is {other.experiment.config.objective}")
    if other.vocabulary != trained.vocabulary or other.experiment.length != trained.experiment.length:
        raise ValueError(
            f"checkpoint.autoregressive={twin}: its vocabulary ({other.experiment.vocab} tokens) or length "
            f"({other.experiment.length}) is not that of {trained.workdir} ({trained.experiment.vocab}, "
            f"{trained.experiment.length})"
        )
    return other


def trained_here(config, folder: Path, objective: str) -> str | None:
    """The folder of a run of `train` with the config's model; trains it, where that is not done. None: was stopped."""
    model = config.model.copy_and_resolve_references()
    model.objective = objective
    folder.mkdir(parents=True, exist_ok=True)
    cli.log(f"training {objective} in {folder}")
    train.main(model, folder)
    checkpoints = training.Checkpoints(folder / "checkpoints", read_only=True)
    done = model.train.steps in checkpoints.steps()
    checkpoints.close()
    return str(folder) if done else None


def rows_of(config, trained: runs.Run) -> tuple[np.ndarray, np.ndarray]:
    """(rows to fit to, examples), evenly spaced and disjoint. ValueError where there are too few."""
    corpus, split = corpus_of(config, trained)
    if split not in corpus.splits:
        raise ValueError(f"split={split!r}: the data's splits are {', '.join(corpus.splits)}")
    tokens, length = corpus.splits[split], trained.experiment.length
    whole = tokens if tokens.ndim == 2 else tokens[: len(tokens) // length * length].reshape(-1, length)
    needed = config.probe_rows + config.examples
    if len(whole) < needed:
        raise ValueError(
            f"the {split} split has {len(whole)} whole rows of {length} tokens, the model's length, and "
            f"probe_rows={config.probe_rows} and examples={config.examples} need {needed}: give fewer, or more data"
        )
    rows = whole[np.arange(needed) * len(whole) // needed].astype(np.int32)
    is_probe = np.zeros(needed, bool)
    is_probe[np.arange(config.probe_rows) * needed // config.probe_rows] = True
    return rows[is_probe], rows[~is_probe]


def corpus_of(config, trained: runs.Run) -> tuple[data.Corpus, str]:
    """(data, its split): those of `path`, or the run's own. ValueError where those are gone or do not fit the model."""
    if config.path:
        return build.corpus(trained.experiment.config, trained.vocabulary, config.path), "text"
    try:
        return trained.data(), config.split
    except ValueError as error:
        raise ValueError(f"{error}: give that data, or others with --config.path=FILE") from None


def spreads_of(config) -> dict:
    """How the rates of a batch are spread, by name."""
    return laws.SPREADS | {"strata": process.Strata(math.isqrt(config.batch))}


def law_of(config, name: str):
    """The law of a name, with independent rates; not yet fitted. ValueError that names what will not do."""
    if "@" in name:
        raise ValueError(
            f"laws: the law {name!r}: rates are independent here; the spreads of a law of `spreads` are compared"
        )
    return law_names.law_of(name, config.eps, config.bins, max_weight=config.max_weight or None, often=config.often)


class Bench:
    """The measurements of a model on its rows. Laws of one structure share a compilation."""

    def __init__(self, config, trained: runs.Run, probe: np.ndarray, examples: np.ndarray):
        self.config, self.trained = config, trained
        self.probe, self.examples = jnp.asarray(probe), jnp.asarray(examples)
        self.edges = process.log_edges(config.eps, config.bins)
        self.bind, self.vocab = trained.experiment.model.bind, trained.experiment.vocab
        self.groups = dict(config.groups)
        variance.grouped(jax.eval_shape(trained.experiment.model.init, jax.random.key(0)), self.groups)
        self.key = jax.random.key(config.seed)
        self._nested, self._replicated = jax.jit(self._nested_of), jax.jit(self._replicates_of)
        self._fits = {}

    def fitted(self, name: str):
        """The law of a name, its density fitted to the probe rows where it has one to fit."""
        kind = law_names.parsed(name)[0]
        law = law_of(self.config, name)
        if kind not in law_names.FITTED:
            return law
        c = self.config
        refit = laws.refit_of(c, self.vocab, law_names.FITTED[kind])
        batch = {"tokens": self.probe, "ids": jnp.arange(len(self.probe))}
        run = lambda params, batch, key, law: refit(self.bind, params, batch, key, law)
        if (kind, law.ways) not in self._fits:
            self._fits[kind, law.ways] = jax.jit(run)(self.trained.params, batch, jax.random.fold_in(self.key, 1), law)
        return self._fits[kind, law.ways]

    def measure(self, law) -> dict:
        """The decomposition by group, the mean loss, in all and of each example, and what is known of the draws."""
        moments = jax.device_get(self._nested(self.trained.params, law))
        sums = {GRADIENT: list(self.groups)} if self.groups else {}
        units = {"loss": "nats^2"}
        return {
            "parts": variance.parts(moments, units, sums),
            "mean": variance.means(moments, "loss", "nats/token"),
            "facts": moments.facts,
            "of examples": np.asarray(moments.sketches)[:, sorted(moments.total).index("loss")].sum(1),
            "squares": moments.squares,
            "groups": sorted(moments.total),
            "density": law.density if isinstance(law, process.Importance) else None,
        }

    def noise(self, law) -> dict:
        """{group: variance of the mean of a batch over its draws, times its rows}: A + B, as the batch has it."""
        moments = jax.device_get(self._replicated(self.trained.params, law))
        sums = {GRADIENT: list(self.groups)} if self.groups else {}
        n = self.config.batch
        return {g: e.scaled(n, e.unit) for g, e in variance.spread_of(moments, {"loss": "nats^2"}, sums).items()}

    def _nested_of(self, params, law):
        c = self.config
        statistic = variance.DrawStatistic(self.bind, law, self.vocab, self.groups)
        return variance.nested(
            lambda *draw: statistic(params, *draw), {"tokens": self.examples}, jnp.arange(len(self.examples)),
            jax.random.fold_in(self.key, 2), rates=c.rates, masks=c.masks,
        )  # fmt: skip

    def _replicates_of(self, params, law):
        c = self.config
        rows = self.examples[: c.batch]
        statistic = variance.BatchStatistic(self.bind, law, self.vocab, self.groups)
        keys = jax.random.split(jax.random.fold_in(self.key, 3), c.replicates)
        return variance.replicated(lambda key: statistic(params, {"tokens": rows}, key), keys)


if __name__ == "__main__":
    cli.run(main, fields.variance)
