"""Laws that make the `Draws` of an estimate: how many tokens are hidden, which, and with what weight.

Every law is unbiased for the same number, the negative ELBO in nats per example,

    int_0^1 weight(t) E[ sum_{i masked} -log p(x_i | visible) ] dt   =   int_0^1 (dr / r) E[ ... | mask rate r ],

so a law changes the variance of an estimate and never its mean. `Discrete` targets the T-step bound instead.

Randomness belongs to the example: a row's draw depends on (key, its global id) and, where rows share an offset on
purpose, on (key, the number of its batch). It does not depend on the number of devices, processes or micro-batches.
Batch number n is made of the ids n * batch .. (n + 1) * batch - 1.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.schedules import Linear

_SHIFT, _OFFSET, _RATES, _MASKS = range(4)  # uses of the key of a draw: the first two by batch, the others by example


def use_key(key: Key[Array, ""], step: int | Int[Array, ""], use: int) -> Key[Array, ""]:
    """The key of one use of randomness at one step of a run. Does not consume `key`."""
    return jax.random.fold_in(jax.random.fold_in(key, step), use)


def example_keys(key: Key[Array, ""], ids: Int[Array, "B"]) -> Key[Array, "B"]:
    """One key per example, from its global id."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


class Spread(NamedTuple):
    """How the rates of a batch are spread: row b is in stratum `stratum[b]` of `strata`, its place given by its key."""

    stratum: Int[Array, "B"]
    strata: int
    keys: Key[Array, "B"]
    groups: Int[Array, "B"]  # rows whose rates are not independent share a group

    def uniform(self) -> Float[Array, "B"]:
        """u in (0, 1], each row uniform by itself."""
        place = 1 - jax.vmap(jax.random.uniform)(self.keys)
        return (self.stratum + place) / self.strata

    def integers(self, size: Int[Array, "B"]) -> Int[Array, "B"]:
        """Uniform on 0..size-1, each row by itself; in integers, so that a full set of strata meets all alike."""
        place = jax.vmap(lambda k, n: jax.random.randint(k, (), 0, n))(self.keys, size)
        return (self.stratum * size + place) // self.strata


