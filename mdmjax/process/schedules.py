"""Scalar schedules. Each is alpha(t) = P(visible at t) from alpha(0) = 1 to alpha(1) = 0, exact at both ends.

alpha and one_minus_alpha are two formulas, not one and its complement, so both keep their relative precision where they
vanish: mask rates, weights and the inverse are made of them. The continuous-time bound is the same number for all of
them: weight(t) dt = d log(1 - alpha) (MDLM, arXiv 2406.07524, section 3.5; MD4, arXiv 2406.04329, section 4).

Where a schedule has `mirrored`, that is the one whose alpha(t) is this one's 1 - alpha(1 - t) (`process.mirrored`).
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdmjax.base import Schedule

_HALF_PI = math.pi / 2

Times = Float[Array, "*s"]


def hidden_share(alpha: Times, one_minus_alpha: Times | None) -> Times:
    """1 - alpha, as it is given where it is."""
    return 1 - alpha if one_minus_alpha is None else one_minus_alpha


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Linear:
    """alpha = 1 - t, weight = 1 / t. MDLM's log-linear noise sigma(t) = -log(1 - t) is this schedule."""

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def one_minus_alpha(self, t: Times) -> Times:
        return t

    def weight(self, t: Times) -> Times:
        return 1 / t

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        return hidden_share(alpha, one_minus_alpha)

    def mirrored(self) -> "Linear":
        return self


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Cosine:
    """alpha = 1 - sin(pi t / 2), the "cosine" of MaskGIT (arXiv 2202.04200) and MD4 (arXiv 2406.04329).

    Not to be taken for `SineSquared`. weight = (pi/2) cot(pi t / 2).
    """

    def alpha(self, t: Times) -> Times:
        return 2 * jnp.sin(_HALF_PI / 2 * (1 - t)) ** 2

    def one_minus_alpha(self, t: Times) -> Times:
        return jnp.sin(_HALF_PI * t)

    def weight(self, t: Times) -> Times:
        return _HALF_PI * jnp.sin(_HALF_PI * (1 - t)) / jnp.sin(_HALF_PI * t)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        near_data = jnp.arcsin(jnp.clip(hidden_share(alpha, one_minus_alpha), 0, 1)) / _HALF_PI
        near_mask = 1 - 2 * jnp.arcsin(jnp.sqrt(jnp.clip(alpha, 0, 1) / 2)) / _HALF_PI
        return jnp.where(alpha > 0.5, near_data, near_mask)

    def mirrored(self) -> "Sine":
        return Sine()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Sine:
    """alpha = sin(pi (1 - t) / 2), the "sine" of arXiv 2509.13866: fast from all masks, slow at the end.

    weight = (pi/2) cot(pi t / 4).
    """

    def alpha(self, t: Times) -> Times:
        return jnp.sin(_HALF_PI * (1 - t))

    def one_minus_alpha(self, t: Times) -> Times:
        return jnp.where(t < 0.5, 2 * jnp.sin(_HALF_PI / 2 * t) ** 2, 1 - self.alpha(t))  # exact at t = 1

    def weight(self, t: Times) -> Times:
        return _HALF_PI / jnp.tan(_HALF_PI / 2 * t)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        near_data = 2 * jnp.arcsin(jnp.sqrt(jnp.clip(hidden_share(alpha, one_minus_alpha), 0, 1) / 2)) / _HALF_PI
        near_mask = 1 - jnp.arcsin(jnp.clip(alpha, 0, 1)) / _HALF_PI
        return jnp.where(alpha > 0.5, near_data, near_mask)

    def mirrored(self) -> Cosine:
        return Cosine()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SineSquared:
    """alpha = sin^2(pi (1 - t) / 2), weight = pi cot(pi t / 2). The energy minimiser of arXiv 2509.13866."""

    def alpha(self, t: Times) -> Times:
        return jnp.sin(_HALF_PI * (1 - t)) ** 2

    def one_minus_alpha(self, t: Times) -> Times:
        return jnp.sin(_HALF_PI * t) ** 2

    def weight(self, t: Times) -> Times:
        return 2 * _HALF_PI * jnp.sin(_HALF_PI * (1 - t)) / jnp.sin(_HALF_PI * t)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        near_data = jnp.arcsin(jnp.sqrt(jnp.clip(hidden_share(alpha, one_minus_alpha), 0, 1))) / _HALF_PI
        near_mask = 1 - jnp.arcsin(jnp.sqrt(jnp.clip(alpha, 0, 1))) / _HALF_PI
        return jnp.where(alpha > 0.5, near_data, near_mask)

    def mirrored(self) -> "SineSquared":
        return self


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Polynomial:
    """alpha = 1 - t^power, weight = power / t. Raises ValueError for power <= 0."""

    power: float = 2.0

    def __post_init__(self):
        if not self.power > 0:
            raise ValueError(f"Polynomial(power={self.power}): power must be > 0")

    def alpha(self, t: Times) -> Times:
        return -jnp.expm1(self.power * jnp.log(t))

    def one_minus_alpha(self, t: Times) -> Times:
        return t**self.power

    def weight(self, t: Times) -> Times:
        return self.power / t

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        near_data = hidden_share(alpha, one_minus_alpha) ** (1 / self.power)
        near_mask = jnp.exp(jnp.log1p(-jnp.minimum(alpha, 0.5)) / self.power)
        return jnp.where(alpha > 0.5, near_data, near_mask)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Geometric:
    """1 - alpha = (1 - e^-s(t)) / (1 - e^-s(1)) with geometric noise s(t) = sigma_min ((sigma_max/sigma_min)^t - 1).

    The geometric schedule of SEDD (arXiv 2310.16834, section 5), which stops at exp(-sigma_max) and starts at
    exp(-sigma_min), moved to meet both ends exactly. weight = s'(t) / (e^s(t) - 1). Raises ValueError unless
    0 < sigma_min < sigma_max.
    """

    sigma_min: float = 1e-3
    sigma_max: float = 20.0

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"Geometric({self.sigma_min}, {self.sigma_max}): needs 0 < sigma_min < sigma_max")

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def _reach(self) -> float:
        return -math.expm1(self.sigma_min - self.sigma_max)

    def _noise(self, t: Times) -> Times:
        return self.sigma_min * jnp.expm1(self._log_ratio * t)

    def alpha(self, t: Times) -> Times:
        left = self.sigma_max * -jnp.expm1(self._log_ratio * (t - 1))  # s(1) - s(t), without cancellation
        noise = jnp.where(t < 0.5, self._noise(t), (self.sigma_max - self.sigma_min) - left)
        return jnp.exp(-noise) * -jnp.expm1(-left) / self._reach

    def one_minus_alpha(self, t: Times) -> Times:
        return -jnp.expm1(-self._noise(t)) / self._reach

    def weight(self, t: Times) -> Times:
        noise = self._noise(t)
        return self._log_ratio * (noise + self.sigma_min) / jnp.expm1(noise)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        # alpha * reach + e^-s(1) = e^-s(t), taken on the side that keeps its digits.
        near_data = -jnp.log1p(-hidden_share(alpha, one_minus_alpha) * self._reach)
        near_mask = -jnp.log(alpha * self._reach + math.exp(self.sigma_min - self.sigma_max))
        noise = jnp.where(alpha > 0.5, near_data, near_mask)
        return jnp.log1p(noise / self.sigma_min) / self._log_ratio


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Tabulated:
    """Piecewise linear through values of 1 - alpha at equally spaced times 0, 1/n, ..., 1.

    weight = (slope of the piece of t) / (1 - alpha). `hidden` is a tuple that increases strictly from 0 to 1;
    ValueError otherwise. Any measured or searched schedule.
    """

    hidden: tuple[float, ...]

    def __post_init__(self):
        steps = np.diff(self.hidden)
        if len(self.hidden) < 2 or self.hidden[0] != 0 or self.hidden[-1] != 1 or not np.all(steps > 0):
            raise ValueError("Tabulated(hidden): needs at least two values that increase strictly from 0 to 1")

    def _piecewise(self, u: Times, steps: np.ndarray) -> tuple[Times, Times]:
        """Value at u, and the step of its cell, of the curve that starts at 0 and rises by `steps` in equal cells."""
        cells = len(steps)
        cell = jnp.clip((u * cells).astype(jnp.int32), 0, cells - 1)
        below = jnp.asarray(np.concatenate([[0.0], np.cumsum(steps)[:-1]]), u.dtype)
        rise = jnp.asarray(steps, u.dtype)[cell]
        return below[cell] + rise * (u * cells - cell), rise

    def alpha(self, t: Times) -> Times:
        return self._piecewise(1 - t, np.diff(self.hidden)[::-1])[0]

    def one_minus_alpha(self, t: Times) -> Times:
        return self._piecewise(t, np.diff(self.hidden))[0]

    def weight(self, t: Times) -> Times:
        hidden, rise = self._piecewise(t, np.diff(self.hidden))
        return (len(self.hidden) - 1) * rise / hidden

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        return jnp.interp(
            hidden, jnp.asarray(self.hidden, hidden.dtype), jnp.linspace(0, 1, len(self.hidden), dtype=hidden.dtype)
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OnGrid:
    """A schedule at the times 0, 1/T, ..., 1 alone, which is all that a sampler of T steps reads; lines in between.

    `visible` and `hidden` [T+1] are alpha and 1 - alpha there. They are arrays, so one compiled sampler serves every
    schedule of T steps, and every budget of tokens for each step, which may be zero: `OnGrid.sampled`, `OnGrid.budget`.
    weight = (slope of the piece that ends at t or later) / (1 - alpha).
    """

    visible: Float[Array, "T1"] | Float[np.ndarray, "T1"]
    hidden: Float[Array, "T1"] | Float[np.ndarray, "T1"]

    @classmethod
    def sampled(cls, schedule: Schedule, steps: int) -> "OnGrid":
        """Another schedule at k / T. ValueError for steps < 1."""
        if steps < 1:
            raise ValueError(f"steps={steps}: must be >= 1")
        inner = jnp.asarray(np.arange(1, steps) / steps, jnp.result_type(float))
        ends = lambda first, values, last: np.concatenate([[first], np.asarray(values, np.float64), [last]])
        return cls(ends(1, schedule.alpha(inner), 0), ends(0, schedule.one_minus_alpha(inner), 1))

    @classmethod
    def budget(cls, counts: Sequence[int] | Int[np.ndarray, "T"]) -> "OnGrid":
        """counts[k] of n = sum(counts) tokens at step k, from all masks. ValueError for less than 0, or none."""
        counts = np.asarray(counts)
        if counts.ndim != 1 or not counts.size or counts.min() < 0 or counts.sum() < 1:
            raise ValueError(f"counts {counts.tolist()}: must be at least 0, and not all 0")
        visible = np.concatenate([[0], np.cumsum(counts)])[::-1] / counts.sum()
        return cls(visible, 1 - visible)

    @property
    def _times(self) -> np.ndarray:
        return np.arange(len(self.visible)) / (len(self.visible) - 1)

    def _between(self, t: Times, values) -> Times:
        return jnp.interp(t, jnp.asarray(self._times, t.dtype), jnp.asarray(values, t.dtype))

    def alpha(self, t: Times) -> Times:
        return self._between(t, self.visible)

    def one_minus_alpha(self, t: Times) -> Times:
        return self._between(t, self.hidden)

    def weight(self, t: Times) -> Times:
        rise = jnp.diff(jnp.asarray(self.hidden, t.dtype)) * (len(self.hidden) - 1)
        piece = jnp.searchsorted(jnp.asarray(self._times[1:-1], t.dtype), t)
        return rise[piece] / self.one_minus_alpha(t)

    def inverse(self, alpha: Times, one_minus_alpha: Times | None = None) -> Times:
        hidden = hidden_share(alpha, one_minus_alpha)
        return jnp.interp(hidden, jnp.asarray(self.hidden, hidden.dtype), jnp.asarray(self._times, hidden.dtype))
