"""Parity: learned from seven tuples, judged at any length."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.anyprocess_tasks import Problems, Questions, Rows, Task, packed
from mdmjax import anyprocess
from mdmjax.anyprocess import parity


def parity_task(c: ConfigDict, workdir: Path, progress: Callable) -> Task:
    """Parity of strings of bits. The policy learns from those of two bits, the others from all lengths up to `most`."""
    teacher = anyprocess.WindowParity()
    strings = [parity.parity_state([n >> 1, n & 1]) for n in range(4)]
    seen = anyprocess.consistent(step for s in strings for step in anyprocess.trajectory(teacher, s, 4)[0])
    tuples = packed(list(seen.items()), 3, parity.MASK)
    rng, room, tests = np.random.default_rng(c.seed), 256, {}
    for length in c.lengths:
        bits = rng.integers(0, 2, (max(c.problems // max(1, length // 1000), 4), length))
        states = [parity.parity_state(row.tolist()) for row in bits]
        odd = bits.sum(1) % 2
        right = lambda i, state, odd=odd: len(state) < 3 and teacher.answer(state) == odd[i]
        starts, tapes = [state[:room] for state in states], [state[room:] for state in states]
        tests[f"{length} bits"] = Problems(starts, right, tapes)
    return Task(
        name="parity of a string of bits", teacher=teacher, tuples=tuples, held_out=tuples, room=room, limit=2 * room,
        tests=tests, stop=lambda tokens, length, goal: length < 3, window=3, any_order=_parity_rows(c),
        autoregressive=_parity_rows(c), meta={"training tuples": len(seen)},
    )  # fmt: skip


def _parity_rows(c: ConfigDict) -> Rows:
    """Bits, `=` (2) and the answer; V = 3."""
    rng = np.random.default_rng(c.seed + 1)

    def made(bits: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(bits)
        row, answer = np.full(length, 4), np.arange(length) == n + 1
        row[: n + 2] = [*bits, 2, bits.sum() % 2]
        return row, answer

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        found = [made(rng.integers(0, 2, rng.integers(1, c.most + 1)), c.most + 2) for _ in range(count)]
        return tuple(np.stack(x) for x in zip(*found, strict=True))

    tests = {}
    for length in (10, 20, *c.beyond):
        tokens, eligible = zip(*(made(rng.integers(0, 2, length), length + 2) for _ in range(c.questions)), strict=True)
        tokens, eligible = np.stack(tokens), np.stack(eligible)
        right = lambda i, row, tokens=tokens: row[-1] == tokens[i, -1]
        tests[f"{length} bits"] = Questions(np.where(eligible, 3, tokens), right)
    return Rows(3, *rows(c.rows), rows(256), tests)
