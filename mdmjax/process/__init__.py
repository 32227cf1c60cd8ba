"""The forward process: schedules and the orders they induce, and the draws of rates and masks and their densities."""

from mdmjax.process.allocation import Allocation
from mdmjax.process.beta import BetaCDF, EnergyOptimal, Kumaraswamy, KumaraswamyInTime, beta, mirrored
from mdmjax.process.blocks import BlockCounts
from mdmjax.process.densities import Bins, Density, PowerRate, Uniform, fit_bins, log_edges, mix, tabulated
from mdmjax.process.draws import Continuous, Copies, Discrete, ExactCount, Law, Rates, hazard, mirror, single
from mdmjax.process.epr import EPR, fit_epr
from mdmjax.process.fixed_rates import CoupledCounts, Quadrature
from mdmjax.process.importance import Clipped, Complementary, Delimiters, Importance, Union
from mdmjax.process.multivariate import PositionPowers, ValuePowers, check_log_weights
from mdmjax.process.orders import PlackettLuce, centred, check_order, fixed_order
from mdmjax.process.schedules import Cosine, Geometric, Linear, OnGrid, Polynomial, Sine, SineSquared, Tabulated
from mdmjax.process.spreads import (
    Spread,
    Strata,
    also_eligible,
    example_keys,
    iid,
    stratified,
    systematic,
    use_key,
)

__all__ = [
    "Allocation",
    "BetaCDF",
    "Bins",
    "BlockCounts",
    "Clipped",
    "Complementary",
    "Continuous",
    "Copies",
    "Cosine",
    "CoupledCounts",
    "Delimiters",
    "Density",
    "Discrete",
    "EPR",
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
    "PowerRate",
    "Quadrature",
    "Rates",
    "Sine",
    "SineSquared",
    "Spread",
    "Strata",
    "Tabulated",
    "Uniform",
    "Union",
    "ValuePowers",
    "also_eligible",
    "beta",
    "centred",
    "check_log_weights",
    "check_order",
    "example_keys",
    "fit_bins",
    "fit_epr",
    "fixed_order",
    "hazard",
    "iid",
    "log_edges",
    "mirror",
    "mirrored",
    "mix",
    "single",
    "stratified",
    "systematic",
    "tabulated",
    "use_key",
]
