"""Schedules with parameters to search or learn: Beta, Kumaraswamy, and the energy minimiser of any of them.

"Progress" is tau = 1 - t, and gamma(tau) an increasing curve from 0 to 1. A curve is written here as the schedule whose
alpha(t) is gamma(1 - t), so gamma = `BetaCDF` is a schedule itself, and `EnergyOptimal` bends any schedule into the one
that minimises the energies weighted by it (arXiv 2509.13866, lemma 3.5).

All are pytrees, differentiable in their parameters: a grid of schedules is one schedule with an axis more, for `vmap`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from mdmjax.base import Schedule
from mdmjax.process.schedules import Times, hidden_share

# an array only under vmap, or as a grid to be mapped over
Parameter = Float[Array, "*g"] | Float[np.ndarray, "*g"] | np.floating | float

_TERMS = 128  # of the series at x <= 1/2, where a term is about half of the one before
_NEWTON = 12


def known(value: Any) -> bool:
    """Whether a number or array has a value now: under a trace it has none."""
    return isinstance(value, int | float | np.generic | np.ndarray | jax.Array) and not isinstance(
        value, jax.core.Tracer
    )


def _inside(t: Times) -> Times:
    """t, or the largest number below 1."""
    return jnp.minimum(t, 1 - jnp.finfo(t.dtype).epsneg)


def _check(name: str, **values: Any) -> None:
    """ValueError for a parameter that is known and not positive; what is traced passes."""
    for argument, value in values.items():
        if known(value) and not ((np.asarray(value) > 0) & np.isfinite(value)).all():
            raise ValueError(f"{name}({argument}={value}): {argument} must be > 0 and finite")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BetaCDF:
    """alpha = I_{1-t}(a, b), the distribution function of Beta(a, b) at tau = 1 - t.

    weight = tau^(a-1) t^(b-1) / (B(a, b) I_t(b, a)). Float32 and float64, relative accuracy at both ends, for a and b
    up to about 20. Raises ValueError for a <= 0 or b <= 0.
    """

    a: Parameter
    b: Parameter

    def __post_init__(self):
        _check("BetaCDF", a=self.a, b=self.b)

    def alpha(self, t: Times) -> Times:
        return incomplete_beta(self.a, self.b, 1 - t, t)

    def one_minus_alpha(self, t: Times) -> Times:
        return incomplete_beta(self.b, self.a, t, 1 - t)

    def weight(self, t: Times) -> Times:
        # t^(b-1) and I_t(b, a) vanish alike, so their ratio is taken of logarithms; for a < 1 it is infinite at t = 1
        t = _inside(t)
        log_density = (self.a - 1) * jnp.log1p(-t) + (self.b - 1) * jnp.log(t) - betaln(self.a, self.b)
        return jnp.exp(log_density - log_incomplete_beta(self.b, self.a, t, 1 - t))

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        return inverse_incomplete_beta(self.b, self.a, hidden, alpha)

    def mirrored(self) -> "BetaCDF":
        """The schedule whose alpha(t) is this one's 1 - alpha(1 - t)."""
        return BetaCDF(self.b, self.a)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kumaraswamy:
    """alpha = 1 - (1 - (1 - t)^a)^b: as flexible as `BetaCDF`, in closed form. It is not an approximation of that.

    weight = a b (1 - t)^(a-1) / (1 - (1 - t)^a). Kumaraswamy, J. Hydrology 46 (1980). Raises ValueError for a <= 0 or
    b <= 0.
    """

    a: Parameter
    b: Parameter

    def __post_init__(self):
        _check("Kumaraswamy", a=self.a, b=self.b)

    def _below(self, t: Times) -> Times:
        """log(1 - (1 - t)^a)."""
        return jnp.log(-jnp.expm1(self.a * jnp.log1p(-t)))

    def alpha(self, t: Times) -> Times:
        near = t < 0.5
        near_data = -jnp.expm1(self.b * self._below(jnp.where(near, t, 0.5)))
        near_mask = -jnp.expm1(self.b * jnp.log1p(-(jnp.where(near, 0.5, 1 - t) ** self.a)))
        return jnp.where(near, near_data, near_mask)

    def one_minus_alpha(self, t: Times) -> Times:
        return jnp.exp(self.b * self._below(t))

    def weight(self, t: Times) -> Times:
        t = _inside(t)
        return self.a * self.b * (1 - t) ** (self.a - 1) / -jnp.expm1(self.a * jnp.log1p(-t))

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        near_data = -jnp.expm1(jnp.log1p(-(hidden ** (1 / self.b))) / self.a)
        near_mask = 1 - (-jnp.expm1(jnp.log1p(-jnp.minimum(alpha, 0.5)) / self.b)) ** (1 / self.a)
        return jnp.where(alpha > 0.5, near_data, near_mask)

    def mirrored(self) -> "KumaraswamyInTime":
        """The schedule whose alpha(t) is this one's 1 - alpha(1 - t)."""
        return KumaraswamyInTime(self.a, self.b)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KumaraswamyInTime:
    """1 - alpha = 1 - (1 - t^a)^b: the mirror image of `Kumaraswamy`, whose curve is in 1 - t.

    weight = a b t^(a-1) (1 - t^a)^(b-1) / (1 - (1 - t^a)^b). ValueError as there.
    """

    a: Parameter
    b: Parameter

    def __post_init__(self):
        _check("KumaraswamyInTime", a=self.a, b=self.b)

    def alpha(self, t: Times) -> Times:
        return jnp.exp(self.b * jnp.log(-jnp.expm1(self.a * jnp.log(t))))

    def one_minus_alpha(self, t: Times) -> Times:
        return -jnp.expm1(self.b * jnp.log1p(-(t**self.a)))

    def weight(self, t: Times) -> Times:
        t = _inside(t)
        power = t**self.a
        small = power < 1e-20  # there 1 - alpha is b t^a
        x = jnp.where(small, 0.5, power)
        ratio = self.b * x * (1 - x) ** (self.b - 1) / -jnp.expm1(self.b * jnp.log1p(-x))
        return self.a * jnp.where(small, 1, ratio) / t

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        near_data = (-jnp.expm1(jnp.log1p(-jnp.minimum(hidden, 0.5)) / self.b)) ** (1 / self.a)
        near_mask = jnp.exp(jnp.log1p(-(alpha ** (1 / self.b))) / self.a)
        return jnp.where(alpha > 0.5, near_data, near_mask)

    def mirrored(self) -> Kumaraswamy:
        """The schedule whose alpha(t) is this one's 1 - alpha(1 - t)."""
        return Kumaraswamy(self.a, self.b)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EnergyOptimal:
    """alpha = sin^2(pi gamma / 2), where `gamma` is the schedule whose alpha is the curve that weights the energies.

    It minimises kinetic, conditional kinetic and geodesic energy at once (arXiv 2509.13866, lemma 3.5 and theorem 3.6).
    weight = pi gamma' cot(pi (1 - gamma) / 2). `EnergyOptimal(Linear())` is `SineSquared`.
    """

    gamma: Schedule

    def alpha(self, t: Times) -> Times:
        return jnp.sin(jnp.pi / 2 * self.gamma.alpha(t)) ** 2

    def one_minus_alpha(self, t: Times) -> Times:
        return jnp.sin(jnp.pi / 2 * self.gamma.one_minus_alpha(t)) ** 2

    def weight(self, t: Times) -> Times:
        t = _inside(t)  # a rate that is infinite at t = 1 times an alpha that is 0
        left = jnp.pi / 2 * self.gamma.one_minus_alpha(t)
        ratio = jnp.where(left > 0, left / jnp.sin(jnp.where(left > 0, left, 1)), 1)
        return 2 * self.gamma.weight(t) * ratio * jnp.sin(jnp.pi / 2 * self.gamma.alpha(t))

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        # of a half and its complement the smaller has the digits: arcsin is steep near 1
        near_mask = jnp.arcsin(jnp.sqrt(jnp.clip(alpha, 0, 0.75))) * (2 / jnp.pi)
        near_data = jnp.arcsin(jnp.sqrt(jnp.clip(hidden, 0, 0.75))) * (2 / jnp.pi)
        return self.gamma.inverse(
            jnp.where(alpha < 0.5, near_mask, 1 - near_data), jnp.where(alpha < 0.5, 1 - near_mask, near_data)
        )

    def mirrored(self) -> "EnergyOptimal":
        """The schedule whose alpha(t) is this one's 1 - alpha(1 - t)."""
        return EnergyOptimal(mirrored(self.gamma))


