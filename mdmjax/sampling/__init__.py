"""Sampling: one engine, planners that say which positions change, and the draw of token values."""

from mdmjax.sampling.blocks import Blocks
from mdmjax.sampling.driver import drive
from mdmjax.sampling.engine import Samples, jit_sampler, sample
from mdmjax.sampling.planners import (
    Ancestral,
    Confidence,
    DrawnOrder,
    FirstHitting,
    LeftToRight,
    RandomCount,
    visible_counts,
)
from mdmjax.sampling.tokens import TokenDraw

__all__ = [
    "Ancestral",
    "Blocks",
    "Confidence",
    "DrawnOrder",
    "FirstHitting",
    "LeftToRight",
    "RandomCount",
    "Samples",
    "TokenDraw",
    "drive",
    "jit_sampler",
    "sample",
    "visible_counts",
]
