"""What a study of training trains on: text, sums whose prompts are given, and short rows of a Markov chain."""

import dataclasses
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import build
from mdmjax import data


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows of L tokens to learn from and to be judged on."""

    source: Any  # of training rows
    tokens: np.ndarray  # [N, L], held out
    scored: np.ndarray  # [N, L]
    vocabulary: data.Vocabulary
    answers: bool = False  # whether the scored tokens of a row are an answer, right or wrong
    often: tuple[int, ...] = ()  # ids of tokens that give a row its format
    unit: tuple[float, str] = (1 / math.log(2), "bits/token")  # of a bound in nats/token
    meta: dict = dataclasses.field(default_factory=dict)

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    @property
    def vocab(self) -> int:
        return self.vocabulary.size


def text(c: ConfigDict, rows: int) -> Task:
    """Windows of the Python language reference, as characters; its format: line ends; held out: its validation part."""
    corpus = data.python_docs(cache_dir=c.cache_dir or None)
    held_out = build.spaced(build.rows_of(corpus.splits["validation"], c.length, "validation"), rows)
    source = data.WindowSource(corpus.splits["train"], c.length)
    unit = (1 / math.log(2), "bits/char")
    newline = tuple(corpus.vocabulary.encode("\n").tolist())
    return Task(source, *held_out, corpus.vocabulary, often=newline, unit=unit, meta=corpus.meta)


def sums(c: ConfigDict, rows: int) -> Task:
    """Sums of two numbers, the answer to be found, the rest of the row a prompt; held out: other sums."""
    made = data.sums(c.digits)
    if not 0 < c.rows <= len(made.rows) - max(rows, 2):
        raise ValueError(f"data.rows={c.rows}: must be in 1..{len(made.rows) - max(rows, 2)}, for {rows} are held out")
    mask = np.tile(made.eligible, (len(made.rows), 1))
    source = data.RowSource(made.rows[: c.rows], mask[: c.rows], ~mask[: c.rows])
    rest = slice(c.rows, c.rows + rows if rows else None)
    meta = {"name": f"sums of {c.digits} digits", "rows": c.rows}
    return Task(source, made.rows[rest], mask[rest], made.vocabulary, answers=True, meta=meta)


def chain(rows: int, length: int, states: int, seed: int = 0) -> tuple[np.ndarray, data.Characters]:
    """(rows of a Markov chain whose transitions are Dirichlet(0.3) by the seed, from a uniform start; letters of its
    states)."""
    rng = np.random.default_rng(seed)
    upto = rng.dirichlet(np.full(states, 0.3), size=states).cumsum(1)
    tokens = np.empty((rows, length), np.int32)
    tokens[:, 0] = rng.integers(states, size=rows)
    for i in range(1, length):
        above = rng.random((rows, 1)) > upto[tokens[:, i - 1], :-1]
        tokens[:, i] = above.sum(1)
    return tokens, data.Characters("".join(chr(ord("a") + i) for i in range(states)))


def markov(c: ConfigDict, rows: int) -> Task:
    """Rows of a chain of `states` states whose transitions are Dirichlet(0.3); judged on the first of them."""
    if c.states < 2 or c.length < 2 or not 1 < (rows or c.rows) <= c.rows:
        raise ValueError(
            f"data.states={c.states}, data.length={c.length}, data.rows={c.rows}: must be at least 2, 2 and "
            f"evaluate.rows={rows} (which must be at least 2; 0: all)"
        )
    tokens, characters = chain(c.rows, c.length, c.states)
    kept = tokens[: rows or c.rows]
    meta = {"name": f"a Markov chain of {c.states} states", "rows": c.rows}
    return Task(data.RowSource(tokens), kept, np.ones(kept.shape, bool), characters, meta=meta)


TASKS = dict(text=text, sums=sums, markov=markov)
