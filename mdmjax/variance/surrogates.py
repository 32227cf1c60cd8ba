"""What the surrogates of policy gradients are on average, against the bound: an audit by enumeration of all masks.

`log_p` [M, L] are log p(x_i | visible) in nats at the hidden positions of each of the M = 2^L masks and 0 elsewhere, in
the order of `analysis.all_masks` (minus `analysis.masked_losses`). On the host in float64, for L <= 10; nats of the
whole sequence.
"""

import math

import numpy as np
from jaxtyping import Array, Float

from mdmjax.variance.enumeration import MAX_LENGTH, count_law

LogP = Float[np.ndarray, "M L"] | Float[Array, "M L"]


def surrogate_means(
    log_p: LogP, *, low: float = 0.2, high: float = 0.8, nodes: int = 2, beta: float = 1.5
) -> dict[str, float]:
    """E of each surrogate, summed over the sequence; `bound` is B itself.

    exact count and coupled counts (ESPO): B. quadrature (GDPO, `nodes`): B where 2 nodes >= L. mean field (diffu-GRPO
    without hidden prompts, wd1): sum_i log p(x_i | nothing). coupled rates (coupled-GRPO, r ~ U(low, high)). mean of
    masked (UniGRPO): times L, so that it compares. upper, one draw and many draws (SPG, `beta`): the mean of U of a
    single draw, and the limit of U. ValueError for L > 10.
    """
    log_p = np.asarray(log_p, np.float64)
    length = log_p.shape[1]
    if length > MAX_LENGTH:
        raise ValueError(f"length {length}: enumeration of masks is for lengths from 1 to {MAX_LENGTH}")
    masks = np.arange(2**length)
    sizes, sums = np.bitwise_count(masks).astype(int), log_p.sum(1)
    ways = np.array([math.comb(length, n) for n in sizes])
    law = count_law(length)
    bound = float(law.probabilities @ (law.factors * (law.masks @ sums)))

    def at(rate: float) -> float:
        """E[S | r]."""
        return float((rate**sizes * (1 - rate) ** (length - sizes)) @ sums)

    def integral(function, low: float, high: float, points: int) -> float:
        x, w = np.polynomial.legendre.leggauss(points)
        return float(sum(w / 2 * function(low + (high - low) * (x + 1) / 2) for x, w in zip(x, w, strict=True)))

    hidden = (masks[:, None] >> np.arange(length)[::-1]) & 1 == 1
    counted = np.where(sizes > 0, 1 / ways / length, 0.0)  # the law of an exact count
    weights = np.where(hidden, length / np.maximum(sizes, 1)[:, None], 0.0)
    one = np.where(hidden, np.log(np.where(hidden, weights, 1.0)) / beta + log_p, 0.0).sum(1)
    many = np.log(counted @ (weights * np.exp(beta * log_p))) / beta
    scaled = (length + 1) * sums / np.maximum(sizes, 1)  # 0 for the empty mask
    both = (scaled + scaled[::-1]) / 2  # the complement of mask m is M - 1 - m
    pair = lambda rate: (sums[-1] + at(rate) / rate + at(1 - rate) / (1 - rate)) / 2
    return {
        "bound": bound,
        "exact count": float((length * sums / np.maximum(sizes, 1) / ways / length)[1:].sum()),
        "coupled counts": float((both / ways / (length + 1)).sum()),
        "quadrature": integral(lambda r: at(r) / r, 0, 1, nodes),
        "mean field": float(sums[-1]),
        "coupled rates": integral(pair, low, high, length + 1),
        "upper, one draw": float(counted @ one),
        "upper, many draws": float(many.sum()),
        "mean of masked": float((length * sums / np.maximum(sizes, 1) / ways / (length + 1)).sum()),
    }
