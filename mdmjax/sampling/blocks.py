"""Semi-autoregressive sampling: blocks from left to right, any planner inside each."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, Shaped

from mdmjax.base import KEEP, Planner, Turn


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`planner` on blocks of `length` positions, from left to right: each is filled before the next is begun.

    The semi-autoregressive sampling of LLaDA (arXiv 2502.09992). Counts are those of a block, so a planner of T steps
    takes up to T calls in each; what a prompt leaves of a block is what it plans for, and a block without masks costs
    no call. The denoiser sees the whole row, at the time (blocks to come + t) / blocks, with the planner's t. The last
    block is shorter where `length` does not divide L. Steps are counted over all blocks. One block is the planner
    itself, up to its key; blocks of one position are `LeftToRight`. ValueError for length < 1.
    """

    planner: Planner
    length: int

    def __post_init__(self):
        if self.length < 1:
            raise ValueError(f"Blocks(length={self.length}): length must be >= 1")

    @property
    def score(self):
        return getattr(self.planner, "score", None)

    @property
    def judge(self):
        return getattr(self.planner, "judge", None)

    def calls(self, length: int) -> int:
        return self._count(length) * self.planner.calls(self.length)

    def width(self, length: int) -> int:
        return min(self.planner.width(self.length), length)

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Any:
        parts = self._cut(open)
        return jax.vmap(self.planner.init)(jax.random.split(key, len(parts)), parts)

    def turn(self, state: Any, open: Bool[Array, "L"]) -> Turn:
        parts = self._cut(open)
        turns = jax.vmap(self.planner.turn)(state, parts)
        now = _first(turns.candidates)  # the first block that goes on
        turn = _at(turns, now)
        t = (len(parts) - 1 - now + turn.t) / len(parts)
        return Turn(turn.step + now * self._steps(), t, self._put(open.shape[0], now, turn.candidates, False))

    def choose(self, state: Any, turn: Turn, confidence: Any) -> tuple[Int[Array, "L"], Any]:
        candidates = self._cut(turn.candidates)
        now, count = _first(candidates), len(candidates)
        inner = Turn(turn.step - now * self._steps(), turn.t * count - (count - 1 - now), candidates[now])
        told = jax.tree.map(lambda x: self._cut(x)[now], confidence)
        operations, after = self.planner.choose(_at(state, now), inner, told)
        state = jax.tree.map(lambda all, one: all.at[now].set(one), state, after)
        return self._put(turn.candidates.shape[0], now, operations, KEEP), state

    # ---- parts

    def _steps(self) -> int:
        """Steps of the planner in a block: T, or as many as there are positions."""
        return getattr(self.planner, "steps", None) or self.length

    def _count(self, length: int) -> int:
        return -(-length // self.length)

    def _cut(self, row: Shaped[Array, "L"]) -> Shaped[Array, "N b"]:
        """The blocks of a row, the last filled up with zeros."""
        count = self._count(row.shape[0])
        return jnp.pad(row, (0, count * self.length - row.shape[0])).reshape(count, self.length)

    def _put(self, length: int, now: Int[Array, ""], block: Shaped[Array, "b"], elsewhere) -> Shaped[Array, "L"]:
        """A row with the block in its place."""
        rows = jnp.full((self._count(length), self.length), elsewhere, block.dtype)
        return rows.at[now].set(block).reshape(-1)[:length]


def _first(parts: Bool[Array, "N b"]) -> Int[Array, ""]:
    """The first block with a position that is marked; 0 where none is."""
    return jnp.argmax(parts.any(1))


def _at(state: Any, now: Int[Array, ""]) -> Any:
    return jax.tree.map(lambda x: x[now], state)
