"""The study of constructions: what is written down or built in integers, run, counted and timed; nothing is learned."""

from pathlib import Path

import numpy as np

from experiments import build, cli
from experiments.expressivity_equal import equal_part
from experiments.expressivity_planners import planners_part
from experiments.expressivity_steps import engine_part, steps_part
from experiments.expressivity_weights import weights_part
from experiments.found import Found
from experiments.search import Cells

POSITIVE = (
    "words",
    "max_size",
    "engine.words",
    "engine.rounds",
    "orders.independent",
    "weights.words",
    "weights.most",
    "weights.sweep.words",
)


def constructions(config, workdir: Path) -> Found:
    """All parts, measured one after the other; a run that was stopped goes on behind the last that is known."""
    build.check_positive(config, [f"constructions.{name}" for name in POSITIVE])
    c = config.constructions.orders
    for name in ("rows", "words"):
        if c[name] < 2:
            raise ValueError(f"constructions.orders.{name}={c[name]}: an error bar needs at least 2")
    parts = [part(config) for part in (steps_part, engine_part, planners_part, weights_part, equal_part)]
    cli.check_workdir(workdir, config)
    cli.started()
    jobs = {name: job for part in parts for name, job in part.jobs.items()}
    cells, values = Cells(workdir / "cells.jsonl"), {}
    earlier = cells.seconds
    with cli.progress(len(jobs), unit="case") as bar:
        for number, (name, job) in enumerate(jobs.items()):
            values[name] = cells.get(name, lambda job=job: np.asarray(job(), float))
            bar.update(number + 1)
    told = [part.told(values) for part in parts]
    together = lambda field: {k: v for found in told for k, v in getattr(found, field).items()}
    rest = {field: together(field) for field in ("metrics", "tables", "facts", "curves", "heatmaps", "baselines")}
    rest["curves"] = {name: curve for name, curve in rest["curves"].items() if len(curve.x) > 1}
    return Found(
        "What masked diffusion computes, in how many steps",
        f"Word problems of {', '.join(config.constructions.automata)} by trees, scans and chains of thought. The "
        "predictor of a tree is always right in a valid order, and in a random one about as often as a guess.",
        earlier=earlier, **rest,
    )  # fmt: skip
