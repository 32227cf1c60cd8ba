"""Laws that make the `Draws` of an estimate: how many tokens are hidden, which, and with what weight.

Every law is unbiased for the same number, the negative ELBO in nats per example,

    int_0^1 weight(t) E[ sum_{i masked} -log p(x_i | visible) ] dt   =   int_0^1 (dr / r) E[ ... | mask rate r ],

so a law changes the variance of an estimate and never its mean. `Discrete` targets the T-step bound instead.

Randomness belongs to the example: a row's draw depends on (key, its global id) and, where rows share an offset on
purpose, on (key, batch). It does not depend on the number of devices, processes or micro-batches.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.schedules import Linear

_SHARED = np.uint32(2**32 - 1)  # folded in for what the whole batch shares; example ids stay below 2^31


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
    return Spread(jnp.zeros_like(ids), 1, example_keys(jax.random.fold_in(key, 1), ids))


def stratified(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One rate in each of `batch` equal strata, independent inside it. A row's rank in the batch is id mod batch."""
    shift = jax.random.randint(jax.random.fold_in(key, _SHARED), (), 0, batch)
    stratum = (jnp.asarray(_balanced_order(batch))[ids % batch] + shift) % batch
    return Spread(stratum, batch, example_keys(jax.random.fold_in(key, 1), ids))


def systematic(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One offset for the batch: the rates are an equally spaced grid, shifted. A row's rank is id mod batch."""
    spread = stratified(key, ids, batch)
    shared = jax.random.fold_in(jax.random.fold_in(key, _SHARED), 1)
    return spread._replace(keys=jnp.broadcast_to(shared, ids.shape))


def _balanced_order(n: int) -> np.ndarray:
    """The van der Corput order of 0..n-1: every run of consecutive rows is spread evenly over the strata by itself.

    So each device's or micro-batch's share of a batch hides about half of its tokens, which bounds the work on a share.
    """
    bits = max(1, (n - 1).bit_length())
    reversed_bits = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(n)]
    return np.argsort(np.argsort(reversed_bits)).astype(np.int32)


def _groups(spread, ids: Int[Array, "B"], batch: int) -> Int[Array, "B"]:
    return ids if spread is iid else ids // batch


@dataclasses.dataclass(frozen=True)
class ExactCount:
    """Hide a uniform subset of l ~ U{1..L} tokens, with weight L / l (L counts the eligible positions of the row).

    The mean is that of the continuous-time bound, since C(L, l) int r^(l-1) (1-r)^(L-l) dr = 1 / l, and the variance is
    finite. The time handed to the denoiser is the schedule's at the l-th smallest of L uniforms, the law of the rate
    given the count, so time-conditioned denoisers are scored without bias as well.
    """

    spread: object = systematic
    schedule: Schedule = Linear()

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        size = jnp.maximum(eligible.sum(1), 1)
        count = 1 + self.spread(key, ids, batch).integers(size)
        places = jnp.where(eligible, _uniforms(key, ids, eligible.shape[1]), jnp.inf)
        rank = jnp.argsort(jnp.argsort(places, axis=1), axis=1)  # ranks, since two uniforms may be equal
        masks = (rank < count[:, None]) & eligible
        rate = jnp.where(masks, places, 0).max(1)
        weights = jnp.where(eligible.any(1), size / count, 0.0)
        t = self.schedule.inverse(1 - rate, rate)
        return Draws(ids, t, masks, weights.astype(t.dtype), _groups(self.spread, ids, batch), "exact_count")


@dataclasses.dataclass(frozen=True)
class Continuous:
    """t ~ U[t_min, 1], each token hidden with probability 1 - alpha(t), weight -alpha'(t) / (1 - alpha(t)).

    MD4, arXiv 2406.04329, equation 5. With t_min = 0 the estimate is unbiased and its variance diverges; t_min > 0
    leaves out the bound below it. Raises ValueError unless 0 <= t_min < 1.
    """

    schedule: Schedule = Linear()
    spread: object = systematic
    t_min: float = 0.0

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"Continuous(t_min={self.t_min}): must be at least 0 and less than 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        t = self.t_min + (1 - self.t_min) * self.spread(key, ids, batch).uniform()
        masks = _bernoulli(key, ids, eligible, self.schedule.one_minus_alpha(t))
        weights = (1 - self.t_min) * self.schedule.weight(t)
        return Draws(ids, t, masks, weights, _groups(self.spread, ids, batch), "continuous")


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The T-step bound: k ~ U{1..T}, t = k/T, s = (k-1)/T, weight T (alpha(s) - alpha(t)) / (1 - alpha(t)).

    It is the exact negative ELBO of the T-step ancestral chain (MDLM, arXiv 2406.07524, equation 8), above the
    continuous-time bound and falling to it as T grows. Raises ValueError for steps < 1.
    """

    steps: int
    schedule: Schedule = Linear()
    spread: object = systematic

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"Discrete(steps={self.steps}): steps must be >= 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        k = self.spread(key, ids, batch).integers(jnp.full_like(ids, self.steps))
        s, t = k / self.steps, (k + 1) / self.steps
        masks = _bernoulli(key, ids, eligible, self.schedule.one_minus_alpha(t))
        weights = self.steps * hazard(self.schedule, t, s)
        return Draws(ids, t, masks, weights, _groups(self.spread, ids, batch), "discrete")


def hazard(schedule: Schedule, t: Float[Array, "*n"], s: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """P(visible at s | masked at t) = (alpha(s) - alpha(t)) / (1 - alpha(t)) for s < t, without cancellation."""
    hidden_t, hidden_s = schedule.one_minus_alpha(t), schedule.one_minus_alpha(s)
    gain = jnp.where(hidden_t < 0.5, hidden_t - hidden_s, schedule.alpha(s) - schedule.alpha(t))
    return gain / hidden_t


def _uniforms(key: Key[Array, ""], ids: Int[Array, "B"], length: int) -> Float[Array, "B L"]:
    return jax.vmap(lambda k: jax.random.uniform(k, (length,)))(example_keys(jax.random.fold_in(key, 2), ids))


def _bernoulli(key, ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rate: Float[Array, "B"]) -> Bool[Array, "B L"]:
    return (_uniforms(key, ids, eligible.shape[1]) < rate[:, None]) & eligible
