"""What training minimises."""

from mdmjax.objectives.bounds import Terms, autoregressive, negative_elbo
from mdmjax.objectives.learned_orders import OrderDraws, OrderSpace, TimeSpace, learned_order_bound, surrogate
from mdmjax.objectives.learned_training import LearnedOrder, Ordered
from mdmjax.objectives.preference import Against, KeptBounds, Preference, Scores, elbos
from mdmjax.objectives.readout import Packed, dense, independent_share, systematic_share
from mdmjax.objectives.training import Autoregressive, MaskedDiffusion
from mdmjax.objectives.value_rates import (
    LearnedValues,
    ValueScheduled,
    log_softplus,
    tilted,
    value_rate_bound,
    value_rate_loss,
)

__all__ = [
    "Against",
    "Autoregressive",
    "KeptBounds",
    "LearnedOrder",
    "LearnedValues",
    "MaskedDiffusion",
    "OrderDraws",
    "OrderSpace",
    "Ordered",
    "Packed",
    "Preference",
    "Scores",
    "Terms",
    "TimeSpace",
    "ValueScheduled",
    "autoregressive",
    "dense",
    "elbos",
    "independent_share",
    "learned_order_bound",
    "log_softplus",
    "negative_elbo",
    "surrogate",
    "systematic_share",
    "tilted",
    "value_rate_bound",
    "value_rate_loss",
]
