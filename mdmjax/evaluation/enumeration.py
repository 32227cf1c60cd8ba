"""The bound of short answers without any noise: all masks are scored."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mdmjax.base import Denoiser
from mdmjax.objectives import dense


@dataclasses.dataclass(frozen=True)
class EnumeratedScorer:
    """`scorer(denoiser, batch, key) -> nats [B, 1]`: the negative ELBO of each row, exactly, as `Scorer` estimates it.

        sum_{l=1}^{L} (1 / l) mean over the masks that hide l of the L scored tokens of their summed cross-entropy,

    for denoisers that know no time, and rows of at most `most` scored tokens: 2^most calls, one after the other. Rows
    with more give nan, those without any 0. The key is not read. ValueError for `most` outside 1..10.
    """

    vocab: int
    most: int = 10
    nll: Callable = dense

    def __post_init__(self):
        if not 1 <= self.most <= 10:
            raise ValueError(f"EnumeratedScorer(most={self.most}): must be in 1..10, for 2^most masks are scored")

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""] | None) -> Float[Array, "B 1"]:
        tokens, scored = batch["tokens"], batch["scored"]
        size, rank = scored.sum(1), jnp.cumsum(scored, axis=1) - 1
        subsets = (np.arange(1, 2**self.most)[:, None] >> np.arange(self.most)) & 1 == 1
        table = np.zeros((self.most + 1, self.most + 1))  # [L, l]: 1 / (l C(L, l))
        for length in range(1, self.most + 1):
            table[length, 1 : length + 1] = [1 / (n * math.comb(length, n)) for n in range(1, length + 1)]

        def one(total, subset):
            hidden = subset[jnp.minimum(rank, self.most - 1)] & scored & (rank < self.most)
            count = subset.sum()
            inside = jnp.where(jnp.arange(self.most)[None] < size[:, None], True, ~subset[None]).all(1)
            losses = self.nll(denoiser, jnp.where(hidden, self.vocab, tokens), None, tokens, hidden).sum(1)
            share = jnp.asarray(table, losses.dtype)[jnp.minimum(size, self.most), count]
            return total + jnp.where(inside, share * losses, 0), None

        start = jnp.zeros(len(tokens), jnp.result_type(float))
        total, _ = jax.lax.scan(one, start, jnp.asarray(subsets))
        return jnp.where(size > self.most, jnp.nan, total)[:, None]
