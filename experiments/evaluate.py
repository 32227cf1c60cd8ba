"""The likelihood bound of a trained model, as an estimate with its error, on its own held-out data or any text file."""

import shlex
import sys
import time

from experiments import build, cli, results, runs
from experiments.configs.evaluate import get_config
from experiments.study_arms import MOST_ENUMERATED
from mdmjax import evaluation
from mdmjax.reports import Report, write_report


def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    runs.refuse_run(workdir)
    trained = runs.load(config.checkpoint, config.which, cli.log)
    experiment, text, own = trained.experiment, None, None
    if config.path:
        text = build.corpus(experiment.config, trained.vocabulary, config.path)
    if config.baselines or not config.path:
        try:
            own = trained.data()
        except ValueError as error:
            if not config.path:
                raise cli.UsageError(f"{error}: give that data, or a text with --config.path=FILE") from None
            cli.log(f"{error}: no n-gram baselines")
    corpus = text or own
    split = "text" if config.path else config.split
    if split not in corpus.splits:
        raise ValueError(f"split={split!r}: the data's splits are {', '.join(corpus.splits)}")
    eligible = (corpus.eligible or {}).get(split)
    everything = build.rows_of(corpus.splits[split], experiment.length, split, eligible)
    rows = build.spaced(everything, config.rows)
    shards = experiment.layout.shards
    if config.batch < 1 or config.batch % shards:
        raise ValueError(f"batch={config.batch}: must be a multiple of {shards}, the number of devices")
    how = dict(draws=config.draws, groups=config.groups, batch=config.batch, seed=config.seed, counts=config.counts)
    other = runs.load(config.against, say=cli.log) if config.against else None
    kind = lambda run: (run.vocabulary.to_dict(), run.experiment.length, run.experiment.autoregressive)
    if other and kind(other) != kind(trained):
        raise ValueError(f"against={config.against}: is of another vocabulary, length or kind than {config.checkpoint}")
    if config.counts == "enumerate" and rows[1].sum(1).max() > MOST_ENUMERATED:
        raise ValueError(f"counts='enumerate': is for rows with at most {MOST_ENUMERATED} scored tokens")
    runs_of = [trained, *([other] if other else [])]
    scorers = [run.experiment.row_scorer(**how) for run in runs_of]
    cli.started()

    nats, sizes = [], rows[1].sum(1)
    for run, scorer in zip(runs_of, scorers, strict=True):
        with cli.progress(len(rows[0]), unit="row") as bar:
            nats.append(scorer(run.params, rows, bar.update))
    bound = evaluation.summarise(nats[0], sizes, experiment.estimator)
    metrics = results.likelihood(corpus, split, bound)
    if other:
        difference = evaluation.paired(*nats, sizes, experiment.estimator).per_token
        metrics[f"{config.checkpoint} - {config.against}"] = difference
    compare = config.baselines and own is not None and own.splits["train"].ndim == 1
    baselines = results.baselines(own.splits["train"], corpus, split) if compare else {}
    if len(rows[0]) < len(everything[0]):  # the n-grams read on, from row to row
        metrics = results.noted(metrics, f"{len(rows[0]):,} of {len(everything[0]):,} rows")
        baselines = results.noted(baselines, "all rows")
    facts = {
        "checkpoint": f"{config.checkpoint}, step {trained.step}",
        "rows": bound.rows,
        "tokens": bound.tokens,
        "Monte Carlo error, nats/token": bound.monte_carlo,
        "data": corpus.meta,
    }
    report = Report(
        title=f"{corpus.meta['name']}, {split}: likelihood",
        summary=f"The model of {config.checkpoint} at step {trained.step} on {bound.tokens:,} tokens.",
        command=f"python -m experiments.evaluate {shlex.join(sys.argv[1:])}",
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=time.monotonic() - began,
        metrics=metrics,
        baselines=baselines,
        facts=facts,
    )
    page = write_report(workdir, report)
    print(cli.summary(report))
    cli.log(f"report: {page}")


if __name__ == "__main__":
    cli.run(main, get_config)
