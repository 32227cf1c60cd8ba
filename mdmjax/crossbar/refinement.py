"""Orders of rows made better by swaps, where a key is only a rule: on the exact error, or on the segment currents."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mdmjax.crossbar.factors import mac_error
from mdmjax.crossbar.mapping import Mapped, reorder
from mdmjax.crossbar.solver import condition, iterations_for, require_residual, solve
from mdmjax.crossbar.wires import Wires

CANDIDATES = 64  # swaps that are tried at once


def refine(
    rows: int,
    cost: Callable[[Int[np.ndarray, "C M"]], Float[np.ndarray, "C"]],
    *,
    rounds: int,
    rng: np.random.Generator,
    candidates: int = CANDIDATES,
) -> tuple[Int[np.ndarray, "M"], float, float]:
    """(order, its cost, the cost of the first order 0..rows-1), never worse than the first.

    Each round tries so many swaps of two rows in the best order known, and takes the best one where it is better.
    """
    best = np.arange(rows)
    first = lowest = float(cost(np.tile(best, (candidates, 1)))[0])
    for _ in range(rounds if rows > 1 else 0):
        orders = np.tile(best, (candidates, 1))
        a = rng.integers(rows, size=candidates)
        b = (a + rng.integers(1, rows, size=candidates)) % rows
        each = np.arange(candidates)
        orders[each, a], orders[each, b] = orders[each, b], orders[each, a]
        costs = cost(orders)
        at = int(np.argmin(costs))
        if costs[at] < lowest:
            best, lowest = orders[at], float(costs[at])
    return best, lowest, first


def segment_cost(cells: Bool[np.ndarray, "M N"]) -> Callable:
    """F = sum_t |sum_{j >= t} b_j|^2 of orders [C, M]: what of the quadratic form depends on the order."""
    counts = cells.astype(np.int64)
    return lambda orders: (np.cumsum(counts[orders][:, ::-1], axis=1) ** 2).sum((1, 2)).astype(np.float64)


@functools.partial(jax.jit, static_argnums=4)
def _currents(conductance, orders, inputs, wires, iterations):
    found = solve(conductance[orders], inputs[orders], wires, iterations=iterations)
    return found.currents, found.residual


def exact_cost(
    conductance: Float[np.ndarray, "M N"],
    wires: Wires,
    labels: tuple[np.ndarray, np.ndarray, np.ndarray],
    inputs: Float[np.ndarray, "M"],
    tolerance: float = 1e-5,
) -> Callable:
    """The weighted MAC error of orders [C, M], by a solve of each, at the given inputs; `labels` are the outputs,
    levels and signs of the columns. NotConverged where a residual is above ten times the tolerance."""
    g, v = jnp.asarray(conductance, jnp.float32), jnp.asarray(inputs, jnp.float32)
    iterations = iterations_for(tolerance, condition(float(conductance.max()), *conductance.shape, wires))
    ideal = (g * v[:, None]).sum(0)

    def cost(orders):
        currents, residual = _currents(g, jnp.asarray(orders), v, wires, iterations)
        require_residual(np.asarray(residual), 10 * tolerance)  # the bound is on another norm
        return np.asarray(mac_error(jnp.broadcast_to(ideal, currents.shape), currents, *labels), np.float64)

    return cost


def refine_tiles(
    mapped: Mapped, conductance: Float[np.ndarray, "T M N"], wires: Wires, *, rounds: int, seed: int = 0
) -> Mapped:
    """Mapped tiles whose rows are ordered better for their weighted MAC error at V = 1, tile by tile.

    Only rows that are there change places. Tiles that conduct nothing stay as they are.
    """
    tiles, order = mapped
    moved = np.tile(np.arange(order.shape[1]), (len(order), 1))
    for t, cells in enumerate(tiles.cells):
        there = np.flatnonzero(tiles.inputs[t] >= 0)
        if not cells.any():
            continue
        v = (tiles.inputs[t] >= 0).astype(float)
        cost = exact_cost(conductance[t], wires, (tiles.outputs[t], tiles.levels[t], tiles.signs[t]), v)
        whole = lambda orders, there=there, t=t: np.concatenate(
            [there[orders], np.tile(np.flatnonzero(tiles.inputs[t] < 0), (len(orders), 1))], 1
        )
        rng = np.random.default_rng([seed, t])
        best, _, _ = refine(len(there), lambda orders, c=cost, w=whole: c(w(orders)), rounds=rounds, rng=rng)
        moved[t] = whole(best[None])[0]
    return reorder(mapped, moved)
