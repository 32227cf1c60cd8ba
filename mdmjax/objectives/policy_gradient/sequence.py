"""GRPO on one number for a completion: the loss that methods with a surrogate of the whole sequence share."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.objectives.policy_gradient.interface import Clip, clipped, k3, weighted
from mdmjax.process import Allocation, CoupledCounts, Law


@dataclasses.dataclass(frozen=True)
class SequenceGRPO:
    """What the methods of this kind share: ESPO, GDPO, UniGRPO. By itself: rho = exp((B^ - B^_old) / L), + kl k3 of B^.

    allocation, law: the draws of each completion; any law will do, and an unbiased one makes an unbiased surrogate.
    """

    allocation: Allocation = Allocation(2)
    law: Law = CoupledCounts()
    clip: Clip = Clip()

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        return self.allocation.draw(self.law, key, ids, eligible)

    def surrogate(self, log_p, draws, eligible, advantages) -> Float[Array, "B"]:
        """The mean over the draws of weights x the sum of log p: an estimate of the bound B."""
        return weighted(log_p, draws).sum(1) / len(log_p)

    def kl(self, current, reference, eligible) -> Float[Array, "B"]:
        """Not negative, and 0 at the reference."""
        return k3(current, reference)

    def log_ratio(self, current, old, eligible) -> Float[Array, "B"]:
        """log rho."""
        return (current - old) / jnp.maximum(eligible.sum(1), 1)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        ratio = self.log_ratio(current, old, eligible)
        loss = clipped(ratio, advantages, self.clip.low, self.clip.high)
        if reference is not None:
            loss = loss + self.clip.kl * self.kl(current, reference, eligible)
        return loss, jnp.ones(len(loss), jnp.int32)
