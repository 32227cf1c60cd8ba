"""Trained models of word problems: what log2 N supervised steps are worth, against one step, loops and a chain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import build, cli, studies
from experiments.expressivity_arms import TASKS, Arm, arms_of
from experiments.found import Found
from experiments.results import over_seeds, shown
from mdmjax.base import Estimate
from mdmjax.reports import Curve

CALLS = "calls"
LEGEND = (
    "An answer is the product of the whole word; cells are all products that an arm writes, of segments (trees) or of "
    "prefixes (chain_of_thought). In test words all symbols are alike likely. Calls of looped are passes through its "
    "blocks. All arms of a task have the same width, depth, heads and positional inputs; a looped row counts as "
    "log2 N rows in a batch. Seconds are of all seeds at once, on the machine of this report, evaluations included. "
    "± is a standard error over seeds."
)


def check(config) -> None:
    """ValueError that names a field which will not do, before anything is done."""
    c = config.trained
    build.check_positive(c, ("seeds", "evaluate.rows", "evaluate.chain_rows", "evaluate.watched", "evaluate.batch",
                             "train.evaluate_every"))  # fmt: skip
    for field in ("tasks", "arms"):
        names = list(c[field])
        if not names or len(set(names)) != len(names):
            raise ValueError(f"trained.{field}={tuple(names)}: at least one, each named once")
    for task in c.tasks:
        build.choose(task, "trained.tasks", TASKS)
        for field, values in (("length", (c[task].length,)), ("mix", c[task].mix), ("lengths", c[task].lengths)):
            if not values or min(values) < 2:
                raise ValueError(f"trained.{task}.{field}={c[task][field]}: words need at least 2 symbols")
        if c[task].length not in c[task].lengths:
            raise ValueError(f"trained.{task}.lengths={tuple(c[task].lengths)}: must have length={c[task].length}")
        if max(c[task].mix) != c[task].length:
            raise ValueError(f"trained.{task}.mix={tuple(c[task].mix)}: its longest must be length={c[task].length}")
        build.check_positive(c, (f"{task}.steps", f"{task}.batch"))
    if not 0 < c.target <= 1:
        raise ValueError(f"trained.target={c.target}: must be in (0, 1], of answers that are right")


def trained(config, workdir: Path) -> Found | None:
    """Accuracy of each arm on each task, by length and by step; None where a signal came."""
    check(config)
    c = config.trained.copy_and_resolve_references()
    with c.unlocked():
        c.seed = config.seed
    by_task = {task: arms_of(c, task, c.arms) for task in c.tasks}
    cli.check_workdir(workdir, config)
    results = {}
    for task, arms in by_task.items():
        results[task] = studies.run(arms, workdir, Arm.result, keep=c.keep)
        if results[task] is None:
            return None
    return found_of(c, results)


def found_of(c, results: dict[str, list[dict[str, Any]]]) -> Found:
    """What the report shows of the results of all arms of each task."""
    percent = lambda values: over_seeds([100 * x for x in values], "%")
    metrics, curves, lines, by_length, by_seed = {}, {}, [], {}, {}
    for task, found in results.items():
        length = str(c[task].length)
        by_length[f"{task}, answers right by length"] = []
        for r in found:
            answers, name = r["lengths"][length]["answers"], f"{task}, {r['arm']}"
            metrics[f"{name}: answers at N={length}"] = percent(answers)
            by_seed[f"{name}: answers at N={length} by seed, %"] = [100 * x for x in answers]
            lines.append(line(c, task, r))
            cells = {f"N={n}": shown(percent(x["answers"])) for n, x in r["lengths"].items()}
            by_length[f"{task}, answers right by length"].append({"arm": r["arm"], "words": r["words"]} | cells)
            curves[f"{name}, by step"] = curve(r["step"], r["right"], f"{task}, N={length}: answers right", "step")
            at = [x["answers"] for x in r["lengths"].values()]
            curves[f"{name}, by length"] = curve([int(n) for n in r["lengths"]], at, f"{task}: answers by length", "N")
    chance = {f"{task}: chance": exact(100 / found[0]["elements"]) for task, found in results.items()}
    return Found(
        "Trained models of word problems",
        f"{', '.join(results)}: models of equal size that learn a circuit's {', '.join(c.arms)}, {c.seeds} seeds.",
        metrics,
        {"trained models": lines, **by_length},
        {"legend of trained models": LEGEND, **by_seed},
        curves,
        baselines=chance,
    )


def exact(percent: float) -> Estimate:
    """A share that is known."""
    return Estimate(percent, 0.0, "%", 0, "exact")


def reached(c, r: dict[str, Any]) -> tuple[str, float | None]:
    """(seeds that reach the target, the mean of their first evaluated steps there if all do)."""
    right = np.asarray(r["right"]) >= c.target
    steps = np.asarray(r["step"])[right.argmax(0)]
    return f"{int(right.any(0).sum())} of {right.shape[1]}", float(steps.mean()) if right.any(0).all() else None


def line(c, task: str, r: dict[str, Any]) -> dict[str, Any]:
    """A row of the table of all arms."""
    own, (seeds, steps) = r["lengths"][str(c[task].length)], reached(c, r)
    every = lambda values: shown(over_seeds([100 * x for x in values]))
    return {
        "task": task,
        "N": c[task].length,
        "arm": r["arm"],
        "parameters": r["parameters"],
        CALLS: r["calls"],
        "answers right, %": every(own["answers"]),
        "worst seed, %": f"{100 * min(own['answers']):.4g}",
        "cells right, %": every(own["cells"]),
        f"seeds at {100 * c.target:g} %": seeds,
        "steps to it": "" if steps is None else f"{steps:.0f}",
        "seconds to it": "" if steps is None else f"{r['seconds'] * steps / c[task].steps:.0f}",
        "seconds in all": f"{r['seconds']:.0f}",
    }


def curve(x: Sequence[float], right: Sequence[Sequence[float]], panel: str, xlabel: str) -> Curve:
    """Means over seeds of shares [x, seeds], in %."""
    found = [over_seeds([100 * v for v in values], "%") for values in right]
    errors = [e.standard_error for e in found]
    return Curve(x, [e.mean for e in found], errors if np.isfinite(errors).all() else None, "%", panel, xlabel)
