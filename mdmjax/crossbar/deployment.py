"""A layer as a crossbar computes it: quantised, sliced, tiled, mapped, solved and decoded into effective weights.

DAC and ADC are ideal, and devices do not vary unless it is said: only the wires and the on/off ratio are modelled.
Biases and activations stay digital, and tiles add up behind the ADC.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mdmjax.crossbar.factors import factors, mac_error
from mdmjax.crossbar.mapping import FLOWS, KEYS, SCOPES, Mapped, map_tiles
from mdmjax.crossbar.refinement import refine_tiles
from mdmjax.crossbar.slicing import LAYOUTS, ROUNDINGS, Sliced, Tiles, bit_slice, index_bits, tile
from mdmjax.crossbar.solver import condition, effective_conductance, iterations_for, require_residual
from mdmjax.crossbar.wires import Wires, check_wires

PADS = ("absent", "off")


@dataclasses.dataclass(frozen=True)
class Crossbar:
    """Tiles of `rows` x `columns` devices with `bits` a weight; wires in units of R_on, R_off = on_off x R_on.

    `rounding`, `layout`, `flow`, `key` and `scope` are those of `bit_slice`, `tile` and `map_tiles`; `swaps` rounds of
    `refine_tiles` follow on the exact error. `pad`: cells of a tile without a weight are not there, or devices that are
    off. `variation` is the standard deviation of ln G from device to device. Solves go on to the residual `tolerance`.
    ValueError for sizes below 1, bits that are none of 1..16 or more than columns, an on/off ratio of at most 1,
    resistances that are negative or not finite, unknown choices, and swaps on a bus.
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
    swaps: int = 0
    pad: str = "absent"
    variation: float = 0.0
    tolerance: float = 1e-6

    def __post_init__(self):
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"Crossbar(rows={self.rows}, columns={self.columns}): both must be at least 1")
        if not self.on_off > 1:
            raise ValueError(f"Crossbar(on_off={self.on_off}): R_off / R_on must be above 1")
        check_wires(self.wires, "Crossbar(wires)")
        if not self.tolerance > 0:
            raise ValueError(f"Crossbar(tolerance={self.tolerance}): must be above 0")
        choices = dict(pad=PADS, rounding=ROUNDINGS, layout=LAYOUTS, flow=FLOWS, key=KEYS, scope=SCOPES)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"Crossbar({name}={getattr(self, name)!r}): choose one of {', '.join(known)}")
        if not 1 <= self.bits <= min(16, self.columns):
            raise ValueError(f"Crossbar(bits={self.bits}): must be in 1..{min(16, self.columns)}")
        if not 0 <= self.variation < math.inf:
            raise ValueError(f"Crossbar(variation={self.variation}): must be at least 0, the deviation of ln G")
        if self.swaps < 0 or (self.swaps and self.scope != "tile"):
            raise ValueError(f"Crossbar(swaps={self.swaps}, scope={self.scope!r}): swaps need tiles of their own order")

    @property
    def off(self) -> float:
        """G_off in units of 1 / R_on."""
        return 1 / self.on_off

    def conductances(self, tiles: Tiles) -> Float[np.ndarray, "T M N"]:
        """G: 1 where a bit is set, G_off where it is not, and 0 (pad="off": G_off) where there is no weight."""
        there = (tiles.inputs >= 0)[:, :, None] & (tiles.outputs >= 0)[:, None]
        return np.where(tiles.cells, 1.0, np.where(there | (self.pad == "off"), self.off, 0.0))

    def arrange(self, tiles: Tiles, *, activity: Float[np.ndarray, "_"] | None = None) -> Mapped:
        """Tiles with their columns and rows in order, and swaps made. ValueError as `map_tiles`, and for swaps with an
        activity, at which they do not look."""
        mapped = map_tiles(tiles, flow=self.flow, key=self.key, scope=self.scope, activity=activity)
        if self.swaps and activity is not None:
            raise ValueError(f"swaps={self.swaps}: they look at all inputs alike, and cannot go with an activity")
        if self.swaps:
            mapped = refine_tiles(mapped, self.conductances(mapped.tiles), self.wires, rounds=self.swaps)
        return mapped

    def map(self, weights: Float[np.ndarray, "I O"], *, activity: Float[np.ndarray, "_"] | None = None) -> "Written":
        """The weights as they are written into tiles; `activity` is that of `map_tiles`.

        ValueError as `bit_slice`, `tile` and `map_tiles`, and for weights that are all 0: nothing would be written.
        """
        weights = np.asarray(weights, np.float64)
        sliced = bit_slice(weights, self.bits, rounding=self.rounding)
        if not sliced.q.any():
            raise ValueError(f"all {weights.size} weights are 0 in {self.bits} bits: there is nothing to map")
        tiles = tile(sliced, self.rows, self.columns, layout=self.layout)
        mapped = self.arrange(tiles, activity=activity)
        orders = len(np.unique(tiles.inputs, axis=0)) if self.scope == "bus" else len(tiles.inputs)
        if self.key == "none" and not self.swaps:
            orders = 0
        return Written(sliced, mapped.tiles, self.conductances(mapped.tiles), index_bits(self.rows, orders))


