"""Attention along relations between positions that are known beforehand, such as the rows and columns of a grid."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdmjax.networks.attention import attend_seen


@dataclasses.dataclass(frozen=True)
class Relations:
    """softmax(q k^T / sqrt(d)) v, where head h sees the keys with the query's own label of relation h.

    `labels[r][i]` is that of position i; heads beyond the relations see all. As an `Attend` for `TransformerConfig`: as
    many key heads as heads, rows of exactly so many positions, not causal. ValueError otherwise, and without a head for
    each relation.
    """

    labels: tuple[tuple[int, ...], ...]

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
        labels = np.asarray(self.labels)
        if causal or k.shape[2] != heads or labels.shape[1] != length or len(labels) > heads:
            raise ValueError(
                f"{len(labels)} relations of {labels.shape[1]} positions need so many positions (not {length}), a head "
                f"for each (not {heads}), as many key heads (not {k.shape[2]}), and attention that is not causal"
            )
        seen = np.ones((1, heads, length, length), bool)
        seen[0, : len(labels)] = labels[:, :, None] == labels[:, None]
        return attend_seen(q, k, v, jnp.asarray(seen) if valid is None else seen & valid[:, None, None])


def grid_relations(box: int) -> Callable:
    """Attention on the n x n grid of a Sudoku, n = box^2, cell by cell: a head for rows, for columns, for boxes."""
    n = box**2
    row, column = np.divmod(np.arange(n**2), n)
    return Relations(tuple(tuple(x.tolist()) for x in (row, column, row // box * box + column // box)))
