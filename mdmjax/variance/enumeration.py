"""Laws of the rate and the mask of an estimate, enumerated: all 2^L masks at each of J rates. L <= 10.

An estimate is Z = factor(r) T(x, m) for an example x, a rate r and a mask m, whatever T is. Mask m is the number m in
binary, position 0 the most significant bit, 1 where hidden: the order of `mdmjax.analysis.all_masks`, M = 2^L. On the
host in float64. The methods that pair masks and choose densities are those of arXiv 2511.18159.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Int

MAX_LENGTH = 10

Vector = Float[Array, "_n"] | Float[np.ndarray, "_n"]  # the functions say themselves what does not fit
Joint = Callable[[int, Float[np.ndarray, "M P"]], Float[np.ndarray, "M P"]]  # (j, f) -> sum_m' P(m, m' | node j) f(m')


@dataclasses.dataclass(frozen=True)
class MaskLaw:
    """The law of a rate, and of a mask given the rate, on J nodes: an integral over rates is a sum over nodes."""

    rates: Float[np.ndarray, "J"]
    probabilities: Float[np.ndarray, "J"]  # of the nodes
    masks: Float[np.ndarray, "J M"]  # P(mask | node)
    factors: Float[np.ndarray, "J"]  # Z = factor T
    bins: Int[np.ndarray, "J"]  # the bin of the rate that a node is in, from 0
    mirrored: Joint  # the joint law of the two masks of `mirror`

    def reweighted(self, density: Vector | Callable) -> "MaskLaw":
        """The rate drawn with another density p, and the factor divided by p: the mean stays as it is.

        p is a density with respect to this law, E p = 1 (1 is this law itself), as a function of the rates or by its
        values at the nodes. A constant factor does not matter: it is normalised here. ValueError unless it is > 0 and
        finite at every node, for otherwise the mean would not stay.
        """
        p = np.asarray(density(self.rates) if callable(density) else density, np.float64)
        if p.shape != self.rates.shape:
            raise ValueError(f"density: the shape {list(p.shape)} must be {list(self.rates.shape)}, one value a node")
        if not np.all((p > 0) & np.isfinite(p)):
            raise ValueError(f"density: must be > 0 and finite at every rate, not {p[~((p > 0) & np.isfinite(p))][0]}")
        p = p / (self.probabilities @ p)
        return dataclasses.replace(self, probabilities=self.probabilities * p, factors=self.factors / p)

    def moments(self, values: Float[np.ndarray, "M P"]) -> tuple[Float[np.ndarray, "J P"], Float[np.ndarray, "J"]]:
        """(E[Z | x, r], E[|Z|^2 | x, r]) at every node, given the T(x, m) of an example."""
        square = (values**2).sum(1)
        return self.factors[:, None] * (self.masks @ values), self.factors**2 * (self.masks @ square)


@dataclasses.dataclass(frozen=True)
class PairLaw:
    """Two masks for each rate, that need not be independent; Z = (Z_1 + Z_2) / 2, each with the factor of its law."""

    first: MaskLaw
    second: MaskLaw  # with the nodes of the first
    joint: Joint

    @property
    def rates(self) -> Float[np.ndarray, "J"]:
        return self.first.rates

    @property
    def probabilities(self) -> Float[np.ndarray, "J"]:
        return self.first.probabilities

    @property
    def bins(self) -> Int[np.ndarray, "J"]:
        return self.first.bins

    @property
    def masks(self) -> Float[np.ndarray, "J M"]:
        return self.first.masks

    def reweighted(self, density: Vector | Callable) -> "PairLaw":
        """As `MaskLaw.reweighted`, both masks by the same density of the first one's rate. ValueError as there."""
        p = density(self.rates) if callable(density) else density
        return dataclasses.replace(self, first=self.first.reweighted(p), second=self.second.reweighted(p))

    def moments(self, values: Float[np.ndarray, "M P"]) -> tuple[Float[np.ndarray, "J P"], Float[np.ndarray, "J"]]:
        """As `MaskLaw.moments`: E|Z|^2 = (E|Z_1|^2 + E|Z_2|^2) / 4 + E[Z_1 Z_2] / 2."""
        (mean, square), (other, its_square) = self.first.moments(values), self.second.moments(values)
        cross = np.array([np.vdot(values, self.joint(j, values)) for j in range(len(self.rates))])
        product = self.first.factors * self.second.factors * cross
        return (mean + other) / 2, (square + its_square) / 4 + product / 2


