"""What the studies of crossbars share: mappings by name, the crossbar of a config."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.results import over_seeds, shown
from mdmjax import crossbar
from mdmjax.base import Estimate
from mdmjax.crossbar import Crossbar, Tiles, Wires

BASE = "conventional"
WAYS = {
    BASE: dict(flow="conventional", key="none"),
    "sorted": dict(flow="conventional", key="popcount"),
    "reversed": dict(flow="reversed", key="none"),
    "full": dict(flow="reversed", key="popcount"),
    **{key: dict(flow="reversed", key=key) for key in ("column", "combined", "greedy")},
}
MORE = ("swaps", "bus", "active")
RISES = " (rises)"  # stands behind a mapping's MAC error


def choices(name: str, swaps: int) -> tuple[dict[str, Any], bool]:
    """(fields of a Crossbar, whether rows are weighted by the activity of their inputs) of a mapping's name."""
    first, *more = name.split("+")
    fields = dict(build.choose(first, "mappings", WAYS))
    if wrong := set(more) - set(MORE):
        raise ValueError(f"mappings: {name!r} has +{sorted(wrong)[0]}: choose from {', '.join(f'+{m}' for m in MORE)}")
    fields |= dict(swaps=swaps if "swaps" in more else 0, scope="bus" if "bus" in more else "tile")
    if "swaps" in more and swaps < 1:
        raise ValueError(f"tile.swaps={swaps}: {name!r} needs at least 1")
    return fields, "active" in more


def crossbar_of(config, name: str, resistance: float, **other: Any) -> Crossbar:
    """The crossbar of a config with a mapping and a resistance. ValueError that names what will not do."""
    tile = {k: v for k, v in config.tile.items() if k != "swaps"}
    fields = tile | dict(on_off=config.device.on_off) | choices(name, config.tile.swaps)[0]
    return Crossbar(**fields | dict(wires=Wires(resistance, resistance)) | other)


def check(config) -> None:
    """ValueError that names a field which will not do, before anything is done."""
    build.check_positive(config, ("seeds", "tiles", "hidden"))
    names = list(config.mappings)
    if names[:1] != [BASE] or len(set(names)) != len(names):
        raise ValueError(f"mappings={tuple(names)}: must begin with {BASE}, with which all are compared, each once")
    if not config.resistances or len(set(config.resistances)) != len(config.resistances):
        raise ValueError(f"resistances={tuple(config.resistances)}: give at least one, each once")
    noises = {f"device.{name}": (config.device[name],) for name in ("variation", "read_noise")}
    for field, values in (noises | {name: config[name] for name in ("variations", "read_noises")}).items():
        for value in values:
            if not 0 <= value < math.inf:
                raise ValueError(f"{field}={value}: must be at least 0")
    for name in names:
        fields, active = choices(name, config.tile.swaps)
        if active and config.study != "digits":
            raise ValueError(f"mappings: {name!r} needs the inputs of each layer, which only digits has")
        if active and fields["swaps"]:
            raise ValueError(f"mappings: {name!r}: swaps look at all inputs alike, so they cannot go with +active")
        if fields["scope"] == "bus" and config.study == "bell_weights":
            raise ValueError(f"mappings: {name!r}: the tiles of bell_weights are of many layers, so on no common bus")
    for mapping in names:
        for resistance in config.resistances:
            crossbar_of(config, mapping, resistance)


def ones(tiles: Tiles, conductance: np.ndarray, wires: Wires) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ideal currents [T, N], currents, device voltages [T, M, N]) with all inputs that are there at 1, in float64."""
    inputs = (tiles.inputs >= 0).astype(float)
    found = crossbar.checked_solve(conductance, inputs, wires, tolerance=1e-11, dtype=jnp.float64)
    return np.einsum("tmn,tm->tn", conductance, inputs), np.asarray(found.currents), np.asarray(found.voltages)


def on_cpu():
    """Where small exact studies are done, whatever else is there: float64 is not for accelerators."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def change(values: Sequence[float], base: Sequence[float], unit: str = "%") -> Estimate:
    """The change of the means of each seed, in % of the base's, over seeds."""
    return over_seeds(100 * (np.asarray(values) / np.asarray(base) - 1), unit)


def told(estimate: Estimate, flag: bool = False) -> str:
    """A cell; with the flag, whether it is a rise by more than two standard errors."""
    rises = flag and estimate.mean > 2 * (estimate.standard_error if math.isfinite(estimate.standard_error) else 0)
    return shown(estimate) + (RISES if rises else "")
