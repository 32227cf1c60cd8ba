"""Values that a position cannot have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.base import Denoiser


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Legal:
    """A denoiser whose logits are -inf where `allowed` [L, V] is False: such values have probability 0, exactly.

    For tables, where each column has values of its own. An illegal target has an infinite loss. No `SplitDenoiser`, for
    what is allowed depends on the position. ValueError for a position without any value, where `allowed` is known.
    """

    denoiser: Denoiser
    allowed: Bool[Array, "L V"] | Bool[np.ndarray, "L V"]

    def __post_init__(self):
        if isinstance(self.allowed, np.ndarray) and not self.allowed.any(1).all():
            raise ValueError(f"allowed: position {int(np.argmin(self.allowed.any(1)))} has no value that is allowed")

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        logits = self.denoiser(tokens, t, at=at)
        allowed = jnp.asarray(self.allowed)
        legal = jnp.broadcast_to(allowed, logits.shape) if at is None else allowed[at]
        return jnp.where(legal, logits, -jnp.inf)
