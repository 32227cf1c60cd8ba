"""Laws that make the `Draws` of an estimate: how many tokens are hidden, which, and with what weight.

Every law is unbiased for the same number, the negative ELBO in nats per example,

    int_0^1 weight(t) E[ sum_{i masked} -log p(x_i | visible) ] dt   =   int_0^1 (dr / r) E[ ... | mask rate r ],

so a law changes the variance of an estimate and never its mean; one that does not says so. `Discrete` targets the
T-step bound instead.

A law draws in two steps: `rates` says how much of each row is hidden, `hide` which tokens. What is shared between
estimates, and what makes their variance, can so be told apart. A law may hide a row in K ways at one rate
(`single`, `mirror`, `Copies`); its Draws then have K rows for each example, one after the other, of one group, and the
estimate of the example is their mean. Randomness belongs to the example (`process.spreads`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.schedules import Linear
from mdmjax.process.spreads import MASKS, row_keys, systematic


class Rates(NamedTuple):
    """How much of each row is hidden."""

    value: Float[Array, "B"] | Int[Array, "B"]  # probability of each token to be hidden, or how many are
    weights: Float[Array, "B"]  # factor of the summed cross-entropy
    t: Float[Array, "B"] | None  # time given to the denoiser; None: it comes with the masks
    groups: Int[Array, "B"]  # rows that are not independent share a group


def single(key: Key[Array, ""], length: int) -> Float[Array, "1 L"]:
    """One way to hide a row: token i is hidden where its uniform number is below the rate."""
    return jax.random.uniform(key, (1, length))


def mirror(key: Key[Array, ""], length: int) -> Float[Array, "2 L"]:
    """Two ways from the same numbers U: where U < r, and where 1 - U < r (MIRROR of arXiv 2511.18159).

    Either is a mask of rate r. Cov(m1_i, m2_i) = -min(r, 1 - r)^2, so where the loss is larger the more is hidden, the
    two are negatively correlated and vary less together than two independent masks. At r = 1/2 they are complements.
    """
    u = jax.random.uniform(key, (length,))
    return jnp.stack([u, 1 - u])


@dataclasses.dataclass(frozen=True)
class Copies:
    """`count` independent ways. ValueError for count < 1."""

    count: int

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"Copies(count={self.count}): count must be >= 1")

    def __call__(self, key: Key[Array, ""], length: int) -> Float[Array, "K L"]:
        return jax.random.uniform(key, (self.count, length))


class Law:
    """What the laws share; each is a pytree, and so may be an argument of a compiled function.

    A law has `rates(key, ids, eligible, *, batch)` and `hide(key, ids, eligible, rates)`.
    """

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """Draws for rows `ids` of a batch of `batch` rows, hiding eligible positions only; `key` is not consumed."""
        return self.hide(key, ids, eligible, self.rates(key, ids, eligible, batch=batch))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ExactCount(Law):
    """Hide a uniform subset of l ~ U{1..L} tokens, with weight L / l (L counts the eligible positions of the row).

    The mean is that of the continuous-time bound, since C(L, l) int r^(l-1) (1-r)^(L-l) dr = 1 / l, and the variance is
    finite. The time handed to the denoiser is the schedule's at the l-th smallest of L uniforms, the law of the rate
    given the count, so time-conditioned denoisers are scored without bias as well. With `mirror` the second set is the
    last l of the random order whose first l are the first.
    """

    spread: Callable = systematic
    schedule: Schedule = Linear()
    ways: Callable = single

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The number of hidden tokens of each row."""
        size = jnp.maximum(eligible.sum(1), 1)
        spread = self.spread(key, ids, batch)
        count = 1 + spread.integers(size)
        weights = jnp.where(eligible.any(1), size / count, 0.0)
        return Rates(count, weights, None, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        places = jnp.where(eligible[:, None], _places(self.ways, key, ids, eligible), jnp.inf)
        rank = jnp.argsort(jnp.argsort(places, axis=2), axis=2)  # ranks, since two uniforms may be equal
        masks = (rank < rates.value[:, None, None]) & eligible[:, None]
        rate = jnp.where(masks, places, 0).max(2)
        t = self.schedule.inverse(1 - rate, rate)
        return made(ids, t, masks, rates.weights.astype(t.dtype)[:, None], rates.groups, "exact_count")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Continuous(Law):
    """t ~ U[t_min, 1], each token hidden with probability 1 - alpha(t), weight -alpha'(t) / (1 - alpha(t)).

    MD4, arXiv 2406.04329, equation 5. With t_min = 0 the estimate is unbiased and its variance diverges; t_min > 0
    leaves out the bound below it. Raises ValueError unless 0 <= t_min < 1.
    """

    schedule: Schedule = Linear()
    spread: Callable = systematic
    t_min: float = 0.0
    ways: Callable = single

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"Continuous(t_min={self.t_min}): must be at least 0 and less than 1")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of each row."""
        spread = self.spread(key, ids, batch)
        t = self.t_min + (1 - self.t_min) * spread.uniform()
        return Rates(self.schedule.one_minus_alpha(t), (1 - self.t_min) * self.schedule.weight(t), t, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        return bernoulli(self.ways, key, ids, eligible, rates, "continuous")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Discrete(Law):
    """The T-step bound: k ~ U{1..T}, t = k/T, s = (k-1)/T, weight T (alpha(s) - alpha(t)) / (1 - alpha(t)).

    It is the exact negative ELBO of the T-step ancestral chain (MDLM, arXiv 2406.07524, equation 8), and tends to the
    continuous-time bound as T grows: for the true conditionals from above, on average over the data; for any other
    denoiser from either side. Raises ValueError for steps < 1.
    """

    steps: int
    schedule: Schedule = Linear()
    spread: Callable = systematic
    ways: Callable = single

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"Discrete(steps={self.steps}): steps must be >= 1")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of each row, at its step."""
        spread = self.spread(key, ids, batch)
        k = spread.integers(jnp.full_like(ids, self.steps))
        s, t = k / self.steps, (k + 1) / self.steps
        return Rates(self.schedule.one_minus_alpha(t), self.steps * hazard(self.schedule, t, s), t, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        return bernoulli(self.ways, key, ids, eligible, rates, "discrete")


def hazard(schedule: Schedule, t: Float[Array, "*s"], s: Float[Array, "*s"]) -> Float[Array, "*r"]:
    """P(visible at s | masked at t) = (alpha(s) - alpha(t)) / (1 - alpha(t)) for s < t.

    A difference of neighbouring values: its relative error is about eps / (t - s), in float32 1e-7 T over T steps. The
    smaller of alpha and 1 - alpha is differenced, so it is no worse at the ends.
    """
    hidden_t, hidden_s = schedule.one_minus_alpha(t), schedule.one_minus_alpha(s)
    gain = jnp.where(hidden_t < 0.5, hidden_t - hidden_s, schedule.alpha(s) - schedule.alpha(t))
    return gain / hidden_t


def bernoulli(
    ways: Callable, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates, law: str
) -> Draws:
    """The draws that hide each eligible token by itself at its row's rate, in each of the ways."""
    masks = (_places(ways, key, ids, eligible) < rates.value[:, None, None]) & eligible[:, None]
    return made(ids, rates.t[:, None], masks, rates.weights[:, None], rates.groups, law)


def made(
    ids: Int[Array, "B"],
    t: Float[Array, "B A"],
    masks: Bool[Array, "B K L"],
    weights: Float[Array, "B W"],
    groups: Int[Array, "B"],
    law: str,
) -> Draws:
    """The Draws of K masks of each row, the K of a row one after the other. `t` and `weights` may be common to them."""
    rows, ways, length = masks.shape
    flat = lambda x: jnp.broadcast_to(x, (rows, ways)).reshape(-1)
    return Draws(
        jnp.repeat(ids, ways), flat(t), masks.reshape(-1, length), flat(weights), jnp.repeat(groups, ways), law
    )


def _places(ways, key, ids: Int[Array, "B"], eligible: Bool[Array, "B L"]) -> Float[Array, "B K L"]:
    return jax.vmap(lambda k: ways(k, eligible.shape[1]))(row_keys(key, MASKS, ids))
