"""Weights as bits on tiles: sign and magnitude, K bits each, columns in planes or words, layers cut into tiles."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LAYOUTS = ("planes", "words")
ROUNDINGS = ("floor", "nearest")


class Sliced(NamedTuple):
    """w = sign * scale * q / 2^K, up to rounding: q = sum_b bits[b] 2^(K - 1 - b), the most significant bit first."""

    q: Int[np.ndarray, "I O"]
    bits: Bool[np.ndarray, "I O K"]
    sign: Int[np.ndarray, "I O"]
    scale: float


def bit_slice(
    weights: Float[np.ndarray, "I O"], bits: int, *, rounding: str = "floor", largest: float | None = None
) -> Sliced:
    """q = floor(2^K |w| / scale), scale = w_max (1 + 1e-9), at most 2^K - 1; `largest` is w_max, by default that of the
    weights.

    By floor the densities of the bits do not decrease from the most significant to the least where the density of |w|
    does not increase; rounding to the nearest may break that. ValueError for K outside 1..16, another rounding, and
    weights that are not finite or larger than `largest`.
    """
    weights = np.asarray(weights, np.float64)
    if not 1 <= bits <= 16:
        raise ValueError(f"bits={bits}: must be in 1..16")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}: choose one of {', '.join(ROUNDINGS)}")
    if weights.ndim != 2:
        raise ValueError(f"weights of shape {weights.shape}: must be a matrix, inputs by outputs")
    if not np.isfinite(weights).all():
        raise ValueError(f"{(~np.isfinite(weights)).sum()} weights are not finite")
    most = float(np.abs(weights).max(initial=0.0))
    if largest is not None and not most <= largest < math.inf:
        raise ValueError(f"largest={largest}: there is a weight of {most}")
    scale = (most if largest is None else largest) * (1 + 1e-9)
    exact = np.abs(weights) / (scale or 1.0) * 2**bits
    q = np.minimum(np.floor(exact) if rounding == "floor" else np.rint(exact), 2**bits - 1).astype(np.int64)
    planes = (q[..., None] >> np.arange(bits)[::-1]) & 1 == 1
    return Sliced(q, planes, np.sign(weights).astype(np.int64), scale)


class Tiles(NamedTuple):
    """A layer cut into tiles [T, M, N] of cells; rows and columns that are not there are absent cells at the far end.

    Tiles go by tile-row, then tile-column. A column is a bit of an output, of the positive or the negative part.
    """

    cells: Bool[np.ndarray, "T M N"]
    inputs: Int[np.ndarray, "T M"]  # the row of the layer that each row is; -1: absent
    outputs: Int[np.ndarray, "T N"]  # the output that each column belongs to; -1: absent
    levels: Int[np.ndarray, "T N"]  # its bit, 1 (most significant) .. K
    signs: Int[np.ndarray, "T N"]  # +1 | -1


def tile(sliced: Sliced, rows: int, columns: int, *, layout: str = "planes", signs: tuple[int, ...] = (1, -1)) -> Tiles:
    """The tiles of a layer: `rows` inputs by as many whole outputs as `columns` cells hold, all bits of an output and a
    sign in one tile.

    layout "planes": all most significant bits, ..., all least significant ones (column b O + o); "words": the K columns
    of an output side by side (o K + b). ValueError for sizes below 1, another layout, and fewer columns than bits.
    """
    inputs, outputs, bits = sliced.bits.shape
    if rows < 1 or columns < 1:
        raise ValueError(f"rows={rows}, columns={columns}: a tile has at least one of each")
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: choose one of {', '.join(LAYOUTS)}")
    if columns < bits:
        raise ValueError(f"columns={columns}: the {bits} bits of an output do not fit")
    each = columns // bits
    made: list[tuple] = []
    for top in range(0, inputs, rows):
        for sign in signs:
            for left in range(0, outputs, each):
                made.append(_one(sliced, top, left, sign, rows, columns, each, layout))
    return Tiles(*map(np.stack, zip(*made, strict=True)))


def _one(sliced: Sliced, top: int, left: int, sign: int, rows: int, columns: int, each: int, layout: str) -> tuple:
    part = slice(top, top + rows), slice(left, left + each)
    block = sliced.bits[part] & (sliced.sign[part] == sign)[..., None]  # [m, o, K]
    m, o, bits = block.shape
    order = (0, 2, 1) if layout == "planes" else (0, 1, 2)
    cells = np.zeros((rows, columns), bool)
    cells[:m, : o * bits] = block.transpose(order).reshape(m, -1)
    output, level = (np.full(columns, -1) for _ in range(2))
    names = np.meshgrid(np.arange(o), np.arange(bits), indexing="ij")
    names = [x.T if layout == "planes" else x for x in names]
    output[: o * bits], level[: o * bits] = left + names[0].ravel(), 1 + names[1].ravel()
    place = np.full(rows, -1)
    place[:m] = np.arange(top, top + m)
    return cells, place, output, level, np.where(output < 0, 0, sign)


def index_bits(rows: int, tiles: int = 1) -> int:
    """What the row permutations of so many tiles cost to keep: M ceil(log2 M) bits for each."""
    return tiles * rows * math.ceil(math.log2(rows)) if rows > 1 else 0
