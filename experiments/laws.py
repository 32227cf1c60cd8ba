"""The schedule and the law of the draws that a config's strings and numbers stand for."""

import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mdmjax import process, variance
from mdmjax.base import Schedule

SCHEDULES = dict(
    linear=process.Linear,
    cosine=process.Cosine,
    sine=process.Sine,
    sine_squared=process.SineSquared,
    beta=process.beta,
    kumaraswamy=process.Kumaraswamy,
    polynomial=process.Polynomial,
    geometric=process.Geometric,
    tabulated=lambda *hidden: process.Tabulated(hidden),
    budget=lambda *counts: process.OnGrid.budget(counts),
)
WAYS = dict(single=process.single, mirror=process.mirror)
SPREADS = dict(iid=process.iid, stratified=process.stratified, systematic=process.systematic)


def choose(name: str, field: str, choices: dict[str, Any]) -> Any:
    """The choice of that name. ValueError that names the field and all choices for any other."""
    if name not in choices:
        raise ValueError(f"{field}={name!r}: choose one of {', '.join(filter(None, choices))}")
    return choices[name]


def schedule(c: ConfigDict, group: str) -> Schedule:
    """The schedule of a group of fields. ValueError that names the fields where its arguments will not do."""
    make = choose(c.schedule, f"{group}.schedule", SCHEDULES)
    try:
        return make(*c.schedule_args)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{group}.schedule_args={tuple(c.schedule_args)} do not fit {group}.schedule={c.schedule!r}: {error}"
        ) from None


def law_of(config: ConfigDict, vocab: int) -> Any:
    """The law of a training config for a vocabulary of that size. ValueError that names what will not do."""
    c = config.law
    for name, least in (("strata", 0), ("copies", 1)):
        if c[name] < least:
            raise ValueError(f"law.{name}={c[name]}: must be at least {least}")
    alpha = schedule(c, "law")
    if isinstance(alpha, process.OnGrid):
        raise ValueError(
            f"law.schedule={c.schedule!r} is for sampling: it has values at a sampler's steps alone, and training "
            "draws times between them. Choose another here, and give this one as sample.schedule"
        )
    strata = process.Strata(c.strata or math.isqrt(config.train.batch))
    spread = choose(c.spread, "law.spread", SPREADS | {"strata": strata})
    ways = choose(c.ways, "law.ways", WAYS | {"copies": process.Copies(c.copies)})
    own = dict(complementary="two ways of its own", union="two ways of its own", delimiters="one way alone")
    if c.name in own and c.ways != "single":
        raise ValueError(f"law.ways={c.ways!r}: law.name={c.name!r} has {own[c.name]}; leave it single")
    by_ratio = lambda: choose(c.delimiters, "law.delimiters", dict(ratio=True, ht=False))
    laws = dict(
        exact_count=lambda: process.ExactCount(spread, alpha, ways),
        continuous=lambda: process.Continuous(alpha, spread, c.t_min, ways),
        discrete=lambda: process.Discrete(c.steps, alpha, spread, ways),
        importance=lambda: variance.starting_law(
            c.eps, c.bins, spread=spread, schedule=alpha, ways=ways, max_weight=c.max_weight or None
        ),
        clipped=lambda: process.Clipped(c.low, c.high, spread, alpha, ways),
        complementary=lambda: process.Complementary(c.eps, spread, alpha),
        union=lambda: process.Union(c.eps, spread, alpha),
        delimiters=lambda: process.Delimiters(
            c.eps, c.extra, by_ratio(), spread, alpha, often=_ids("law.often", c.often, vocab)
        ),
    )
    make = choose(c.name, "law.name", laws)
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"law.name={c.name!r}: {error}") from None


def refit_of(c: ConfigDict, vocab: int, gradient: bool, group: str = "", **how: Any) -> variance.Refit:
    """What fits a law to a network, from a group of fields; `how`: `variance.Refit`'s other ones. ValueError."""
    for name in ("probe_rows", "probe_masks"):
        if c[name] < 1:
            raise ValueError(f"{group}{name}={c[name]}: must be at least 1")
    if not 0 < c.share <= 1:
        raise ValueError(f"{group}share={c.share}: must be in (0, 1]: every rate has to be drawn")
    return variance.Refit(vocab, **dict(rows=c.probe_rows, masks=c.probe_masks, share=c.share, gradient=gradient) | how)


def _ids(field: str, ids: Sequence[int], vocab: int) -> tuple[int, ...]:
    """Ids of tokens. ValueError for none, and for one that is no token's."""
    if not ids or not all(isinstance(i, int) and 0 <= i < vocab for i in ids):
        raise ValueError(f"{field}={tuple(ids)}: ids of tokens are needed, at least one, each in 0..{vocab - 1}")
    return tuple(ids)
