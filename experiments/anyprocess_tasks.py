"""What the any-process experiments are about: problems whose answers are right or wrong, and teachers that solve them.

A task has tuples (state, move) of its teacher for the policy, and the same problems as rows, a prompt and an answer,
for the models that it is compared with. Training problems and those of every test are different ones, unless a test is
called "train".
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdmjax import anyprocess
from mdmjax.anyprocess.teachers import Move, State


@dataclasses.dataclass(frozen=True)
class Problems:
    """Problems for the policy. `right(i, state)` says whether a last state answers problem i."""

    starts: Sequence[State]
    right: Callable[[int, State], bool] | None
    tapes: Sequence[State] | None = None  # what comes behind each start once the policy has stopped there
    goal: int = 0  # given to the task's `stop`
    also: Callable[[list[State]], dict[str, float]] | None = None  # what else the last states say


@dataclasses.dataclass(frozen=True)
class Questions:
    """The same problems as rows [P, L] with masks where the answer is to be. `right(i, row)` judges the filled row."""

    canvas: np.ndarray
    right: Callable[[int, np.ndarray], bool]
    also: Callable[[np.ndarray], dict[str, float]] | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a model that fills masks, or one that writes from left to right, learns from; PAD is V + 1."""

    vocab: int
    tokens: np.ndarray  # [R, L]
    eligible: np.ndarray  # the answer
    held_out: tuple[np.ndarray, np.ndarray]  # (tokens, eligible) of other problems
    tests: Mapping[str, Questions]
    relations: Any = None  # an `Attend` along the lines of a grid
    places: bool = False

    @functools.cached_property  # asked for by each batch
    def lengths(self) -> np.ndarray:
        """Tokens of each training row."""
        return (self.tokens != self.vocab + 1).sum(1)

    def __len__(self) -> int:
        return len(self.tokens)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"tokens": self.tokens[indices].astype(np.int32), "eligible": self.eligible[indices]}


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with a teacher."""

    name: str
    teacher: Any
    tuples: dict[str, np.ndarray]  # to learn from, as `anyprocess.padded` makes them
    held_out: dict[str, np.ndarray]  # of problems of their own
    room: int  # positions of a canvas
    limit: int  # steps
    tests: Mapping[str, Problems]
    stop: Callable | None = None  # stop(tokens, length, goal)
    end: int | None = None
    window: int = 0  # tokens that the policy looks at; 0: all
    patch: int = 1
    places: bool = False
    relations: Any = None
    relate: Callable | None = None  # relations that are known from the tokens
    near: int = 0  # tokens on either side that are embedded with each
    objective: Any = None  # in place of that of the teacher's tuples
    any_order: Rows | None = None
    autoregressive: Rows | None = None
    strings: Sequence[str] | None = None  # of the tokens, as the trace shows them
    meta: dict = dataclasses.field(default_factory=dict)

    @property
    def shown(self) -> Sequence[str]:
        """A text for each token."""
        return self.strings or [name if len(name) == 1 else f"{name} " for name in self.teacher.names]

    @property
    def vocab(self) -> int:
        return len(self.teacher.names)

    @property
    def length(self) -> int:
        """Tokens of the longest training row."""
        return self.tuples["tokens"].shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each training row."""
        return self.tuples["lengths"]

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return widened({name: x[indices] for name, x in self.tuples.items()})


def packed(tuples: Sequence[tuple[State, Move]], length: int, mask: int) -> dict[str, np.ndarray]:
    """`anyprocess.padded` in bytes: millions of tuples fit into memory."""
    found = anyprocess.padded(tuples, length, mask)
    return {name: x if x.dtype == bool or name == "lengths" else x.astype(np.int8) for name, x in found.items()}


def widened(tuples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As the losses take them."""
    return {name: x if x.dtype == bool else x.astype(np.int32) for name, x in tuples.items()}


def spread(rows: Mapping[str, np.ndarray], size: int, most: int) -> Iterator[dict[str, Array]]:
    """At most so many batches of the rows, evenly spaced among them, for they are in the order of their problems."""
    count = len(next(iter(rows.values())))
    size = min(size, count)
    used = min(count // size, most) * size
    for part in (np.arange(used) * count // used).reshape(-1, size):
        batch = widened({name: x[part] for name, x in rows.items()})
        yield {name: jnp.asarray(x) for name, x in batch.items()} | {"ids": jnp.asarray(part, jnp.int32)}


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tuples of all parts; nothing of none."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def with_halt(steps: Sequence[tuple[State, Move]], last: State, mask: int, copies: int) -> list[tuple[State, Move]]:
    """The tuples of a trajectory, and `copies` that teach to stay at its end."""
    return [*steps, *[(last, anyprocess.make_move(last, mask))] * copies]
