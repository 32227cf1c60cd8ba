"""The forward process: schedules and the orders they induce, and the draws of rates and masks."""

from mdmjax.process.beta import BetaCDF, EnergyOptimal, Kumaraswamy, KumaraswamyInTime, beta, mirrored
from mdmjax.process.draws import Continuous, Copies, Discrete, ExactCount, Law, Rates, hazard, mirror, single
from mdmjax.process.importance import Clipped, Complementary, Delimiters, Importance
from mdmjax.process.multivariate import PositionPowers, ValuePowers, check_log_weights
from mdmjax.process.orders import PlackettLuce, centred, check_order, fixed_order
from mdmjax.process.schedules import Cosine, Geometric, Linear, OnGrid, Polynomial, Sine, SineSquared, Tabulated
from mdmjax.process.spreads import Spread, Strata, example_keys, iid, stratified, systematic, use_key

__all__ = [
    "BetaCDF",
    "Clipped",
    "Complementary",
    "Continuous",
    "Copies",
    "Cosine",
    "Delimiters",
    "Discrete",
    "EnergyOptimal",
    "ExactCount",
    "Geometric",
    "Importance",
    "Kumaraswamy",
    "KumaraswamyInTime",
    "Law",
    "Linear",
    "OnGrid",
    "PlackettLuce",
    "Polynomial",
    "PositionPowers",
    "Rates",
    "Sine",
    "SineSquared",
    "Spread",
    "Strata",
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
    "mirror",
    "mirrored",
    "single",
    "stratified",
    "systematic",
    "use_key",
]
