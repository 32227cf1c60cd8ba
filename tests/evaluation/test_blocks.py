"""The error bar of a correlated series: it covers, whatever the series has to do with the blocks."""

import math

import numpy as np
import pytest

from mdmjax.evaluation import summarise
from mdmjax.evaluation.blocks import ratio


def autoregression(rng, memory, n, series):
    """Stationary AR(1) series [series, n] of mean 0 and variance 1."""
    x = rng.normal(size=(series, n))
    for i in range(1, n):
        x[:, i] = memory * x[:, i - 1] + math.sqrt(1 - memory**2) * x[:, i]
    return x


def coverage(estimates, truth):
    return np.mean([abs(e.mean - truth) < 1.96 * e.standard_error for e in estimates])


@pytest.mark.parametrize("memory, n", [(0.0, 45), (0.6, 500), (0.9, 2500)])
def test_it_covers_whatever_the_memory(memory, n):
    """Of 600 series: nominal 95 % are 94 % with 31 degrees of freedom, and a little less where blocks are alike."""
    rng = np.random.default_rng(0)
    x = 3 + autoregression(rng, memory, n, 600)
    counts = rng.integers(1, 9, n)
    estimates = [ratio(row * counts, counts, "nats/token", "") for row in x]
    assert 0.9 <= coverage(estimates, 3) <= 0.97
    assert all(e.draws == 32 for e in estimates)
    if memory == 0.9:  # each part by itself, as if it were independent of the others
        assert coverage([ratio(row * counts, counts, "nats/token", "", blocks=n) for row in x], 3) < 0.5


def test_the_bound_of_a_text_has_it():
    rng = np.random.default_rng(1)
    rows = 5 + autoregression(rng, 0.8, 700, 200)
    bounds = [summarise(np.stack([row, row], 1) * 4, np.full(700, 4), "") for row in rows]
    assert 0.88 <= coverage([b.per_token for b in bounds], 5) <= 0.98


def test_by_hand():
    sums, counts = np.array([1.0, 2.0, 4.0, 3.0, 5.0]), np.array([1, 2, 1, 1, 3])
    estimate = ratio(sums, counts, "nats/token", "x", blocks=2)
    s, n, mean = np.array([3.0, 12.0]), np.array([3, 5]), 15 / 8
    assert estimate.mean == mean and estimate.draws == 2 and estimate.estimator == "x, error over 2 blocks"
    assert estimate.standard_error == pytest.approx(math.sqrt(2 * ((s - mean * n) ** 2).sum()) / 8)
    with pytest.raises(ValueError, match="no token to score"):
        ratio(sums, 0 * counts, "nats/token", "x")


def test_of_independent_parts_it_is_that_of_a_bootstrap():
    """10,000 resamples of 200 parts: the deviation of their ratios, which is known to 1 %."""
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 9, 200)
    sums = counts * rng.gamma(2.0, 1.0, 200)
    picked = rng.integers(0, 200, (10_000, 200))
    bootstrap = (sums[picked].sum(1) / counts[picked].sum(1)).std(ddof=1)
    assert ratio(sums, counts, "nats/token", "", blocks=200).standard_error == pytest.approx(bootstrap, rel=0.04)
