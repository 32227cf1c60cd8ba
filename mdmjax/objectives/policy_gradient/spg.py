"""SPG (arXiv 2510.09541): a lower bound for what is to become likelier, an upper one for what is to become rarer."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.objectives.policy_gradient.interface import weighted
from mdmjax.process import Allocation, ExactCount, Law


@dataclasses.dataclass(frozen=True)
class SPG:
    """Loss -A S. For A > 0, S is the mean over the draws of sum_i w_ij log p_ij; for A < 0

        U = (1 / beta) sum_i log mean_j [ w_ij p_ij^beta ],   w_ij = L / l_j where draw j hides token i, else 0,

    over the tokens that any draw hides (1 / r_j of the paper is L / l_j, r_j the share that is hidden); with `mixture`
    w the mean w U + (1 - w) S instead. `law=BlockCounts(n)` masks by blocks.

    S is unbiased for the bound of the law. U is not an unbiased estimate of anything that it is meant to be: it is the
    logarithm of a mean of few draws, over the tokens that they hide and not over all. Its limit for many draws is an
    upper bound of Renyi's kind on sum_i log p_i under random masks (`variance.surrogate_means` has the mean for one
    draw, and the limit). No ratio, no KL. ValueError unless beta >= 1 and 0 <= mixture <= 1.
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
        lower = weighted(log_p, draws).sum(1) / len(log_p)
        weights = draws.weights if draws.weights.ndim == 3 else draws.weights[..., None]
        scored = draws.masks & eligible[None] & (weights > 0)
        each = jnp.where(scored, self.beta * log_p + jnp.log(jnp.where(scored, weights, 1)), -jnp.inf)
        any_ = scored.any(0)
        safe = jnp.where(any_[None], each, 0.0)  # no gradient through -inf - -inf
        upper = jax.nn.logsumexp(safe, axis=0) - math.log(len(log_p))
        upper = jnp.where(any_, upper, 0).sum(1) / self.beta
        mixed = self.mixture * upper + (1 - self.mixture) * lower
        return jnp.where(advantages > 0, lower, mixed)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        return -advantages * current, jnp.ones(len(current), jnp.int32)
