"""Time of sweeping a 10 x 10 grid of Beta schedules by sampling: one compilation serves them all.

    python -m benchmarks.schedule_sweep [--steps 16 --samples 256] [--out results/benchmarks/schedule_sweep.json]

The target is uniform on five bits of which two or three are ones, with its true conditionals from a table
(`experiments.targets.toy`), so what is timed is the sampling engine. Times are wall time of one sweep, compilation
included and also apart.
"""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.common import write
from experiments import targets
from mdmjax.process import OnGrid, beta
from mdmjax.reports import environment


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(grid=10, steps=16, samples=256).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--planner", choices=targets.PLANNERS, default="ancestral")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
    traces = []
    target = dataclasses.replace(targets.toy("middle"), bind=lambda table: traces.append(1) or table)
    began = time.perf_counter()
    axis = np.arange(1, args.grid + 1) / 10
    schedules = [OnGrid.sampled(beta(float(a), float(b)), args.steps) for a, b in itertools.product(axis, axis)]
    made = time.perf_counter()
    run = targets.sampler(target, args.planner, args.steps, batch=args.samples)
    rows = np.arange(args.samples)
    share = lambda schedule: float(target.score("search", rows, run(schedule, "search", 0, args.samples)).mean())
    share(schedules[0])
    first = time.perf_counter()
    shares = [share(schedule) for schedule in schedules]
    ended = time.perf_counter()
    return {
        "benchmark": "schedule_sweep",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "schedules": len(schedules),
        "compilations": len(traces),
        "seconds": ended - began,
        "schedule_seconds": made - began,
        "compile_seconds": first - made,
        "sweep_seconds": ended - first,
        "possible_samples": {"lowest": min(shares), "highest": max(shares)},
    }


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # or the compile time would be that of reading a file
    write(measure(args), args.out)


if __name__ == "__main__":
    main()
