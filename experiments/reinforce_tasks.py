"""What is rewarded: sums, alone or with their working, and countdown; an answer is right or it is not."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.fine_tuned import with_slips
from mdmjax import data
from mdmjax.objectives import policy_gradient


@dataclasses.dataclass(frozen=True)
class Problems:
    """Prompts whose answers can be checked; those of the start, the rewards and the judgement are different ones."""

    vocabulary: data.Vocabulary
    start: data.RowSource  # with an answer that the start is fine-tuned on
    prompts: data.RowSource  # to be rewarded on
    judged: tuple[np.ndarray, np.ndarray]  # (tokens, eligible) [N, L]
    reward: Callable  # (tokens [N, L], an answer [N, L], eligible [N, L]) -> [N], 1 for a right answer and 0 else
    name: str

    @property
    def length(self) -> int:
        return self.judged[0].shape[1]

    @property
    def vocab(self) -> int:
        return self.vocabulary.size


def sums(c: ConfigDict) -> Problems:
    """Sums, without working: right is the sum. Of what the start reads, a share has a slip of the carry."""
    sizes, made = _made(c, lambda rows, digits: _first(data.sums(digits), rows), c.digits)
    read = with_slips(c.slips, made.rows[: sizes[0]], data.carry_slips(made.rows[: sizes[0]]))
    rows = np.concatenate([read, made.rows[sizes[0] :]])
    return _problems(rows, made, sizes, policy_gradient.exact, f"sums of {c.digits} digits")


def workings(c: ConfigDict) -> Problems:
    """Sums with their working: right where working and sum are. Of what the start reads, a share has a slip."""
    sizes, made = _made(c, data.workings, c.digits)
    read = with_slips(c.slips, made.right[: sizes[0]], made.slipped[: sizes[0]])
    rows = np.concatenate([read, made.right[sizes[0] :]])
    return _problems(rows, made, sizes, policy_gradient.exact, f"sums of {c.digits} digits with their working")


def _first(made: data.Sums, rows: int) -> data.Sums:
    if rows > len(made.rows):
        raise ValueError(f"there are {len(made.rows)} such sums")
    return made._replace(rows=made.rows[:rows])


def countdown(c: ConfigDict) -> Problems:
    """Countdown: right is every expression that reaches the target."""
    sizes, made = _made(c, data.countdown, c.numbers)
    reward = lambda tokens, answer, eligible: data.reaches(tokens).astype(np.float32)
    return _problems(made.rows, made, sizes, reward, f"countdown of {c.numbers} numbers")


def _made(c: ConfigDict, make: Callable, size: int) -> tuple[tuple[int, ...], Any]:
    """(how many problems of each use, the problems of all). ValueError that names the fields."""
    sizes = c.rows, c.prompts, c.judged
    try:
        return sizes, make(sum(sizes), size)
    except ValueError as error:
        raise ValueError(f"data.rows + data.prompts + data.judged = {sum(sizes)}: {error}") from None


def _problems(rows: np.ndarray, made, sizes: tuple[int, ...], reward: Callable, name: str) -> Problems:
    parts = [(x, np.broadcast_to(made.eligible, x.shape)) for x in np.split(rows, np.cumsum(sizes)[:-1])]
    return Problems(
        made.vocabulary, data.RowSource(*parts[0]), data.RowSource(*parts[1]), parts[2], reward, name
    )  # fmt: skip


TASKS = dict(sums=sums, workings=workings, countdown=countdown)
