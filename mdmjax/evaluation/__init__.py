"""Likelihood with confidence, and the baselines beside it."""

from mdmjax.evaluation.comparison import Chosen, choose, paired
from mdmjax.evaluation.enumeration import EnumeratedScorer
from mdmjax.evaluation.likelihood import Bound, ExactScorer, Scorer, evaluate, padded_batches, score_rows, summarise
from mdmjax.evaluation.orders import OrderScorer
from mdmjax.evaluation.tables import column_shapes, pair_trends, shape, trend

__all__ = [
    "Bound",
    "Chosen",
    "EnumeratedScorer",
    "ExactScorer",
    "OrderScorer",
    "Scorer",
    "choose",
    "column_shapes",
    "evaluate",
    "padded_batches",
    "pair_trends",
    "paired",
    "score_rows",
    "shape",
    "summarise",
    "trend",
]
