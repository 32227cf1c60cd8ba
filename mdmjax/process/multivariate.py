"""Schedules with a trailing axis: one for each position, or one for each token value. They are different models.

A power schedule bends a scalar one: 1 - alpha_l(t) = (1 - alpha_base(t))^w_l. With one power for each position the base
says how many tokens are visible and the powers say which come first (`PlackettLuce`); a larger power is revealed
earlier. Powers are given by their logarithms, whose common shift changes no order.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdmjax.base import Schedule
from mdmjax.process.beta import known
from mdmjax.process.schedules import Linear, hidden_share


def check_log_weights(log_weights) -> None:
    """ValueError for weights of zero or infinity, where they are known: an array, or a tuple of numbers."""
    parts = log_weights if isinstance(log_weights, tuple) else (log_weights,)
    if not all(np.isfinite(part).all() for part in parts if known(part)):
        raise ValueError("log_weights: the weights must be > 0 and finite, so their logarithms must be finite")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PositionPowers:
    """1 - alpha_l(t) = (1 - alpha_base(t))^w_l, l = 1..L; weight_l = w_l weight_base. `log_weights` [L] are log w_l.

    arXiv 2511.19152, section 3, has the base `Linear`. The law of the order in which positions are revealed is
    `PlackettLuce(log_weights)` for every base, and so is the continuous-time bound; the base and a common factor of all
    w change how many are revealed at each of T steps. ValueError for weights of zero or infinity.
    """

    log_weights: Float[Array, "L"] | Float[np.ndarray, "L"]
    base: Schedule = Linear()

    def __post_init__(self):
        check_log_weights(self.log_weights)

    def log_hidden(self, t: Float[Array, "*s"]) -> Float[Array, "*s L"]:
        """log(1 - alpha_l(t)), without underflow: t^w is below the smallest float32 for w above about 150."""
        return _outer(_log_hidden(self.base, t), self.log_weights)

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s L"]:
        return -jnp.expm1(self.log_hidden(t))

    def one_minus_alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s L"]:
        return jnp.exp(self.log_hidden(t))

    def weight(self, t: Float[Array, "*s"]) -> Float[Array, "*s L"]:
        return _outer(self.base.weight(t), self.log_weights)

    def inverse(
        self, alpha: Float[Array, "*s L"], one_minus_alpha: Float[Array, "*s L"] | None = None
    ) -> Float[Array, "*s L"]:
        near_mask = jnp.log1p(-alpha)
        if one_minus_alpha is None:
            log_hidden = near_mask
        else:
            log_hidden = jnp.where(alpha < 0.5, near_mask, jnp.log(one_minus_alpha))
        log_base = log_hidden * _outer(jnp.ones(alpha.shape[:-1], alpha.dtype), -jnp.asarray(self.log_weights))
        return self.base.inverse(-jnp.expm1(log_base), jnp.exp(log_base))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ValuePowers:
    """alpha_v(t) = 1 - (1 - eps) t^w_v for each token value v; weight_v = w_v / t. `log_weights` [V] are log w_v.

    The GenMD4 form (arXiv 2406.04329, section 6, with eps = 1e-4). Unmasking then says something about the value: the
    true posterior depends on t, and the loss is `objectives.value_rate_loss`. With eps > 0 a share eps stays visible
    at t = 1. ValueError for weights of zero or infinity and for eps outside [0, 1).
    """

    log_weights: Float[Array, "V"] | Float[np.ndarray, "V"]
    eps: float = dataclasses.field(default=0.0, metadata=dict(static=True))

    def __post_init__(self):
        check_log_weights(self.log_weights)
        if not 0 <= self.eps < 1:
            raise ValueError(f"ValuePowers(eps={self.eps}): eps must be at least 0 and less than 1")

    def one_minus_alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s V"]:
        return (1 - self.eps) * jnp.exp(_outer(jnp.log(t), self.log_weights))

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s V"]:
        # 1 - (1 - eps) m = (1 - m) + eps m
        log_hidden = _outer(jnp.log(t), self.log_weights)
        return -jnp.expm1(log_hidden) + self.eps * jnp.exp(log_hidden)

    def weight(self, t: Float[Array, "*s"]) -> Float[Array, "*s V"]:
        return _outer(1 / t, self.log_weights)

    def inverse(
        self, alpha: Float[Array, "*s V"], one_minus_alpha: Float[Array, "*s V"] | None = None
    ) -> Float[Array, "*s V"]:
        hidden = hidden_share(alpha, one_minus_alpha)
        log_hidden = jnp.log(hidden) - jnp.log1p(-self.eps)
        return jnp.exp(log_hidden * _outer(jnp.ones(hidden.shape[:-1], hidden.dtype), -jnp.asarray(self.log_weights)))


def _outer(x: Float[Array, "*s"], log_weights) -> Float[Array, "*s L"]:
    """x w, for every element of x and every weight."""
    return jnp.multiply.outer(x, jnp.exp(log_weights))


def _log_hidden(base: Schedule, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """log(1 - alpha(t)), by the one of the two that has the digits."""
    visible, hidden = base.alpha(t), base.one_minus_alpha(t)
    near = visible < 0.5
    return jnp.where(near, jnp.log1p(-jnp.where(near, visible, 0)), jnp.log(jnp.where(near, 1, hidden)))
