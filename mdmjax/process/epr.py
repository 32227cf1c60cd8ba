"""The EPR shape of a density of the mask rate, and its fit to measured second moments of the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.optimize import minimize
from jaxtyping import Array, Float, Key

from mdmjax.process.beta import Parameter
from mdmjax.process.densities import Reals, check, unchecked_pytree

START = (-0.3, 0.4, -1.0, 0.3, 0.2, -0.2, 0.2)  # the authors', of what softplus makes the parameters (`_from_free`)


@unchecked_pytree
@dataclasses.dataclass(frozen=True)
class EPR:
    """The shape sqrt(v + g^2) with g = scale exp(k r^m), v = a r^q1 + b (1 - r)^q2, up to a factor.

    From the authors' code, dj614/StableDLLM (arXiv 2511.18159): g models the mean loss at rate r, v its variance. It is
    finite at r = 0, so it cannot follow r^(-1/2). It is no `Density`, `tabulated(EPR(...), log_edges(eps, 512))` is.
    ValueError unless a, b, scale > 0, q1, q2, m >= 1 and k >= 0.
    """

    a: Parameter
    b: Parameter
    scale: Parameter
    q1: Parameter
    q2: Parameter
    k: Parameter
    m: Parameter

    def __post_init__(self):
        for name in ("a", "b", "scale"):
            check(name, getattr(self, name), lambda x: x > 0, "must be > 0 and finite")
        for name in ("q1", "q2", "m"):
            check(name, getattr(self, name), lambda x: x >= 1, "must be >= 1 and finite")
        check("k", self.k, lambda x: x >= 0, "must be >= 0 and finite")

    def log(self, r: Reals) -> Reals:
        """The logarithm of the shape; exp(k) may overflow, this does not."""
        v = self.a * r**self.q1 + self.b * (1 - r) ** self.q2
        return jnp.logaddexp(jnp.log(v), 2 * (jnp.log(self.scale) + self.k * r**self.m)) / 2

    def __call__(self, r: Reals) -> Reals:
        return jnp.exp(self.log(r))


def fit_epr(rates: Float[Array, "n"], weights: Float[Array, "n"], key: Key[Array, ""], *, starts: int = 20) -> EPR:
    """The `EPR` shape p that minimises KL(w || p) = int w log(w / p), by trapezoids on the grid, both normalised.

    `rates` [n] is an increasing grid in (0, 1], `weights` [n] the values w there, sqrt(E[Z^2 | r]), up to a factor. By
    BFGS from `starts` random starts around the authors', the best of which is kept. Consumes the key. ValueError for
    other rates, negative or infinite weights or none above 0, and starts < 1.
    """
    grid = lambda r: (np.diff(r) > 0).all() and r[0] > 0 and r[-1] <= 1 and len(r) > 1
    check("rates", rates, grid, "must increase strictly in (0, 1]")
    check("weights", weights, lambda w: (w >= 0).all() and w.any(), "must be >= 0 and finite, and not all 0")
    check("starts", starts, lambda n: n >= 1, "must be >= 1")
    noise = jax.random.normal(key, (starts, len(START)), weights.dtype)
    return _fit(rates, weights, jnp.asarray(START, weights.dtype)[None] + 0.6 * noise)


@jax.jit
def _fit(rates: Float[Array, "n"], weights: Float[Array, "n"], starts: Float[Array, "k 7"]) -> EPR:
    step = jnp.diff(rates)
    step = (jnp.pad(step, (0, 1)) + jnp.pad(step, (1, 0))) / 2
    target = weights / (step * weights).sum()
    log_target = jnp.log(jnp.where(target > 0, target, 1))

    def divergence(free):
        log_p = _from_free(free).log(rates)
        log_p = log_p - jax.nn.logsumexp(log_p, b=step)
        gap = log_target - log_p  # w log(w / p) - w + p has the same integral and, being >= 0 throughout, more digits
        return (step * jnp.where(target > 0, target * (gap + jnp.expm1(-gap)), jnp.exp(log_p))).sum()

    found = jax.vmap(lambda free: minimize(divergence, free, method="BFGS", options={"gtol": 1e-6}))(starts)
    return _from_free(found.x[jnp.argmin(jnp.where(jnp.isfinite(found.fun), found.fun, jnp.inf))])


def _from_free(free: Float[Array, "7"]) -> EPR:
    a, b, scale, q1, q2, k, m = jax.nn.softplus(free)
    return EPR(a + 1e-9, b + 1e-9, scale + 1e-9, 1 + q1, 1 + q2, k, 1 + m)
