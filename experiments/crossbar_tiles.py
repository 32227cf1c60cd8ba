"""Crossbars tile by tile: the Manhattan law on random tiles, and what mappings do to tiles of bell-shaped weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, cli
from experiments.crossbar_parts import BASE, change, choices, on_cpu, ones, told
from experiments.found import Found
from experiments.results import over_seeds, shown
from mdmjax import crossbar
from mdmjax.crossbar import Tiles, Wires
from mdmjax.reports import Curve, Heatmap

OPEN = float("inf")  # devices that are off do not conduct
LEAST = 8  # rows and columns of random tiles, so that none is empty

# ---- the Manhattan law -----------------------------------------------------------------------------------------------


def _many(rng, n, shape):
    return rng.random((n, *shape)) < rng.uniform(0.05, 0.5, (n, 1, 1))


def _one(rng, n, shape):
    return rng.random((n, *shape)) < 0.2


def _biased(rng, n, shape):
    """Density .2 (1 + u z / 2): more cells near, or far, z being the distance in standard deviations."""
    d = crossbar.distances(*shape)
    return rng.random((n, *shape)) < 0.2 * (1 + rng.uniform(-1, 1, (n, 1, 1)) * (d - d.mean()) / d.std() / 2)


FAMILIES: dict[str, Callable] = {"densities .05 to .5": _many, "density .2": _one, "density .2, near or far": _biased}


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, R2) of least squares with an intercept."""
    slope = np.cov(x, y)[0, 1] / x.var(ddof=1)
    return float(slope), float(np.corrcoef(x, y)[0, 1] ** 2)


def _tiles(cells: np.ndarray) -> Tiles:
    """Cells as they are, whatever they stand for."""
    n, rows, columns = cells.shape
    one = lambda count, first=0: np.tile(np.arange(count) + first, (n, 1))
    return Tiles(cells, one(rows), one(columns), np.ones((n, columns), int), np.ones((n, columns), int))


