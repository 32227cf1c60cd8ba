"""UniGRPO (MMaDA, arXiv 2505.15809): GRPO on the mean log-probability of masked tokens, at random rates."""

import dataclasses

import jax.numpy as jnp

from mdmjax.objectives.policy_gradient.sequence import SequenceGRPO
from mdmjax.process import Allocation, Continuous, Law, iid


@dataclasses.dataclass(frozen=True)
class UniGRPO(SequenceGRPO):
    """S = the mean of log p over the masked tokens at a rate r ~ U[0, 1]; rho = exp(S - S_old), PPO's clip, + kl k3.

    A number of one token. With r uniform so is the number of masks on 0..L, and with M_l the mean log p of a token of l
    masked ones E S = sum_l M_l / (L + 1), B = sum_l M_l: but for the draws that hide nothing, which say 0, S is B / L,
    BIASED by the factor L / (L + 1) alone. As far as second sources say. Divided by the number of completions.
    """

    allocation: Allocation = Allocation(1)
    law: Law = Continuous(spread=iid)

    def surrogate(self, log_p, draws, eligible, advantages):
        return (log_p.sum(2) / jnp.maximum(draws.masks.sum(2), 1)).mean(0)

    def log_ratio(self, current, old, eligible):
        return current - old  # of a token as it is
