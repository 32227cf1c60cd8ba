"""The loop of every sampler: one call of the network after the other, until no row is left that goes on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def drive(
    advance: Callable, state: Any, live: Callable, limit: int, idle: Callable | None = None
) -> tuple[Any, Any | None]:
    """(last state, what calls showed): `advance(state) -> (state, seen)` while `live(state)`, at most `limit` times.

    Without `idle` nothing is kept of the calls, and the second is None. With it there are `limit` slices of `seen`, one
    for each call; those that are not needed are not made, and show `idle(state)`. Compiled once, whatever is done.
    """
    if idle is None:
        _, state = jax.lax.while_loop(
            lambda carry: (carry[0] < limit) & live(carry[1]),
            lambda carry: (carry[0] + 1, advance(carry[1])[0]),
            (jnp.zeros((), jnp.int32), state),
        )
        return state, None
    step = lambda state, _: jax.lax.cond(live(state), advance, lambda state: (state, idle(state)), state)
    return jax.lax.scan(step, state, None, length=limit)
