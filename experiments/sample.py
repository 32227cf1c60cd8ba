"""Text from a trained model: unconditional, prompted or infilled, with any planner, schedule and number of steps."""

import shlex
import sys
import time

import jax.numpy as jnp
import numpy as np

from experiments import build, cli, results, runs
from experiments.configs.sample import get_config
from mdmjax import training
from mdmjax.base import Estimate
from mdmjax.reports import Report, trace_html, write_atomic, write_report


def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    runs.refuse_run(workdir)
    trained = runs.load(config.checkpoint, config.which, cli.log)
    experiment, vocabulary, c = trained.experiment, trained.vocabulary, config.sample
    canvas = experiment.canvas(vocabulary, c.rows, c.prompt)
    if config.infill:
        if c.prompt:
            raise ValueError("sample.prompt and infill are both set: give one of them")
        if len(config.blank) != 1:
            raise ValueError(f"blank={config.blank!r}: must be one character")
        if experiment.autoregressive:
            raise ValueError("infill: an autoregressive model only goes on from a prompt; use sample.prompt")
        parts = [vocabulary.encode(part) if part else [] for part in config.infill.split(config.blank)]
        row = np.concatenate([np.append(part, experiment.vocab) for part in parts])[:-1]
        if len(row) > experiment.length:
            raise ValueError(f"infill has {len(row)} tokens and the model's length is {experiment.length}: shorten it")
        canvas[:, : len(row)] = row
    run = experiment.sampler(c, trace=config.trace)
    cli.started()

    sampled = run(trained.params, jnp.array(canvas), build.key(config.seed, training.SAMPLING))
    texts = results.texts(vocabulary, canvas, np.asarray(sampled.tokens))
    seconds = time.monotonic() - began
    calls = np.asarray(sampled.row_calls, float)
    error = calls.std(ddof=1) / np.sqrt(len(calls)) if len(calls) > 1 else float("nan")
    report = Report(
        title="Samples",
        summary=f"{c.rows} rows from {config.checkpoint} at step {trained.step}.",
        command=f"python -m experiments.sample {shlex.join(sys.argv[1:])}",
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=seconds,
        metrics={"denoiser calls a row": Estimate(calls.mean(), error, "calls", len(calls), "mean over rows")},
        facts={
            "checkpoint": f"{config.checkpoint}, step {trained.step}",
            "calls of the batch": int(sampled.calls),
            "forward passes of the batch": int(sampled.passes),
        },
        samples=texts,
    )
    page = write_report(workdir, report)
    if config.trace:
        glyphs = [vocabulary.decode(np.array([i])) for i in range(experiment.vocab)]
        write_atomic(workdir / "trace.html", trace_html(sampled.trace, glyphs))
    for sample in texts:
        print(f"---- {sample.title}\n{sample.text}\n")
    cli.log(f"report: {page}")


if __name__ == "__main__":
    cli.run(main, get_config)
