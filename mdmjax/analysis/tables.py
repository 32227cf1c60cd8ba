"""Denoisers that are tables of logits over all (V+1)^L partially masked sequences: the test objects of everything
exact.

The state of a sequence is its tokens read as a number in base V + 1, position 0 the most significant digit, the mask
being the digit V.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TableDenoiser:
    """The `SplitDenoiser` that looks its logits up; time-free. Differentiable in the table."""

    table: Float[Array, "S L V"]  # S = (V + 1)^L

    def features(self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None) -> Float[Array, "B L V"]:
        length, vocab = self.table.shape[1:]
        places = jnp.asarray((vocab + 1) ** np.arange(length)[::-1])
        return self.table[(tokens * places[None]).sum(1)]

    def readout(self, features: Float[Array, "*n V"]) -> Float[Array, "*n V"]:
        return features

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        logits = self.features(tokens, t)
        return logits if at is None else jnp.take_along_axis(logits, at[:, :, None], axis=1)


def table_denoiser(table: Float[Array, "S L V"] | Float[np.ndarray, "S L V"]) -> TableDenoiser:
    """A denoiser from logits [(V+1)^L, L, V], a NumPy or JAX array. Raises ValueError for any other shape."""
    length, vocab = table.shape[1:]
    if table.shape[0] != (vocab + 1) ** length:
        raise ValueError(f"table {list(table.shape)}: the first axis must be (V+1)^L = {(vocab + 1) ** length}")
    return TableDenoiser(jnp.asarray(table))


def random_table(key: Key[Array, ""], length: int, vocab: int, scale: float = 1.0) -> Float[Array, "S L V"]:
    """Independent normal logits of standard deviation `scale`: conditionals of no joint law. Consumes the key."""
    return scale * jax.random.normal(key, ((vocab + 1) ** length, length, vocab))


def all_states(length: int, vocab: int) -> Int[np.ndarray, "S L"]:
    """Every partially masked sequence [(V+1)^L, L], in the order of a table's first axis."""
    return np.indices((vocab + 1,) * length).reshape(length, -1).T


def true_conditionals(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "S L V"]:
    """Logits [(V+1)^L, L, V] = log p(x_i = v | visible tokens), float64, for a joint law p of shape [V] * L.

    Uniform where the visible tokens have probability 0, and at visible positions (which no one may read).
    """
    length, vocab = p.ndim, p.shape[0]
    p = np.asarray(p, np.float64)
    table = np.zeros(((vocab + 1) ** length, length, vocab))
    for state, logits in zip(all_states(length, vocab), table, strict=True):
        for i in np.flatnonzero(state == vocab):
            seen = tuple(slice(None) if j == i or x == vocab else slice(x, x + 1) for j, x in enumerate(state))
            joint = p[seen].sum(tuple(j for j in range(length) if j != i))
            if joint.sum() > 0:
                with np.errstate(divide="ignore"):
                    logits[i] = np.log(joint / joint.sum())
    return table
