"""The likelihood bound of a trained model, as an estimate with its error, on its own held-out data or any text file."""

import shlex
import sys
import time

from experiments import build, cli
from mdmjax.evaluation import ngrams
from mdmjax.reports import Report, write_report


def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    experiment, vocabulary, step, params = build.load(config.checkpoint, config.which, cli.log)
    own = None
    if not config.path or config.baselines:
        try:
            own = build.corpus(experiment.config, vocabulary)
        except FileNotFoundError:
            if not config.path:
                raise
    corpus = build.corpus(experiment.config, vocabulary, config.path) if config.path else own
    split = "text" if config.path else config.split
    if split not in corpus.splits:
        raise ValueError(f"split={split!r}: the data's splits are {', '.join(corpus.splits)}")
    rows = build.spaced(build.rows_of(corpus.splits[split], experiment.length, split), config.rows)
    shards = experiment.layout.shards
    if config.batch < 1 or config.batch % shards:
        raise ValueError(f"batch={config.batch}: must be a multiple of {shards}, the number of devices")
    evaluate = experiment.evaluator(params, config.draws, config.groups, config.batch, config.seed)
    cli.started()

    with cli.progress(len(rows[0]), unit="row") as bar:
        bound = evaluate(params, rows, bar.update)
    meta = corpus.meta["splits"][split]
    metrics = dict(reversed(bound.report(meta.get("characters_per_token")).items()))
    baselines = {}
    if config.baselines and own is not None and corpus.splits[split].ndim == 1:
        orders = ngrams.baselines(own.splits["train"], corpus.splits[split], experiment.vocab)
        for order, estimate in enumerate(orders):
            baselines[f"order-{order} n-gram"] = build.per_character(estimate, meta.get("characters_per_token"))
    facts = {
        "checkpoint": f"{config.checkpoint}, step {step}",
        "rows": bound.rows,
        "tokens": bound.tokens,
        "Monte Carlo error, nats/token": bound.monte_carlo,
        "data": corpus.meta,
    }
    report = Report(
        title=f"{corpus.meta['name']}, {split}: likelihood",
        summary=f"The model of {config.checkpoint} at step {step} on {bound.tokens:,} tokens.",
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
    cli.run(main)
