"""Targets whose law, conditionals and information curve are known: yardsticks of schedules and samplers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdmjax.analysis.information import markov_information_curve, stationary_law


def extreme_law(length: int = 5) -> Float[np.ndarray, "..."]:
    """Shape [2] * L: half a chance each for all zeros and all ones (arXiv 2509.13866, E.6). One token says all."""
    law = np.zeros((2,) * length)
    law[(0,) * length] = law[(1,) * length] = 0.5
    return law


def middle_law(length: int = 5) -> Float[np.ndarray, "..."]:
    """Shape [2] * L: uniform where the ones are half of the tokens, rounded down or up. Single tokens say little."""
    ones = np.indices((2,) * length).sum(0)
    law = np.isin(ones, (length // 2, (length + 1) // 2)).astype(float)
    return law / law.sum()


def cycle(vocab: int = 8, noise: float = 0.1) -> Float[np.ndarray, "V V"]:
    """Transitions of the chain that goes from x to x + 1 mod V, but anywhere with probability `noise`."""
    return (1 - noise) * np.roll(np.eye(vocab), 1, axis=1) + noise / vocab


@dataclasses.dataclass(frozen=True)
class MarkovChain:
    """A stationary Markov chain of L tokens, transition[x, y] = P(y after x) > 0. ValueError for other rows."""

    transition: Float[np.ndarray, "V V"]
    length: int

    def __post_init__(self):
        if not (self.transition > 0).all():
            raise ValueError("transition: each probability must be > 0")
        stationary_law(self.transition)

    @property
    def stationary(self) -> Float[np.ndarray, "V"]:
        """pi with pi P = pi."""
        return stationary_law(self.transition)

    @property
    def entropy(self) -> float:
        """H of the L tokens, in nats."""
        return float(self.information_curve()[-1])

    def information_curve(self) -> Float[np.ndarray, "L1"]:
        """h(0..L) of `analysis.information`, in closed form."""
        return markov_information_curve(self.transition, self.length)

    def log_prob(self, tokens: Int[np.ndarray, "B L"]) -> Float[np.ndarray, "B"]:
        """log P of each row, in nats."""
        return np.log(self.stationary)[tokens[:, 0]] + np.log(self.transition)[tokens[:, :-1], tokens[:, 1:]].sum(1)

    def pairs(self) -> Float[np.ndarray, "V V"]:
        """P(x, y) of two neighbours."""
        return self.stationary[:, None] * self.transition

    def denoiser(self) -> "ChainDenoiser":
        """The true conditionals."""
        powers = [np.eye(len(self.transition))]
        for _ in range(self.length):
            powers.append(powers[-1] @ self.transition)
        return ChainDenoiser(jnp.log(jnp.asarray(np.stack(powers))), jnp.log(jnp.asarray(self.stationary)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChainDenoiser:
    """p(x_i | visible) of a Markov chain, which depends on the nearest visible tokens l < i < r alone:

        p(x_i | x_l, x_r) ~ P^{i-l}[x_l, x_i] P^{r-i}[x_i, x_r],   pi(x_i) in place of the first without an l.

    Exact; the positions that are visible themselves get any logits. 2 B L V gathers and no matmul.
    """

    log_powers: Float[Array, "G V V"]  # log P^g, g = 0..L
    log_stationary: Float[Array, "V"]

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        vocab, length = self.log_stationary.shape[0], tokens.shape[1]
        places = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        seen = tokens < vocab
        upto = jax.lax.cummax(jnp.where(seen, places, -1), axis=1)
        since = jax.lax.cummin(jnp.where(seen, places, length), axis=1, reverse=True)
        left = jnp.pad(upto, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        right = jnp.pad(since, ((0, 0), (0, 1)), constant_values=length)[:, 1:]
        if at is not None:
            left, right, places = (jnp.take_along_axis(x, at, axis=1) for x in (left, right, places))
        token = lambda where: jnp.clip(
            jnp.take_along_axis(tokens, jnp.clip(where, 0, length - 1), axis=1), 0, vocab - 1
        )
        before = self.log_powers[places - left, token(left)]
        after = self.log_powers.swapaxes(1, 2)[right - places, token(right)]
        start = jnp.broadcast_to(self.log_stationary, before.shape)
        return jnp.where((left >= 0)[..., None], before, start) + jnp.where((right < length)[..., None], after, 0)
