"""Trains models whose order of decoding is learned, beside plain masked diffusion. The same command resumes.

Every run has the same network, data, draws and denoiser calls, and every arm several seeds: `plain` keeps equal weights
(masked diffusion), `learned` frees them after a warm-up, `cold` at once, and `fixed` has a known order. With
order.starts above 1 the arms that learn an order have as many runs of each seed, and the best on validation counts.
"""

import json
import shlex
import sys
import time
from pathlib import Path

from experiments import build, cli, order_report, runs
from experiments.configs.base import orders
from experiments.order_arms import Bench
from experiments.order_rows import SOURCES, Rows
from experiments.order_scores import Scores
from experiments.train import exit_when_told
from mdmjax import training
from mdmjax.reports import to_json, write_atomic, write_report


@exit_when_told()
def main(config, workdir):
    """See the module."""
    # ---- set-up: whatever is wrong with the command shows here
    runs.quiet_orbax()
    build.check_path(config.data)
    rows = build.choose(config.data.source, "data.source", SOURCES)(config.data, config.seed)
    bench = Bench(config, rows)
    scores = Scores(bench)
    claim(workdir, config, rows)
    todo = bench.runs()
    cli.log(f"{len(todo)} runs of {config.train.steps:,} steps: {rows.vocab} values, {rows.length} positions")

    # ---- the runs, each in its folder; what is finished is not done again
    results = []
    with cli.progress(len(todo) * config.train.steps) as bar:
        cli.started()
        for number, (arm, seed, start) in enumerate(todo):
            folder = workdir / "runs" / (f"{arm}-{seed}-{start}" if start else f"{arm}-{seed}")
            before = number * config.train.steps
            result = finished(folder) or run(bench, scores, (arm, seed, start), folder, bar, before)
            if result is None:
                cli.log("stopped by a signal, all saved: the same command goes on from there")
                return
            results.append(result)
            bar.update(before + config.train.steps, run=folder.name)

    # ---- report
    report = order_report.report(config, rows, results, f"python -m experiments.orders {shlex.join(sys.argv[1:])}")
    page = write_report(workdir, report)
    print(cli.summary(report))
    print(f"\n{order_report.weights(rows, results)}")
    cli.log(f"report: {page}")


def claim(workdir: Path, config, rows: Rows) -> None:
    """Makes the workdir that of runs of this config on this data, or finds that it is. ValueError where it is not."""
    cli.check_workdir(workdir, config, free=("data.cache_dir", "data.path", "data.test"))  # a file may have moved
    path, text = workdir / "data.json", to_json({"sha256": rows.meta["sha256"], "vocabulary": rows.vocab})
    cli.keep(path, text, f"{workdir} holds runs on other data (see {path}): give that data, or another --workdir")


def finished(folder: Path) -> dict | None:
    """The result of a run that is done."""
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def run(bench: Bench, scores: Scores, name: tuple[str, int, int], folder: Path, bar, before: int) -> dict | None:
    """Trains one run and measures it; keeps the result in its folder. None where a signal came."""
    arm, seed, start = name
    during = lambda params: scores.during(params, seed)
    progress = lambda step, loss, **_: bar.update(before + step, run=folder.name, loss=loss)
    try:
        outcome = bench.train(arm, seed, start, folder, during, progress, cli.log)
    except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
        raise cli.RunFailed(f"{folder.name}: {error}") from error
    if not outcome.finished:
        return None
    began = time.monotonic()
    result = {"arm": arm, "seed": seed, "start": start, **scores.final(outcome.state.average, seed)}
    history = [row for row in training.read_rows(folder / "metrics.jsonl") if "bound" in row]
    result |= {
        "history": {
            "step": [row["step"] for row in history],
            "bound": [row["bound"] for row in history],
            "log_weights": [[row[f"log_weight/{n}"] for n in range(bench.rows.length)] for row in history],
        },
        "training seconds": outcome.elapsed,
        "scoring seconds": time.monotonic() - began,
        "parameters": order_report.count(outcome.state.params),
    }
    write_atomic(folder / "result.json", to_json(result))
    return result


if __name__ == "__main__":
    cli.run(main, orders)