def _law(bits: int, cells: np.ndarray, rho: float, on_off: float) -> dict[str, Any]:
    """Numbers of one seed of one case; "points" are for the figure. Columns are planes of so many bits."""
    tiles, wires = _tiles(cells), Wires(rho, rho)
    g = crossbar.Crossbar(*cells.shape[1:], bits=1, on_off=on_off).conductances(tiles)
    ideal, currents, _ = ones(tiles, g, wires)
    nf = crossbar.factors(jnp.asarray(ideal), jnp.asarray(currents))
    total, absolute = np.asarray(nf.total), np.asarray(nf.absolute)
    outputs = max(1, cells.shape[2] // bits)
    columns = np.arange(cells.shape[2])
    labels = np.where(columns < outputs * bits, columns % outputs, -1), 1 + columns // outputs
    mac = crossbar.mac_error(jnp.asarray(ideal), jnp.asarray(currents), *labels)
    score, q = crossbar.manhattan_score(cells), crossbar.quadratic_form(cells)
    predicted = np.asarray(crossbar.predicted_nf(jnp.asarray(g), wires))
    return {
        "mean NF": float(total.mean()),
        "mean MAC error": float(mac.mean()),
        "R2, NF by S": line(score, total)[1],
        "R2, lost current by S": line(score, absolute)[1],
        "R2, NF by mean distance": line(score / cells.sum((1, 2)), total)[1],
        "R2, lost current by Q": line(q, absolute)[1],
        "slope of NF by S / rho": line(score, total)[0] / rho,
        "largest overestimate without a solve, %": float(100 * (predicted / total - 1).max()),
        "underestimates": int((predicted < total).sum()),
        "points": (score.tolist(), total.tolist()),
    }


def _one_cell(shape: tuple[int, int], rho: float, on_off: float) -> dict[str, float]:
    """The slope and R2 of what a single active cell adds to the lost current, by its distance."""
    places = [(j, k) for j in range(0, shape[0], 5) for k in range(0, shape[1], 5)]
    cells = np.zeros((len(places), *shape), bool)
    for n, place in enumerate(places):
        cells[n][place] = True
    tiles = _tiles(cells)
    g = crossbar.Crossbar(*shape, bits=1, on_off=on_off).conductances(tiles)
    ideal, currents, _ = ones(tiles, g, Wires(rho, rho))
    slope, r2 = line(np.array([j + k + 2 for j, k in places]), (ideal - currents).sum(1))
    return {"R_off / R_on": on_off, "slope / rho": slope / rho, "R2": r2}


def _attenuation(cells: np.ndarray, rho: float) -> tuple[float, float]:
    """(slope / rho, R2) of 1 - G_eff / G_on of the active cells of a tile, by their distance."""
    wires = Wires(rho, rho)
    n = crossbar.iterations_for(1e-12, crossbar.condition(1.0, *cells.shape, wires))
    effective, _ = jax.jit(lambda g: crossbar.effective_conductance(g, wires, iterations=n))(jnp.asarray(cells, float))
    slope, r2 = line(crossbar.distances(*cells.shape)[cells], 1 - np.asarray(effective).T[cells])
    return slope / rho, r2


def manhattan_law(config, workdir: Path) -> Found:
    """How well the score, and the quadratic form, tell what tiles lose."""
    if min(config.tile.rows, config.tile.columns) < LEAST:
        raise ValueError(f"tile.rows={config.tile.rows}, tile.columns={config.tile.columns}: at least {LEAST} each")
    for name, *_ in config.law_cases:
        build.choose(name, "law_cases", FAMILIES)
    cli.check_workdir(workdir, config)
    cli.started()
    shape, cases = (config.tile.rows, config.tile.columns), config.law_cases
    rng = lambda seed, use: np.random.default_rng([config.seed, seed, use])
    rows, curves, metrics = [], {}, {}
    with jax.enable_x64(True), on_cpu(), cli.progress(len(cases), unit="case") as bar:
        for number, (name, rho, on_off) in enumerate(cases):
            draw = lambda seed, name=name: FAMILIES[name](rng(seed, list(FAMILIES).index(name)), config.tiles, shape)
            seeds = [_law(config.tile.bits, draw(seed), rho, on_off) for seed in range(config.seeds)]
            known = {"tiles": name, "rho": rho, "R_off / R_on": on_off}
            points = [s.pop("points") for s in seeds]
            found = {key: over_seeds([s[key] for s in seeds]) for key in seeds[0] if key != "underestimates"}
            underestimates = sum(s["underestimates"] for s in seeds)
            rows.append(known | {k: shown(v) for k, v in found.items()} | {"underestimates": underestimates})
            for key in ("R2, NF by S", "R2, lost current by Q", "mean NF", "mean MAC error"):
                metrics[f"{name}, rho {rho:.3g}, on/off {on_off:g}: {key}"] = found[key]
            if name not in curves:
                order = np.argsort(points[0][0])
                x, y = (np.asarray(p)[order].tolist() for p in points[0])
                curves[name] = Curve(x, y, None, "nonideality factor", "NF by Manhattan score", "S", points=True)
            bar.update(number + 1)
        rho = min(rho for _, rho, _ in cases)
        single = [_one_cell(shape, rho, on_off) for on_off in (OPEN, 10.0)]
        attenuation = []
        for density in (0.05, 0.2, 0.5):
            found = [_attenuation(rng(s, 9).random(shape) < density, rho) for s in range(config.seeds)]
            slope, r2 = (over_seeds(x) for x in zip(*found, strict=True))
            attenuation.append({"density": density, "slope / rho": shown(slope), "R2": shown(r2)})
    return Found(
        "The Manhattan law on random tiles",
        f"{config.seeds} times {config.tiles} tiles of {shape[0]} x {shape[1]}, all inputs at 1.",
        metrics,
        {"law": rows, "one active cell": single, "attenuation of active cells by their distance": attenuation},
        {"slope that the mean field predicts, of NF by S / rho": crossbar.slope_of_law(*shape)},
        curves,
    )


# ---- bell-shaped weights ---------------------------------------------------------------------------------------------

LAWS: dict[str, Callable] = dict(
    gauss=lambda rng, shape: rng.normal(size=shape),
    laplace=lambda rng, shape: rng.laplace(size=shape),
    student4=lambda rng, shape: rng.standard_t(4, size=shape),
)


def bell_tiles(config, law: str, layout: str, outputs: int, seed: int) -> Tiles:
    """The positive part of the first block of so many layers, whose largest weights set the scale."""
    c, made = config.layer, []
    for n in range(config.tiles):
        layer = LAWS[law](np.random.default_rng([config.seed, seed, n]), (c.inputs, c.width))
        block = crossbar.bit_slice(
            layer[: config.tile.rows, :outputs], config.tile.bits, rounding=config.tile.rounding,
            largest=float(np.abs(layer).max()),
        )  # fmt: skip
        made.append(crossbar.tile(block, config.tile.rows, outputs * config.tile.bits, layout=layout, signs=(1,)))
    return Tiles(*(np.concatenate(x) for x in zip(*made, strict=True)))


def mapped_factors(config, tiles: Tiles, name: str, rho: float, on_off: float) -> tuple[float, float, np.ndarray]:
    """(mean NF, mean weighted MAC error, voltage drop over the devices [M, N]) of tiles with a mapping."""
    fields, _ = choices(name, config.tile.swaps)
    wires = Wires(rho, rho)
    device = crossbar.Crossbar(*tiles.cells.shape[1:], config.tile.bits, wires, on_off, **fields)
    mapped = device.arrange(tiles)
    ideal, currents, voltages = ones(mapped.tiles, device.conductances(mapped.tiles), wires)
    nf = np.asarray(crossbar.factors(jnp.asarray(ideal), jnp.asarray(currents)).total)
    labels = [x[0] for x in mapped.tiles[2:]]
    mac = np.asarray(crossbar.mac_error(jnp.asarray(ideal), jnp.asarray(currents), *labels))
    return float(nf.mean()), float(mac.mean()), 1 - voltages.mean(0)


def bell_weights(config, workdir: Path) -> Found:
    """What mappings do to NF and to the weighted MAC error of tiles of bell-shaped weights."""
    for law in config.layer.laws:
        build.choose(law, "layer.laws", LAWS)
    if config.tile.rows > config.layer.inputs or not 0 < max(config.outputs) <= config.layer.width:
        raise ValueError(f"layer of {config.layer.inputs} x {config.layer.width}: is smaller than its tiles")
    kinds = [(layout, n) for n in config.outputs for layout in config.layer.layouts if n > 1 or layout == "planes"]
    cases = [(law, *kind, *device) for law in config.layer.laws for kind in kinds for device in config.bell_cases]
    rows, metrics, heatmaps = [], {}, {}
    cli.check_workdir(workdir, config)
    cli.started()
    with jax.enable_x64(True), on_cpu(), cli.progress(len(cases), unit="case") as bar:
        for number, (law, layout, outputs, rho, on_off) in enumerate(cases):
            tiles = [bell_tiles(config, law, layout, outputs, seed) for seed in range(config.seeds)]
            of = {name: [mapped_factors(config, t, name, rho, on_off) for t in tiles] for name in config.mappings}
            arranged = f"{layout}, {outputs} outputs" if outputs > 1 else "one output"
            known = {"weights": law, "layout": arranged, "rho": rho, "on/off": on_off}
            of_kind = lambda i, of=of: {name: [seed[i] for seed in found] for name, found in of.items()}
            for i, what in enumerate(("NF", "MAC error")):
                values = of_kind(i)
                changes = {name: change(values[name], values[BASE]) for name in config.mappings if name != BASE}
                row = known | {"of": what, BASE: shown(over_seeds(values[BASE]))}
                rows.append(row | {f"{name}, %": told(x, flag=i == 1) for name, x in changes.items()})
                for name in ("full", "sorted"):
                    if name in changes:
                        title = f"{law}, {known['layout']}, on/off {on_off:g}: {what}, {name}"
                        metrics[title] = changes[name]
            if number < len(config.bell_cases):
                for name in (n for n in (BASE, "full") if n in of):
                    drops = 100 * np.mean([seed[2] for seed in of[name]], axis=0)
                    heatmaps[f"voltage drop, {law}, on/off {on_off:g}, {name}"] = drop_map(drops)
            bar.update(number + 1)
    return Found(
        "Mapping of bell-shaped weights",
        f"{config.seeds} times {config.tiles} tiles, the positive part of the first {config.tile.rows} x "
        f"{' or '.join(map(str, config.outputs))} weights of layers of {config.layer.inputs} x {config.layer.width}; "
        "all inputs at 1. "
        "A lower nonideality factor is not always a lower error.",
        metrics, {"mapping": rows}, heatmaps=heatmaps,
    )  # fmt: skip


def drop_map(drops: np.ndarray) -> Heatmap:
    """The mean drop in % over each device of tiles, as a picture."""
    rows, columns = drops.shape
    tick = lambda n: [str(i) if i % 8 == 0 else "" for i in range(n)]
    return Heatmap(drops.tolist(), tick(rows), tick(columns), "row, from the ADC", "column, from the driver", "% of V")
