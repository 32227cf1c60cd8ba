"""SPG (arXiv 2510.09541): a lower bound for what is to become likelier, an upper one for what is to become rarer."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.process import Allocation, ExactCount, Law


@dataclasses.dataclass(frozen=True)
class SPG:
    """Loss -A S. For A > 0, S is the mean over the draws of the mean log p of masked tokens, times L; for A < 0

        U = (1 / beta) sum_i log mean_j [ m_ij p_ij^beta / r_j ],   r_j the share that draw j masks,

    over the tokens that any draw masks; with `mixture` w the mean w U + (1 - w) S instead.

    S is unbiased for the bound where counts are uniform (`ExactCount`). U is not an unbiased estimate of anything that
    it is meant to be: it is the logarithm of a mean of few draws, over the tokens that they mask and not over all. Its
    limit for many draws is an upper bound of Renyi's kind on sum_i log p_i under random masks. No ratio, no KL.
    ValueError unless beta >= 1 and 0 <= mixture <= 1.
    """

    beta: float = 1.5
    mixture: float = 1.0
    allocation: Allocation = Allocation(4)
    law: Law = ExactCount()

    def __post_init__(self):
        if not self.beta >= 1:
            raise ValueError(f"SPG(beta={self.beta}): must be at least 1")
        if not 0 <= self.mixture <= 1:
            raise ValueError(f"SPG(mixture={self.mixture}): must be in [0, 1]")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        return self.allocation.draw(self.law, key, ids, eligible)

    def surrogate(self, log_p, draws, eligible, advantages) -> Float[Array, "B"]:
        size, masked = eligible.sum(1), draws.masks.sum(2)
        lower = (log_p.sum(2) / jnp.maximum(masked, 1)).mean(0) * size
        rate = masked / jnp.maximum(size, 1)[None]
        each = jnp.where(draws.masks, self.beta * log_p - jnp.log(jnp.where(masked > 0, rate, 1))[..., None], -jnp.inf)
        any_ = draws.masks.any(0)
        safe = jnp.where(any_[None], each, 0.0)  # no gradient through -inf - -inf
        upper = jax.nn.logsumexp(safe, axis=0) - math.log(len(log_p))
        upper = jnp.where(any_, upper, 0).sum(1) / self.beta
        mixed = self.mixture * upper + (1 - self.mixture) * lower
        return jnp.where(advantages > 0, lower, mixed)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        return -advantages * current, jnp.ones(len(current), jnp.int32)
