"""The variance of training: its parts, exact or estimated, and the fit of laws that reduce it (arXiv 2511.18159)."""

from mdmjax.variance.anova import EstimatedParts, Moments, joined, means, nested, parts, replicated, spread_of
from mdmjax.variance.baseline import Baseline
from mdmjax.variance.enumeration import (
    MaskLaw,
    PairLaw,
    bernoulli_law,
    count_law,
    coupled_law,
    iid_pair,
    mirror_pair,
    rate_law,
)
from mdmjax.variance.exact import (
    Parts,
    decompose,
    largest_gain,
    minimum_variance,
    optimal_density,
    pattern_variance,
    proxy_moment,
    second_moment,
    tail_slope,
)
from mdmjax.variance.fit import Refit, bin_moments, gradient_squares, loss_squares, starting_law
from mdmjax.variance.preference import (
    ScoreLaw,
    gradient_bias_bound,
    gradient_variance_bound,
    loss_bias_bound,
    score_law,
)
from mdmjax.variance.statistics import BatchStatistic, DrawStatistic, grouped
from mdmjax.variance.surrogates import surrogate_means

__all__ = [
    "Baseline",
    "BatchStatistic",
    "DrawStatistic",
    "EstimatedParts",
    "MaskLaw",
    "Moments",
    "PairLaw",
    "Parts",
    "Refit",
    "ScoreLaw",
    "bernoulli_law",
    "bin_moments",
    "count_law",
    "coupled_law",
    "decompose",
    "gradient_bias_bound",
    "gradient_squares",
    "gradient_variance_bound",
    "grouped",
    "iid_pair",
    "joined",
    "largest_gain",
    "loss_bias_bound",
    "loss_squares",
    "means",
    "minimum_variance",
    "mirror_pair",
    "nested",
    "optimal_density",
    "parts",
    "pattern_variance",
    "proxy_moment",
    "rate_law",
    "replicated",
    "score_law",
    "second_moment",
    "spread_of",
    "starting_law",
    "surrogate_means",
    "tail_slope",
]
