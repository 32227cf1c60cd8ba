"""Networks on crossbars: every mapping and resistance on every seed, each measured once and kept."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import build, cli
from experiments.crossbar_parts import BASE, RISES, change, choices, crossbar_of, told
from experiments.results import over_seeds, shown
from experiments.search import Cells
from mdmjax import crossbar, training
from mdmjax.base import Estimate
from mdmjax.crossbar import Network
from mdmjax.reports import Curve

TILES = ("NF", "NF by column", "MAC error", "residual", "index bits")
CHUNK = 32  # tiles that are solved at once, shared out over the devices
ERRORS = ("weight error", "weight error, calibrated")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network, with a pytree of parameters for each seed, and how good it is."""

    params: Sequence[Any]
    where: Mapping[str, str]
    quality: Callable[[int, Any], float]  # of a seed with these parameters
    unit: str
    activity: Sequence[Mapping[str, np.ndarray]] | None = None  # E[x^2] by path, of each seed
    on_inputs: Callable[[int, Network], Any] | None = None  # parameters calibrated on a batch of inputs

    @property
    def qualities(self) -> tuple[str, ...]:
        """Names of what is measured of a deployed network."""
        return ("raw", "calibrated", *(("calibrated on inputs",) if self.on_inputs else ()))


def deployed(config, subject: Subject, seed: int, mapping: str, resistance: float, **device: float) -> Network:
    """The network of a seed on crossbars; `device` replaces fields of config.device."""
    device = {**config.device.to_dict(), **device}
    made = crossbar_of(config, mapping, resistance, on_off=device["on_off"], variation=device["variation"])
    activity = subject.activity[seed] if choices(mapping, config.tile.swaps)[1] else None
    key = jax.random.fold_in(build.key(config.seed, training.SAMPLING), seed)
    devices = jax.device_count()
    return crossbar.deploy(
        subject.params[seed], made, where=subject.where, activity=activity, key=key, read_noise=device["read_noise"],
        chunk=-(-CHUNK // devices) * devices, mesh=training.make_mesh(),
    )  # fmt: skip


def measured(subject: Subject, seed: int, network: Network) -> np.ndarray:
    """What is kept of a deployment: TILES and ERRORS of all layers, qualities, then TILES and ERRORS of each layer."""
    exact = lambda tree: {path: np.asarray(x, np.float64) for path, x in crossbar.named_leaves(tree).items()}
    given, *trees = (exact(x) for x in (subject.params[seed], network.raw, network.calibrated))

    def of(paths: Sequence[str]) -> list[float]:
        layers = [one for path in paths for one in network.layers[path]]
        tiles = (np.concatenate([getattr(one, name) for one in layers]) for name in ("nf_total", "nf_column", "mac"))
        means = [x[~np.isnan(x)].mean() for x in tiles]  # over the tiles that draw a current
        pick = lambda named: np.concatenate([np.ravel(named[path]) for path in paths])
        wanted = pick(given)
        errors = [np.linalg.norm(pick(tree) - wanted) / np.linalg.norm(wanted) for tree in trees]
        return [*means, max(one.residual for one in layers), sum(one.index_bits for one in layers), *errors]

    networks = [network.raw, network.calibrated, *([subject.on_inputs(seed, network)] if subject.on_inputs else [])]
    qualities = [subject.quality(seed, tree) for tree in networks]
    return np.array([*of(list(network.layers)), *qualities, *(x for path in network.layers for x in of([path]))])


def digital(subject: Subject, cells: Cells) -> list[float]:
    """The quality of each seed as it was trained."""
    one = lambda s: [subject.quality(s, subject.params[s])]
    return [float(cells.get(f"seed {s}, digital", functools.partial(one, s))[0]) for s in range(len(subject.params))]


def sweep(config, subject: Subject, cells: Cells) -> dict[tuple[str, float], np.ndarray]:
    """{(mapping, resistance): what is `measured` of each seed}; without resistance only of the first mapping."""
    pairs = [(m, r) for r in config.resistances for m in config.mappings if r > 0 or m == BASE]
    found: dict[tuple[str, float], list] = {pair: [] for pair in pairs}
    with cli.progress(len(pairs) * config.seeds, unit="deployment") as bar:
        for seed in range(config.seeds):
            for mapping, resistance in pairs:
                name = f"seed {seed}, {mapping}, r {resistance:g}"
                one = lambda s=seed, m=mapping, r=resistance: measured(subject, s, deployed(config, subject, s, m, r))
                found[mapping, resistance].append(cells.get(name, one))
                bar.update(sum(map(len, found.values())), at=name)
    return {pair: np.array(values) for pair, values in found.items()}


def rows(
    subject: Subject, found: Mapping[tuple[str, float], np.ndarray], before: Sequence[float], scale: float
) -> tuple[list[dict[str, Any]], dict[str, Estimate]]:
    """(the table, and the change of quality at the largest resistance by name) of a sweep, `before` being the digital
    qualities; these times `scale`, in the subject's unit."""
    names = (*TILES, *ERRORS, *subject.qualities)
    most, lines, changes = max(r for _, r in found), [], {}
    for (mapping, resistance), values in found.items():
        of = dict(zip(names, values.T[: len(names)], strict=True))
        line: dict[str, Any] = {"r / R_on": resistance, "mapping": mapping}
        line |= tile_cells(of, found[BASE, resistance])
        for name in subject.qualities:
            estimate = over_seeds(scale * (of[name] - np.asarray(before)), subject.unit)
            if resistance == most:
                changes[f"r {resistance:g}, {mapping}, {name}: change"] = estimate
            line[f"{name} - digital, {subject.unit}"] = shown(estimate)
        if resistance == most:
            changes |= {f"r {resistance:g}, {mapping}: {n}": over_seeds(of[n]) for n in ("NF", "MAC error")}
        line["index bits"] = f"{of['index bits'].mean():,.0f}"
        line["largest residual"] = f"{of['residual'].max():.1e}"
        lines.append(line)
    return lines, changes


def tile_cells(of: Mapping[str, np.ndarray], base: np.ndarray) -> dict[str, str]:
    """NF, MAC error (with whether it rises above that of the base, in pairs of seeds) and weight errors, as cells."""
    cells = {name: shown(over_seeds(of[name])) for name in (*TILES[:3], *ERRORS)}
    before = base[:, TILES.index("MAC error")]
    if before.all() and told(change(of["MAC error"], before), flag=True).endswith(RISES):
        cells["MAC error"] += RISES
    return cells


def by_layer(subject: Subject, found: Mapping[tuple[str, float], np.ndarray]) -> list[dict[str, Any]]:
    """The same of each layer, at the largest resistance."""
    most, names, lines = max(r for _, r in found), (*TILES, *ERRORS), []
    first = len(names) + len(subject.qualities)
    for (mapping, resistance), values in found.items():
        if resistance == most:
            for n, path in enumerate(crossbar.select(subject.params[0], subject.where)):
                at = slice(first + n * len(names), first + (n + 1) * len(names))
                line = {"layer": path, "mapping": mapping}
                of = dict(zip(names, values[:, at].T, strict=True))
                line |= tile_cells(of, found[BASE, resistance][:, at])
                bits, residual = f"{of['index bits'].mean():,.0f}", f"{of['residual'].max():.1e}"
                lines.append(line | {"index bits": bits, "largest residual": residual})
    return lines


def curves(
    subject: Subject, found: Mapping[tuple[str, float], np.ndarray], scale: float, what: str, unit: str
) -> dict[str, Curve]:
    """The quality, `what`, against the resistance, of each mapping, raw and calibrated."""
    out = {}
    for i, name in enumerate(subject.qualities):
        for mapping in dict.fromkeys(m for m, _ in found):
            points = [
                (r, scale * v[:, len(TILES) + len(ERRORS) + i]) for (m, r), v in found.items() if m == mapping and r
            ]
            if not points:
                continue
            of = [over_seeds(values) for _, values in points]
            out[f"{mapping}, {name}"] = Curve(
                [r for r, _ in points], [e.mean for e in of], [e.standard_error for e in of], unit,
                f"{what}, {name}", "r / R_on", log=True,
            )  # fmt: skip
    return out
