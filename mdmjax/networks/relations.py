"""Attention along relations between positions that are known beforehand: the lines of a grid, blocks in their order."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.networks.attention import attend_seen


@dataclasses.dataclass(frozen=True)
class Relations:
    """softmax(q k^T / sqrt(d)) v, where head h sees the keys with the query's own label of relation h.

    `labels[r][i]` is that of position i; heads beyond the relations see all. With `sums` there are so many heads for
    each relation, and they do not attend: they add up v over the other positions with the label, as the messages of a
    relational network (arXiv 1711.08028), so that what is counted comes through undiluted from the first step.

    As an `Attend` for `TransformerConfig`: as many key heads as heads, rows of exactly so many positions, not causal.
    ValueError otherwise, without a head for each relation, and for sums < 0.
    """

    labels: tuple[tuple[int, ...], ...]
    sums: int = 0

    def __post_init__(self):
        if self.sums < 0:
            raise ValueError(f"Relations(sums={self.sums}): must not be negative")

    def __call__(
        self,
        q: Float[Array, "B L H d"],
        k: Float[Array, "B L N d"],
        v: Float[Array, "B L N d"],
        *,
        causal: bool = False,
        valid: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B L H d"]:
        length, heads = q.shape[1:3]
        labels, own = np.asarray(self.labels), len(self.labels) * max(self.sums, 1)
        if own > heads:
            each = max(self.sums, 1)
            raise ValueError(
                f"{len(labels)} relations need {each} heads for each of them, and there are {heads} in all"
            )
        if causal or k.shape[2] != heads or labels.shape[1] != length:
            raise ValueError(
                f"{len(labels)} relations of {labels.shape[1]} positions need so many positions (not {length}), as "
                f"many key heads as heads ({k.shape[2]} and {heads}), and attention that is not causal"
            )
        same = labels[:, :, None] == labels[:, None]
        if not self.sums:
            seen = np.ones((1, heads, length, length), bool)
            seen[0, :own] = same
            return attend_seen(q, k, v, jnp.asarray(seen) if valid is None else seen & valid[:, None, None])
        others = np.repeat(same & ~np.eye(length, dtype=bool), self.sums, 0)
        messages = v[:, :, :own] if valid is None else jnp.where(valid[:, :, None, None], v[:, :, :own], 0)
        summed = jnp.einsum("hij,bjhd->bihd", jnp.asarray(others, v.dtype), messages)
        if own == heads:
            return summed
        seen = None if valid is None else valid[:, None, None]
        return jnp.concatenate([summed, attend_seen(q[:, :, own:], k[:, :, own:], v[:, :, own:], seen)], 2)


def seen_alike(
    labels: Int[Array, "B R L"], valid: Bool[Array, "B L"], heads: int, each: int = 1
) -> Bool[Array, "B H L L"]:
    """What the heads see where relations are known from the tokens: `each` heads those of the keys with the query's own
    label of relation 0, then of 1, ...; the heads beyond see all that is `valid`. ValueError without so many heads."""
    rows, relations, length = labels.shape
    if not 0 < relations * each <= heads:
        raise ValueError(f"{each} heads for each of {relations} relations: there are {heads} in all")
    same = jnp.repeat(labels[:, :, :, None] == labels[:, :, None], each, 1)
    rest = jnp.ones((rows, heads - relations * each, length, length), bool)
    return jnp.concatenate([same, rest], 1) & valid[:, None, None]


@dataclasses.dataclass(frozen=True)
class BlockCausal:
    """softmax(q k^T / sqrt(d)) v, where a position sees its own block of `length` positions and those before it.

    As an `Attend` for `TransformerConfig`. What a block has been read out of does not change when later ones are
    written, so that keys and values can be kept (`sampling.BlockCache`). ValueError for length < 1, and where causal.
    """

    length: int

    def __post_init__(self):
        if self.length < 1:
            raise ValueError(f"BlockCausal(length={self.length}): must be at least 1")

    def __call__(
        self,
        q: Float[Array, "B L H d"],
        k: Float[Array, "B L N d"],
        v: Float[Array, "B L N d"],
        *,
        causal: bool = False,
        valid: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B L H d"]:
        if causal:
            raise ValueError("BlockCausal is for a network that is not causal: causal=False")
        groups = q.shape[2] // k.shape[2]
        seen = jnp.tile(self.sees(jnp.arange(q.shape[1]), q.shape[1]), (groups, 1))[None, None]
        return attend_seen(q, k, v, seen if valid is None else seen & valid[:, None, None])

    def sees(self, at: Int[Array, "*s"], length: int) -> Bool[Array, "*s L"]:
        """Which of `length` positions each of the positions `at` sees."""
        blocks = jnp.arange(length) // self.length
        return jnp.expand_dims(blocks, range(at.ndim)) <= at[..., None] // self.length


def grid_relations(box: int, sums: int = 0) -> Callable:
    """Attention on the n x n grid of a Sudoku, n = box^2, cell by cell: heads for rows, for columns, for boxes."""
    n = box**2
    row, column = np.divmod(np.arange(n**2), n)
    return Relations(tuple(tuple(x.tolist()) for x in (row, column, row // box * box + column // box)), sums)
