"""From what was measured and drawn to what a report shows: units, baselines, curves, texts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mdmjax.base import Estimate
from mdmjax.data import Corpus, Vocabulary
from mdmjax.evaluation import Bound, ngrams
from mdmjax.reports import Curve, Sample

PARTS = {"A": "masking pattern (A)", "B": "masking rate (B)", "C": "data (C)", "total": "total"}


def headline_unit(corpus: Corpus, split: str) -> tuple[float, str]:
    """(factor, unit) that nats/token are reported in: bits/char, or bits/token where there are no characters."""
    per_token = corpus.meta["splits"][split].get("characters_per_token")
    return (1 / math.log(2) / per_token, "bits/char") if per_token else (1 / math.log(2), "bits/token")


def likelihood(corpus: Corpus, split: str, bound: Bound, prefix: str = "") -> dict[str, Estimate]:
    """The bound on a split in all its units, that of the headline first."""
    report = bound.report(corpus.meta["splits"][split].get("characters_per_token"))
    return {f"{prefix}{name}": value for name, value in reversed(report.items())}


def baselines(train: np.ndarray, corpus: Corpus, split: str, prefix: str = "") -> dict[str, Estimate]:
    """N-grams of order 0 to 4 on a split of a text, counted on the tokens `train`, in the headline's unit."""
    orders = ngrams.baselines(train, corpus.splits[split], corpus.vocabulary.size)
    unit = headline_unit(corpus, split)
    return {f"{prefix}order-{order} n-gram": estimate.scaled(*unit) for order, estimate in enumerate(orders)}


def noted(estimates: Mapping[str, Estimate], note: str) -> dict[str, Estimate]:
    """The estimates, their estimators' names followed by a note."""
    add = lambda estimate: dataclasses.replace(estimate, estimator=f"{estimate.estimator}, {note}")
    return {name: add(estimate) for name, estimate in estimates.items()}


def over_seeds(values: Sequence[float], unit: str = "", what: str = "mean", of: str = "seeds") -> Estimate:
    """The mean over seeds, and its standard error sd / sqrt(n): of seeds alone, on one data set. nan for one seed.

    Or over other independent units, which `of` names.
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error), unit, len(values), f"{what} over {len(values)} {of}")


def shown(estimate: Estimate) -> str:
    """An estimate as a cell of a table, whose head names the unit."""
    return str(estimate.scaled(1, "")).strip()


def curves(rows: Sequence[Mapping[str, float]], corpus: Corpus, monitor: str) -> dict[str, Curve]:
    """The curves of a training run, from the rows of its metrics file. `monitor` is the split of its bound."""
    loss, bound = headline_unit(corpus, "train"), headline_unit(corpus, monitor)
    found = {name for row in rows for name in row}
    adjusted = {"training loss, adjusted": _curve(rows, "loss_adjusted", *loss, panel="likelihood")}
    return {
        "training loss": _curve(rows, "loss", *loss, panel="likelihood"),
        **(adjusted if "loss_adjusted" in found else {}),
        f"{monitor} bound": _curve(rows, "bound", *bound, panel="likelihood", error="bound_error"),
        "gradient norm": _curve(rows, "grad_norm"),
        "learning rate": _curve(rows, "learning_rate"),
        **{
            f"{group}, {part}": _curve(
                rows,
                f"variance/{group}_{name}",
                unit=unit,
                panel=f"variance of the {group}",
                error=f"variance/{group}_{name}_error",
            )
            for group, unit in (("loss", "nats^2"), ("gradient", ""))
            for name, part in PARTS.items()
            if f"variance/{group}_{name}" in found
        },
    }


def _curve(rows, field: str, factor: float = 1.0, unit: str = "", panel: str = "", error: str = "") -> Curve:
    rows = [row for row in rows if field in row]
    values = lambda name: [factor * row[name] for row in rows]
    return Curve([row["step"] for row in rows], values(field), values(error) if error else None, unit, panel)


def texts(vocabulary: Vocabulary, canvas: np.ndarray, tokens: np.ndarray, end: str = "") -> list[Sample]:
    """Sampled rows [rows, L] as texts, cut where what was given on the canvas meets what was generated.

    A row is decoded as a whole, for the text of a token may depend on those beside it: bytes of one character, spaces
    between words. The cuts are at the lengths of the texts of its beginnings. Generated parts are shown up to the
    first `end`, if there is one.
    """
    shown = lambda text, known: text if known or not end else text.partition(end)[0]
    samples = []
    for i, (row, given) in enumerate(zip(tokens, canvas != vocabulary.size, strict=True)):
        cuts = np.flatnonzero(given[1:] != given[:-1]) + 1
        text = vocabulary.decode(row)
        ends = [len(vocabulary.decode(row[:cut])) for cut in cuts]
        starts = zip([0, *ends], [*ends, len(text)], given[[0, *cuts]].tolist(), strict=True)
        samples.append(Sample([(shown(text[a:b], known), known) for a, b, known in starts], f"sample {i}"))
    return samples
