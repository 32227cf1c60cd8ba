"""What a policy of any-process generation is: a token and three decisions for each position of a canvas."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CONTROLS = ("remask", "insert", "delete")  # the order of the last axis of control logits and of their labels


@runtime_checkable
class Policy(Protocol):
    """`policy(tokens, lengths) -> (logits, controls)` (arXiv 2510.06190).

    tokens [B, N] are ids 0..V-1, the mask V, and PAD (V + 1) beyond `lengths` [B], which a policy must not attend to.
    logits [B, N, V] are of the token at each position (never of the mask), read at masks only. controls [B, N, 3] are
    the logits of remask, insert and delete there, in the order of CONTROLS. A policy knows no time: positions change
    their numbers as tokens come and go, and what remains to be done shows in the canvas.
    """

    def __call__(
        self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"]
    ) -> tuple[Float[Array, "B N V"], Float[Array, "B N 3"]]: ...


def said_at(
    policy: Policy, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], t: Float[Array, "B"]
) -> tuple[Float[Array, "B N W"], Float[Array, "B N 3"]]:
    """What a policy says at time t. One that is not `timed`, as a network with `time` is, does not know the time."""
    return policy(tokens, lengths, *((t,) if getattr(policy, "timed", False) else ()))


@dataclasses.dataclass(frozen=True)
class Window:
    """A policy that looks at the first `size` tokens of each row, and does nothing beyond them.

    A step costs the same whatever the length; what is right on all windows is right at every length. Beyond the window
    the logits are 0 and the controls -inf.
    """

    policy: Policy
    size: int

    @property
    def timed(self) -> bool:
        """Whether it wants a time."""
        return getattr(self.policy, "timed", False)

    def __call__(
        self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], *t: Float[Array, "B"]
    ) -> tuple[Float[Array, "B N V"], Float[Array, "B N 3"]]:
        size = min(self.size, tokens.shape[1])
        logits, controls = self.policy(tokens[:, :size], jnp.minimum(lengths, size), *t)
        beyond = ((0, 0), (0, tokens.shape[1] - size), (0, 0))
        return jnp.pad(logits, beyond), jnp.pad(controls, beyond, constant_values=-jnp.inf)
