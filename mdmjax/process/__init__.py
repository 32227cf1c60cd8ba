"""The forward process: schedules, and the draws of rates and masks."""

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
from mdmjax.process.schedules import Cosine, Geometric, Linear, Polynomial, SineSquared, Tabulated

__all__ = [
    "Continuous",
    "Cosine",
    "Discrete",
    "ExactCount",
    "Geometric",
    "Linear",
    "Polynomial",
    "SineSquared",
    "Tabulated",
    "example_keys",
    "hazard",
    "iid",
    "stratified",
    "systematic",
    "use_key",
]
