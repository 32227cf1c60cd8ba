"""The report of a comparison of decoding orders: bounds over seeds, their differences, the orders, the samples."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import cli, order_steps
from experiments.order_arms import LEARN
from experiments.order_rows import SAMPLE_SCORES, Rows
from experiments.results import over_seeds
from mdmjax import networks, process
from mdmjax.base import Estimate
from mdmjax.evaluation.blocks import ratio
from mdmjax.reports import Curve, Heatmap, Report

Result = dict[str, Any]  # of a run, as its result.json has it


def count(params: dict[str, Any]) -> dict[str, int]:
    """How many numbers the network and the order are."""
    return {name: networks.parameter_count({name: part}) for name, part in params.items()}


def over_rows(arm: Sequence[Result], plain: Sequence[Result]) -> Estimate:
    """The mean paired difference of bounds, and its standard error over the rows of the test, these runs given.

    Of each row it takes the mean over seeds of its difference; the error is that of blocks of rows, for windows of a
    text are alike where they are near. It holds the draws, and the choice of the rows, which the error over seeds does
    not hold; not the choice of the seeds.
    """
    d = np.mean([np.subtract(a["rows"], b["rows"]) for a, b in zip(arm, plain, strict=True)], 0)
    return ratio(d, np.ones(len(d), int), "nats/row", f"mean paired difference over {len(d):,} rows")


def kept(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of each arm by seed: of several starts the one with the lowest validation bound."""
    best: dict[tuple[str, int], Result] = {}
    for result in results:
        name = (result["arm"], result["seed"])
        if name not in best or result["validation"] < best[name]["validation"]:
            best[name] = result
    arms = dict.fromkeys(result["arm"] for result in results)
    return {arm: [best[name] for name in sorted(best) if name[0] == arm] for arm in arms}


def several_starts(results: Sequence[Result]) -> list[Result]:
    """The runs that learn an order, where each seed has several of them; else none."""
    return [r for r in results if r["arm"] in LEARN] if any(r["start"] for r in results) else []


def report(config, rows: Rows, results: Sequence[Result], command: str) -> Report:
    """Every number of the comparison. The headline is the learned order, where there is one, against plain."""
    arms = kept(results)
    unit = "nats/row above the entropy" if rows.law else "nats/row"
    bounds = {arm: over_seeds([r["own"][0] for r in runs], unit) for arm, runs in arms.items()}
    first = sorted(arms, key=lambda arm: (arm == "plain", arm != "learned"))
    metrics = {f"{arm}, own order": bounds[arm] for arm in first if arm != "plain" or len(arms) == 1}
    # The best of several starts has had more tries than a run of plain: these have had one.
    starts = several_starts(results)
    alone = {arm: [r["own"][0] for r in starts if r["arm"] == arm and not r["start"]] for arm in first}
    for arm in filter(alone.get, first):
        metrics[f"{arm}, own order, first start alone"] = over_seeds(alone[arm], unit)
    for arm in first:
        if arm != "plain":
            equal = [r["uniform"][0] for r in arms[arm]]
            metrics[f"{arm}, the same network in uniform orders"] = over_seeds(equal, unit)
    plain = arms.get("plain")
    for arm in first:
        if plain and arm != "plain":
            differences = [a["own"][0] - b["own"][0] for a, b in zip(arms[arm], plain, strict=True)]
            metrics[f"{arm} - plain"] = over_seeds(differences, "nats/row", "mean paired difference")
            if alone[arm]:
                differences = [a - b["own"][0] for a, b in zip(alone[arm], plain, strict=True)]
                metrics[f"{arm} - plain, first start alone"] = over_seeds(differences, "nats/row", "paired difference")
            if not rows.law:
                metrics[f"{arm} - plain, error over rows"] = over_rows(arms[arm], plain)
    if plain and "fixed" in arms:
        for arm in first:
            if arm not in ("plain", "fixed"):
                runs = zip(plain, arms[arm], arms["fixed"], strict=True)
                share = [(p["own"][0] - r["own"][0]) / (p["own"][0] - f["own"][0]) for p, r, f in runs]
                metrics[f"{arm}, share of the way from plain to fixed"] = over_seeds(share, "", "mean")
    for score, of in SAMPLE_SCORES.items():
        for arm, runs in arms.items():
            if f"{score}, own" in runs[0]:
                metrics[f"{score}, {arm}"] = over_seeds([r[f"{score}, own"] for r in runs], of)
                if arm != "plain":
                    gain = [r[f"{score}, own"] - r[f"{score}, random"] for r in runs]
                    what = "mean paired difference"
                    metrics[f"{score}, {arm}: own order - random order"] = over_seeds(gain, of, what)
    if rows.law:
        for arm, runs in arms.items():
            own, equal = (over_seeds([r["apart"][i] for r in runs], "") for i in (0, 1))
            metrics[f"total variation of samples, {arm}, own order"] = own
            if arm != "plain":
                metrics[f"total variation of samples, {arm}, random order"] = equal
    c = config.order
    seconds = sum(r["training seconds"] + r["scoring seconds"] for r in results)
    return Report(
        title=f"{rows.meta['name']}: learned decoding orders",
        summary=(
            f"{config.train.steps:,} steps of {config.train.batch} rows, {c.samples} draws a row; "
            f"{config.seeds} seeds of {', '.join(arms)}."
        ),
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=seconds,
        metrics=metrics,
        baselines={"plain": bounds["plain"]} if plain and len(arms) > 1 else {},
        facts=_facts(rows, arms, results),
        curves=_curves(rows, arms, unit),
        heatmaps=_heatmaps(rows, arms),
    )


