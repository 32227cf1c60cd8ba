"""Text that puts itself right: a policy learns from clean text alone to fill, to take back, to insert, to delete."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.anyprocess_arms import PolicyArm
from experiments.anyprocess_tasks import Problems, Task
from mdmjax import anyprocess, data, evaluation, process, sampling, training
from mdmjax.anyprocess import corruptions
from mdmjax.anyprocess.teachers import State

ROUNDS = 8  # steps of putting right
DECISIONS = {"wrong letters": "remask", "missing letters": "insert", "surplus masks": "delete"}  # by test


@dataclasses.dataclass(frozen=True)
class TextTask(Task):
    """A task without a teacher: clean windows to learn from."""

    marks: Mapping[str, list[np.ndarray]] = dataclasses.field(
        default_factory=dict
    )  # of each test: 1 at a fault, -1: skip
    train: np.ndarray | None = None  # the training text


def text_task(c: ConfigDict, workdir: Path, progress: Callable) -> TextTask:
    """Windows of the Python language reference, as characters, with faults of one kind in each test."""
    if len(c.rates) != 3:
        raise ValueError(f"data.rates={tuple(c.rates)}: must be three, of wrong, missing and surplus letters")
    corpus = data.python_docs(cache_dir=c.cache_dir or None)
    size = corpus.vocabulary.size
    names = [corpus.vocabulary.decode(np.array([i])) for i in range(size)]
    windows = data.WindowSource(corpus.splits["train"], c.length, stride=c.stride)
    tokens = windows.gather(np.arange(len(windows)))["tokens"]
    held_out, _ = data.evaluation_windows(corpus.splits["validation"], c.length)
    held_out = held_out[np.arange(c.problems) * len(held_out) // c.problems]
    rng = np.random.default_rng(c.seed)
    tests, marks = {}, {}
    for name, fault in dict(zip(DECISIONS, (_wrong, _missing, _surplus), strict=True)).items():
        rows, marks[name] = zip(*(fault(rng, row, c.faults, size) for row in held_out), strict=True)
        tests[name] = _problems(rows, held_out)
    rows = lambda x: {"tokens": x.astype(np.int16), "lengths": np.full(len(x), c.length, np.int32)}
    apart = (corruptions.unmask(), corruptions.remask(), corruptions.insert())
    kinds = dict(
        mixed=(corruptions.mixed(**dict(zip(("wrong", "drop", "surplus"), c.rates, strict=True))),),
        separate=(*apart, corruptions.delete()),
        released=(*apart, corruptions.delete(labels="iid")),
    )
    return TextTask(
        name="text that puts itself right", teacher=SimpleNamespace(names=tuple(names)), tuples=rows(tokens),
        held_out=rows(held_out), room=2 * c.length, limit=ROUNDS, tests=tests, marks=marks,
        train=corpus.splits["train"],
        objective=anyprocess.SelfSupervised(size, build.choose(c.corruption, "data.corruption", kinds)),
        meta=corpus.meta | {"rate of faults": c.faults},
    )  # fmt: skip


# A row with faults, and where they are.


def _wrong(rng: np.random.Generator, row: np.ndarray, rate: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    new = np.where(rng.random(len(row)) < rate, rng.integers(0, size, len(row)), row)
    return new, (new != row).astype(int)


def _missing(rng: np.random.Generator, row: np.ndarray, rate: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The mark is at the letter before a gap."""
    kept = (rng.random(len(row)) >= rate) | (np.arange(len(row)) == 0)
    return row[kept], np.append(~kept[1:], False)[kept].astype(int)


