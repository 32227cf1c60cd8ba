"""Energies of a schedule (arXiv 2509.13866, section 3), exactly: what they are, who minimises them, and by how much.

With progress tau = 1 - t, a(tau) = alpha(1 - tau) and a weighting curve gamma(tau), all three energies of the paper are
multiples of the scalar functional

    E(a, gamma) = int_0^1 a'^2 / (gamma' a (1 - a)) dtau = 4 int theta'^2 / gamma' dtau >= pi^2,   theta=arcsin sqrt(a)

with equality where theta = pi gamma / 2 (Cauchy-Schwarz). So the minimum is pi^2 whatever gamma is: the energy ranks
schedules for a given gamma, and never gammas; it knows the data only through a constant factor, and predicts nothing of
the quality of samples. gamma is given as the schedule whose alpha(t) is gamma(1 - t), as in `process.EnergyOptimal`.

On the host, in float64.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import betaln

from mdmjax.base import Schedule
from mdmjax.process import OnGrid, Tabulated, mirrored

FISHER_RAO_SCALE = 4.0  # of the geodesic energy: with it the three energies are equal for one token

Values = Sequence[float] | Float[np.ndarray, "T1"]

# Gauss-Legendre panels in u = -log(2 t), t in (0, 1/2]: what vanishes as a power of t decays exponentially in u.
_EDGES = np.concatenate([[0, 0.5], 2.0 ** np.arange(10), [680]])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


class _Path(NamedTuple):
    """A schedule at the nodes of both halves [2, panels, nodes]: t near 0 in the first, 1 - t near 0 in the second."""

    visible: np.ndarray  # alpha
    hidden: np.ndarray  # 1 - alpha
    speed: np.ndarray  # |alpha'|


def _times() -> tuple[np.ndarray, np.ndarray]:
    """(t, dt) of one half [panels, nodes]."""
    middle, half = (_EDGES[1:] + _EDGES[:-1]) / 2, (_EDGES[1:] - _EDGES[:-1]) / 2
    t = np.exp(-(middle[:, None] + half[:, None] * _NODES)) / 2
    return t, half[:, None] * _WEIGHTS * t


def _path(schedule: Schedule) -> _Path:
    """ValueError for a schedule on a grid: its kinks lie inside the panels."""
    if isinstance(schedule, Tabulated | OnGrid):
        raise ValueError(f"{type(schedule).__name__}: a schedule on a grid has kinks; use discrete_energy")
    t, _ = _times()
    with jax.enable_x64(True):
        halves = []
        for half in (schedule, mirrored(schedule)):
            # 1 - t of a schedule without a mirror image of its own has no digits left for small t
            usable = np.where((t > 1e-8) | (half is schedule) | hasattr(schedule, "mirrored"), t, np.nan)
            time = jnp.asarray(usable)
            visible, hidden = half.alpha(time), half.one_minus_alpha(time)
            halves.append([np.asarray(x, np.float64) for x in (visible, hidden, half.weight(time) * hidden)])
    (visible, hidden, speed), (hidden_, visible_, speed_) = halves
    return _Path(np.stack([visible, visible_]), np.stack([hidden, hidden_]), np.stack([speed, speed_]))


def _integral(values: Float[np.ndarray, "2 P N"]) -> float:
    """int_0^1 f from its values at the nodes of both halves; inf where it diverges at an end.

    Beyond the last panel whose values are all positive numbers, where some factor is lost to underflow, f is taken for
    the power of t that it is there.
    """
    t, dt = _times()
    total = 0.0
    for half in values:
        good = (np.isfinite(half) & (half > 0)).all(1)
        panels = len(good) if good.all() else int(np.argmin(good))
        if panels == 0:
            return math.nan
        total += float((half[:panels] * dt[:panels]).sum())
        (f0, f1), (t0, t1) = half[panels - 1, [0, -1]], t[panels - 1, [0, -1]]
        power = 1 + math.log(f1 / f0) / math.log(t1 / t0)  # of t f(t)
        end = math.exp(-_EDGES[panels]) / 2
        if power < 1e-9:
            return math.inf
        total += f1 * t1 * (end / t1) ** power / power
    return total


def energy(schedule: Schedule, gamma: Schedule) -> float:
    """E(a, gamma) of the module: at least pi^2, infinite where the integral diverges.

    Relative error about 1e-10 for schedules that are smooth inside (0, 1) and have a `mirrored` of their own, 1e-6 for
    those without. ValueError for schedules on a grid, which have kinks: see `discrete_energy`.
    """
    a, g = _path(schedule), _path(gamma)
    with np.errstate(all="ignore"):
        return _integral(a.speed**2 / (g.speed * a.visible * a.hidden))


def geodesic_energy(schedule: Schedule, gamma: Schedule, length: int, scale: float = FISHER_RAO_SCALE) -> float:
    """E_g = int (scale / gamma') sum over positions of |y'|^2, y = (sqrt(1 - a), sqrt(a)); n E at the default scale.

    ValueError as `energy`.
    """
    a, g = _path(schedule), _path(gamma)
    with np.errstate(all="ignore"):
        speed = (a.speed / 2) ** 2 * (1 / a.hidden + 1 / a.visible)
        return length * scale * _integral(speed / g.speed)


def conditional_energy(schedule: Schedule, gamma: Schedule, length: int) -> float:
    """E_c = int (1 / gamma') sum over z -> x of p(z | x1) / p(x | x1) Q(z, x | x1)^2; n 2^(n-1) E.

    x shows one token of the clean x1 more than z; Q = a' / (1 - a). The same for every x1. Summed over the number k of
    tokens that z shows: the C(n, k) (n - k) moves of each k have equal terms. ValueError as `energy`.
    """
    a, g = _path(schedule), _path(gamma)
    with np.errstate(all="ignore"):
        total = 0.0
        for shown in range(length):  # of the C(n, shown) states z, each leads to n - shown states x
            p = lambda k: a.visible**k * a.hidden ** (length - k)
            moves = math.comb(length, shown) * (length - shown)
            total = total + moves * p(shown) / p(shown + 1) * (a.speed / a.hidden) ** 2
        return _integral(total / g.speed)


def kinetic_energy(schedule: Schedule, gamma: Schedule, law: Float[np.ndarray, "..."]) -> float:
    """E_k = int (1 / gamma') sum over z -> x, p(z), p(x) > 0, of p(z) / p(x) Q(z, x)^2, by enumeration; C_k E.

    `law` is the data's, of shape [d] * n; Q(z, x) = a' / (1 - a) q(x_i | visible tokens of z). ValueError as `energy`.
    """
    a, g = _path(schedule), _path(gamma)
    length, padded = law.ndim, _marginals(law)
    with np.errstate(all="ignore"):
        total = 0.0
        for z in np.argwhere(padded > 0):
            masks = np.flatnonzero(z == law.shape[0])
            p_z = padded[tuple(z)] * a.visible ** (length - len(masks)) * a.hidden ** len(masks)
            for i in masks:
                for value in range(law.shape[0]):
                    x = z.copy()
                    x[i] = value
                    if padded[tuple(x)] > 0:
                        p_x = padded[tuple(x)] * a.visible ** (length - len(masks) + 1) * a.hidden ** (len(masks) - 1)
                        rate = a.speed / a.hidden * padded[tuple(x)] / padded[tuple(z)]
                        total = total + p_z / p_x * rate**2
        return _integral(total / g.speed)


def kinetic_constant(law: Float[np.ndarray, "..."]) -> int:
    """C_k = E_k / E = the sum over states z with p(z) > 0 of its number of masks; n (d+1)^(n-1) for full support.

    It depends on the support of the data too, not on n and d alone.
    """
    states = np.argwhere(_marginals(law) > 0)
    return int((states == law.shape[0]).sum())


def _marginals(law: Float[np.ndarray, "..."]) -> np.ndarray:
    """q(visible part of z) of every partially masked state, shape [d+1] * n, the last index of an axis the mask."""
    if len(set(law.shape)) > 1:
        raise ValueError(f"law of shape {list(law.shape)}: all axes must have the same size")
    for axis in range(law.ndim):
        law = np.concatenate([law, law.sum(axis, keepdims=True)], axis)
    return law


def beta_energy(schedule: tuple[float, float], gamma: tuple[float, float]) -> float:
    """E of the Beta schedule (a', b') under the weight Beta (a, b), in closed form:

        pi^2 B(a, b) B(2a' - a, 2b' - b) / B(a', b')^2   where 2a' > a and 2b' > b, else infinite.

    Raises ValueError for a parameter that is not positive.
    """
    (a1, b1), (a, b) = schedule, gamma
    if not min(a1, b1, a, b) > 0:
        raise ValueError(f"beta_energy({schedule}, {gamma}): all parameters must be > 0")
    if not (2 * a1 > a and 2 * b1 > b):
        return math.inf
    return math.pi**2 * math.exp(betaln(a, b) + betaln(2 * a1 - a, 2 * b1 - b) - 2 * betaln(a1, b1))


# ---- on a grid of steps ----------------------------------------------------------------------------------------------


def discrete_energy(a: Values, gamma: Values, kind: str = "arc") -> float:
    """4 sum_k s_k / (gamma_{k+1} - gamma_k) for values 0 = a_0 < ... < a_T = 1 at 0 = gamma_0 < ... < gamma_T = 1.

    s_k = theta_k^2 ("arc") or 2 (1 - cos theta_k) ("chord", arXiv 2509.13866, appendix D.5), theta_k the angle between
    steps. The arc form is at least pi^2, reached at a_k = sin^2(pi gamma_k / 2). The chord form has that minimiser only
    for equal steps of gamma, with value 8 T^2 (1 - cos(pi / 2T)); in general see `chord_optimum`. ValueError for values
    that do not increase from 0 to 1 and for another kind.
    """
    a, gamma = _grid("a", a), _grid("gamma", gamma)
    if len(a) != len(gamma):
        raise ValueError(f"a has {len(a)} values and gamma {len(gamma)}: they must be as many")
    theta = np.diff(np.arcsin(np.sqrt(a)))
    shapes = dict(arc=lambda: theta**2, chord=lambda: 4 * np.sin(theta / 2) ** 2)
    if kind not in shapes:
        raise ValueError(f"kind={kind!r}: choose arc or chord")
    return float(4 * (shapes[kind]() / np.diff(gamma)).sum())


def chord_optimum(gamma: Values) -> Float[np.ndarray, "T1"]:
    """The a_k that minimise the chord energy: sin(theta_k) / (gamma_{k+1} - gamma_k) is the same for all k.

    The energy is convex in theta on [0, pi/2], so that condition, with sum theta_k = pi/2, is enough. The paper has the
    geodesic points optimal for every gamma; they are only where all steps are equal. ValueError as `discrete_energy`.
    """
    steps = np.diff(_grid("gamma", gamma))
    angles = lambda scale: np.arcsin(np.minimum(scale * steps / steps.max(), 1))
    if len(steps) == 1:
        return np.array([0.0, 1.0])
    scale = brentq(lambda s: angles(s).sum() - math.pi / 2, 0, 1, xtol=1e-16, rtol=1e-15)
    a = np.sin(np.concatenate([[0], np.cumsum(angles(scale))])) ** 2
    a[-1] = 1
    return a


def _grid(name: str, values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or values[0] != 0 or values[-1] != 1 or not (np.diff(values) > 0).all():
        raise ValueError(f"{name}: needs at least two values that increase strictly from 0 to 1")
    return values
