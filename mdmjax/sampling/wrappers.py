"""Denoisers made of others, for any planner: guidance, and exact conditionals where a token stands."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdmjax.base import Denoiser


def passes(denoiser: Denoiser, asked: int) -> int:
    """Forward passes of one call at so many positions of each row: 1 where the denoiser does not say (`passes`)."""
    return getattr(denoiser, "passes", lambda asked: 1)(asked)


@dataclasses.dataclass(frozen=True, eq=False)
class Guided:
    """Unsupervised classifier-free guidance (arXiv 2410.18514): logits (1 + w) conditional - w unconditional.

    The unconditional ones are those of the row with its prompt masked: what stands at `given` [B, L] (for a canvas that
    is completed: `tokens != vocab`), but for padding. w = `weight`; 0 is the denoiser itself, -1 forgets the prompt.
    A token that is impossible (-inf) by either is impossible, unless none is left: then the conditional logits stand.
    Two calls of the denoiser for each call, one where w = 0, and so in `Samples.passes`. ValueError for a weight that
    is not finite or below -1.
    """

    denoiser: Denoiser
    given: Bool[Array, "B L"]
    vocab: int
    weight: float = 1.0

    def __post_init__(self):
        if not -1 <= self.weight < math.inf:
            raise ValueError(f"Guided(weight={self.weight}): weight must be finite and >= -1 (0 is no guidance)")

    def passes(self, asked: int) -> int:
        return (1 if self.weight == 0 else 2) * passes(self.denoiser, asked)

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        told = self.denoiser(tokens, t, at=at)
        if self.weight == 0:
            return told
        free = self.denoiser(jnp.where(self.given & (tokens < self.vocab), self.vocab, tokens), t, at=at)
        possible = ~(jnp.isneginf(told) | jnp.isneginf(free))
        guided = jnp.where(possible, (1 + self.weight) * told - self.weight * free, -jnp.inf)
        return jnp.where(possible.any(-1, keepdims=True), guided, told)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskOne:
    """log p(x_i | all others) at each position: the denoiser's logits there with that position masked.

    At masks they are the denoiser's own. For planners that look where tokens stand (`InformedCorrector`), about a
    network that sees its own position there. One call of the denoiser with K rows for each row, K being the number of
    positions asked (L if `at` is not given): the exact reference, at K times the cost, and so in `Samples.passes`.
    """

    denoiser: Denoiser
    vocab: int

    def passes(self, asked: int) -> int:
        return asked * passes(self.denoiser, 1)

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        batch, length = tokens.shape
        at = jnp.broadcast_to(jnp.arange(length), tokens.shape) if at is None else at
        here = (at[:, :, None] == jnp.arange(length)[None, None]) & (tokens < self.vocab)[:, None]
        rows = jnp.where(here, self.vocab, tokens[:, None]).reshape(-1, length)
        times = None if t is None else jnp.repeat(t, at.shape[1])
        logits = self.denoiser(rows, times, at=at.reshape(-1, 1))
        return logits.reshape(batch, at.shape[1], logits.shape[-1])
