"""Trained models of word problems: what log2 N supervised steps are worth, against one step, loops and a chain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import build, cli, studies
from experiments.expressivity_arms import ARMS, TASKS, Arm, arms_of
from experiments.expressivity_parts import check_names
from experiments.found import Found
from experiments.results import over_seeds, shown
from mdmjax.base import Estimate
from mdmjax.reports import Curve

MOST = 1024  # symbols: attention sees twice as many cells, for every word of a test at once
LEGEND = (
    "An answer is the product of the whole word; cells are all products that an arm writes, of segments (trees) or of "
    "prefixes (chain_of_thought). In test words all symbols are alike likely. Calls of looped are passes through its "
    "blocks. All arms of a task have the same width, depth, heads and positional inputs, and as many words a step; "
    "some are trained with Muon, some with AdamW alone, as each learns more. "
    "Seconds are of all seeds at once, on the machine of this report, evaluations included. "
    "± is a standard error over seeds."
)


def check(config) -> None:
    """ValueError that names a field which will not do, before anything is done."""
    c = config.trained
    counts = ("seeds", *(f"evaluate.{name}" for name in ("rows", "watched", "batch", "chain")), "train.log_every",
              "train.evaluate_every")  # fmt: skip
    build.check_positive(config, [f"trained.{name}" for name in counts])
    if not c.train.uneven >= 0:
        raise ValueError(f"trained.train.uneven={c.train.uneven}: must be at least 0")
    for arm in c.adamw:
        build.choose(arm, "trained.adamw", dict.fromkeys(ARMS))
    for field in ("tasks", "arms"):
        check_names(f"trained.{field}", c[field])
    for task in c.tasks:
        check_task(config, build.choose(task, "trained.tasks", {task: task for task in TASKS}))
    if not 0 < c.target <= 1:
        raise ValueError(f"trained.target={c.target}: must be in (0, 1], of answers that are right")


def check_task(config, task: str) -> None:
    """ValueError that names a field of a task which will not do."""
    c, own, name = config.trained, config.trained[task], f"trained.{task}"
    for field, values in (("length", (own.length,)), ("mix", tuple(own.mix)), ("lengths", tuple(own.lengths))):
        if not values or not all(type(n) is int and 2 <= n <= MOST for n in values):
            raise ValueError(f"{name}.{field}={own[field]}: words must have 2 to {MOST} symbols")
    lengths = list(own.lengths)
    if lengths != sorted(set(lengths)) or own.length not in lengths:
        raise ValueError(f"{name}.lengths={tuple(lengths)}: must rise, and must have length={own.length}")
    if max(own.mix) != own.length:
        raise ValueError(f"{name}.mix={tuple(own.mix)}: its longest must be length={own.length}")
    build.check_positive(config, [f"{name}.{field}" for field in ("batch", "width", "depth", "heads", "ff")])
    if own.steps <= c.train.warmup:
        raise ValueError(f"{name}.steps={own.steps}: must be more than trained.train.warmup={c.train.warmup}")
    if not own.learning_rate > 0 or not own.muon >= 0:
        raise ValueError(
            f"{name}.learning_rate={own.learning_rate}, muon={own.muon}: rates must be > 0; muon=0 is AdamW"
        )
    try:
        build.check_optimizer(ConfigDict({**c.train.to_dict(), "steps": own.steps, "learning_rate": 1.0}))
    except ValueError as error:
        raise ValueError(f"trained.{error}") from None


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
    metrics, others, curves, lines, by_length, by_seed = {}, {}, {}, [], {}, {}
    for task, found in results.items():
        length = str(c[task].length)
        by_length[f"{task}, answers right by length"] = []
        for r in found:
            answers, name = r["lengths"][length]["answers"], f"{task}, {r['arm']}"
            shown_as = metrics if r["arm"] == c.arms[0] else others
            shown_as[f"{name}: answers at N={length}"] = percent(answers)
            by_seed[f"{name}: answers at N={length} by seed, %"] = [100 * x for x in answers]
            lines.append(line(c, task, r))
            cells = {f"N={n}": shown(percent(x["answers"])) for n, x in r["lengths"].items()}
            by_length[f"{task}, answers right by length"].append({"arm": r["arm"], "words": r["words"]} | cells)
            curves[f"{name}, by step"] = curve(r["step"], r["right"], f"{task}, N={length}: answers right", "step")
            at = [x["answers"] for x in r["lengths"].values()]
            curves[f"{name}, by length"] = curve([int(n) for n in r["lengths"]], at, f"{task}: answers by length", "N")
        others[f"{task}: chance"] = exact(100 / found[0]["elements"])
    return Found(
        "Trained models of word problems",
        f"Products of words of {' and '.join(f'{c[task].length} symbols ({task})' for task in results)}, by models of "
        f"one size that were taught them in {len(c.arms)} ways: {', '.join(c.arms)}. {c.seeds} seeds.",
        metrics,
        {"trained models": lines, **by_length},
        {"legend of trained models": LEGEND, **by_seed},
        curves,
        baselines=others,
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
        "calls": r["calls"],
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
    return Curve(x, [e.mean for e in found], errors if np.isfinite(errors).all() else None, "% of words", panel, xlabel)
