"""Likelihood with confidence, and the baselines beside it."""

from mdmjax.evaluation.likelihood import Bound, ExactScorer, Scorer, evaluate, padded_batches, summarise

__all__ = ["Bound", "ExactScorer", "Scorer", "evaluate", "padded_batches", "summarise"]
