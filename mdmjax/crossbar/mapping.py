"""Manhattan distance mapping: which rows and columns of a tile stand next to the rails (arXiv 2511.04798).

Cells that conduct lose less the nearer they are to the corner (0, 0), by the distance (j + 1) + (k + 1) at first order.
So columns are turned around, that the denser low-order bits come first, and rows ordered by how full they are. The
order of the rows is undone by gathering the inputs, that of the columns by their labels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mdmjax.crossbar.slicing import Tiles

FLOWS = ("conventional", "reversed")
SCOPES = ("tile", "bus")
Score = Callable[[Bool[np.ndarray, "M N"], Float[np.ndarray, "M"]], Float[np.ndarray, "M"]]


def _popcount(cells, weights):
    return cells.sum(1) * weights


def _column(cells, weights):
    return (cells * (1 + np.arange(cells.shape[1]))).sum(1) * weights


SCORES: dict[str, Score] = dict(
    popcount=_popcount,
    column=_column,
    combined=lambda cells, weights: _popcount(cells, weights) + _column(cells, weights),
)
KEYS = ("none", *SCORES, "greedy")


def greedy(cells: Bool[np.ndarray, "M N"], weights: Float[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
    """The order that fills positions from the far end, each time with the row that adds least to
    F = sum_t |sum_{j >= t} b_j|^2: min 2 <R, b> + |b|^2, R the sum of the rows already placed. Rows times sqrt(weight).
    """
    rows = cells * np.sqrt(weights)[:, None]
    left, order, placed = list(range(len(rows))), [], np.zeros(rows.shape[1])
    square = (rows**2).sum(1)
    while left:
        cost = 2 * rows[left] @ placed + square[left]
        at = left.pop(len(left) - 1 - int(np.argmin(cost[::-1])))  # of equals the last, which so stands farther
        order.append(at)
        placed += rows[at]
    return np.array(order[::-1])


def order_of(
    tiles: Sequence[Bool[np.ndarray, "M N"]], key: str, weights: Float[np.ndarray, "M"]
) -> Int[np.ndarray, "M"]:
    """The order that a key gives the rows of tiles on one bus: by the sum of their scores over the tiles, the largest
    first, ties by their number; greedy by the tiles side by side."""
    if key == "none":
        return np.arange(len(tiles[0]))
    if key == "greedy":
        return greedy(np.concatenate(tiles, 1), weights)
    return np.argsort(-sum(SCORES[key](cells, weights) for cells in tiles), kind="stable")


class Mapped(NamedTuple):
    """Tiles as they are written, and where their rows came from."""

    tiles: Tiles
    order: Int[np.ndarray, "T M"]  # row j of the mapped tile was row order[j]; digital undo: V[order]


def map_tiles(
    tiles: Tiles,
    *,
    flow: str = "reversed",
    key: str = "popcount",
    scope: str = "tile",
    activity: Float[np.ndarray, "I"] | None = None,
) -> Mapped:
    """Turns the columns that are there around (`reversed`), then orders the rows that are there by a key.

    key: popcount n_j, which is best for the Manhattan score (rearrangement inequality) | column, c_j = sum_k (k+1) b |
    combined, their sum | greedy, by F | none. scope: every tile has its own order, or all tiles on one input bus, those
    of a tile-row, share one, by the sum of their scores. `activity`, E[x^2] of each input, multiplies the scores.
    Absent rows and columns stay at the far end, where they change nothing. ValueError for another flow, key or scope,
    and for an activity that is negative or not one number for each input.
    """
    for name, value, known in (("flow", flow, FLOWS), ("key", key, KEYS), ("scope", scope, SCOPES)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(known)}")
    if activity is not None:
        count = 1 + int(tiles.inputs.max())
        if np.shape(activity) != (count,) or not (np.asarray(activity) >= 0).all():
            raise ValueError(f"activity of shape {np.shape(activity)}: must be {count} numbers of at least 0")
    cells, inputs, *labels = (x.copy() for x in tiles)
    if flow == "reversed":
        for t in range(len(cells)):
            there = tiles.outputs[t] >= 0
            for x in (*labels,):
                x[t, there] = x[t, there][::-1]
            cells[t][:, there] = cells[t][:, there][:, ::-1]
    order = np.tile(np.arange(cells.shape[1]), (len(cells), 1))
    groups = [[t] for t in range(len(cells))] if scope == "tile" else _buses(inputs)
    for group in groups:
        there = np.flatnonzero(inputs[group[0]] >= 0)
        own = np.ones(len(there)) if activity is None else np.asarray(activity)[inputs[group[0]][there]]
        found = order_of([cells[t][there] for t in group], key, own)
        for t in group:
            order[t, there] = there[found]
    return reorder(Mapped(Tiles(cells, inputs, *labels), np.tile(np.arange(cells.shape[1]), (len(cells), 1))), order)


def reorder(mapped: Mapped, order: Int[np.ndarray, "T M"]) -> Mapped:
    """The tiles with row order[t, j] of each at j. ValueError that names the tile where that is no permutation."""
    for t, one in enumerate(order):
        check_permutation(one, mapped.order.shape[1], f"order of tile {t}")
    take = lambda x: np.take_along_axis(x, order, 1)
    cells = np.take_along_axis(mapped.tiles.cells, order[:, :, None], 1)
    return Mapped(Tiles(cells, take(mapped.tiles.inputs), *mapped.tiles[2:]), take(mapped.order))


def _buses(inputs: Int[np.ndarray, "T M"]) -> list[list[int]]:
    """The tiles that read the same inputs, together."""
    found: dict[bytes, list[int]] = {}
    for t, row in enumerate(inputs):
        found.setdefault(row.tobytes(), []).append(t)
    return list(found.values())


def check_permutation(order: Int[np.ndarray, "M"], rows: int, name: str = "order") -> None:
    """ValueError for what is no permutation of 0..rows-1."""
    if sorted(np.asarray(order).tolist()) != list(range(rows)):
        raise ValueError(f"{name} {np.asarray(order).tolist()}: must have every number of 0..{rows - 1} once")
