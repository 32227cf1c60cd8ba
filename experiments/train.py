"""Trains a model, says how good it is with an error bar, and shows what it writes. The same command resumes."""

import contextlib
import shlex
import signal
import sys
import time

import jax
import jax.numpy as jnp

from experiments import build, cli, results, runs
from experiments.configs.base import base
from experiments.monitor import monitor as monitor_of
from mdmjax import data, networks, training
from mdmjax.reports import Report, write_report


@contextlib.contextmanager
def exit_when_told():
    """SIGTERM before the training loop, which has its own way, or after it: there is nothing to save."""

    def leave(number, frame):
        cli.log("stopped by a signal, all saved: the same command goes on from there")
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@exit_when_told()
def main(config, workdir):
    """See the module."""
    # ---- set-up: whatever is wrong with the command shows here
    runs.quiet_orbax()
    if config.distributed:
        jax.distributed.initialize()
    main_process = jax.process_index() == 0
    say = cli.log if main_process else lambda line: None
    corpus = build.corpus(config)
    train_tokens = corpus.splits["train"]
    length = train_tokens.shape[1] if train_tokens.ndim == 2 else config.data.length
    splits = [name for name in corpus.splits if name != "train"]
    if not splits:
        raise ValueError(
            f"the data {corpus.meta['name']} has only a training split: cut a part off, for example with "
            "--config.data.splits.train='train[:99%]' --config.data.splits.validation='train[99%:]'"
        )
    if not config.evaluate.splits or not set(config.evaluate.splits) <= set(splits):
        raise ValueError(f"evaluate.splits={tuple(config.evaluate.splits)}: choose from {', '.join(splits)}")
    eligible = corpus.eligible or {}
    held_out = {
        name: build.rows_of(corpus.splits[name], length, name, eligible.get(name)) for name in config.evaluate.splits
    }
    monitor = config.evaluate.splits[0]
    monitored = build.spaced(held_out[monitor], config.evaluate.rows)
    source = (
        data.RowSource(train_tokens, eligible.get("train"), segments=corpus.segments)
        if train_tokens.ndim == 2
        else data.WindowSource(train_tokens, length, config.data.stride)
    )
    experiment = build.Experiment(config, corpus.vocabulary.size, length)
    batches = data.batches(source, config.train.batch, config.seed, *experiment.layout.share)
    shapes = jax.eval_shape(experiment.make_state)
    canvas = experiment.canvas(corpus.vocabulary, config.sample.rows, config.sample.prompt)
    step = experiment.step
    experiment.scorer(config.evaluate.draws, config.evaluate.groups)
    run = experiment.sampler(config.sample)
    watch = monitor_of(experiment, source) or (lambda step, state: None)
    experiment.check_attention()
    # Last, so that a command that was wrong leaves nothing that refuses the next.
    runs.claim(workdir, config, corpus, length, write=main_process)
    parameters = networks.parameter_count(shapes.params)
    say(
        f"{parameters:,} parameters, {train_tokens.size:,} training tokens of {experiment.vocab} kinds, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
    )

    # ---- training
    checkpoints = training.Checkpoints(workdir / "checkpoints", config.train.keep)
    c = config.evaluate
    bound = experiment.evaluator(c.draws, c.groups, c.batch, config.seed)
    writer, bar = None, None

    def on_start(step):
        nonlocal writer, bar
        bar = cli.progress(config.train.steps, step, shown=main_process)
        if main_process:
            writer = training.MetricWriter(workdir, step)
        cli.started()

    def write(step, **numbers):
        if writer is not None:
            writer.write(step, **numbers)

    def progress(step, loss, bound=None, **_):
        bar.update(step, loss=loss, **({} if bound is None else {monitor: bound}))

    def evaluate(state):
        estimate = bound(state.average, monitored).per_token
        write(int(state.step), bound=estimate.mean, bound_error=estimate.standard_error)
        return estimate.mean

    plan = training.Plan(
        config.train.steps, config.train.evaluate_every, config.train.checkpoint_every, config.train.log_every
    )
    try:
        outcome = training.train(
            plan=plan, make_state=experiment.make_state, step=step, layout=experiment.layout,
            batches=batches, checkpoints=checkpoints, evaluate=evaluate, write=write, progress=progress, say=say,
            on_start=on_start, monitor=watch,
        )  # fmt: skip
    except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
        raise cli.RunFailed(str(error)) from error
    finally:
        if bar is not None:
            bar.close()
        batches.close()
        if writer is not None:
            writer.close()
    if not outcome.finished:
        say(f"stopped by a signal after step {int(outcome.state.step)}, all saved: the same command goes on from there")
        return
    ended = time.monotonic()
    say(f"trained in {outcome.elapsed:.0f} s; now the full evaluation, the baselines and the samples")

    # ---- evaluation
    params = outcome.state.average
    metrics, baselines, facts = {}, {}, {}
    for name in config.evaluate.splits:
        rows = held_out[name]
        with cli.progress(len(rows[0]), unit="row", shown=main_process) as rows_bar:
            result = bound(params, rows, rows_bar.update)
        metrics |= results.likelihood(corpus, name, result, f"{name} ")
        facts |= {f"{name} Monte Carlo error, nats/token": result.monte_carlo, f"{name} tokens": result.tokens}
        if config.evaluate.baselines and train_tokens.ndim == 1:
            baselines[name] = results.baselines(train_tokens, corpus, name, f"{name} ")

    # ---- samples
    samples = run(params, jnp.array(canvas), build.key(config.seed, training.SAMPLING))
    samples = experiment.layout.fetch(samples)
    end = config.data.end if config.data.source == "answers" else ""
    texts = results.texts(corpus.vocabulary, canvas, samples.tokens, end)

    # ---- report
    if not main_process:
        return
    facts = {
        "parameters": parameters,
        "steps": config.train.steps,
        "tokens seen": config.train.steps * config.train.batch * length,
        "passes over the training text": config.train.steps * config.train.batch * length / train_tokens.size,
        "training seconds": outcome.elapsed,
        "vocabulary": experiment.vocab,
        **facts,
        "sampling calls": int(samples.calls),
        "data": corpus.meta,
    }
    report = Report(
        title=f"{corpus.meta['name']}: {config.objective.replace('_', ' ')}",
        summary=f"{parameters:,} parameters, {config.train.steps:,} steps of {config.train.batch} x {length} tokens.",
        command=f"python -m experiments.train {shlex.join(sys.argv[1:])}",
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=outcome.elapsed + time.monotonic() - ended,
        metrics=metrics,
        baselines={name: estimate for split in baselines.values() for name, estimate in split.items()},
        against=list(baselines.get(monitor, {})),
        facts=facts,
        curves=results.curves(training.read_rows(workdir / "metrics.jsonl"), corpus, monitor),
        samples=texts,
    )
    page = write_report(workdir, report)
    print(cli.summary(report))
    for sample in texts[:2]:
        print(f"\n---- {sample.title}\n{sample.text}")
    say(f"report: {page}")


if __name__ == "__main__":
    cli.run(main, base)
