"""The forward process: schedules and the orders they induce, and the draws of rates and masks."""

from mdmjax.process.beta import BetaCDF, EnergyOptimal, Kumaraswamy, KumaraswamyInTime, beta, mirrored
from mdmjax.process.draws import (
    Continuous,
    Discrete,
    ExactCount,
    example_keys,
    hazard,
    iid,
    stratified,
    systematic,
    use_key,
)
from mdmjax.process.multivariate import PositionPowers, ValuePowers, check_log_weights
from mdmjax.process.orders import PlackettLuce, centred, check_order, fixed_order
from mdmjax.process.schedules import Cosine, Geometric, Linear, OnGrid, Polynomial, Sine, SineSquared, Tabulated

__all__ = [
    "BetaCDF",
    "Continuous",
    "Cosine",
    "Discrete",
    "EnergyOptimal",
    "ExactCount",
    "Geometric",
    "Kumaraswamy",
    "KumaraswamyInTime",
    "Linear",
    "OnGrid",
    "PlackettLuce",
    "Polynomial",
    "PositionPowers",
    "Sine",
    "SineSquared",
    "Tabulated",
    "ValuePowers",
    "beta",
    "centred",
    "check_log_weights",
    "check_order",
    "example_keys",
    "fixed_order",
    "hazard",
    "iid",
    "mirrored",
    "stratified",
    "systematic",
    "use_key",
]
