"""The report of a study of training: what the draws of each arm are worth, over seeds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import cli, law_names
from experiments.results import over_seeds, shown
from experiments.study_arms import AUTOREGRESSIVE
from experiments.study_tasks import Task
from mdmjax.base import Estimate
from mdmjax.reports import Curve, Report

BASE = "base"
LEGEND = (
    f"{law_names.LEGEND} ± is a standard error over seeds, in pairs of the same seeds where arms are compared. The "
    "noise is the variance of the gradient's norm from step to step, before it is clipped, in the second half of "
    "the steps; a trend there is a part of it, so it does not compare arms that have learned more with arms that "
    "have learned less."
)


def jackknife(statistic: Callable, *samples: Sequence, unit: str = "", what: str = "") -> Estimate:
    """statistic(*samples), and its standard error from leaving out one seed of all samples at a time."""
    arrays = [np.asarray(x, np.float64) for x in samples]
    n = len(arrays[0])
    without = np.array([statistic(*(np.delete(x, i, 0) for x in arrays)) for i in range(n)])
    error = math.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    return Estimate(float(statistic(*arrays)), error, unit, n, f"{what or 'jackknife'} over {n} seeds")


def spread(values, unit: str = "") -> Estimate:
    """The standard deviation from seed to seed."""
    return jackknife(lambda x: x.std(ddof=1), values, unit=unit, what="standard deviation")


def share_of_calls(bounds, base, steps: Sequence[int], fitting: float = 0.0) -> Estimate | None:
    """The share of base's denoiser calls after which the mean bound of an arm is base's last; None: never.

    bounds, base: [seeds, evaluations]; `fitting`: calls that an arm makes besides, for each of a step. Between
    evaluations it goes in a straight line. The error is nan where without some seed it is never reached.
    """

    def crossing(bounds, base):
        level, curve = base[:, -1].mean(), bounds.mean(0)
        below = np.flatnonzero(curve <= level)
        if not len(below):
            return math.nan
        k = below[0]
        if not k:
            return steps[0] / steps[-1]
        part = (curve[k - 1] - level) / (curve[k - 1] - curve[k])
        return (steps[k - 1] + part * (steps[k] - steps[k - 1])) / steps[-1]

    with_fitting = lambda *curves: (1 + fitting) * crossing(*curves)
    found = jackknife(with_fitting, bounds, base, what="share of calls")
    return None if math.isnan(found.mean) else found


def report(config, task: Task, results: Sequence[dict[str, Any]], command: str) -> Report:
    """What `report.json` holds."""
    factor, unit = task.unit
    by_arm = {r["arm"]: r for r in results}
    last = {name: factor * np.asarray(r["bound"][-1]) for name, r in by_arm.items()}
    right = {name: 100 * np.asarray(r["right"]) for name, r in by_arm.items()} if task.answers else {}
    bounds = {name: over_seeds(x, unit) for name, x in last.items()}
    unbiased = [name for name in by_arm if name not in (BASE, AUTOREGRESSIVE) and not law_names.biased(name)]
    metrics: dict[str, Estimate] = {}
    best = min([BASE, *unbiased], key=lambda name: bounds[name].mean)
    metrics[f"{best}: bound"] = bounds[best]
    for name in by_arm:
        if name != BASE:
            paired = np.subtract(last[name], last[BASE])
            if name != AUTOREGRESSIVE:
                metrics[f"{name} - base: bound"] = over_seeds(paired, unit)
        if right and name != BASE:
            metrics[f"{name} - base: right answers"] = over_seeds(right[name] - right[BASE], "%")
            sd = lambda x, y: x.std(ddof=1) - y.std(ddof=1)
            what = "difference of standard deviations"
            metrics[f"{name} - base: sd of right answers"] = jackknife(
                sd, right[name], right[BASE], unit="%", what=what
            )
    lines = [_line(by_arm, name, bounds, last, right, unit) for name in by_arm]
    return Report(
        title=f"Variance of training: {task.meta['name']}",
        summary=(
            f"{config.seeds} seeds of {len(by_arm)} arms; {config.train.steps:,} steps of {config.train.batch} "
            f"denoiser calls."
        ),
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=sum(r["seconds"] for r in results),
        metrics=metrics,
        baselines={"base: bound": bounds[BASE]},
        facts={
            "legend": LEGEND,
            "arms": lines,
            "parameters": {name: r["parameters"] for name, r in by_arm.items()},
            "seconds": {name: r["seconds"] for name, r in by_arm.items()},
            "last bound by seed": {name: x.tolist() for name, x in last.items()},
            "right answers by seed, %": {name: x.tolist() for name, x in right.items()},
            "commit of the training": {name: r["trained at"] for name, r in by_arm.items() if "trained at" in r},
            "eps": config.law.eps,
            "data": task.meta,
        },
        curves={name: _curve(r, factor, unit) for name, r in by_arm.items() if name != AUTOREGRESSIVE},
    )


def _line(by_arm, name: str, bounds, last, right, unit: str) -> dict[str, str]:
    """A row of the table."""
    one, base = by_arm[name], by_arm[BASE]
    marks = " (biased)" if law_names.biased(name) else " (exact)" if name == AUTOREGRESSIVE else ""
    line = {
        "arm": name + marks,
        f"bound, {unit}": shown(bounds[name]),
        "its sd over seeds": shown(spread(last[name])),
    }
    if name not in (BASE, AUTOREGRESSIVE):
        share = share_of_calls(np.transpose(one["bound"]), np.transpose(base["bound"]), one["step"], one["probe calls"])
        told = "never" if share is None else shown(share)
        if share is not None and math.isnan(share.standard_error):
            told = f"{share.mean:.2f}, but never without some seed"
        line |= {"- base": shown(over_seeds(last[name] - last[BASE])), "share of base's calls to its last bound": told}
    else:
        line |= {"- base": "", "share of base's calls to its last bound": ""}
    ratio = lambda a, b: np.mean(b) / np.mean(a)
    line |= {
        "noise of the gradient norm, base / this": shown(jackknife(ratio, one["noise"], base["noise"])),
        "calls of fitting": f"{100 * one['probe calls']:.0f} %",
    }
    if right:
        line |= {
            "right answers, %": shown(over_seeds(right[name])),
            "sd over seeds": shown(spread(right[name])),
            "right - base": "" if name == BASE else shown(over_seeds(right[name] - right[BASE])),
        }
    return line


def table(report: Report) -> str:
    """The arms as text."""
    rows = report.facts["arms"]
    return cli.table((tuple(row.values()) for row in rows), tuple(rows[0]))


def _curve(result: dict[str, Any], factor: float, unit: str) -> Curve:
    values = factor * np.asarray(result["bound"])
    error = values.std(1, ddof=1) / math.sqrt(values.shape[1])
    return Curve(result["step"], values.mean(1).tolist(), error.tolist(), unit, "bound of the averaged parameters")
