"""What a crossbar computes: device voltages and output currents with the resistance of its wires, exactly.

The voltages X over the devices of a tile satisfy (device form, MN unknowns; standard circuit theory)

    X + r_w (G.X) P_N + r_b P_M (G.X) = V 1^T,        I[k] = sum_j G[j,k] X[j,k],

with "." by elements and the path matrices of `wires`. With s = sqrt(G) and y = s.X it is symmetric and positive
definite, A y = y + s.L(s.y) = s.(V 1^T), with eigenvalues in [1, 1 + kappa], and conjugate gradients solve it. Cells
that conduct nothing, no resistance and no conductance at all are regular.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdmjax.crossbar.wires import Wires, check_wires, drop, inverse_path_matrix, largest_eigenvalue


class Solved(NamedTuple):
    """What a tile does."""

    currents: Float[Array, "*b N"]
    voltages: Float[Array, "*b M N"]  # over the devices
    residual: Float[Array, "*b"]  # |b - A y| / |b|, computed anew at the end; 0 where b is 0


class NotConverged(ArithmeticError):
    """Conjugate gradients have not come near enough to the solution."""


def condition(conductance_max: float, rows: int, columns: int, wires: Wires) -> float:
    """kappa = G_max (r_w lambda_N + r_b lambda_M), a bound: eigenvalues of A are in [1, 1 + kappa]."""
    return conductance_max * (
        float(wires.word) * largest_eigenvalue(columns) + float(wires.bit) * largest_eigenvalue(rows)
    )


def iterations_for(tolerance: float, kappa: float) -> int:
    """So many bring the error in the energy norm below eps of the first: 2 / (q^n + q^-n) <= 2 q^-n = eps with
    q = (sqrt(1 + kappa) + 1) / (sqrt(1 + kappa) - 1), a bound by Chebyshev polynomials; at most
    sqrt(1 + kappa) / 2 ln(2 / eps)."""
    root = math.sqrt(1 + kappa)
    if root == 1:
        return 1
    return max(1, math.ceil(math.log(2 / tolerance) / math.log((root + 1) / (root - 1))))


def ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 for 0 / 0; what is no number stays none."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def device_voltages(
    conductance: Float[Array, "*b M N"],
    source: Float[Array, "*b M N"],
    wires: Wires,
    iterations: int | Int[Array, ""],
    sums: bool = False,
) -> tuple[Float[Array, "*b M N"], Float[Array, "*b M N"], Float[Array, "*b"]]:
    """(X, device currents s.y, residual) of A y = s.source by so many steps of conjugate gradients; any source.

    Tiles are independent: one that has converged stands still. X is source - L(s.y), which is defined at cells that
    conduct nothing too.
    """
    s = jnp.sqrt(conductance)
    unit = jnp.abs(source).max((-2, -1), keepdims=True)
    unit = jnp.where(unit == 0, 1, jnp.exp2(jnp.round(jnp.log2(unit))))  # so that no square underflows; exact
    source = source / unit
    apply = lambda y: y + s * drop(s * y, wires, sums=sums)
    inner = lambda a, b: (a * b).sum((-2, -1), keepdims=True)
    b = s * source
    r, enough = b - apply(b), jnp.square(jnp.finfo(b.dtype).eps) * inner(b, b)  # beyond it there is rounding alone

    def step(_, state):
        y, r, p, rr = state
        ap = apply(p)
        a = jnp.where(rr > enough, ratio(rr, inner(p, ap)), 0)
        y, r = y + a * p, r - a * ap
        new = inner(r, r)
        return y, r, r + ratio(new, rr) * p, new

    y, *_ = jax.lax.fori_loop(0, iterations, step, (b, r, r, inner(r, r)))
    x = source - drop(s * y, wires, sums=sums)
    left = s * x - y  # b - A y; the r of the iteration goes on falling where rounding has stopped it
    flows = jnp.where(left == 0, conductance * x, s * y)  # G.X would amplify what is left, but is exact without wires
    return x * unit, flows * unit, jnp.sqrt(ratio(inner(left, left), inner(b, b)))[..., 0, 0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _currents(conductance, inputs, wires, iterations, sums):
    source = jnp.broadcast_to(inputs[..., None], conductance.shape)
    voltages, flows, residual = device_voltages(conductance, source, wires, iterations, sums)
    return Solved(flows.sum(-2), voltages, residual), flows


def _forward(conductance, inputs, wires, iterations, sums):
    found = _currents(conductance, inputs, wires, iterations, sums)
    return found, (conductance, found[0].voltages, found[1], wires)


def _backward(iterations, sums, kept, slopes):
    conductance, voltages, own, wires = kept
    source = jnp.broadcast_to(slopes[0].currents[..., None, :], conductance.shape)
    other, its, _ = device_voltages(conductance, source, wires, iterations, sums)
    by = lambda word, bit: -(its * drop(own, Wires(word, bit), sums=sums)).sum()
    like = lambda value, old: jnp.asarray(value, jnp.result_type(old))
    return voltages * other, its.sum(-1), Wires(like(by(1.0, 0.0), wires.word), like(by(0.0, 1.0), wires.bit))


_currents.defvjp(_forward, _backward)


def _cast(wires: Wires, dtype) -> Wires:
    word, bit = (jnp.asarray(r, dtype) for r in wires)
    if word.shape or bit.shape:
        raise ValueError(f"wires of shapes {word.shape}, {bit.shape}: must be two numbers, the same for all tiles")
    return Wires(word, bit)


def solve(
    conductance: Float[Array, "*b M N"],
    inputs: Float[Array, "*b M"],
    wires: Wires,
    *,
    iterations: int,
    sums: bool = False,
) -> Solved:
    """Currents, device voltages and the residual of each tile, for conductances in 1 / R_on and inputs V.

    `currents` is differentiable in conductances, inputs and both wire resistances by one more solve (the adjoint: with
    X^V of the inputs, X^c of the source 1 c^T and Z = G.X, d(c.I)/dG = X^V.X^c, d/dV_j = sum_k Z^c[j,k],
    d/dr_w = -<Z^c, Z^V P_N>, d/dr_b = -<Z^c, P_M Z^V>); voltages and residual have no gradient. The caller decides
    whether the residual will do: `require`. ValueError for wires that are not two numbers. How many iterations:
    `iterations_for`. Pure, for any leading axes; a large
    batch is faster in parts that a cache holds, such as 64 tiles at a time by `jax.lax.map`.
    """
    found, _ = _currents(conductance, inputs, _cast(wires, conductance.dtype), iterations, sums)
    return found._replace(
        voltages=jax.lax.stop_gradient(found.voltages), residual=jax.lax.stop_gradient(found.residual)
    )


def check_conductance(conductance: Float[np.ndarray, "*b M N"]) -> None:
    """ValueError that names the first tile with a conductance that is negative or no number, or with none at all, whose
    nonideality factor would be 0 / 0."""
    tiles = np.asarray(conductance).reshape(-1, *conductance.shape[-2:])
    wrong = ~(tiles >= 0) | np.isinf(tiles)
    for t in np.flatnonzero(wrong.any((1, 2)) | ~tiles.any((1, 2))):
        if wrong[t].any():
            j, k = np.argwhere(wrong[t])[0]
            raise ValueError(f"tile {t}: the conductance at ({j}, {k}) is {tiles[t, j, k]}: must be finite, at least 0")
        raise ValueError(f"tile {t}: no cell conducts, so there is nothing to solve: leave it out")


def checked_solve(
    conductance: Float[np.ndarray, "*b M N"],
    inputs: Float[np.ndarray, "*b M"],
    wires: Wires,
    *,
    tolerance: float = 1e-6,
    dtype=jnp.float32,
) -> Solved:
    """`solve` for what a user has measured or made: everything is checked, and the residual is below the tolerance.

    ValueError that names the tile for conductances that are negative or no numbers and for a tile without any, and for
    inputs and wires that will not do; NotConverged, with the tile and its residual, where the iterations do not bring
    it below the tolerance.
    """
    check_conductance(conductance)
    check_wires(wires)
    if not np.isfinite(inputs).all():
        raise ValueError(f"inputs: {(~np.isfinite(inputs)).sum()} of them are not finite")
    iterations = iterations_for(tolerance, condition(float(np.max(conductance)), *conductance.shape[-2:], wires))
    return require(_solve(jnp.asarray(conductance, dtype), jnp.asarray(inputs, dtype), wires, iterations), tolerance)


_solve = jax.jit(lambda g, v, wires, n: solve(g, v, wires, iterations=n), static_argnums=3)


def require(found: Solved, tolerance: float) -> Solved:
    """The same, seen by the host. Raises NotConverged with the worst tile and its residual, where one is above."""
    require_residual(np.asarray(found.residual), tolerance)
    return found


def require_residual(residual: Float[np.ndarray, "*b"], tolerance: float, first: int = 0) -> None:
    """NotConverged for a residual above the tolerance, or none that is a number; tiles are counted from `first`."""
    worst = np.unravel_index(np.argmax(np.where(np.isnan(residual), np.inf, residual)), residual.shape)
    if not residual[worst] <= tolerance:
        where = f"tile {', '.join(str(first + i) for i in worst)}" if worst else "the tile"
        raise NotConverged(
            f"{where}: the residual is {residual[worst]:.3g}, above {tolerance:.3g}: the wires are too resistive for "
            "this precision (use float64, or a larger tolerance) or for so few iterations"
        )


def effective_conductance(
    conductance: Float[Array, "*b M N"], wires: Wires, *, iterations: int | Int[Array, ""], sums: bool = False
) -> tuple[Float[Array, "*b N M"], Float[Array, "*b"]]:
    """(G_eff, the largest residual): I = G_eff V for every V, for the network is linear.

    By M sources e_j 1^T, or N adjoint ones 1 e_k^T where these are fewer; one after the other over the sources, so that
    the memory is that of the tiles. The number of iterations may be traced: one compilation serves all wires.
    """
    rows, columns = conductance.shape[-2:]
    wires = _cast(wires, conductance.dtype)
    few = rows <= columns

    def one(unit):
        source = jnp.broadcast_to(unit[:, None] if few else unit[None, :], conductance.shape)
        _, flows, residual = device_voltages(conductance, source, wires, iterations, sums)
        return flows.sum(-2 if few else -1), residual

    found, residual = jax.lax.map(one, jnp.eye(rows if few else columns, dtype=conductance.dtype))
    return (jnp.moveaxis(found, 0, -1) if few else jnp.moveaxis(found, 0, -2)), residual.max(0)


def nodal(
    conductance: Float[np.ndarray, "M N"], inputs: Float[np.ndarray, "M"], wires: Wires
) -> Float[np.ndarray, "N"]:
    """Currents by Kirchhoff's laws at all 2 MN nodes, dense: the oracle of small tiles, in float64.

    [[I (x) T_N / r_w + Gamma, -Gamma], [-Gamma, T_M (x) I / r_b + Gamma]] [u; w] = [V (x) e_0 / r_w; 0], I = w_0 / r_b.
    ValueError for a wire without resistance.
    """
    if not (wires.word > 0 and wires.bit > 0):
        raise ValueError(f"{wires}: the nodal form needs resistances above 0")
    rows, columns = conductance.shape
    gamma = np.diag(np.asarray(conductance, np.float64).ravel())
    word = np.kron(np.eye(rows), inverse_path_matrix(columns)) / wires.word + gamma
    bit = np.kron(inverse_path_matrix(rows), np.eye(columns)) / wires.bit + gamma
    source = np.zeros((2, rows, columns))
    source[0, :, 0] = np.asarray(inputs, np.float64) / wires.word
    nodes = np.linalg.solve(np.block([[word, -gamma], [-gamma, bit]]), source.ravel())
    return nodes[rows * columns :][:columns] / wires.bit
