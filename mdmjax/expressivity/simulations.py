"""Causal attention by unmasked attention, and the other way round (theorems 3.3 and 3.4 of arXiv 2510.13117).

A layer is h_i + attention of i over the positions that it sees, then h_i + mlp(h_i). The simulations lay the positions
out again, and say by index arithmetic who sees whom. The layouts are ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key


class Layers(NamedTuple):
    """Parameters of L layers of width D."""

    query: Float[Array, "N D D"]
    key: Float[Array, "N D D"]
    value: Float[Array, "N D D"]
    up: Float[Array, "N D F"]
    down: Float[Array, "N F D"]

    @classmethod
    def random(cls, key: Key[Array, ""], layers: int, width: int, hidden: int) -> "Layers":
        """Standard normal, divided by the root of the fan-in. Consumes the key. ValueError for sizes below 1."""
        for name, size in dict(layers=layers, width=width, hidden=hidden).items():
            if size < 1:
                raise ValueError(f"{name}={size}: must be at least 1")
        shapes = [(width, width)] * 3 + [(width, hidden), (hidden, width)]
        keys = jax.random.split(key, len(shapes))
        return cls(*(jax.random.normal(k, (layers, *s)) / s[0] ** 0.5 for k, s in zip(keys, shapes, strict=True)))


def transform(
    layers: Layers, x: Float[Array, "S D"], sees: Bool[np.ndarray, "*n S S"] | Bool[Array, "*n S S"]
) -> Float[Array, "S D"]:
    """The states after all layers. `sees[i, j]`: i attends to j; one for all layers, or one for each."""
    for n in range(len(layers.query)):
        query, key, value, up, down = (part[n] for part in layers)
        mask = jnp.asarray(sees if sees.ndim == 2 else sees[n])
        scores = jnp.where(mask, (x @ query) @ (x @ key).T / x.shape[1] ** 0.5, -jnp.inf)
        x = x + jax.nn.softmax(scores, -1) @ (x @ value)
        x = x + jax.nn.relu(x @ up) @ down
    return x


def everyone(length: int) -> Bool[np.ndarray, "S S"]:
    """Bidirectional attention."""
    return np.ones((length, length), bool)


def earlier(length: int) -> Bool[np.ndarray, "S S"]:
    """Causal attention: i sees j <= i."""
    return np.tri(length, dtype=bool)


def copies(length: int, layers: int) -> tuple[Int[np.ndarray, "C"], Bool[np.ndarray, "C C"]]:
    """(position that each symbol copies, who sees whom) of L further copies of S tokens, in order: the first L + 1.

    Copy c >= 1 sees copy c - 1 and nothing else: all earlier, so a causal network does it. Copy 0, which has none
    before, sees itself. At layer j copies c >= j hold the state of layer j of the unmasked network; those before are
    not read again.
    """
    place = np.arange((layers + 1) * length)
    copy, first = place // length, place < length
    sees = (copy[:, None] - 1 == copy[None]) | (first[:, None] & (place[:, None] == place[None]))
    return place % length, sees


def unmasked_by_causal(layers: Layers, x: Float[Array, "S D"]) -> Float[Array, "S D"]:
    """`transform(layers, x, everyone(S))` by a causal network on (L + 1) S symbols: copy L at its end.

    L S symbols are written beyond the tokens themselves: L T (N + P) in T steps (theorem 3.4).
    """
    length, depth = len(x), len(layers.query)
    source, sees = copies(length, depth)
    return transform(layers, x[source], sees)[depth * length :]


def grid(length: int) -> tuple[Int[np.ndarray, "C"], Bool[np.ndarray, "C"], Bool[np.ndarray, "C C"]]:
    """(position that each cell copies, which cells are blank, who sees whom) of S^2 cells (i, j) = (cell div S, mod S).

    (i, j) stands for position j as row i sees it, and is blank for j > i. It sees the cells of row j that are not
    blank, (j, 0) .. (j, j): an equality of the key's row with the query's column, without any order.
    """
    row, column = np.divmod(np.arange(length**2), length)
    blank = column > row
    return column, blank, (row[None] == column[:, None]) & ~blank[None]


def causal_by_unmasked(layers: Layers, x: Float[Array, "S D"]) -> Float[Array, "S D"]:
    """`transform(layers, x, earlier(S))` by an unmasked network on S^2 cells, of which half are blank: the diagonal.

    S = N + P, so (N + P)^2 cells (theorem 3.3). Who is seen is told by positional inputs and blanks, not by a mask.
    """
    length = len(x)
    column, blank, sees = grid(length)
    cells = jnp.where(jnp.asarray(blank)[:, None], 0, x[column])
    return transform(layers, cells, sees)[np.arange(length) * (length + 1)]