def beta(a: Parameter, b: Parameter) -> EnergyOptimal:
    """The Beta schedule, alpha = sin^2(pi/2 I_{1-t}(a, b)): arXiv 2509.13866, section 4.

    (1/2, 1/2) is `Linear`, (1, 1) is `SineSquared`. Large a and small b start slowly from all masks and leave many
    tokens to the last steps. Near t = 0 the weight is 2 b / t. Raises ValueError for a <= 0 or b <= 0.
    """
    return EnergyOptimal(BetaCDF(a, b))


@dataclasses.dataclass(frozen=True)
class Mirrored:
    """The schedule whose alpha(t) is 1 - alpha(1 - t) of another; exact to the digits that 1 - t keeps."""

    of: Schedule

    def alpha(self, t: Times) -> Times:
        return self.of.one_minus_alpha(1 - t)

    def one_minus_alpha(self, t: Times) -> Times:
        return self.of.alpha(1 - t)

    def weight(self, t: Times) -> Times:
        return self.of.weight(1 - t) * self.of.one_minus_alpha(1 - t) / self.of.alpha(1 - t)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        return 1 - self.of.inverse(hidden_share(alpha, one_minus_alpha), alpha)


def mirrored(schedule: Schedule) -> Schedule:
    """The schedule whose alpha(t) is 1 - alpha(1 - t) of another: its own `mirrored` where it has one."""
    return schedule.mirrored() if hasattr(schedule, "mirrored") else Mirrored(schedule)


