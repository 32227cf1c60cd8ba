"""The variance of training, exactly, where all 2^L masks can be enumerated: its parts, and the best law of the rate.

An estimate is Z = factor(r) T(x, m) for an example x, a mask rate r and a mask m. With m(x, r) = E[Z | x, r] and
m(x) = E[Z | x], its variance is A + B + C (arXiv 2511.18159; the law of total variance, applied twice):

    A = E_x E_r Var(Z | x, r),   B = E_x Var_r(m(x, r) | x),   C = Var_x m(x).

The estimate of the bound per token has T = S / L, S the summed cross-entropy at the masked positions, and the factor
(1 - eps) / r under the base law r ~ U[eps, 1]; the same for its gradient. Variances of vectors are traces of the
covariance.

`table` [X, M] or [X, M, P] holds T for X examples and all M = 2^L masks in the order of `mdmjax.analysis.all_masks`:
mask m is the number m in binary, position 0 the most significant bit, 1 where hidden. L <= 10. `probabilities` [X] are
those of the examples. On the host in float64, whatever the type of the table. Units: those of T, variances its square.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mdmjax.variance.enumeration import MAX_LENGTH, Law, Vector, check_probabilities

Table = Float[Array, "X M *P"] | Float[np.ndarray, "X M *P"]


class Parts(NamedTuple):
    """The mean of an estimate, and its variance in three parts that add up to the total."""

    mean: float | Float[np.ndarray, "*P"]
    pattern: float  # A: which tokens are masked
    rate: float  # B: how many are, on average
    data: float  # C: which example is masked

    @property
    def total(self) -> float:
        """A + B + C."""
        return self.pattern + self.rate + self.data

    def averaged(self, *, masks: int = 1, rates: int = 1, examples: int = 1) -> "Parts":
        """Those of the mean over so many examples, rates for each and masks for each rate, all of them independent:

            A / (masks rates examples),   B / (rates examples),   C / examples.

        ValueError for a number below 1.
        """
        for name, value in (("masks", masks), ("rates", rates), ("examples", examples)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be >= 1")
        n = rates * examples
        return Parts(self.mean, self.pattern / (masks * n), self.rate / n, self.data / examples)


def decompose(table: Table, law: Law, probabilities: Vector) -> Parts:
    """The mean and the parts A, B and C of the variance of an estimate, each example with its probability.

    ValueError for shapes that differ from those of the law, L > 10, probabilities that do not sum to 1.
    """
    pattern, rate, by_example = 0.0, 0.0, []
    p = _check(table, law, probabilities)
    for p_x, mean, square in _moments(table, law, p):
        whole = law.probabilities @ mean
        pattern += p_x * (law.probabilities @ (square - (mean**2).sum(1)))
        rate += p_x * (law.probabilities @ ((mean - whole[None]) ** 2).sum(1))
        by_example.append(whole)
    mean = p @ np.stack(by_example)
    data = p @ ((np.stack(by_example) - mean[None]) ** 2).sum(1)
    mean = float(mean[0]) if table.ndim == 2 else mean.reshape(table.shape[2:])
    return Parts(mean, float(pattern), float(rate), float(data))


def pattern_variance(table: Table, law: Law, probabilities: Vector) -> Float[np.ndarray, "J"]:
    """E_x Var(Z | x, r) at every node of the law: A before it is averaged over the rate. ValueError as `decompose`."""
    moments = _moments(table, law, _check(table, law, probabilities))
    return sum(p * (square - (mean**2).sum(1)) for p, mean, square in moments)


def second_moment(table: Table, law: Law, probabilities: Vector) -> Float[np.ndarray, "J"]:
    """E_2(r) = E[|Z|^2 | r] = E_x[v(x, r) + |m(x, r)|^2] at every node of the law. ValueError as `decompose`."""
    return sum(p * square for p, _, square in _moments(table, law, _check(table, law, probabilities)))


def proxy_moment(table: Table, law: Law, probabilities: Vector) -> Float[np.ndarray, "J"]:
    """E_x v(x, r) + |E_x m(x, r)|^2, which arXiv 2511.18159 has in place of E_2(r): without Var_x m(x, r).

    ValueError as `decompose`.
    """
    variance, whole = 0.0, 0.0
    for p, mean, square in _moments(table, law, _check(table, law, probabilities)):
        variance += p * (square - (mean**2).sum(1))
        whole += p * mean
    return variance + (whole**2).sum(1)


def optimal_density(moment: Vector, law: Law, *, binned: bool = False) -> Float[np.ndarray, "J"]:
    """p* = sqrt(E_2) / int sqrt(E_2) at the nodes: the density of the rate, with respect to the law, of least variance.

    `law.reweighted(p*)` draws from it. From the E_2 of a pair it is the optimum for that pair. `binned`: the best of
    the densities that are constant on the bins of the law; a bin of probability d has the mass d sqrt(I) up to a common
    factor, I the mean of E_2 in it. ValueError for a moment of another shape than the nodes.
    """
    moment = _check_moment(moment, law)
    if binned:
        mass, inside = (np.bincount(law.bins, a) for a in (law.probabilities, law.probabilities * moment))
        moment = (inside / mass)[law.bins]
    return np.sqrt(moment) / (law.probabilities @ np.sqrt(moment))


def minimum_variance(moment: Vector, law: Law, mean: float | Vector) -> float:
    """(int sqrt(E_2))^2 - |mu|^2, the least total variance that a density of the rate can reach, mu the mean.

    By Cauchy-Schwarz int E_2 / p >= (int sqrt(E_2))^2, with equality for `optimal_density` only. ValueError as there.
    """
    moment = _check_moment(moment, law)
    return float((law.probabilities @ np.sqrt(moment)) ** 2 - (np.asarray(mean, np.float64) ** 2).sum())


def tail_slope(table: Table, probabilities: Vector) -> float:
    """c = E_x sum_i |T(x, only i masked)|^2: under `rate_law` A = c log(1 / eps) + O(1), unbounded as eps -> 0.

    For the loss (1 / L^2) E_x sum_i CE_i(only i masked)^2. ValueError as `decompose`.
    """
    p = _check(table, None, probabilities)
    alone = np.asarray(table, np.float64)[:, 1 << np.arange(table.shape[1].bit_length() - 1)]
    return float(p @ (alone**2).reshape(len(p), -1).sum(1))


def largest_gain(eps: float) -> float:
    """(1 - eps) ln(1 / eps) / (4 (1 - sqrt(eps))^2): the variance of r ~ U[eps, 1] over that of the best density.

    It is for tokens whose terms have mean 0, are uncorrelated and equally large, as the gradients of a trained network
    nearly are: then E_2(r) = s / (L r) and p* is proportional to 1 / sqrt(r). The gain grows with ln(1 / eps) only: 1.8
    at 1e-3, and 5 needs 1e-9. Exact counts have the variance (1 + 1/2 + ... + 1/L) s / L there, an autoregressive loss
    s / L. ValueError unless 0 < eps < 1.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps}: must be in (0, 1)")
    return float((1 - eps) * -np.log(eps) / (4 * (1 - np.sqrt(eps)) ** 2))


