"""How far a crossbar is from ideal: nonideality factors, the Manhattan score, and what is known without a solve."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.crossbar.solver import ratio
from mdmjax.crossbar.wires import Wires, distances, drop


class Factors(NamedTuple):
    """Of one tile, or of a batch. The paper does not say which one it uses; `total` is what is meant here by NF."""

    total: Float[Array, "*b"]  # nf_tot = sum_k (I0 - I) / sum_k I0, in [0, 1) for V >= 0
    column: Float[Array, "*b"]  # nf_col: mean over columns with a current of |I0 - I| / |I0|
    absolute: Float[Array, "*b"]  # nf_abs = sum_k (I0 - I) R_on / V0
    gains: Float[
        Array, "*b"
    ]  # share of the columns with a current in which I / I0 > 1 (sneak currents through undriven rows)


def factors(ideal: Float[Array, "*b N"], currents: Float[Array, "*b N"], amplitude: float = 1.0) -> Factors:
    """From ideal currents I0[k] = sum_j G[j,k] V[j] and real ones, both in units of 1 / R_on; V0 is the amplitude."""
    lost, drawn = ideal - currents, ideal != 0
    count = jnp.maximum(drawn.sum(-1), 1)
    each = jnp.where(drawn, ratio(lost, ideal), 0)
    return Factors(
        ratio(lost.sum(-1), ideal.sum(-1)), jnp.abs(each).sum(-1) / count, lost.sum(-1) / amplitude,
        (each < 0).sum(-1) / count,
    )  # fmt: skip


def mac_error(
    ideal: Float[Array, "*b N"],
    currents: Float[Array, "*b N"],
    outputs: Int[np.ndarray, "N"],
    levels: Int[np.ndarray, "N"],
    signs: Int[np.ndarray, "N"] | None = None,
) -> Float[Array, "*b"]:
    """sum_o |sum_{k in o} 2^-b(k) (I0 - I)[k]| / sum_o |sum_{k in o} 2^-b(k) I0[k]|: what the network feels.

    `outputs`, `levels` (bit 1 the most significant) and `signs` are the labels of the columns; absent columns have -1.
    """
    weight = np.where(outputs < 0, 0.0, 2.0 ** -np.asarray(levels)) * (1 if signs is None else signs)
    to = jnp.asarray((np.asarray(outputs)[:, None] == np.unique(outputs)) * weight[:, None], ideal.dtype)
    of = lambda x: jnp.abs(jnp.einsum("...n,no->...o", x, to, precision="highest")).sum(-1)
    return ratio(of(ideal - currents), of(ideal))


def manhattan_score(cells: Bool[np.ndarray, "*b M N"], origin: int = 1) -> Int[np.ndarray, "*b"]:
    """S = sum_jk d(j, k) b[j, k]. The Manhattan hypothesis: NF is proportional to it."""
    return np.asarray((cells * distances(*cells.shape[-2:], origin)).sum((-2, -1)))


def quadratic_form(cells: Bool[np.ndarray, "*b M N"]) -> Int[np.ndarray, "*b"]:
    """Q = the sum of the squared segment currents at first order, of rows and of columns: nf_abs = rho Q + O(rho^2) for
    V = 1, r_w = r_b and no conductance in inactive cells; S is its diagonal."""
    tails = lambda axis: np.flip(np.cumsum(np.flip(cells.astype(np.int64), axis), axis), axis)
    return np.asarray((tails(-1) ** 2).sum((-2, -1)) + (tails(-2) ** 2).sum((-2, -1)))


class PowerBounds(NamedTuple):
    """Of E0 - E, E the power from the drivers and E0 the ideal one; lower <= E0 - E <= upper <= first order."""

    ideal: Float[Array, "*b"]  # E0
    lower: Float[Array, "*b"]  # E1 - E2
    upper: Float[Array, "*b"]  # E0 eta / (1 + eta), eta = E1 / E0
    first_order: Float[Array, "*b"]  # E1


def power_bounds(conductance: Float[Array, "*b M N"], inputs: Float[Array, "*b M"], wires: Wires) -> PowerBounds:
    """By four cumulative sums and no solve: C = G.(V 1^T), E0 = <C, V 1^T>, E1 = <C, L C>, E2 = <L C, G.L C>.

    For constant V, (E0 - E) / E0 is nf_tot, of which eta / (1 + eta) is a predictor that never underestimates.
    """
    flows = conductance * inputs[..., None]
    lost = drop(flows, wires, sums=True)
    inner = lambda a, b: (a * b).sum((-2, -1))
    e0, e1, e2 = inner(flows, inputs[..., None]), inner(flows, lost), inner(lost, conductance * lost)
    return PowerBounds(e0, e1 - e2, ratio(e0 * e1, e0 + e1), e1)


def predicted_nf(conductance: Float[Array, "*b M N"], wires: Wires) -> Float[Array, "*b"]:
    """eta / (1 + eta) at V = 1: nf_tot without a solve, never below it."""
    found = power_bounds(conductance, jnp.ones(conductance.shape[:-1], conductance.dtype), wires)
    return ratio(found.upper, found.ideal)


def mean_field(density: float, rows: int, columns: int) -> float:
    """E[Q] of a tile whose cells are active independently with probability p, for V = 1 and no background:
    the sum over both directions of M (p^2 N (N+1) (2N+1) / 6 + p (1-p) N (N+1) / 2)."""
    p = density
    of = lambda m, n: m * (p * p * n * (n + 1) * (2 * n + 1) / 6 + p * (1 - p) * n * (n + 1) / 2)
    return of(rows, columns) + of(columns, rows)


def slope_of_law(rows: int, columns: int) -> float:
    """c = ((N+1)(2N+1) + (M+1)(2M+1)) / (3 M N (M+N+2)): nf_tot is about c rho S on random tiles (the terms of p^2)."""
    return ((columns + 1) * (2 * columns + 1) + (rows + 1) * (2 * rows + 1)) / (
        3 * rows * columns * (rows + columns + 2)
    )
