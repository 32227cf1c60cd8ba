"""The report of an any-process experiment: what is answered exactly, in how many steps, by which operations."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import cli
from experiments.anyprocess_tasks import Task
from experiments.results import over_seeds, shown
from mdmjax import anyprocess
from mdmjax.anyprocess.generation import LIMIT, OVERFLOW
from mdmjax.base import Estimate
from mdmjax.reports import Curve, Report

LEGEND = (
    "Right answers are exact: every token of the answer, or any answer that keeps all rules. ± is a standard error, "
    "over seeds where there are several, else over problems (0 where all or none are right). Steps and operations are "
    "means over problems and seeds. Calls are of the network, each for a batch of problems."
)


def share(flags: Sequence[Sequence[bool]]) -> Estimate:
    """Right answers in %, flags [seeds][problems]."""
    flags = np.asarray(flags, float)
    if len(flags) > 1:
        return over_seeds(100 * flags.mean(1), "%")
    p, n = flags.mean(), flags.size
    return Estimate(100 * p, 100 * math.sqrt(p * (1 - p) / n), "%", n, f"mean over {n} problems")


def report(config, task: Task, results: Sequence[dict[str, Any]], command: str) -> Report:
    """What `report.json` holds."""
    metrics, lines = {}, []
    for result in results:
        for test, decodings in result["tests"][0].items():
            for decoding in decodings:
                runs = [seed[test][decoding] for seed in result["tests"]]
                name = result["arm"] + ("" if len(decodings) == 1 else f" ({decoding})")
                if runs[0]["right"]:
                    metrics[f"{name}: {test}"] = share([r["right"] for r in runs])
                lines.append(_line(name, test, runs) | {"commit": result["trained at"]})
    steps = [s for result in results for s in result.get("steps", ())]
    if steps:
        of_seed = [100 * s["right"] / s["states"] for s in steps]
        error = over_seeds(of_seed, "%") if len(of_seed) > 1 else None
        n = steps[0]["states"]
        p = of_seed[0] / 100
        metrics["any_process: next state, on the teacher's states"] = error or Estimate(
            100 * p, 100 * math.sqrt(p * (1 - p) / n), "%", n, f"mean over {n} states"
        )
    return Report(
        title=f"Any-process generation: {task.name}",
        summary=f"{config.seeds} seed{'s' * (config.seeds > 1)} of {', '.join(r['arm'] for r in results)}.",
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=sum(r["seconds"] for r in results),
        metrics=metrics,
        facts={
            "legend": LEGEND,
            "tests": lines,
            "task": task.name,
            "data": task.meta,
            "parameters": {r["arm"]: r["parameters"] for r in results},
            "batch": {r["arm"]: r["batch"] for r in results},
            "GFLOP of a training step": {r["arm"]: r["GFLOP of a training step"] for r in results},
            "training seconds": {r["arm"]: r["seconds"] for r in results},
            "commit of the training": {r["arm"]: r["trained at"] for r in results},
            "decisions on the teacher's states": _decisions(steps) if steps else {},
            "how the runs ended": _ends(results),
            "where wrong runs first leave the teacher": next((r["failures"] for r in results if "failures" in r), {}),
        },
        curves={
            f"{r['arm']}: loss {where}": Curve(*map(list, zip(*points, strict=True)), unit="nats")
            for r in results
            for where, points in (
                ("of the batches", r["loss"]),
                ("on held-out rows", [(step, float(np.mean(of_seeds))) for step, *of_seeds in r["held out"]]),
            )
            if points
        },
    )


def _line(arm: str, test: str, runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row of the table."""
    right = shown(share([r["right"] for r in runs])) if runs[0]["right"] else ""
    line = {"arm": arm, "test": test, "problems": str(len(runs[0]["right"]) or ""), "right, %": right}
    if "steps" in runs[0]:
        mean = lambda values: f"{np.mean(values):.1f}"
        line["steps"] = mean([r["steps"] for r in runs])
        line |= {name: mean([r["operations"][name] for r in runs]) for name in runs[0]["operations"]}
        for name, reason in (("at the step limit, %", LIMIT), ("overflow, %", OVERFLOW)):
            ended = [r["finished"].get(anyprocess.REASONS[reason], 0) / len(r["steps"]) for r in runs]
            line[name] = mean(100 * np.array(ended))
    for name in runs[0]["also"]:
        line[name] = shown(over_seeds([r["also"][name] for r in runs]))
    calls = np.mean([r["calls"] for r in runs])
    if calls or not runs[0]["right"]:  # a part of another test took none
        line["calls"] = f"{calls:.0f}"
    return line


def _ends(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Of each test of a policy: how many runs, of all seeds, ended for which reason."""
    out: dict[str, Counter] = {}
    for seed in (seed for result in results for seed in result["tests"]):
        for test, decodings in seed.items():
            for line in decodings.values():
                if "finished" in line:
                    out.setdefault(test, Counter()).update(line["finished"])
    return {test: dict(ends) for test, ends in out.items()}


def _decisions(steps: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    out = {}
    for name in anyprocess.CONTROLS:
        total = {k: sum(s["decisions"][name][k] for s in steps) for k in ("hits", "decided", "wanted")}
        shares = {"precision": "decided", "recall": "wanted"}
        out[name] = total | {what: total["hits"] / total[of] for what, of in shares.items() if total[of]}
    return out


def table(report: Report) -> str:
    """The table that the program prints."""
    lines = report.facts["tests"]
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name != "commit"]
    return cli.table([[line.get(name, "") for name in names] for line in lines], names)