def _moments(table: Table, law: Law, p: np.ndarray) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(probability, E[Z | x, r] [J, P], E[|Z|^2 | x, r] [J]) of one example after the other, so that [J, P] is once."""
    for p_x, values in zip(p, table, strict=True):
        values = np.asarray(values, np.float64)
        yield (p_x, *law.moments(values.reshape(len(values), -1)))


def _check(table: Table, law: Law | None, probabilities: Vector) -> Float[np.ndarray, "X"]:
    """The probabilities in float64, if everything fits."""
    masks = table.shape[1]
    if masks != 2 ** (masks.bit_length() - 1) or not 2 <= masks <= 2**MAX_LENGTH:
        raise ValueError(f"table {list(table.shape)}: the second axis must be 2^L masks, L from 1 to {MAX_LENGTH}")
    if law is not None and masks != law.masks.shape[1]:
        raise ValueError(f"table {list(table.shape)}: the second axis must be the law's {law.masks.shape[1]} masks")
    p = np.asarray(probabilities, np.float64)
    check_probabilities(p, table.shape[0])
    return p


def _check_moment(moment: Vector, law: Law) -> np.ndarray:
    moment = np.asarray(moment, np.float64)
    if moment.shape != law.rates.shape:
        raise ValueError(f"moment: the shape {list(moment.shape)} must be {list(law.rates.shape)}, one value a node")
    return moment
