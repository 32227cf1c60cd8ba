"""Draws for decoding block by block: what is before a block is visible, what is behind it hidden."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.draws import Law, Rates
from mdmjax.process.schedules import Linear
from mdmjax.process.spreads import MASKS, row_keys, systematic


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BlockCounts(Law):
    """A block of the eligible tokens, a uniform subset of l of its n tokens hidden, and all that is behind it.

    Blocks are `block` tokens long, the last one what is left. k ~ U{0..L-1} says both: block k // block with
    probability n / L, l = 1 + k mod block ~ U{1..n}. The l tokens are scored with weight L / l, what is behind them is
    not. The mean is sum_b B_b, B_b the exact-count bound of a block given all before it with all behind it hidden: a
    bound on log p as well, ANOTHER one than that of `ExactCount`, which it is for block >= L; for block = 1 it is the
    log-likelihood from left to right. The denoiser is told the time of a rate given the count in the block. The block
    mask of SPG (arXiv 2510.09541). ValueError for block < 1.
    """

    block: int
    spread: Callable = systematic
    schedule: Schedule = Linear()

    def __post_init__(self):
        if self.block < 1:
            raise ValueError(f"BlockCounts(block={self.block}): must be at least 1")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """k of each row."""
        size = jnp.maximum(eligible.sum(1), 1)
        spread = self.spread(key, ids, batch)
        place = spread.integers(size)
        weights = jnp.where(eligible.any(1), size / (1 + place % self.block), 0.0)
        return Rates(place, weights, None, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        chosen, count = rates.value // self.block, 1 + rates.value % self.block
        of = jnp.where(eligible, (jnp.cumsum(eligible, axis=1) - 1) // self.block, -1)  # block of each token
        inside = of == chosen[:, None]
        places = jax.vmap(lambda k: jax.random.uniform(k, eligible.shape[1:]))(row_keys(key, MASKS, ids))
        rank = jnp.argsort(jnp.argsort(jnp.where(inside, places, jnp.inf), axis=1), axis=1)
        scored = (rank < count[:, None]) & inside
        rate = jnp.where(scored, places, 0).max(1)
        weights = jnp.where(scored, rates.weights[:, None], 0.0)
        t = self.schedule.inverse(1 - rate, rate)
        return Draws(ids, t, scored | (of > chosen[:, None]), weights.astype(t.dtype), rates.groups, "block_counts")