def _surplus(rng: np.random.Generator, row: np.ndarray, rate: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Some letters are masked, and other masks stand in between; of neighbours the last are the surplus ones."""
    masked = np.where(rng.random(len(row)) < rate, size, row)
    more = np.flatnonzero(rng.random(len(row)) < rate) + 1
    new, added = np.insert(masked, more, size), np.insert(np.zeros(len(row), int), more, 1)
    marks = np.full(len(new), -1)
    for run in np.split(np.flatnonzero(new == size), np.flatnonzero(np.diff(np.flatnonzero(new == size)) > 1) + 1):
        marks[run] = np.sort(added[run])
    return new, marks


def distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Levenshtein's: the least number of insertions, deletions and substitutions that lead from a to b."""
    line = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        best = np.minimum(line[1:] + 1, line[:-1] + (np.asarray(b) != x))
        # insertions go along the line: min over k <= j of best_k + (j - k)
        before = np.concatenate([[i], best]) - np.arange(len(b) + 1)
        line = np.minimum.accumulate(before) + np.arange(len(b) + 1)
    return int(line[-1])


def _problems(faulty: Sequence[np.ndarray], clean: np.ndarray) -> Problems:
    starts = [tuple(row.tolist()) for row in faulty]
    wrong = lambda states: 100 * np.mean([distance(s, row) / len(row) for s, row in zip(states, clean, strict=True)])
    before = wrong(starts)
    return Problems(
        starts,
        lambda i, state: state == tuple(clean[i].tolist()),
        also=lambda states: {"edits to the clean text before, %": before, "after, %": wrong(states)},
    )


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """P(the score of a fault is above that of what is none), ties counting one half; nan where there are none."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ordered = scores[order]
    first = np.searchsorted(ordered, ordered, side="left")
    last = np.searchsorted(ordered, ordered, side="right")
    ranks[order] = (first + last + 1) / 2
    ones = labels.sum()
    if not 0 < ones < len(labels):
        return math.nan
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * (len(labels) - ones)))


class TextArm(PolicyArm):
    """Judged also on what its decisions know, and on its own samples, before and after it has put them right."""

    def measure(self, params: Any, folder: Path | None = None) -> dict[str, dict[str, Any]]:
        lines = super().measure(params, folder)
        for test, decision in DECISIONS.items():
            lines[test]["policy"]["also"][f"AUC of {decision}"] = self._knows(params, test)
        return lines | {"samples": self._samples(params)}

    def _knows(self, params: Any, test: str) -> float:
        """How well the logits of the decision tell faulty positions from the others."""
        problems, column = self.task.tests[test], anyprocess.CONTROLS.index(DECISIONS[test])
        canvas = anyprocess.canvas_of(problems.starts, self.task.room, vocab=self.task.vocab)
        _, controls = jax.jit(lambda params, canvas: self.policy(params)(canvas.tokens, canvas.lengths))(params, canvas)
        marks = self.task.marks[test]
        scores = [np.asarray(controls[i, : len(mark), column])[mark >= 0] for i, mark in enumerate(marks)]
        return area_under_curve(np.concatenate(scores), np.concatenate([mark[mark >= 0] == 1 for mark in marks]))

    def _samples(self, params: Any) -> dict[str, dict[str, Any]]:
        """Text from masks, in one call and a token a call, as it is and put right, judged by an n-gram model."""
        length, vocab = self.task.length, self.task.vocab
        grams = evaluation.ngrams.fit(self.task.train, vocab)
        key = build.key(self.config.seed, training.SAMPLING)

        def denoiser(tokens, t=None, *, at=None):
            logits, _ = self.policy(params)(tokens, jnp.full(len(tokens), length))
            return logits if at is None else jnp.take_along_axis(logits, at[..., None], 1)

        def judged(states: Sequence[State], calls: int) -> dict[str, Any]:
            text = [np.array([x for x in state if x < vocab], int) for state in states]
            nats = -np.log(np.concatenate([grams.probabilities(row)[-1] for row in text]))
            share = np.bincount(np.concatenate(text), minlength=vocab) / sum(map(len, text))
            also = {
                "order-4 n-gram, bits/char": float(nats.mean() / math.log(2)),
                "entropy of its characters, bits": float(-(share[share > 0] * np.log2(share[share > 0])).sum()),
            }
            return {"right": [], "calls": calls, "also": also}

        out, linear = {}, process.Linear()
        planners = {"one call": sampling.RandomCount(linear, 1), "a token a call": sampling.FirstHitting(linear)}
        canvas = jnp.full((min(self.config.data.problems, 64), length), vocab)
        for name, planner in planners.items():
            sample = lambda canvas, planner=planner: sampling.sample(denoiser, planner, canvas, vocab=vocab, key=key)
            drawn = jax.jit(sample)(canvas)
            states, calls = [tuple(row.tolist()) for row in np.asarray(drawn.tokens)], int(drawn.calls)
            again = self.solve(params, Problems(states, None))
            out[name] = judged(states, calls)
            out[f"{name}, then put right"] = judged(again.states, calls + again.calls)
        return out
