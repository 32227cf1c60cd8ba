"""The report of a preference experiment: what each way of estimating the score is worth, over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import cli
from experiments.prefer_arms import FINE_TUNING
from experiments.prefer_tasks import Task
from experiments.results import over_seeds, shown
from experiments.study_report import jackknife
from mdmjax.base import Estimate
from mdmjax.reports import Curve, Report

LEGEND = (
    "± is a standard error over seeds, in pairs of the same seeds where something is compared. Measured after "
    "training, by repeated estimates of the same held-out pairs with the arm's own draws: the variance of the "
    "score, which is at least that of the loss, and the bound on the bias of the loss that follows from it; "
    "bounds on bias and variance of the gradient of a pair's loss; the noise of the gradient of their mean loss "
    "(its variance over its squared length, each summed over seeds). Forward passes are those of a pair at a "
    "step: each answer by the policy and, where its bounds are not kept, the reference."
)


def report(config, task: Task, start: dict[str, Any], results: Sequence[dict[str, Any]], command: str) -> Report:
    """What `report.json` holds."""
    metrics: dict[str, Estimate] = {}
    judged = task.judged is not None
    before = 100 * np.asarray(start["right"]) if judged else None
    first = results[0]
    for r in results:
        if judged:
            after = 100 * np.asarray(r["right"])
            metrics[f"{r['arm']}: right answers"] = over_seeds(after, "%")
            metrics[f"{r['arm']} - start: right answers"] = over_seeds(after - before, "%")
            if r is not first:
                ahead = 100 * np.asarray(first["right"]) - after
                metrics[f"{first['arm']} - {r['arm']}: right answers"] = over_seeds(ahead, "%")
        if r["probe"]:
            metrics[f"{r['arm']}: variance of the score"] = over_seeds(r["probe"]["score variance"])
            metrics[f"{r['arm']}: held-out pairs in order"] = over_seeds(100 * np.asarray(r["probe"]["preferred"]), "%")
    return Report(
        title=f"Preferences: {task.meta['name']}",
        summary=(
            f"{config.seeds} seeds of {len(results)} arms; {config.train.steps:,} steps of {config.train.batch} pairs."
        ),
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=start["seconds"] + sum(r["seconds"] for r in results),
        metrics=metrics,
        baselines={"start: right answers": over_seeds(before, "%")} if judged else {},
        facts={
            "legend": LEGEND,
            "arms": [_line(r, before, judged) for r in results],
            "parameters": {r["arm"]: r["parameters"] for r in results},
            "seconds": {"start": start["seconds"]} | {r["arm"]: r["seconds"] for r in results},
            "right answers by seed, %": {"start": before.tolist()}
            | {r["arm"]: (100 * np.asarray(r["right"])).tolist() for r in results}
            if judged
            else {},
            "commit of the training": {r["arm"]: r["trained at"] for r in results},
            "data": task.meta,
        },
        curves=_curves(results, judged),
    )


def _line(result: dict[str, Any], before: np.ndarray | None, judged: bool) -> dict[str, str]:
    """A row of the table."""
    probe, line = result["probe"], {"arm": result["arm"], "forward passes": str(result["calls"] or "")}
    if judged:
        after = 100 * np.asarray(result["right"])
        line |= {"right, %": shown(over_seeds(after)), "right - start": shown(over_seeds(after - before))}
    columns = {
        "variance of the score": "score variance", "variance of the loss": "loss variance",
        "bound on the bias": "bias bound", "bound on the gradient's bias": "gradient bias bound",
        "bound on the gradient's variance": "gradient variance bound",
        "held-out loss": "loss", "score": "score",
    }  # fmt: skip
    for column, name in columns.items():
        line[column] = shown(over_seeds(probe[name])) if probe else ""
    several = probe and len(probe["gradient squared"]) > 1  # else there is no error
    noise = several and jackknife(lambda a, b: a.sum() / b.sum(), probe["gradient variance"], probe["gradient squared"])
    line["gradient noise"] = shown(noise) if noise else ""
    line["pairs in order, %"] = shown(over_seeds(100 * np.asarray(probe["preferred"]))) if probe else ""
    return line | {"seconds": f"{result['seconds']:.0f}"}


def _curves(results: Sequence[dict[str, Any]], judged: bool) -> dict[str, Curve]:
    out = {}
    for r in results:
        if judged:
            values = 100 * np.array([row[1:] for row in r["curve"]])
            error = values.std(1, ddof=1) / np.sqrt(values.shape[1]) if values.shape[1] > 1 else None
            out[f"{r['arm']}: right"] = Curve(
                [row[0] for row in r["curve"]], values.mean(1).tolist(),
                None if error is None else error.tolist(), "%", panel="right answers",
            )  # fmt: skip
        if r["arm"] != FINE_TUNING:
            for name in ("margin", "accuracy", "score_variance", "drift"):
                if r["steps"][name]:
                    out[f"{r['arm']}: {name}"] = Curve(
                        *map(list, zip(*r["steps"][name], strict=True)), panel=name.replace("_", " ")
                    )
    return out


def table(report: Report) -> str:
    """The arms as text."""
    rows = report.facts["arms"]
    return cli.table([tuple(row.values()) for row in rows], tuple(rows[0]))
