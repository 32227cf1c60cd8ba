"""The rows that a comparison of decoding orders learns from and is judged on: Bayes networks, tables, text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mdmjax import analysis, data, evaluation
from mdmjax.evaluation import ngrams

# What samples are judged by, and its unit.
SAMPLE_SCORES = {"shape": "", "trend": "", "n-gram bits": "bits/token"}
HELD_OUT = 0.1  # share of a table's rows for validation, and again for the test


class Rows(NamedTuple):
    """Rows of L tokens to learn from and to be scored."""

    source: Any  # of training rows
    validation: np.ndarray  # [N, L]; empty where the law is known
    test: np.ndarray
    vocab: int
    names: Sequence[str]  # of the positions
    allowed: np.ndarray | None = None  # [L, V], of a table: the values that a column has
    judge: Callable[[np.ndarray], dict[str, float]] | None = None  # of samples [N, L]
    law: analysis.Star | None = None  # where it is known, every bound is exact
    meta: dict = {}

    @property
    def length(self) -> int:
        """L."""
        return len(self.names)


def bayes(c: ConfigDict, seed: int) -> Rows:
    """Rows of a Bayes network of one cause, its law known."""
    star = analysis.Star()
    names = ("root", *(f"child {i + 1}" for i in range(star.children)))
    rows, nothing = star.sample(least(c.rows, "data.rows"), seed), np.zeros((0, star.length), np.int32)
    meta = {"name": "bayes", "sha256": f"rows of seed {seed}", "rows": c.rows, "entropy": star.entropy()}
    return Rows(data.RowSource(rows), nothing, nothing, star.vocab, names, law=star, meta=meta)


def synthetic(c: ConfigDict, seed: int) -> Rows:
    """A made-up table: the columns of a Bayes network of one cause, each with ids of its own."""
    star = analysis.Star(vocab=4, children=5, keep=0.7)
    count = least(c.rows, "data.rows")
    rows = star.sample(count + 2000, seed) + star.vocab * np.arange(star.length)
    allowed = np.arange(star.vocab * star.length) // star.vocab == np.arange(star.length)[:, None]
    names = ("root", *(f"child {i + 1}" for i in range(star.children)))
    meta = {"name": "synthetic table", "sha256": f"rows of seed {seed}", "rows": count, "entropy": star.entropy()}
    train, validation, test = np.split(rows, [count, count + 1000])
    judge = _against(test, (False,) * star.length)
    return Rows(data.RowSource(train), validation, test, allowed.shape[1], names, allowed, judge, meta=meta)


def table(c: ConfigDict, seed: int) -> Rows:
    """A CSV file, cut 80/10/10 after a permutation, or two: training rows, a tenth for validation, and test rows."""
    if not c.path:
        raise ValueError("data.path='': give the CSV file of the table with --config.data.path=FILE")
    path = {"train": c.path, "test": c.test} if c.test else c.path
    splits = {"train": 1 - 2 * HELD_OUT, "validation": HELD_OUT, "test": HELD_OUT}
    held_out = HELD_OUT if c.test else 0.0
    sizes = dict(bins=least(c.bins, "data.bins", 2), categories=least(c.categories, "data.categories"))
    corpus = data.table(path, splits, **sizes, shuffle_rows=seed, held_out=held_out)
    parts, columns = corpus.splits, corpus.vocabulary
    owner = np.repeat(np.arange(len(columns.names)), [len(labels) for labels in columns.labels])
    allowed = owner == np.arange(len(columns.names))[:, None]
    tokens = {name: np.asarray(rows, np.int32) for name, rows in parts.items()}
    return Rows(
        data.RowSource(tokens["train"]), tokens["validation"], tokens["test"], columns.size, columns.names, allowed,
        _against(tokens["test"], [edges is not None for edges in columns.edges]),
        meta={name: value for name, value in corpus.meta.items() if name != "columns"},
    )  # fmt: skip


def python_docs(c: ConfigDict, seed: int) -> Rows:
    """Windows of the Python language reference, in characters."""
    corpus = data.python_docs(cache_dir=c.cache_dir or None)
    held_out = []
    for split in ("validation", "test"):
        tokens, scored = data.evaluation_windows(corpus.splits[split], c.length)
        held_out.append(tokens[scored.all(1)])
    names = [str(i) for i in range(c.length)]
    train, vocab = corpus.splits["train"], corpus.vocabulary.size
    ngram = ngrams.fit(train, vocab)

    def judge(samples: np.ndarray) -> dict[str, float]:
        """Bits of a sampled character under the order-4 n-gram of the training text."""
        return {"n-gram bits": float(np.mean([-np.log2(ngram.probabilities(row)[-1]).mean() for row in samples]))}

    return Rows(data.WindowSource(train, c.length), *held_out, vocab, names, judge=judge, meta=corpus.meta)


def _against(test: np.ndarray, numeric: Sequence[bool]) -> Callable[[np.ndarray], dict[str, float]]:
    """Shape and Trend of samples of a table, against its test rows. `numeric`: which columns are."""
    scores = dict(shape=evaluation.shape, trend=evaluation.trend)
    return lambda samples: {name: score(test, samples, numeric) for name, score in scores.items()}


SOURCES = dict(bayes=bayes, synthetic=synthetic, table=table, python_docs=python_docs)


def least(value: int, field: str, least: int = 1) -> int:
    """The value, where it is at least `least`; else a ValueError that names the field."""
    if value < least:
        raise ValueError(f"{field}={value}: must be at least {least}")
    return value
