"""Policy gradients for masked diffusion models, as estimators over the same Draws: one method a file."""

from mdmjax.objectives.policy_gradient.coupled_grpo import CoupledGRPO
from mdmjax.objectives.policy_gradient.diffu_grpo import DiffuGRPO
from mdmjax.objectives.policy_gradient.espo import ESPO
from mdmjax.objectives.policy_gradient.gdpo import GDPO
from mdmjax.objectives.policy_gradient.interface import (
    Clip,
    Method,
    PolicyGradient,
    clipped,
    group_advantages,
    k2,
    k3,
    token_log_probs,
)
from mdmjax.objectives.policy_gradient.rewarded import Rewarded, exact, written_by
from mdmjax.objectives.policy_gradient.spg import SPG
from mdmjax.objectives.policy_gradient.unigrpo import UniGRPO
from mdmjax.objectives.policy_gradient.wd1 import WD1, wd1_advantages

__all__ = [
    "Clip",
    "CoupledGRPO",
    "DiffuGRPO",
    "ESPO",
    "GDPO",
    "Method",
    "PolicyGradient",
    "Rewarded",
    "SPG",
    "UniGRPO",
    "WD1",
    "clipped",
    "exact",
    "group_advantages",
    "k2",
    "k3",
    "token_log_probs",
    "wd1_advantages",
    "written_by",
]