def _facts(rows: Rows, arms: dict[str, list[Result]], results: Sequence[Result]) -> dict[str, Any]:
    facts: dict[str, Any] = {"parameters": results[0]["parameters"], "positions": list(rows.names)}
    for arm, runs in arms.items():
        weights = np.array([r["log_weights"] for r in runs])
        ranks = np.mean([process.PlackettLuce(w).expected_rank() for w in weights], 0)
        facts[arm] = {
            "bound by seed": [r["own"][0] for r in runs],
            "standard error of the rows by seed": [r["own"][1] for r in runs],
            "its part from the draws alone by seed": [r["own"][2] for r in runs if len(r["own"]) > 2],
            "first position by seed": [rows.names[i] if (i := _first(w)) is not None else "none" for w in weights],
            "mean log-weight": dict(zip(rows.names, weights.mean(0).tolist(), strict=True)),
            "mean expected rank": dict(zip(rows.names, ranks.tolist(), strict=True)),
            "effective number of orders by seed": [math.exp(r["entropy"]) for r in runs],
            "start by seed": [r["start"] for r in runs],
        }
        if any(r["scale"][0] for r in runs):  # of random times, which leave out what is below t_min
            facts[arm]["sum of the gradient in the log-weights by seed, and its error"] = [r["scale"] for r in runs]
        if rows.law:
            facts[arm] |= {
                "root first": sum(_first(w) == 0 for w in weights),
                "best order of the network by seed": [r["best order"] for r in runs],
                "its bound by seed": [r["best"] for r in runs],
                "mean gradient at equal log-weights": np.mean([r["gradient"] for r in runs], 0).tolist(),
            }
    if rows.law and "learned" in arms:
        facts["bounds of few steps"] = order_steps.table([r["few steps"] for r in arms["learned"]])
    facts["validation bound of every start"] = {
        f"{r['arm']}-{r['seed']}-{r['start']}": r["validation"] for r in several_starts(results)
    }
    facts["seconds of a run"] = float(np.mean([r["training seconds"] for r in results]))
    facts["data"] = rows.meta
    return facts


def _first(log_weights: np.ndarray) -> int | None:
    """The position of the largest weight; None where two are as large."""
    last = np.argsort(log_weights)[::-1]
    return int(last[0]) if len(last) == 1 or log_weights[last[0]] > log_weights[last[1]] else None


def _curves(rows: Rows, arms: dict[str, list[Result]], unit: str) -> dict[str, Curve]:
    """Means over seeds with their standard errors, against the step."""
    curves = {}

    def curve(values, unit, panel):
        values = np.asarray(values, np.float64)
        error = values.std(0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
        steps, error = runs[0]["history"]["step"], None if error is None else error.tolist()
        return Curve(steps, values.mean(0).tolist(), error, unit, panel)

    for arm, runs in arms.items():
        curves[f"bound, {arm}"] = curve([r["history"]["bound"] for r in runs], unit, "bound under the run's own order")
    for arm, runs in arms.items():
        if arm in LEARN:
            weights = np.array([r["history"]["log_weights"] for r in runs])
            for l, name in enumerate(rows.names):  # noqa: E741
                curves[f"{name}, {arm}"] = curve(weights[:, :, l], "", f"log-weights, {arm}")
    return curves


def _heatmaps(rows: Rows, arms: dict[str, list[Result]]) -> dict[str, Heatmap]:
    """For each arm that learns: how often a position is before another, by the mean log-weights; and all of them."""
    maps = {}
    for arm, runs in arms.items():
        if arm not in LEARN:
            continue
        weights = np.array([r["log_weights"] for r in runs])
        before = np.array(process.PlackettLuce(weights.mean(0)).precedence(), np.float64)
        np.fill_diagonal(before, np.nan)
        names = list(rows.names)
        maps[f"precedence, {arm}"] = Heatmap(before.tolist(), names, names, "position", "is before", "probability")
        seeds = [f"seed {r['seed']}" for r in runs]
        maps[f"log-weights, {arm}"] = Heatmap(weights.tolist(), seeds, names, "", "position", "log w")
    return maps


def weights(rows: Rows, results: Sequence[Result]) -> str:
    """The table of learned orders: log-weight and expected rank of each position, means over seeds."""
    arms = {arm: runs for arm, runs in kept(results).items() if arm in LEARN}
    if not arms:
        return ""
    columns = {}
    for arm, runs in arms.items():
        w = np.array([r["log_weights"] for r in runs])
        ranks = np.array([process.PlackettLuce(v).expected_rank() for v in w])
        columns[f"log w, {arm}"] = [over_seeds(x, "") for x in w.T]
        columns[f"rank, {arm}"] = [over_seeds(x, "") for x in ranks.T]
    return cli.table(zip(rows.names, *columns.values(), strict=True), ("position", *columns))
