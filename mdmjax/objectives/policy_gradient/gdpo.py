"""GDPO (arXiv 2510.08554): sequence-level GRPO on the bound, its integral over rates by a quadrature rule."""

import dataclasses

import jax.numpy as jnp

from mdmjax.objectives.policy_gradient.interface import Clip, k3
from mdmjax.objectives.policy_gradient.sequence import SequenceGRPO
from mdmjax.process import Allocation, Law, Quadrature


@dataclasses.dataclass(frozen=True)
class GDPO(SequenceGRPO):
    """rho = exp((B^ - B^_old) / L) with B^ at the rates of a Gauss-Legendre rule, PPO's clip, + kl k3 of B^ / L.

    The rates do not vary, so V_t is no variance but the error of the rule: none where 2 nodes >= L, else a bias. As far
    as the paper's summary says; details of its loss are not known here. Divided by the number of completions.
    """

    allocation: Allocation = Allocation(2)
    law: Law = Quadrature(2)
    clip: Clip = Clip()

    def kl(self, current, reference, eligible):
        size = jnp.maximum(eligible.sum(1), 1)
        return k3(current / size, reference / size)
