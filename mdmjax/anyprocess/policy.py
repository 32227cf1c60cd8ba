"""What a policy of any-process generation is: a token and three decisions for each position of a canvas."""

from typing import Protocol, runtime_checkable

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
