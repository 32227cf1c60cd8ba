"""The report of `variance`: a table of laws, what follows from it, and the noise against the mask rate."""

import math
from typing import Any

import numpy as np

from experiments import cli, law_names, runs
from experiments.results import over_seeds, shown
from mdmjax.base import Estimate
from mdmjax.reports import Curve, Report

_FIT = "law.name=importance, law.eps={eps:g}, law.bins={bins}, law.share={share:g}"
HOW = {  # fields of `train` that draw as a law does
    "base": "law.name=continuous, law.t_min={eps:g}",
    "complementary": "law.name=complementary, law.eps={eps:g}",
    "isad": "law.name=delimiters, law.eps={eps:g}, law.often={often}",
    "p_pots": _FIT,
    "p_pots_gradient": f"{_FIT}, law.probe=gradient",
    "exact_count": "law.name=exact_count",
}


LEGEND = (
    "The variance of one draw of one row in its parts: A, which tokens are masked (masking pattern); B, how many "
    "(masking rate); C, which row (data). Calls are denoiser calls of a draw; laws are compared by variance times "
    f"calls, and base / this is by how much a law is better. {law_names.LEGEND} ± is a standard error, a jackknife "
    "over rows."
)


def biased(name: str, one: dict | None = None) -> bool:
    """Whether a law has another mean than the bound: by itself, or, as `one` says, since some weights were capped."""
    return law_names.biased(name) or (one is not None and bool(np.any(one["facts"]["clamped"])))


def report(config, trained: runs.Run, found: dict, spread: dict, edges, seconds: float, command: str) -> Report:
    """What `report.json` holds. `found` and `spread`: of each law, what `variance.Bench` says of it."""
    groups = [g for g in ("gradient", "loss") if g in found["base"]["parts"]]
    target = groups[0]
    per_call = {name: one["parts"][target].total.scaled(law_names.calls_of(name), "") for name, one in found.items()}
    unbiased = [name for name in config.laws if not biased(name, found[name])]
    best = min(unbiased, key=lambda name: per_call[name].mean)
    metrics = {f"{best}: variance of the {target} x calls": per_call[best]}
    for name in config.laws:
        if name not in (best, "base"):
            mark = " (biased)" if biased(name, found[name]) else ""
            metrics[f"{name}{mark}: variance of the {target} x calls"] = per_call[name]
    metrics |= {f"{name}: mean loss": one["mean"] for name, one in found.items()}
    of_base = found["base"]["of examples"]
    apart = {
        name: over_seeds(np.subtract(one["of examples"], of_base), "nats/token", "paired difference", "examples")
        for name, one in found.items()
    }
    advice = f"{_advice(config, best, target, per_call['base'], per_call[best])} {agreement(apart, unbiased)}"
    lines = [_line(name, one, group, found["base"], apart[name]) for group in groups for name, one in found.items()]
    curves, counts = _curves(found, groups, edges)
    row_of_parts = lambda name, group: (name, group, *map(shown, found[name]["parts"][group]))
    parts = [
        dict(zip(("law", "group", "A", "B", "C", "total"), row_of_parts(name, group), strict=True))
        for name in found
        for group in found[name]["parts"]
        if group not in groups
    ]
    batch = [
        {"law": name, "group": group, **{s: shown(by_spread[s][group]) for s in by_spread}}
        for name, by_spread in spread.items()
        for group in groups
    ]
    return Report(
        title=f"Variance of training: {trained.workdir}" + (f" on {config.path}" if config.path else ""),
        summary=f"{config.examples} examples x {config.rates} rates x {config.masks} masks; step {trained.step}.",
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=seconds,
        metrics=metrics,
        baselines={"base": per_call["base"]},
        facts={
            "recommendation": advice,
            "legend": LEGEND,
            "laws": lines,
            "A + B of a batch, times its rows": batch,
            "groups of parameters": parts,
            "weights": [_weights(name, one) for name, one in found.items() if name != "autoregressive"],
            "fitted densities, probability of each bin of the rate": {
                name: np.asarray(one["density"].mass).tolist() for name, one in found.items() if one["density"]
            },
            "edges of the bins": edges.tolist(),
            "draws in each bin": counts,
            "eps": config.eps,
        },
        curves=curves,
    )


def agreement(apart: dict[str, Estimate], unbiased: list[str]) -> str:
    """Whether the mean losses of the unbiased laws are that of base: `apart` are their differences from it."""
    far = [name for name in unbiased if abs(apart[name].mean) > 4 * apart[name].standard_error]
    if far:
        return f"The mean loss under {', '.join(far)} is MORE than 4 standard errors from that under base."
    return "The mean losses under the unbiased laws agree with that under base, within 4 standard errors."