def iid(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """Independent rates."""
    return Spread(jnp.zeros_like(ids), 1, _keys(key, _RATES, ids), ids)


def stratified(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One rate in each of `batch` equal strata, independent inside it. A row's rank in its batch is id mod batch."""
    shift = jax.vmap(lambda k: jax.random.randint(k, (), 0, batch))(_keys(key, _SHIFT, ids // batch))
    stratum = (jnp.asarray(_balanced_order(batch))[ids % batch] + shift) % batch
    return Spread(stratum, batch, _keys(key, _RATES, ids), ids // batch)


def systematic(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One offset for each batch: its rates are an equally spaced grid, shifted. A row's rank is id mod batch."""
    return stratified(key, ids, batch)._replace(keys=_keys(key, _OFFSET, ids // batch))


def _keys(key: Key[Array, ""], use: int, ids: Int[Array, "B"]) -> Key[Array, "B"]:
    return example_keys(jax.random.fold_in(key, use), ids)


def _balanced_order(n: int) -> np.ndarray:
    """The van der Corput order of 0..n-1, in which consecutive rows are far apart in rate.

    For n and g powers of two, rows k g .. k g + g - 1 are an evenly spaced grid by themselves: a device's or a
    micro-batch's share of a batch hides about half of its tokens, which bounds the work on a share. For other sizes the
    mean rate of such rows may be off by up to about 1.6 / g.
    """
    bits = max(1, (n - 1).bit_length())
    reversed_bits = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(n)]
    return np.argsort(np.argsort(reversed_bits)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ExactCount:
    """Hide a uniform subset of l ~ U{1..L} tokens, with weight L / l (L counts the eligible positions of the row).

    The mean is that of the continuous-time bound, since C(L, l) int r^(l-1) (1-r)^(L-l) dr = 1 / l, and the variance is
    finite. The time handed to the denoiser is the schedule's at the l-th smallest of L uniforms, the law of the rate
    given the count, so time-conditioned denoisers are scored without bias as well.
    """

    spread: Callable = systematic
    schedule: Schedule = Linear()

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        size = jnp.maximum(eligible.sum(1), 1)
        spread = self.spread(key, ids, batch)
        count = 1 + spread.integers(size)
        places = jnp.where(eligible, _uniforms(key, ids, eligible.shape[1]), jnp.inf)
        rank = jnp.argsort(jnp.argsort(places, axis=1), axis=1)  # ranks, since two uniforms may be equal
        masks = (rank < count[:, None]) & eligible
        rate = jnp.where(masks, places, 0).max(1)
        weights = jnp.where(eligible.any(1), size / count, 0.0)
        t = self.schedule.inverse(1 - rate, rate)
        return Draws(ids, t, masks, weights.astype(t.dtype), spread.groups, "exact_count")


@dataclasses.dataclass(frozen=True)
class Continuous:
    """t ~ U[t_min, 1], each token hidden with probability 1 - alpha(t), weight -alpha'(t) / (1 - alpha(t)).

    MD4, arXiv 2406.04329, equation 5. With t_min = 0 the estimate is unbiased and its variance diverges; t_min > 0
    leaves out the bound below it. Raises ValueError unless 0 <= t_min < 1.
    """

    schedule: Schedule = Linear()
    spread: Callable = systematic
    t_min: float = 0.0

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"Continuous(t_min={self.t_min}): must be at least 0 and less than 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        spread = self.spread(key, ids, batch)
        t = self.t_min + (1 - self.t_min) * spread.uniform()
        masks = _bernoulli(key, ids, eligible, self.schedule.one_minus_alpha(t))
        weights = (1 - self.t_min) * self.schedule.weight(t)
        return Draws(ids, t, masks, weights, spread.groups, "continuous")


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The T-step bound: k ~ U{1..T}, t = k/T, s = (k-1)/T, weight T (alpha(s) - alpha(t)) / (1 - alpha(t)).

    It is the exact negative ELBO of the T-step ancestral chain (MDLM, arXiv 2406.07524, equation 8), and tends to the
    continuous-time bound as T grows: for the true conditionals from above, on average over the data; for any other
    denoiser from either side. Raises ValueError for steps < 1.
    """

    steps: int
    schedule: Schedule = Linear()
    spread: Callable = systematic

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"Discrete(steps={self.steps}): steps must be >= 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        spread = self.spread(key, ids, batch)
        k = spread.integers(jnp.full_like(ids, self.steps))
        s, t = k / self.steps, (k + 1) / self.steps
        masks = _bernoulli(key, ids, eligible, self.schedule.one_minus_alpha(t))
        weights = self.steps * hazard(self.schedule, t, s)
        return Draws(ids, t, masks, weights, spread.groups, "discrete")


def hazard(schedule: Schedule, t: Float[Array, "*s"], s: Float[Array, "*s"]) -> Float[Array, "*r"]:
    """P(visible at s | masked at t) = (alpha(s) - alpha(t)) / (1 - alpha(t)) for s < t.

    A difference of neighbouring values: its relative error is about eps / (t - s), in float32 1e-7 T over T steps. The
    smaller of alpha and 1 - alpha is differenced, so it is no worse at the ends.
    """
    hidden_t, hidden_s = schedule.one_minus_alpha(t), schedule.one_minus_alpha(s)
    gain = jnp.where(hidden_t < 0.5, hidden_t - hidden_s, schedule.alpha(s) - schedule.alpha(t))
    return gain / hidden_t


def _uniforms(key: Key[Array, ""], ids: Int[Array, "B"], length: int) -> Float[Array, "B L"]:
    return jax.vmap(lambda k: jax.random.uniform(k, (length,)))(_keys(key, _MASKS, ids))


def _bernoulli(key, ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rate: Float[Array, "B"]) -> Bool[Array, "B L"]:
    return (_uniforms(key, ids, eligible.shape[1]) < rate[:, None]) & eligible
