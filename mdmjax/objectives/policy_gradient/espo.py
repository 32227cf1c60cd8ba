"""ESPO (arXiv 2512.03759): sequence-level GRPO on the bound, by counts in couples."""

import dataclasses

import jax.numpy as jnp

from mdmjax.objectives.policy_gradient.interface import Clip, k2
from mdmjax.objectives.policy_gradient.sequence import SequenceGRPO


@dataclasses.dataclass(frozen=True)
class ESPO(SequenceGRPO):
    """rho = exp((B^ - B^_old) / L), PPO's clip, + kl (B^ - B^_ref)^2 / (2 L), L the tokens of the completion.

    B^ by `CoupledCounts` with two draws unless said otherwise, unbiased for the bound B. (rho is not: it is a function
    of B^.) Divided by the number of completions.
    """

    clip: Clip = Clip(kl=1e-3)

    def kl(self, current, reference, eligible):
        return k2(current, reference) / jnp.maximum(eligible.sum(1), 1)
