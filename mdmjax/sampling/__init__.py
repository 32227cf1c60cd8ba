"""Sampling: one engine, planners that say which positions change, and the draw of token values.

Planners: `Ancestral`, `FirstHitting`, `LeftToRight`, `DrawnOrder` and `RandomCount` know beforehand when each position
is revealed (`RandomCount(OnGrid.budget(counts), T)` by given counts, such as `analysis.optimal_counts`); `Confidence`,
`Threshold` and `Factor` reveal what the model is sure of; `PathPlanning` (P2), `ReMDM` and `PredictorCorrector` also
take tokens back; `InformedCorrector` draws tokens anew after the calls of any of them, and `Blocks` goes from left to
right by any. Denoisers made of others: `Guided`, `MaskOne`.
"""

from mdmjax.sampling import scores
from mdmjax.sampling.blocks import Blocks
from mdmjax.sampling.cache import BlockCache
from mdmjax.sampling.confidence import Confidence, Factor, PathPlanning, Threshold
from mdmjax.sampling.correctors import InformedCorrector
from mdmjax.sampling.driver import drive
from mdmjax.sampling.engine import Samples, jit_sampler, sample
from mdmjax.sampling.planners import (
    Ancestral,
    DrawnOrder,
    FirstHitting,
    LeftToRight,
    RandomCount,
    visible_counts,
)
from mdmjax.sampling.remasking import Cap, Loop, PredictorCorrector, ReMDM, Rescale
from mdmjax.sampling.tokens import TokenDraw
from mdmjax.sampling.wrappers import Guided, MaskOne

__all__ = [
    "Ancestral",
    "BlockCache",
    "Blocks",
    "Cap",
    "Confidence",
    "DrawnOrder",
    "Factor",
    "FirstHitting",
    "Guided",
    "InformedCorrector",
    "LeftToRight",
    "Loop",
    "MaskOne",
    "PathPlanning",
    "PredictorCorrector",
    "RandomCount",
    "ReMDM",
    "Rescale",
    "Samples",
    "Threshold",
    "TokenDraw",
    "drive",
    "jit_sampler",
    "sample",
    "scores",
    "visible_counts",
]