# ---- the incomplete beta function ------------------------------------------------------------------------------------


def betaln(a, b) -> Float[Array, "*s"]:
    """log B(a, b). That of jax.scipy is off by 8e-8 at (15, 12) in float64."""
    return gammaln(a) + gammaln(b) - gammaln(a + b)


def log_incomplete_beta(a, b, x: Times, rest: Times) -> Times:
    """log I_x(a, b), given x and `rest` = 1 - x. jax.scipy's betainc has no derivative in a and b, and in float32 a
    relative error of 3e-5."""
    return jnp.where(x <= 0.5, _log_lower(a, b, x), jnp.log1p(-jnp.exp(_log_lower(b, a, rest))))


def incomplete_beta(a, b, x: Times, rest: Times) -> Times:
    """I_x(a, b), given x and `rest` = 1 - x: accurate in relative terms where it vanishes."""
    return jnp.where(x <= 0.5, jnp.exp(_log_lower(a, b, x)), 1 - jnp.exp(_log_lower(b, a, rest)))


@jax.jit
def _log_lower(a, b, x: Times) -> Times:
    """log I_x(a, b) for x <= 1/2 (the value at 1/2 above), by x^a (1-x)^b / (a B(a, b)) * 2F1(a + b, 1; a + 1; x).

    The terms of the series are positive, so nothing cancels. DLMF 8.17.8.
    """
    inside = jnp.where((x > 0) & (x <= 0.5), x, 0.5)
    step = lambda n, total: 1 + inside * (a + b + (_TERMS - 1 - n)) / (a + 1 + (_TERMS - 1 - n)) * total
    series = jax.lax.fori_loop(0, _TERMS, step, jnp.ones_like(inside + a + b))
    value = a * jnp.log(inside) + b * jnp.log1p(-inside) - betaln(a, b) - jnp.log(a) + jnp.log(series)
    return jnp.where(x > 0, value, -jnp.inf)


@jax.custom_jvp
def inverse_incomplete_beta(a, b, y: Times, rest: Times) -> Times:
    """The x with I_x(a, b) = y, given y and `rest` = 1 - y; accurate in relative terms near x = 0.

    Newton's method for log I as a function of log x, which is nearly a line for x <= 1/2: from x^a = y a B(a, b) its
    steps all have one sign, for log I is concave there (b >= 1) or convex (b <= 1) and the start on the right side.
    """
    half = jnp.exp(_log_lower(a, b, jnp.full_like(y, 0.5)))
    low = _inverse_lower(a, b, jnp.minimum(y, half))
    high = 1 - _inverse_lower(b, a, jnp.minimum(rest, 1 - half))
    return jnp.where(y <= half, low, high)


@jax.jit
def _inverse_lower(a, b, y: Times) -> Times:
    log_y = jnp.log(jnp.where(y > 0, y, 1))
    log_b = betaln(a, b)

    def newton(_, u):
        x = jnp.exp(u)
        log_i = _log_lower(a, b, x)
        slope = jnp.exp(a * u + (b - 1) * jnp.log1p(-x) - log_b - log_i)
        return jnp.minimum(u + (log_y - log_i) / slope, jnp.log(0.5))

    start = jnp.minimum((log_y + log_b + jnp.log(a)) / a, jnp.log(0.5))
    return jnp.where(y > 0, jnp.exp(jax.lax.fori_loop(0, _NEWTON, newton, start)), 0)


@inverse_incomplete_beta.defjvp
def _inverse_jvp(primals, tangents):
    """dx = (dy - dI/da da - dI/db db) / I'(x)."""
    a, b, y, rest = primals
    da, db, dy, drest = tangents
    x = inverse_incomplete_beta(a, b, y, rest)
    _, change = jax.jvp(lambda a, b: incomplete_beta(a, b, x, 1 - x), (a, b), (da, db))
    density = jnp.exp((a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x) - betaln(a, b))
    half = x <= 0.5
    return x, (jnp.where(half, dy, -drest) - change) / density
