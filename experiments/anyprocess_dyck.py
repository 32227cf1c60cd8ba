"""Two-sided Dyck words: a policy inserts pairs anywhere, the other models write or fill words of the same law."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.anyprocess_tasks import Problems, Questions, Rows, Task, packed
from mdmjax import anyprocess
from mdmjax.anyprocess import dyck
from mdmjax.anyprocess.teachers import State, apply

ENUMERATED = 6  # letters of words that are counted one by one


def dyck_task(c: ConfigDict, workdir: Path, progress: Callable) -> Task:
    """Words over k generators and their inverses that reduce to nothing, from derivations of words up to `most`."""
    if not c.letters or min(c.letters) < 0 or any(n % 2 for n in c.letters):
        raise ValueError(f"data.letters={tuple(c.letters)}: even numbers, of which there is at least one")
    teacher = anyprocess.Dyck(c.generators, bits=True)
    rng, mask = np.random.default_rng(c.seed), teacher.mask
    tuples, words = [], []
    for _ in range(c.rows):
        state: State = (dyck.BOS,)
        goal = 2 * int(rng.integers(c.most // 2 + 1))
        while mask in state or len(state) <= c.most:
            if mask not in state and len(state) == 1 + goal:
                words.append(state[1:])
            move = teacher.draw(rng, state)
            tuples.append((state, move))
            state = apply(state, move, mask)
        if goal + 1 > c.most:
            words.append(state[1:])
    room, cut = c.most + 4, len(tuples) * 9 // 10
    tests = {f"{n} letters": _problems(teacher, n, c.problems) for n in c.letters}
    rows = _rows(teacher, words, c)
    stop = lambda tokens, length, goal: (length >= goal) & ~(tokens == mask).any()
    return Task(
        name=f"two-sided Dyck-{c.generators}", teacher=teacher, tuples=packed(tuples[:cut], room, mask),
        held_out=packed(tuples[cut:], room, mask), room=max(c.letters) + 5, limit=c.limit, tests=tests,
        stop=stop, any_order=rows, autoregressive=rows,
        meta={"derivations": c.rows, "letters of the longest": c.most},
    )  # fmt: skip


def all_words(generators: int, letters: int) -> set[State]:
    """The words of so many letters that reduce to nothing, by trying them all."""
    return {w for w in itertools.product(range(1, 2 * generators + 1), repeat=letters) if dyck.reduces(w)}


def found_of(generators: int, words: Sequence[State], lengths: Iterable[int]) -> dict[str, float]:
    """How many of all the words of each length that is small are among these."""
    out, mine = {}, set(words)
    for n in lengths:
        if n <= ENUMERATED:
            every = all_words(generators, n)
            out[f"of the {len(every)} words of {n} letters, %"] = 100 * len(mine & every) / len(every)
    return out


def _problems(teacher: anyprocess.Dyck, letters: int, count: int) -> Problems:
    mine = lambda state: len(state) == 1 + letters and teacher.mask not in state
    return Problems(
        [(dyck.BOS,)] * (count if letters else 1),
        lambda i, state: mine(state) and dyck.reduces(state[1:]),
        goal=1 + letters,
        also=lambda states: found_of(teacher.generators, [state[1:] for state in states if mine(state)], [letters]),
    )


def _rows(teacher: anyprocess.Dyck, words: Sequence[State], c: ConfigDict) -> Rows:
    """Letters 0..2k-1, then the token 2k to the end of the row."""
    end = 2 * teacher.generators
    tokens = np.full((len(words), c.most + 1), end)
    for i, word in enumerate(words):
        tokens[i, : len(word)] = np.array(word, int) - 1
    eligible, cut = np.ones(tokens.shape, bool), len(words) * 9 // 10

    def word(row: np.ndarray) -> State:
        ends = np.flatnonzero(row == end)
        return tuple((row[: ends[0] if len(ends) else len(row)] + 1).tolist())

    right = lambda i, row: dyck.reduces(word(row)) and (row[len(word(row)) :] == end).all() and row[-1] == end
    count = c.problems * max(sum(n > 0 for n in c.letters), 1)
    also = lambda rows: found_of(teacher.generators, [word(row) for row in rows], range(0, c.most + 1, 2))
    tests = {f"up to {c.most} letters": Questions(np.full((count, c.most + 1), end + 1), right, also)}
    return Rows(end + 1, tokens[:cut], eligible[:cut], (tokens[cut:], eligible[cut:]), tests)
