"""Densities of the mask rate r on [eps, 1], to draw rates where an estimate of the loss is noisy.

The base law is r ~ U[eps, 1]. Every density p here is relative to it: p(r) dr / (1 - eps) is the probability of dr, the
base law itself has p = 1, and against the Lebesgue measure the density is p / (1 - eps). So for any p > 0

    E_base[Z(r)] = E_p[Z(r) / p(r)],   E_p[1 / p] = 1,   Var_p = E_base[E2 / p] - E_base[Z]^2,   E2(r) = E[Z^2 | r],

and the variance is least for p proportional to sqrt(E2), by Cauchy-Schwarz (arXiv 2511.18159). There E2 ~ c / r as
r -> 0, so the optimum tends to r^(-1/2). The weight 1 / r of a rate becomes 1 / (p(r) r). That is in the variable r:
in the time of another schedule than the linear one a density takes a Jacobian.

The whole of [eps, 1] has to be drawn, or the estimate is of something else. What has no closed inverse is made into
`Bins` (`tabulated`): the density that is sampled and the one in the weight are the same numbers, whatever function they
followed, a mixture of bins is bins again, and with 512 of them the variance is that of the function to about 1e-5.

All are pytrees. Values are checked when a density is made, and not when it passes through jit or grad: to read them
there would wait for the device, and a gradient has the shape of a density and is none.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdmjax.process.beta import Parameter, known

Reals = Float[Array, "*s"]
Vector = Float[Array, "*g K"] | Float[np.ndarray, "*g K"]
Edges = Float[Array, "*g K1"] | Float[np.ndarray, "*g K1"]  # K1 = K + 1
Class = TypeVar("Class", bound=type)


@runtime_checkable
class Density(Protocol):
    """A density relative to U[eps, 1], elementwise over any shape; the dtype is that of the argument."""

    @property
    def eps(self) -> Any:
        """The least rate."""
        ...

    def density(self, r: Reals) -> Reals:
        """p(r) > 0 for r in [eps, 1], with int_eps^1 p dr = 1 - eps."""
        ...

    def cdf(self, r: Reals) -> Reals:
        """P(rate <= r) = int_eps^r p / (1 - eps)."""
        ...

    def from_cdf(self, u: Reals) -> Reals:
        """The r in [eps, 1] with cdf(r) = u: for u uniform on (0, 1] a draw of the rate."""
        ...


def unchecked_pytree(cls: Class) -> Class:
    """Registers a dataclass whose fields are all leaves, and which is rebuilt without its checks."""
    names = [field.name for field in dataclasses.fields(cls)]

    def rebuild(_, leaves):
        made = object.__new__(cls)
        for name, leaf in zip(names, leaves, strict=True):
            object.__setattr__(made, name, leaf)
        return made

    leaves = lambda made: ([(jax.tree_util.GetAttrKey(name), getattr(made, name)) for name in names], None)
    jax.tree_util.register_pytree_with_keys(cls, leaves, rebuild)
    return cls


def check(name: str, value: Any, holds: Callable[[np.ndarray], Any], wanted: str) -> None:
    """ValueError for an argument that is known and not as wanted; what is traced passes."""
    if known(value) and not (np.isfinite(value).all() and np.all(holds(np.asarray(value)))):
        raise ValueError(f"{name}={value}: {wanted}")


def _check_eps(eps: Any) -> None:
    check("eps", eps, lambda e: (e > 0) & (e < 1), "must be in (0, 1)")


def _check_edges(edges: Any) -> None:
    right = lambda e: e.ndim and e.shape[-1] > 1 and (e[..., 0] > 0).all() and (np.diff(e) > 0).all()
    check("edges", edges, lambda e: right(e) and (e[..., -1] == 1).all(), "must increase strictly from eps > 0 to 1")


@unchecked_pytree
@dataclasses.dataclass(frozen=True)
class Uniform:
    """p = 1, the base law. ValueError unless 0 < eps < 1."""

    eps: Parameter

    def __post_init__(self):
        _check_eps(self.eps)

    def density(self, r: Reals) -> Reals:
        return jnp.ones_like(r)

    def cdf(self, r: Reals) -> Reals:
        return (r - self.eps) / (1 - self.eps)

    def from_cdf(self, u: Reals) -> Reals:
        return (1 - u) * self.eps + u


@unchecked_pytree
@dataclasses.dataclass(frozen=True)
class PowerRate:
    """p proportional to r^-power. Power 0 is uniform, 1 log-uniform, 1/2 the limit of the optimum as r -> 0.

    With c = 1 - power: p = (1 - eps) r^-power c / (1 - eps^c), cdf = ((r / eps)^c - 1) / (eps^-c - 1). ValueError
    unless 0 < eps < 1 and 0 <= power <= 2.
    """

    eps: Parameter
    power: Parameter

    def __post_init__(self):
        _check_eps(self.eps)
        check("power", self.power, lambda k: (k >= 0) & (k <= 2), "must be in [0, 2]")

    @property
    def _c(self):
        return jnp.where(self.power == 1, 1e-20, 1 - self.power)  # the logarithms are their limits to all digits

    def density(self, r: Reals) -> Reals:
        total = -jnp.expm1(self._c * jnp.log(self.eps)) / self._c
        return (1 - self.eps) / total * r**-self.power

    def cdf(self, r: Reals) -> Reals:
        above = lambda r: jnp.expm1(self._c * jnp.log1p((r - self.eps) / self.eps))
        return above(r) / above(jnp.ones_like(r))

    def from_cdf(self, u: Reals) -> Reals:
        end = self._c * jnp.log(self.eps)  # r^c = u + (1 - u) eps^c, two terms above 0
        near_one = jnp.log1p((1 - u) * jnp.expm1(jnp.clip(end, -1, 1)))
        log_r = jnp.where(jnp.abs(end) < 1, near_one, jnp.log(u + (1 - u) * jnp.exp(end))) / self._c
        return jnp.clip(jnp.exp(log_r), jnp.asarray(self.eps, u.dtype), 1)


@unchecked_pytree
@dataclasses.dataclass(frozen=True)
class Bins:
    """Constant in K bins: p = mass_b (1 - eps) / (e_{b+1} - e_b) for r in (e_b, e_{b+1}].

    `edges` [K+1] run from e_0 = eps to e_K = 1, `mass` [K] are the probabilities of the bins; a stack of bins, to be
    mapped over, has axes in front. ValueError unless edges increase from above 0 to 1, and masses are > 0, finite and
    sum to 1.
    """

    edges: Edges
    mass: Vector

    def __post_init__(self):
        _check_edges(self.edges)
        check("mass", self.mass, lambda q: q > 0, "must be > 0 and finite: every rate has to be drawn")
        check("mass", self.mass, lambda q: np.abs(q.sum(-1) - 1) < 1e-5, "must sum to 1")
        if known(self.edges) and known(self.mass) and self.edges.shape[-1] != self.mass.shape[-1] + 1:
            raise ValueError(f"mass: K={self.mass.shape[-1]}, must be one less than the {self.edges.shape[-1]} edges")

    @property
    def eps(self) -> Float[Array, "*g"] | Float[np.ndarray, "*g"] | np.floating:
        return self.edges[..., 0]

    def _tables(self, dtype) -> tuple[Array, Array, Array]:
        """Edges [K+1], mass [K] and the distribution function at the edges [K+1]."""
        edges, mass = jnp.asarray(self.edges, dtype), jnp.asarray(self.mass, dtype)
        return edges, mass, jnp.pad(jnp.cumsum(mass), (1, 0))

    def density(self, r: Reals) -> Reals:
        edges, mass, _ = self._tables(r.dtype)
        return (mass * (1 - edges[0]) / jnp.diff(edges))[jnp.searchsorted(edges[1:-1], r)]

    def cdf(self, r: Reals) -> Reals:
        edges, mass, below = self._tables(r.dtype)
        b = jnp.searchsorted(edges[1:-1], r)
        return jnp.minimum(below[b] + mass[b] * ((r - edges[b]) / jnp.diff(edges)[b]), 1)

    def from_cdf(self, u: Reals) -> Reals:
        edges, mass, below = self._tables(u.dtype)
        b = jnp.searchsorted(below[1:-1], u)
        r = edges[b] + jnp.diff(edges)[b] * ((u - below[b]) / mass[b])
        return jnp.clip(r, edges[b], edges[b + 1])


def log_edges(eps: float, bins: int) -> Float[np.ndarray, "K1"]:
    """Edges eps = e_0 < ... < e_K = 1 of K = `bins` bins, equal in log r. ValueError unless 0 < eps < 1, bins >= 1."""
    _check_eps(eps)
    check("bins", bins, lambda k: k >= 1, "must be >= 1")
    inner = np.exp(np.log(eps) * (np.arange(bins - 1, 0, -1) / bins))
    return np.concatenate([[eps], inner, [1.0]])


def fit_bins(second_moments: Vector, edges: Edges, floor: float | Float[Array, ""] = 1e-6) -> Bins:
    """Bins with mass_b proportional to d_b sqrt(I_b + floor), d_b the widths: the least variance among those bins.

    `second_moments` [K] are I_b, the mean of Z^2 over rates uniform in bin b, examples and masks, with Z = 0 where
    nothing was hidden. ValueError for negative or infinite ones, edges as in `Bins`, floor <= 0.
    """
    check("second_moments", second_moments, lambda i: i >= 0, "must be >= 0 and finite")
    check("floor", floor, lambda f: f > 0, "must be > 0")
    return _normalised(jnp.sqrt(jnp.asarray(second_moments) + floor), edges)


def mix(bins: Bins, share: float | Float[Array, ""]) -> Bins:
    """The density (1 - share) p + share, which is at least `share`: no weight 1 / p is above 1 / share.

    ValueError unless 0 <= share <= 1.
    """
    check("share", share, lambda s: (s >= 0) & (s <= 1), "must be in [0, 1]")
    edges, mass = jnp.asarray(bins.edges), jnp.asarray(bins.mass)
    base = jnp.diff(edges) / (1 - edges[..., :1])
    return Bins(edges, (1 - share) * mass + share * base)


def tabulated(shape: Callable[[Reals], Reals], edges: Edges) -> Bins:
    """Bins that follow `shape`, any function > 0 of rates [K, 4] up to a factor: its mean in each bin.

    The means are Gauss-Legendre sums of four nodes. ValueError for edges as in `Bins`, and for a shape that vanishes.
    """
    at, weight = np.polynomial.legendre.leggauss(4)
    _check_edges(edges)
    edges = jnp.asarray(edges)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    values = shape(middle[:, None] + half[:, None] * jnp.asarray(at, edges.dtype)[None])
    return _normalised(values @ jnp.asarray(weight / 2, edges.dtype), edges)


def _normalised(value: Vector, edges: Edges) -> Bins:
    """Bins whose density is proportional to `value` [K]."""
    _check_edges(edges)
    if value.shape[-1] + 1 != edges.shape[-1]:
        raise ValueError(f"edges: {edges.shape[-1]} for {value.shape[-1]} bins, must be one more than the bins")
    edges = jnp.asarray(edges, value.dtype)
    mass = value * jnp.diff(edges)
    return Bins(edges, mass / mass.sum(-1, keepdims=True))
