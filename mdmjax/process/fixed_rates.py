"""Laws of policy gradients that are drop-in for any estimate: counts in couples, and rates at the nodes of a rule."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.draws import Law, Rates, bernoulli, made, single
from mdmjax.process.schedules import Linear
from mdmjax.process.spreads import MASKS, row_keys, systematic


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CoupledCounts(Law):
    """l ~ U{0..L} tokens hidden, then in a second call the others: weights (L + 1) / l, (L + 1) / (L - l), 0 for none.

    Every token is scored once in the two, whose mean is unbiased for the bound: each l of 1..L comes with probability
    1 / (L + 1) and the weight of an exact count times (L + 1) / L (ESPO, arXiv 2512.03759, without the rounding of
    counts of its code). Its variance can be above that of one exact count, at twice the calls. A denoiser that knows
    the time is told that of a rate drawn given the count, as by `ExactCount`.
    """

    spread: Callable = systematic
    schedule: Schedule = Linear()

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The number of tokens of the first mask of each row."""
        size = eligible.sum(1)
        spread = self.spread(key, ids, batch)
        count = spread.integers(size + 1)
        return Rates(count, _weights(size, count), None, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        size, count = eligible.sum(1), rates.value
        places = jax.vmap(lambda k: jax.random.uniform(k, eligible.shape[1:]))(row_keys(key, MASKS, ids))
        rank = jnp.argsort(jnp.argsort(jnp.where(eligible, places, jnp.inf), axis=1), axis=1)
        first = (rank < count[:, None]) & eligible
        # the law of the rate given the count: the largest place that is hidden, counted from either end
        rate = jnp.stack([jnp.where(first, places, 0).max(1), jnp.where(eligible & ~first, 1 - places, 0).max(1)], 1)
        weights = jnp.stack([rates.weights, _weights(size, size - count)], axis=1)
        masks = jnp.stack([first, eligible & ~first], axis=1)
        return made(ids, self.schedule.inverse(1 - rate, rate), masks, weights, rates.groups, "coupled_counts")


def _weights(size: Int[Array, "B"], count: Int[Array, "B"]) -> Float[Array, "B"]:
    """(L + 1) / l, 0 for l = 0."""
    return jnp.where(count > 0, (size + 1) / jnp.maximum(count, 1), 0.0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Quadrature(Law):
    """Rates at the nodes of the Gauss-Legendre rule on [0, 1] (GDPO, arXiv 2510.08554): row b of a batch has node b.

    For `Allocation(nodes, masks)`, with the weight nodes x w_j / r_j, so that the mean over a row's draws is the rule
    for int dr/r E[S | r]. Of a denoiser that knows no time, what is integrated is a polynomial of degree L - 1 in r, so
    the rule is exact, and the mean that of the bound, where 2 nodes >= L; else it is BIASED by the error of the rule.
    No variance comes from the rate. ValueError for nodes < 1, and for batches of another size.
    """

    nodes: int
    schedule: Schedule = Linear()
    ways: Callable = single

    def __post_init__(self):
        if self.nodes < 1:
            raise ValueError(f"Quadrature(nodes={self.nodes}): at least one is needed")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The node of each row."""
        if batch != self.nodes:
            raise ValueError(f"Quadrature(nodes={self.nodes}): a batch has as many rows, one a node, not {batch}")
        x, w = np.polynomial.legendre.leggauss(self.nodes)
        rates, weights = (x + 1) / 2, w / 2
        at = lambda values: jnp.asarray(values, jnp.result_type(float))[ids % batch]
        rate = at(rates)
        return Rates(rate, at(self.nodes * weights / rates), self.schedule.inverse(1 - rate, rate), ids)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        return bernoulli(self.ways, key, ids, eligible, rates, "quadrature")
