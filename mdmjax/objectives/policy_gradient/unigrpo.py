"""UniGRPO (MMaDA, arXiv 2505.15809): GRPO on the mean log-probability of masked tokens, at random rates."""

import dataclasses

import jax.numpy as jnp

from mdmjax.objectives.policy_gradient.sequence import SequenceGRPO
from mdmjax.process import Allocation, Continuous, Law, iid


@dataclasses.dataclass(frozen=True)
class UniGRPO(SequenceGRPO):
    """S = the mean of log p over the masked tokens at a rate r ~ U[0, 1]; rho = exp(S - S_old), PPO's clip, + kl k3.

    A number of one token, without the 1 / r of a bound: BIASED, its mean is that over rates of the mean log p of what
    is masked, where B / L is the same with more weight on small rates, at which more is visible. A draw that hides
    nothing says 0. As far as second sources say. Divided by the number of completions.
    """

    allocation: Allocation = Allocation(1)
    law: Law = Continuous(spread=iid)

    def surrogate(self, log_p, draws, eligible, advantages):
        return (log_p.sum(2) / jnp.maximum(draws.masks.sum(2), 1)).mean(0)

    def log_ratio(self, current, old, eligible):
        return current - old  # of a token as it is
