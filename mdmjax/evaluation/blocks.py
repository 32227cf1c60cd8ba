"""The error bar of a mean over a text, in which what stands near is alike."""

import math

import numpy as np
from jaxtyping import Float, Integer

from mdmjax.base import Estimate

BLOCKS = 32  # the normal interval of 1.96 standard errors still covers 94 %, and each block is as long as it can be


def ratio(
    sums: Float[np.ndarray, "N"], counts: Integer[np.ndarray, "N"], unit: str, estimator: str, blocks: int = BLOCKS
) -> Estimate:
    """R = sum(sums) / sum(counts) of N parts in the order of the text, its error from k = min(blocks, N) runs of parts.

    The standard error is sqrt(k/(k-1) sum_b (s_b - R n_b)^2) / sum(counts), with s_b and n_b the sums over run b: the
    method of batch means (Law and Kelton, "Simulation Modeling and Analysis", on output analysis) for a ratio (Cochran,
    "Sampling Techniques", chapter 6). It holds what makes parts differ over distances below a k-th of the text, however
    the text was cut into parts; of independent parts it is as right as an error over single parts, or a bootstrap of
    them, with k - 1 degrees of freedom. `draws` is k. The error is nan for k = 1. ValueError where nothing is counted.
    """
    total, k = int(counts.sum()), min(blocks, len(sums))
    if not total:
        raise ValueError("there is no token to score: at least one is needed")
    mean = float(sums.sum() / total)
    starts = np.arange(k) * len(sums) // k
    residuals = np.add.reduceat(sums - mean * counts, starts)
    error = math.sqrt(k / (k - 1) * float(residuals @ residuals)) / total if k > 1 else math.nan
    return Estimate(mean, error, unit, k, f"{estimator}, error over {k} blocks")
