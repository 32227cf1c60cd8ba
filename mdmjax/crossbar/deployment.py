"""A layer as a crossbar computes it: quantised, sliced, tiled, mapped, solved and decoded into effective weights.

DAC and ADC are ideal and devices do not vary unless it is said: only the wires and the on/off ratio are modelled.
Biases and activations stay digital, and tiles add up behind the ADC.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdmjax.crossbar.factors import factors, mac_error
from mdmjax.crossbar.mapping import Mapped, map_tiles
from mdmjax.crossbar.slicing import Sliced, Tiles, bit_slice, index_bits, tile
from mdmjax.crossbar.solver import condition, effective_conductance, iterations_for, require_residual
from mdmjax.crossbar.wires import Wires, distances


@dataclasses.dataclass(frozen=True)
class Crossbar:
    """Tiles of `rows` x `columns` devices with `bits` a weight; wires in units of R_on, R_off = on_off x R_on.

    The other fields are those of `bit_slice`, `tile` and `map_tiles`. Solves go on to the residual `tolerance`.
    ValueError for sizes below 1, an on/off ratio of at most 1, and resistances that are negative or not finite.
    """

    rows: int = 64
    columns: int = 64
    bits: int = 8
    wires: Wires = Wires(2.5e-4, 2.5e-4)
    on_off: float = math.inf
    rounding: str = "floor"
    layout: str = "planes"
    flow: str = "reversed"
    key: str = "popcount"
    scope: str = "tile"
    tolerance: float = 1e-6

    def __post_init__(self):
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"Crossbar(rows={self.rows}, columns={self.columns}): both must be at least 1")
        if not self.on_off > 1:
            raise ValueError(f"Crossbar(on_off={self.on_off}): R_off / R_on must be above 1")
        if not all(0 <= float(r) < math.inf for r in self.wires):
            raise ValueError(f"Crossbar(wires={tuple(self.wires)}): resistances must be finite and not negative")
        if not self.tolerance > 0:
            raise ValueError(f"Crossbar(tolerance={self.tolerance}): must be above 0")

    @property
    def off(self) -> float:
        """G_off in units of 1 / R_on."""
        return 1 / self.on_off

    @property
    def iterations(self) -> int:
        """Of the solver, by its bound."""
        return iterations_for(self.tolerance, condition(1.0, self.rows, self.columns, self.wires))

    def conductances(self, tiles: Tiles) -> Float[np.ndarray, "T M N"]:
        """G: 1 where a bit is set, G_off where it is not, 0 where there is no cell."""
        there = (tiles.inputs >= 0)[:, :, None] & (tiles.outputs >= 0)[:, None]
        return np.where(there, np.where(tiles.cells, 1.0, self.off), 0.0)

    def map(self, weights: Float[np.ndarray, "I O"], **choices) -> tuple[Sliced, Mapped]:
        """The weights as bits, and their tiles as they are written; `choices` are those of `map_tiles`."""
        sliced = bit_slice(weights, self.bits, rounding=self.rounding)
        tiles = tile(sliced, self.rows, self.columns, layout=self.layout)
        return sliced, map_tiles(tiles, **dict(flow=self.flow, key=self.key, scope=self.scope) | choices)


class Deployed(NamedTuple):
    """What has become of a layer; numbers of a tile are at V = 1."""

    weights: Float[np.ndarray, "I O"]  # the linear layer is x @ weights
    quantised: Float[np.ndarray, "I O"]  # without resistance
    nf_total: Float[np.ndarray, "T"]
    nf_column: Float[np.ndarray, "T"]
    mac: Float[np.ndarray, "T"]
    residual: float
    index_bits: int


@functools.partial(jax.jit, static_argnums=2)
def _effective(conductance, wires, iterations):
    return effective_conductance(conductance, wires, iterations=iterations)


def decode(
    conductance: Float[np.ndarray, "T N M"], tiles: Tiles, off: float, scale: float, shape: tuple[int, int]
) -> Float[np.ndarray, "I O"]:
    """W[i, o] = scale sum_k +- 2^-b(k) (G_eff[k, j(i)] - G_off) / (1 - G_off), summed over tiles: rows gathered back,
    columns shifted and added by their labels, the background of inactive cells taken away digitally."""
    weights = np.zeros(shape)
    for g, _, inputs, outputs, levels, signs in zip(conductance, *tiles, strict=True):
        rows, columns = np.flatnonzero(inputs >= 0), np.flatnonzero(outputs >= 0)
        worth = scale * signs[columns] * 2.0 ** -levels[columns]
        part = (g[np.ix_(columns, rows)] - off) / (1 - off) * worth[:, None]
        np.add.at(weights, (inputs[rows][None], outputs[columns][:, None]), part)
    return weights


def effective_weights(
    weights: Float[np.ndarray, "I O"] | Float[Array, "I O"],
    crossbar: Crossbar,
    *,
    chunk: int = 64,
    dtype=jnp.float32,
    **choices,
) -> Deployed:
    """The weights that a crossbar with these wires has, by an exact solve for every tile and input.

    `chunk` tiles are solved at a time, which bounds the memory. NotConverged, naming the tile, where a residual is
    above the tolerance; ValueError as `bit_slice` and `tile`.
    """
    weights = np.asarray(weights, np.float64)
    sliced, (tiles, _) = crossbar.map(weights, **choices)
    conductance, found, worst = crossbar.conductances(tiles), [], 0.0
    for first in range(0, len(conductance), chunk):
        part = conductance[first : first + chunk]
        padded = np.pad(part, ((0, chunk - len(part)), (0, 0), (0, 0))) if len(conductance) > chunk else part
        effective, residual = _effective(jnp.asarray(padded, dtype), crossbar.wires, crossbar.iterations)
        require_residual(np.asarray(residual)[: len(part)], crossbar.tolerance, first)
        worst = max(worst, float(residual.max()))
        found.append(np.asarray(effective, np.float64)[: len(part)])
    effective = np.concatenate(found)
    ideal, real = conductance.sum(1), effective.sum(2)
    nf = factors(jnp.asarray(ideal), jnp.asarray(real))
    of_tile = zip(ideal, real, *tiles[2:], strict=True)
    mac = [float(mac_error(jnp.asarray(i), jnp.asarray(r), *labels)) for i, r, *labels in of_tile]
    return Deployed(
        decode(effective, tiles, crossbar.off, sliced.scale, weights.shape),
        sliced.sign * sliced.scale * sliced.q / 2**crossbar.bits,
        np.asarray(nf.total), np.asarray(nf.column), np.array(mac), worst, index_bits(crossbar.rows, len(tiles.cells)),
    )  # fmt: skip


def gains(effective: Float[np.ndarray, "I O"], wanted: Float[np.ndarray, "I O"]) -> Float[np.ndarray, "O"]:
    """A digital factor for each output: g_o = <W_eff[:, o], W[:, o]> / <W_eff[:, o], W_eff[:, o]>; 1 for a dead one."""
    square = (effective**2).sum(0)
    return np.where(square > 0, (effective * wanted).sum(0) / np.where(square > 0, square, 1), 1.0)


def distance_noise(
    weights: Float[np.ndarray, "I O"], crossbar: Crossbar, alpha: float, *, rng: np.random.Generator | None = None
) -> Float[np.ndarray, "I O"]:
    """W~ = scale sum_b +- 2^-b beta_b (1 - alpha d(j, k)) of the mapped tiles, the paper's noise model as far as it can
    be reconstructed, with an `rng` times a standard normal number for each cell.

    For comparison only: of the exact attenuation of a 64 x 64 tile it explains a half to four fifths, with another
    slope at every density. No alpha is right for all; `effective_weights` is.
    """
    sliced, (tiles, _) = crossbar.map(weights)
    loss = alpha * distances(crossbar.rows, crossbar.columns)[None]
    if rng is not None:
        loss = loss * rng.standard_normal(tiles.cells.shape)
    conductance = tiles.cells * (1 - loss)
    return decode(conductance.transpose(0, 2, 1), tiles, 0.0, sliced.scale, weights.shape)
