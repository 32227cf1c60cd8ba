"""Information curves: what a budget of steps must cost, and the budget that costs least (a standard entropy argument).

h(m) is the entropy of m tokens at positions drawn at random, on average over the positions. h is concave and increases.
To reveal k tokens at once where m are visible, each from its own exact conditional, costs

    cost(m, k) = k (h(m+1) - h(m)) - (h(m+k) - h(m)) >= 0

nats of KL(data || output), on average; and the costs of the steps add up to a bound on the whole. All entropies in
nats; on the host, in float64.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression
from scipy.special import comb
from scipy.stats import binom

from mdmjax.analysis.sampler_laws import step_hazards

Curve = Float[np.ndarray, "N1"]  # h(0) = 0, h(1), ..., h(n)


def information_curve(law: Float[np.ndarray, "..."]) -> Curve:
    """h of a joint law of shape [V] * n, by enumeration of all 2^n subsets of positions."""
    length = law.ndim
    curve = np.zeros(length + 1)
    for m in range(1, length + 1):
        entropies = []
        for kept in itertools.combinations(range(length), m):
            p = law.sum(tuple(i for i in range(length) if i not in kept)).ravel()
            p = p[p > 0]
            entropies.append(-(p * np.log(p)).sum())
        curve[m] = np.mean(entropies)
    return curve


def markov_information_curve(transition: Float[np.ndarray, "V V"], length: int) -> Curve:
    """h of a stationary Markov chain, in closed form:

        h(m) = H(pi) + sum_{g=1}^{n-1} (n - g) C(n-g-1, m-2) / C(n, m) H(x_{i+g} | x_i)   for m >= 2,   h(1) = H(pi)

    for a pair of kept neighbours at distance g has the m - 2 others outside of it. ValueError for rows that do not sum
    to 1.
    """
    stationary = stationary_law(transition)
    log = lambda p: np.log(np.where(p > 0, p, 1))
    curve = np.zeros(length + 1)
    curve[1:] = -(stationary * log(stationary)).sum()
    power = np.eye(len(transition))
    m = np.arange(2, length + 1)
    for gap in range(1, length):
        power = power @ transition
        given = -(stationary[:, None] * power * log(power)).sum()
        curve[2:] += (length - gap) * comb(length - gap - 1, m - 2) / comb(length, m) * given
    return curve


def stationary_law(transition: Float[np.ndarray, "V V"]) -> Float[np.ndarray, "V"]:
    """pi with pi P = pi. ValueError for rows that are no probabilities."""
    size = len(transition)
    if not (np.allclose(transition.sum(1), 1, atol=1e-12) and (transition >= 0).all()):
        raise ValueError("transition: each row must hold probabilities that sum to 1")
    equations = np.vstack([transition.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1), rcond=None)[0]


def costs(curve: Curve) -> Float[np.ndarray, "N1 N1"]:
    """cost(m, k) of the module for m visible (row) and k revealed (column); infinite where m + k > n."""
    n = len(curve) - 1
    m, k = np.arange(n + 1)[:, None], np.arange(n + 1)[None]
    gain = np.append(np.diff(curve), 0)[:, None]
    table = k * gain - (curve[np.minimum(m + k, n)] - curve[m])
    return np.where(m + k > n, np.inf, np.where(k <= 1, 0, table))


def counts_bound(curve: Curve, counts: Sequence[int] | Int[np.ndarray, "T"]) -> float:
    """Bound on KL(data || output) where step j reveals counts[j] random positions. ValueError unless they sum to n."""
    counts = np.asarray(counts)
    if counts.min(initial=0) < 0 or counts.sum() != len(curve) - 1:
        raise ValueError(f"counts {counts.tolist()}: must be >= 0 and sum to the length {len(curve) - 1}")
    before = np.cumsum(counts) - counts
    return float(costs(curve)[before, counts].sum())


def ancestral_bound(curve: Curve, hidden: Sequence[float] | Float[np.ndarray, "T1"]) -> float:
    """Bound on KL(data || output) of the ancestral sampler; `hidden` [T+1] is 1 - alpha on its grid, from 1 to 0.

    sum_j E[cost(M, K)], M ~ Bin(n, A_j) visible, K ~ Bin(n - M, u_j) revealed, u_j = 1 - hidden[j+1] / hidden[j].
    """
    n, table = len(curve) - 1, costs(curve)
    total = 0.0
    for now, hazard in zip(hidden[:-1], step_hazards(hidden), strict=True):
        visible = binom.pmf(np.arange(n + 1), n, 1 - now)
        for m in range(n):
            revealed = binom.pmf(np.arange(n - m + 1), n - m, hazard)
            total += visible[m] * (revealed * table[m, : n - m + 1]).sum()
    return float(total)


def optimal_counts(curve: Curve, steps: int) -> tuple[Int[np.ndarray, "T"], float]:
    """(counts, bound) of the cheapest way to reveal n tokens in `steps` steps: the `cheapest_counts` of `costs`."""
    return cheapest_counts(costs(curve), steps)


def cheapest_counts(table: Float[np.ndarray, "M K"], steps: int) -> tuple[Int[np.ndarray, "T"], float]:
    """(counts, total) of the cheapest way to reveal n tokens in `steps` steps, by dynamic programming, O(T n^2).

    table[m, k] is the cost of revealing k where m are visible, exact or measured, read where m + k <= n:

        best[j+1][m+k] = min_k best[j][m] + table[m, k].

    A step may reveal none. `RandomCount(OnGrid.budget(counts), steps)` reveals those counts, and `Confidence` too.
    ValueError for steps < 1 and a table that is not square.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be >= 1")
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"costs {list(table.shape)}: must be [n + 1, n + 1], by visible and revealed tokens")
    n = len(table) - 1
    after = np.arange(n + 1)[None] - np.arange(n + 1)[:, None]  # k, by (m, m + k)
    moves = np.where(after >= 0, np.take_along_axis(table, np.maximum(after, 0), 1), np.inf)
    best, choices = np.full(n + 1, np.inf), []
    best[0] = 0
    for _ in range(steps):
        totals = best[:, None] + moves
        choices.append(totals.argmin(0))
        best = totals.min(0)
    visible = [n]
    for choice in reversed(choices):
        visible.append(int(choice[visible[-1]]))
    return np.diff(visible[::-1]), float(best[n])


def concave(curve: Curve) -> tuple[Curve, float]:
    """(the curve with increments made non-increasing by isotonic regression, the largest change of an increment).

    For measured curves, h(m+1) - h(m) being the mean masked loss where m tokens are visible: noise and an imperfect
    model may leave a rise, and then a cost would be negative.
    """
    increments = np.diff(curve)
    fitted = isotonic_regression(increments, increasing=False).x
    return np.concatenate([[0.0], np.cumsum(fitted)]), float(np.abs(fitted - increments).max(initial=0))
