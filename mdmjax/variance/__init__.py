"""The variance of training: its parts, exact or estimated (`nested`), and the laws that reduce it (arXiv 2511.18159)."""

from mdmjax.variance.enumeration import (
    MaskLaw,
    PairLaw,
    bernoulli_law,
    count_law,
    coupled_law,
    iid_pair,
    mirror,
    rate_law,
)
from mdmjax.variance.exact import (
    Parts,
    decompose,
    minimum_variance,
    optimal_density,
    pattern_variance,
    proxy_moment,
    second_moment,
    tail_slope,
)

__all__ = [
    "MaskLaw",
    "PairLaw",
    "Parts",
    "bernoulli_law",
    "count_law",
    "coupled_law",
    "decompose",
    "iid_pair",
    "minimum_variance",
    "mirror",
    "optimal_density",
    "pattern_variance",
    "proxy_moment",
    "rate_law",
    "second_moment",
    "tail_slope",
]
