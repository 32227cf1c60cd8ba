"""What training minimises."""

from mdmjax.objectives.bounds import Terms, autoregressive, negative_elbo
from mdmjax.objectives.readout import Packed, dense, independent_share, systematic_share
from mdmjax.objectives.training import Autoregressive, MaskedDiffusion

__all__ = [
    "Autoregressive",
    "MaskedDiffusion",
    "Packed",
    "Terms",
    "autoregressive",
    "dense",
    "independent_share",
    "negative_elbo",
    "systematic_share",
]