class Written(NamedTuple):
    """A layer on its tiles."""

    sliced: Sliced
    tiles: Tiles
    conductance: Float[np.ndarray, "T M N"]
    index_bits: int  # what the orders of its rows cost to keep


class Deployed(NamedTuple):
    """What has become of a layer. Numbers of a tile are at V = 1; nan for one that draws no current."""

    weights: Float[np.ndarray, "I O"]  # the linear layer is x @ weights
    quantised: Float[np.ndarray, "I O"]  # without resistance
    nf_total: Float[np.ndarray, "T"]
    nf_column: Float[np.ndarray, "T"]
    mac: Float[np.ndarray, "T"]
    residual: float
    index_bits: int


@jax.jit
def _effective(conductance, wires, iterations):
    return effective_conductance(conductance, wires, iterations=iterations)


def solve_tiles(
    conductance: Float[np.ndarray, "T M N"],
    crossbar: Crossbar,
    *,
    chunk: int = 32,
    dtype=jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int], None] = lambda tiles: None,
) -> tuple[Float[np.ndarray, "T N M"], Float[np.ndarray, "T"]]:
    """(G_eff, residuals) of any number of tiles, `chunk` at a time, which bounds the memory; one compilation.

    A `mesh` shares a chunk out over all of its devices. `progress(n)` is told how many tiles are done. ValueError for a
    chunk that the devices do not divide.
    """
    devices = 1 if mesh is None else mesh.size
    if chunk < 1 or chunk % devices:
        raise ValueError(f"chunk={chunk}: must be a multiple of {devices}, the number of devices")
    place = jnp.asarray
    if mesh is not None:
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
        place = lambda x: jax.device_put(x, sharding)
    kappa = condition(float(conductance.max(initial=0.0)), crossbar.rows, crossbar.columns, crossbar.wires)
    iterations = iterations_for(crossbar.tolerance, kappa)
    found, chunk = [], min(chunk, -(-len(conductance) // devices) * devices)
    for first in range(0, len(conductance), chunk):
        part = conductance[first : first + chunk]
        padded = np.pad(part, ((0, chunk - len(part)), (0, 0), (0, 0)))
        one = _effective(place(padded.astype(dtype)), crossbar.wires, iterations)
        found.append([np.asarray(x, np.float64)[: len(part)] for x in one])
        progress(first + len(part))
    effective, residuals = (np.concatenate(x) for x in zip(*found, strict=True))
    return effective, residuals


def decode(
    conductance: Float[np.ndarray, "T N M"], tiles: Tiles, off: float, scale: float, shape: tuple[int, int]
) -> Float[np.ndarray, "I O"]:
    """W[i, o] = scale sum_k +- 2^-b(k) (G_eff[k, j(i)] - G_off) / (1 - G_off), summed over tiles: rows gathered back,
    columns shifted and added by their labels, the background of inactive cells taken away digitally."""
    found = np.zeros(shape)
    worth = scale * tiles.signs * 2.0**-tiles.levels / (1 - off)
    for cells, inputs, outputs in zip(
        (conductance - off) * worth[:, :, None], tiles.inputs, tiles.outputs, strict=True
    ):
        rows, columns = np.flatnonzero(inputs >= 0), np.flatnonzero(outputs >= 0)
        np.add.at(found, (inputs[rows][None], outputs[columns][:, None]), cells[np.ix_(columns, rows)])
    return found


def effective_weights(
    weights: Float[np.ndarray, "I O"] | Float[Array, "I O"],
    crossbar: Crossbar,
    *,
    activity: Float[np.ndarray, "_"] | None = None,
    key: Key[Array, ""] | None = None,
    chunk: int = 32,
    dtype=jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> Deployed:
    """The weights that a crossbar with these wires has, by an exact solve for every tile and input.

    `activity` is that of `map_tiles`; `key` draws the devices, where these vary; `chunk`, `dtype` and `mesh` are those
    of `solve_tiles`. NotConverged, naming the tile, where a residual is above the tolerance; ValueError as
    `Crossbar.map`.
    """
    written = programmed(crossbar.map(np.asarray(weights, np.float64), activity=activity), crossbar, key)
    found = solve_tiles(written.conductance, crossbar, chunk=chunk, dtype=dtype, mesh=mesh)
    return deployed(written, crossbar, *found)


def programmed(written: Written, crossbar: Crossbar, key: Key[Array, ""] | None) -> Written:
    """With devices as they came out. ValueError without a key where they vary."""
    if not crossbar.variation:
        return written
    if key is None:
        raise ValueError(f"variation={crossbar.variation}: devices that vary need a key to be drawn by")
    return written._replace(conductance=varied(written.conductance, crossbar.variation, key, 0))


def varied(
    conductance: Float[np.ndarray, "T M N"], deviation: float, key: Key[Array, ""], use: int
) -> Float[np.ndarray, "T M N"]:
    """G exp(s z - s^2 / 2), z standard normal, of mean G, drawn by (key, use, number of the tile)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, use), jnp.arange(len(conductance)))
    z = np.asarray(jax.vmap(lambda k: jax.random.normal(k, conductance.shape[1:]))(keys), np.float64)
    return conductance * np.exp(deviation * z - deviation**2 / 2)


def deployed(
    written: Written, crossbar: Crossbar, effective: Float[np.ndarray, "T N M"], residuals: Float[np.ndarray, "T"]
) -> Deployed:
    """What the solved tiles make of the layer. NotConverged where a residual is above the tolerance."""
    require_residual(residuals, crossbar.tolerance)
    sliced, tiles, conductance, bits = written
    rows, columns = (tiles.inputs >= 0).astype(float), tiles.outputs >= 0
    ideal = np.where(columns, np.einsum("tmn,tm->tn", conductance, rows), 0)
    real = np.where(columns, np.einsum("tnm,tm->tn", effective, rows), 0)
    drawn = ideal.sum(1) > 0
    nf = factors(jnp.asarray(ideal), jnp.asarray(real))
    mac = [mac_error(jnp.asarray(i), jnp.asarray(r), *x) for i, r, *x in zip(ideal, real, *tiles[2:], strict=True)]
    of_drawn = lambda x: np.where(drawn, np.asarray(x, np.float64), np.nan)
    return Deployed(
        decode(effective, tiles, crossbar.off, sliced.scale, sliced.q.shape),
        sliced.sign * sliced.scale * sliced.q / 2**crossbar.bits,
        of_drawn(nf.total), of_drawn(nf.column), of_drawn(mac), float(residuals.max(initial=0.0)), bits,
    )  # fmt: skip


def gains(effective: Float[np.ndarray, "I O"], wanted: Float[np.ndarray, "I O"]) -> Float[np.ndarray, "O"]:
    """A digital factor for each output: g_o = <W_eff[:, o], W[:, o]> / <W_eff[:, o], W_eff[:, o]>; 1 for a dead one.

    With rows of outputs x @ W_eff and x @ W in place of the weights, it is fitted to a batch of inputs x.
    """
    square = (effective**2).sum(0)
    return np.where(square > 0, (effective * wanted).sum(0) / np.where(square > 0, square, 1), 1.0)
