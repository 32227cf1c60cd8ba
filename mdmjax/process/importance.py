"""Laws of the mask rate other than uniform time: importance sampling, and what is compared with it.

The base law of them all is r ~ U[eps, 1] with the weight (1 - eps) / r: the bound without what lies below eps, which is
about eps times the loss of a token that is hidden alone. arXiv 2511.18159 leaves the constant 1 - eps out.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.process.draws import Law, Rates, bernoulli, made, mirror, single
from mdmjax.process.schedules import Linear
from mdmjax.process.spreads import MASKS, row_keys, systematic

_STATIC = dict(static=True)


def base_rates(law: Any, key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Rates:
    """r ~ U[eps, 1] with the weight (1 - eps) / r, of a law with `eps`, `spread` and `schedule`."""
    spread = law.spread(key, ids, batch)
    rate = law.eps + (1 - law.eps) * spread.uniform()
    return Rates(rate, (1 - law.eps) / rate, law.schedule.inverse(1 - rate, rate), spread.groups)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Importance(Law):
    """r with density p, relative to the base law, and the weight (1 - eps) / (p(r) r): P-POTS of arXiv 2511.18159.

    Unbiased for the same number whatever p > 0 is; the variance is least where p^2 is proportional to E[Z^2 | r]. The
    rates of a batch are spread by the inverse of the distribution function. `density` (`process.Bins`, say) is an array
    of a program, so it may be fitted again while a compiled step runs; `density(r)`, `from_cdf(u)` and `eps` are used.

    `max_weight`, if given, caps the weight 1 / p of a rate relative to the base law: BIASED where it acts (`clamped`),
    for these rates then count less than they should. ValueError for one below 1, the weight of the base law.
    """

    density: Any
    spread: Callable = dataclasses.field(default=systematic, metadata=_STATIC)
    schedule: Schedule = dataclasses.field(default=Linear(), metadata=_STATIC)  # whose time the denoiser is told
    ways: Callable = dataclasses.field(default=single, metadata=_STATIC)
    max_weight: float | None = dataclasses.field(default=None, metadata=_STATIC)

    def __post_init__(self):
        if self.max_weight is not None and not self.max_weight >= 1:
            raise ValueError(f"Importance(max_weight={self.max_weight}): must be at least 1, that of the base law")

    def clamped(self, rate: Float[Array, "B"]) -> Bool[Array, "B"]:
        """Whether the weight of a rate is capped."""
        if self.max_weight is None:
            return jnp.zeros(rate.shape, bool)
        return self.density.density(rate) * self.max_weight < 1

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of each row."""
        spread = self.spread(key, ids, batch)
        rate = self.density.from_cdf(spread.uniform())
        density = self.density.density(rate)
        if self.max_weight is not None:
            density = jnp.maximum(density, 1 / self.max_weight)
        weights = (1 - self.density.eps) / (density * rate)
        return Rates(rate, weights, self.schedule.inverse(1 - rate, rate), spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        return bernoulli(self.ways, key, ids, eligible, rates, "importance")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Clipped(Law):
    """r ~ U(low, high) with the weight 1 / r, as if it were the whole range: a baseline, and BIASED.

    Its mean is 1 / (high - low) times the bound between these rates, another objective than the bound. ValueError
    unless 0 < low < high <= 1.
    """

    low: float = 0.3
    high: float = 0.8
    spread: Callable = systematic
    schedule: Schedule = Linear()
    ways: Callable = single

    def __post_init__(self):
        if not 0 < self.low < self.high <= 1:
            raise ValueError(f"Clipped(low={self.low}, high={self.high}): 0 < low < high <= 1 is needed")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of each row."""
        spread = self.spread(key, ids, batch)
        rate = self.low + (self.high - self.low) * spread.uniform()
        return Rates(rate, 1 / rate, self.schedule.inverse(1 - rate, rate), spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        return bernoulli(self.ways, key, ids, eligible, rates, "clipped")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Complementary(Law):
    """A mask of rate r ~ U[eps, 1 - eps] and its complement, of rate 1 - r: every token is scored once in the two.

    Weights (1 - 2 eps) / r and (1 - 2 eps) / (1 - r); the bound between eps and 1 - eps, so besides what every base law
    leaves out the loss of the whole row hidden, times eps, is missing. ValueError unless 0 < eps < 1/2.
    """

    eps: float = 1e-3
    spread: Callable = systematic
    schedule: Schedule = Linear()

    def __post_init__(self):
        if not 0 < self.eps < 0.5:
            raise ValueError(f"Complementary(eps={self.eps}): eps must be in (0, 1/2)")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of the first mask of each row."""
        spread = self.spread(key, ids, batch)
        rate = self.eps + (1 - 2 * self.eps) * spread.uniform()
        return Rates(rate, (1 - 2 * self.eps) / rate, self.schedule.inverse(1 - rate, rate), spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        first = bernoulli(single, key, ids, eligible, rates, "")
        rate, masks = rates.value, jnp.stack([first.masks, ~first.masks & eligible], axis=1)
        t = jnp.stack([rates.t, self.schedule.inverse(rate, 1 - rate)], axis=1)
        weights = jnp.stack([rates.weights, rates.weights * rate / (1 - rate)], axis=1)
        return made(ids, t, masks, weights, rates.groups, "complementary")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Union(Law):
    """The two masks of MIRROR, each token weighted by the chance pi = min(2 r, 1) that either hides it.

    A token that one of them hides has the weight 2 (1 - eps) / pi, one that both hide (1 - eps) / pi in each: so the
    mean of the two counts every token of their union alike ("dedup" in the code of arXiv 2511.18159). Unbiased: at a
    rate the tokens are independent, and a token's weight depends on what happens to that token alone. The weights are
    [2 B, L]. ValueError unless 0 < eps < 1.
    """

    eps: float = 1e-3
    spread: Callable = systematic
    schedule: Schedule = Linear()

    def __post_init__(self):
        if not 0 < self.eps < 1:
            raise ValueError(f"Union(eps={self.eps}): eps must be in (0, 1)")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of each row, and the weight of a single mask, which `hide` replaces."""
        return base_rates(self, key, ids, batch)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """Which tokens are hidden."""
        draws = bernoulli(mirror, key, ids, eligible, rates, "union")
        masks = draws.masks.reshape(len(ids), 2, -1)
        either = (1 - self.eps) / jnp.minimum(2 * rates.value, 1)
        weights = either[:, None, None] * (3 - masks.sum(1, keepdims=True)).clip(1, 2)
        return dataclasses.replace(draws, weights=jnp.broadcast_to(weights, masks.shape).reshape(draws.masks.shape))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Delimiters:
    """Some tokens are hidden more often than at the rate r of the others ("ISAD" of arXiv 2511.18159).

    They are hidden with probability q = min(r + extra, (1 + r) / 2): the tokens of the ids `often`, those of the format
    of an answer, say, or what a batch says (`often` [B, L]). With `likelihood` the weight (1 - eps) / r is multiplied
    by the ratio prod_i P(m_i) / Q(m_i) of the whole mask: unbiased. Without, each token has 1 / q_i in place of 1 / r
    ("ht", for Horvitz and Thompson), which is BIASED unless the loss of a token is the same whatever else is hidden;
    its weights are [B, L]. The published q = min(r + extra, 1) would be biased both ways, for where it is 1 the masks
    that show the token are never drawn; here their ratio is at most 2. ValueError for extra or eps outside (0, 1).
    """

    eps: float = 1e-3
    extra: float = 0.2
    likelihood: bool = True
    spread: Callable = systematic
    schedule: Schedule = Linear()
    often: tuple[int, ...] = ()

    def __post_init__(self):
        if not (0 < self.extra < 1 and 0 < self.eps < 1):
            raise ValueError(f"Delimiters(extra={self.extra}, eps={self.eps}): both must be in (0, 1)")

    def marked(self, tokens: Int[Array, "B L"]) -> Bool[Array, "B L"]:
        """Where the tokens of the ids `often` are. ValueError without any."""
        if not self.often:
            raise ValueError("Delimiters(often=()): give the ids of the tokens, or a batch that has `often` [B, L]")
        return jnp.isin(tokens, jnp.array(self.often))

    def draw(
        self,
        key: Key[Array, ""],
        ids: Int[Array, "B"],
        eligible: Bool[Array, "B L"],
        *,
        batch: int,
        often: Bool[Array, "B L"],
    ) -> Draws:
        """As `Law.draw`; `often`: which tokens are hidden more often."""
        return self.hide(key, ids, eligible, self.rates(key, ids, eligible, batch=batch), often=often)

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The mask rate of the other tokens of each row, and its weight, which `hide` corrects."""
        return base_rates(self, key, ids, batch)

    def hide(
        self,
        key: Key[Array, ""],
        ids: Int[Array, "B"],
        eligible: Bool[Array, "B L"],
        rates: Rates,
        *,
        often: Bool[Array, "B L"],
    ) -> Draws:
        """Which tokens are hidden."""
        rate = rates.value
        more = jnp.minimum(rate + self.extra, (1 + rate) / 2)
        each = jnp.where(often, more[:, None], rate[:, None])
        u = jax.vmap(lambda k: jax.random.uniform(k, eligible.shape[1:]))(row_keys(key, MASKS, ids))
        masks = (u < each) & eligible
        return Draws(ids, rates.t, masks, self.weights(rate, each, masks, eligible), rates.groups, "delimiters")

    def weights(
        self,
        rate: Float[Array, "B"],
        each: Float[Array, "B L"],
        masks: Bool[Array, "B L"],
        eligible: Bool[Array, "B L"],
    ) -> Float[Array, "B"] | Float[Array, "B L"]:
        """The factors of the cross-entropies, given the rates and the masks."""
        if not self.likelihood:
            return (1 - self.eps) / each
        shown = jnp.where(masks, 1, 1 - each)  # r = 1 shows nothing
        ratio = jnp.where(masks, rate[:, None] / each, (1 - rate)[:, None] / shown)
        return (1 - self.eps) / rate * jnp.where(eligible, ratio, 1).prod(1)