Law = MaskLaw | PairLaw


def bernoulli_law(length: int, rates: Vector, probabilities: Vector, factors: Vector | None = None) -> MaskLaw:
    """Each token masked independently with probability r, r one of some rates; factor 1 / r if not given.

    ValueError for L > 10, rates outside (0, 1], shapes that differ, probabilities that are not.
    """
    r = np.asarray(rates, np.float64)
    if not np.all((r > 0) & (r <= 1)):
        raise ValueError(f"rates: must be in (0, 1], not {r[~((r > 0) & (r <= 1))][0]}")
    return _bernoulli(length, r, 1 - r, probabilities, 1 / r if factors is None else factors)


def rate_law(length: int, eps: float, density: Callable | None = None, *, nodes: int = 400, bins: int = 1) -> MaskLaw:
    """r ~ U[eps, 1], factor (1 - eps) / r, tokens masked with probability r; with a density p of r (1 - eps) / (p r).

    The mean is the integral of dr / r over [eps, 1]; arXiv 2511.18159 leaves out the constant 1 - eps.

    p is as in `MaskLaw.reweighted`. At least `nodes` Gauss-Legendre nodes in log r, in panels that end at 1/2, where
    MIRROR has a kink, and at the edges of `bins` bins of equal width in log r, for densities that are constant there.
    ValueError for L > 10, eps outside (0, 1), too few nodes, bins < 1, and as `MaskLaw.reweighted`.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps}: must be in (0, 1)")
    if bins < 1:
        raise ValueError(f"bins={bins}: must be >= 1")
    edges = np.linspace(math.log(eps), 0, bins + 1)
    log_r, probabilities = _log_nodes(np.union1d(edges, max(math.log(eps), math.log(0.5))), nodes)
    r = np.exp(log_r)
    law = _bernoulli(length, r, -np.expm1(log_r), probabilities, (1 - eps) / r)
    law = dataclasses.replace(law, bins=np.searchsorted(edges[1:-1], log_r))
    return law if density is None else law.reweighted(density)


def count_law(length: int) -> MaskLaw:
    """l ~ U{1..L}, a uniform subset of l tokens, factor L / l; the rate is l / L (`mdmjax.process.ExactCount`).

    Its mean is the limit of that of `rate_law` as eps -> 0, for C(L, l) int r^(l-1) (1-r)^(L-l) dr = 1 / l.
    ValueError for L > 10.
    """
    counts, sizes = np.arange(1, length + 1), _sizes(length)
    masks = (sizes[None] == counts[:, None]) / np.array([math.comb(length, n) for n in counts])[:, None]

    def mirrored(j: int, values: np.ndarray) -> np.ndarray:
        # the first and the last l of a random permutation: any two subsets of l that share max(0, 2l - L)
        subsets = np.flatnonzero(sizes == counts[j])
        both = np.bitwise_count(subsets[:, None] & subsets[None])
        joint = (both == max(0, 2 * counts[j] - length)).astype(np.float64)
        out = np.zeros_like(values)
        out[subsets] = joint @ values[subsets] / joint.sum()
        return out

    return MaskLaw(counts / length, np.full(length, 1 / length), masks, length / counts, counts - 1, mirrored)


def mirror_pair(law: MaskLaw) -> PairLaw:
    """MIRROR: two masks of the same rate, m1 = 1[U < r] and m2 = 1[U > 1 - r] with the same U for each token.

    Each has the law of a single mask; cov(m1_i, m2_i) = -min(r, 1 - r)^2. For exact counts, the first and the last l
    of one random permutation.
    """
    return PairLaw(law, law, law.mirrored)


def iid_pair(law: MaskLaw) -> PairLaw:
    """Two masks of the same rate, independent given it."""
    return PairLaw(law, law, lambda j, values: law.masks[j][:, None] * (law.masks[j] @ values)[None])


def coupled_law(length: int, eps: float, *, nodes: int = 400) -> PairLaw:
    """A mask at the rate r ~ U[eps, 1 - eps] and its complement at 1 - r.

    Factors (1 - 2 eps) / r and (1 - 2 eps) / (1 - r). Each token is scored once. The rate is that of the first mask.
    ValueError for L > 10, eps outside (0, 1/2) and too few nodes.
    """
    if not 0 < eps < 0.5:
        raise ValueError(f"eps={eps}: must be in (0, 1/2)")
    log_r, probabilities = _log_nodes(np.log([eps, 0.5]), nodes)
    low = np.exp(log_r)
    r, rest = np.concatenate([low, 1 - low]), np.concatenate([1 - low, low])
    probabilities = np.concatenate([probabilities, probabilities]) / 2
    first, second = (_bernoulli(length, a, b, probabilities, (1 - 2 * eps) / a) for a, b in ((r, rest), (rest, r)))
    # all tokens change sides: the mask at M - 1 - m
    return PairLaw(first, second, lambda j, values: first.masks[j][:, None] * values[::-1])


def _bernoulli(length: int, r: np.ndarray, visible: np.ndarray, probabilities: Vector, factors: Vector) -> MaskLaw:
    probabilities, factors = (np.asarray(a, np.float64) for a in (probabilities, factors))
    sizes = _sizes(length)[None]
    check_probabilities(probabilities, len(r))
    if factors.shape != r.shape:
        raise ValueError(f"factors: the shape {list(factors.shape)} must be {list(r.shape)}, one value a rate")
    both, neither = np.maximum(0, r - visible), np.maximum(0, visible - r)
    cells = np.stack([neither, np.minimum(r, visible)] + [np.minimum(r, visible), both], 1).reshape(-1, 2, 2)
    masks = r[:, None] ** sizes * visible[:, None] ** (length - sizes)
    bins = np.zeros(len(r), int)
    return MaskLaw(r, probabilities, masks, factors, bins, lambda j, values: _product(cells[j], values))


def _product(cells: Float[np.ndarray, "2 2"], values: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M P"]:
    """sum_m' prod_i cells[m_i, m'_i] values(m'), a position at a time: L 2^L operations, not 4^L."""
    size, columns = values.shape
    for _ in range(size.bit_length() - 1):  # the most significant bit is summed out and becomes the least
        values = np.einsum("ab,bmp->map", cells, values.reshape(2, size // 2, columns)).reshape(size, columns)
    return values


def _log_nodes(edges: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """(log r, probability) at Gauss-Legendre nodes in panels between the edges, of r uniform between first and last."""
    if nodes < 1:
        raise ValueError(f"nodes={nodes}: must be >= 1")
    u, du = np.polynomial.legendre.leggauss(math.ceil(nodes / (len(edges) - 1)))
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    log_r = (middle[:, None] + half[:, None] * u).ravel()
    p = np.exp(log_r) * (half[:, None] * du).ravel() / (np.exp(edges[-1]) - np.exp(edges[0]))
    if abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"nodes={nodes}: too few, the probabilities of the nodes sum to {p.sum()}")
    return log_r, p


def check_probabilities(p: np.ndarray, size: int) -> None:
    """ValueError unless they are so many numbers >= 0 that sum to 1 (as far as float32 does)."""
    if p.shape != (size,):
        raise ValueError(f"probabilities: the shape {list(p.shape)} must be [{size}]")
    if not (np.all(p >= 0) and abs(p.sum() - 1) < 1e-6):
        raise ValueError(f"probabilities: must be >= 0 and sum to 1, not to {p.sum()}")


def _sizes(length: int) -> Int[np.ndarray, "M"]:
    """How many tokens every mask hides. ValueError for L > 10."""
    if not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"length {length}: enumeration of masks is for lengths from 1 to {MAX_LENGTH}")
    return np.bitwise_count(np.arange(2**length)).astype(int)