def _advice(config, best: str, target: str, base: Estimate, least: Estimate) -> str:
    """What follows from the table, with the error of the ratio as if the two estimates were independent."""
    kind, _, ways = best.partition("+")
    if best == "base":
        return f"Of the unbiased laws here none has less variance of the {target} at equal denoiser calls than base."
    gain = base.mean / least.mean
    error = gain * math.hypot(base.standard_error / base.mean, least.standard_error / least.mean)
    fields = HOW[kind].format(eps=config.eps, bins=config.bins, share=config.share, often=tuple(config.often))
    fields += f", law.max_weight={config.max_weight:g}" if config.max_weight and HOW[kind].startswith(_FIT) else ""
    fields += f", law.ways={ways}" if ways else ""
    what = (
        f"{best} ({fields}), of the unbiased laws here the one with the least variance of the {target} at equal "
        f"denoiser calls, {gain:.1f} +- {error:.1f} times less than base"
    )
    if gain - 2 * error > 1:
        return f"Recommended for `train`: {what}."
    return f"Nothing better than base is shown. The least has {what}, which does not tell the two apart."


def table(report: Report) -> str:
    """The laws as text."""
    rows = report.facts["laws"]
    return cli.table((tuple(row.values()) for row in rows), tuple(rows[0]))


def _line(name: str, one: dict, group: str, base: dict, apart: Estimate) -> dict[str, Any]:
    """A row of the table of laws. The ratio has no error bar of its own: those of both sides stand beside it."""
    p, calls = one["parts"][group], law_names.calls_of(name)
    ratio = base["parts"][group].total.mean / (p.total.mean * calls) if p.total.mean > 0 else math.nan
    return {
        "law": name + (" (biased)" if biased(name, one) else ""),
        "of": group,
        "mean loss": shown(one["mean"]),
        "mean - base": "" if name in ("base", "autoregressive") else shown(apart),
        "A": shown(p.pattern),
        "B": shown(p.rate),
        "C": shown(p.data),
        "total": shown(p.total),
        "calls": calls,
        "total x calls": shown(p.total.scaled(calls, "")),
        "base / this": f"{ratio:.2f}",
    }


def _weights(name: str, one: dict) -> dict[str, Any]:
    """What the weights of a law are like: their effective number, the largest, how often capped or of nothing."""
    # of one way of a draw, relative to those of the loss: the weight times the rate is 1 / p
    w = np.asarray(one["facts"]["weight"], np.float64) * np.asarray(one["facts"]["rate"], np.float64)
    return {
        "law": name,
        "effective share of weight x rate": f"{w.sum() ** 2 / (w.size * (w**2).sum()):.3f}",
        "largest weight x rate": f"{w.max():.3g}",
        "largest weight": f"{np.max(one['facts']['weight']):.3g}",
        "share clamped": f"{np.mean(one['facts']['clamped']):.4f}",
        "share with nothing hidden": f"{np.mean(one['facts']['empty']):.4f}",
    }


def _curves(found: dict, groups: list[str], edges: np.ndarray) -> tuple[dict[str, Curve], dict[str, list[int]]]:
    """E[|Z|^2 | r] with the weight 1 / r, and the correlation of two ways of a draw, by bins of r; draws in each."""
    curves, counts = {}, {}
    x = np.log10(np.sqrt(edges[1:] * edges[:-1]))
    label = "log10 of the mask rate"
    for name, one in found.items():
        rate = np.asarray(one["facts"]["rate"], np.float64)
        losses = np.asarray(one["facts"]["losses"], np.float64)
        squares, two_ways = name in ("base", "exact_count"), losses.shape[-1] == 2
        if squares or two_ways:
            counts[name] = np.bincount(_bin(rate, edges), minlength=len(x)).tolist()
        if squares:
            for group in groups:
                at = [i for i, g in enumerate(one["groups"]) if (g == "loss") == (group == "loss")]
                z = np.asarray(one["squares"], np.float64)[..., at].sum(-1)
                scale = 1 / np.square(np.asarray(one["facts"]["weight"], np.float64) * rate)  # as if it were 1 / r
                what = f"E[|Z|^2 | r] of the {group}, weight 1 / r"
                curves[f"{group}, {name}"] = Curve(x, _binned(rate, z * scale, edges), None, "|Z|^2", what, label)
        if two_ways:
            centred = losses - losses.mean(2, keepdims=True)
            both, first, second = (
                _binned(rate, centred[..., i] * centred[..., j], edges) for i, j in ((0, 1), (0, 0), (1, 1))
            )
            product = np.sqrt(first * second)
            rho = both / np.where(product > 0, product, np.nan)
            curves[name] = Curve(x, rho, None, "correlation", "correlation of the losses of the two ways", label)
    return curves, counts


def _bin(rate, edges) -> np.ndarray:
    """The bin of each rate."""
    return np.clip(np.searchsorted(edges, rate.ravel(), side="left") - 1, 0, len(edges) - 2)


def _binned(rate, z, edges) -> np.ndarray:
    """Mean of z by bin of the rate; nan where a bin has fewer than two. No error bar: draws share examples."""
    at = _bin(rate, edges)
    n = np.bincount(at, minlength=len(edges) - 1).astype(float)
    n[n < 2] = np.nan
    return np.bincount(at, z.ravel(), minlength=len(n)) / n
