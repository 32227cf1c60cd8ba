"""The optimiser of a network together with the weights of its order: two phases, two rates.

The parameters are {"network": ..., "order": log_weights [L]}. First the network learns under the order law as it stands
(equal weights: plain masked diffusion), then the order learns too. The joint objective is not convex: an order that is
free from the first step is decided by conditionals that are not yet fitted, and then starves the others.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

NEVER = 2**31 - 1  # a start that no run reaches


def with_order(
    network: optax.GradientTransformation,
    *,
    learning_rate: float,
    start: int | Int[Array, ""] = NEVER,
    kick: Float[Array, "L"] | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """`network` for the network; for the order weights Adam at a constant rate, from the step numbered `start` on.

    Before `start` the order weights stand still and gather no moments. After each of their updates their mean is 0. The
    clipping and the weight decay of `network` do not see them. `kick` is added to them once, at `start`: another
    starting point. Both are kept in the state, so that one compiled step serves runs that differ in them only.
    ValueError for a rate that is not positive, or a negative start.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate} of the order: must be > 0")
    if isinstance(start, int) and start < 0:
        raise ValueError(f"start={start} of the order: must be >= 0")
    order = _waiting(optax.adam(learning_rate, b1, b2), start, kick)
    return optax.partition({"network": network, "order": order}, {"network": "network", "order": "order"})


class _Waiting(NamedTuple):
    step: Int[Array, ""]
    start: Int[Array, ""]
    kick: Any  # as the parameters
    inner: Any


def _waiting(inner: optax.GradientTransformation, start, kick) -> optax.GradientTransformation:
    def init(params):
        moved = jax.tree.map(lambda p: jnp.zeros_like(p) if kick is None else jnp.asarray(kick, p.dtype), params)
        return _Waiting(jnp.zeros((), jnp.int32), jnp.asarray(start, jnp.int32), moved, inner.init(params))

    def update(gradients, state, params):
        updates, after = inner.update(gradients, state.inner, params)
        on, first = state.step >= state.start, state.step == state.start

        def shift(u, p, kick):
            u = u + jnp.where(first, kick, 0)
            return jnp.where(on, u - (p + u).mean(), 0)

        updates = jax.tree.map(shift, updates, params, state.kick)
        after = jax.tree.map(lambda new, old: jnp.where(on, new, old), after, state.inner)
        return updates, state._replace(step=state.step + 1, inner=after)

    return optax.GradientTransformation(init, update)
