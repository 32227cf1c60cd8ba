"""Networks on crossbars: every mapping and resistance on every seed, each measured once and kept."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import build, cli
from experiments.crossbar_parts import BASE, change, choices, crossbar_of, told
from experiments.results import over_seeds, shown
from experiments.search import Cells
from mdmjax import crossbar, training
from mdmjax.base import Estimate
from mdmjax.crossbar import Network
from mdmjax.reports import Curve

TILES = ("NF", "NF by column", "MAC error", "residual", "index bits")
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
    return crossbar.deploy(
        subject.params[seed], made, where=subject.where, activity=activity, key=key, read_noise=device["read_noise"]
    )


def measured(subject: Subject, seed: int, network: Network) -> np.ndarray:
    """What is kept of a deployment: TILES, ERRORS, qualities; means over the tiles that draw a current."""
    all_layers = [one for found in network.layers.values() for one in found]
    tiles = lambda name: np.concatenate([getattr(one, name) for one in all_layers])
    mean = lambda x: x[~np.isnan(x)].mean()
    pick = lambda tree: np.concatenate([np.ravel(x) for x in _selected(tree, network)])
    wanted = pick(subject.params[seed])
    error = lambda tree: float(np.linalg.norm(pick(tree) - wanted) / np.linalg.norm(wanted))
    trees = [network.raw, network.calibrated, *([subject.on_inputs(seed, network)] if subject.on_inputs else [])]
    return np.array([
        mean(tiles("nf_total")), mean(tiles("nf_column")), mean(tiles("mac")), max(one.residual for one in all_layers),
        sum(one.index_bits for one in all_layers), error(network.raw), error(network.calibrated),
        *(subject.quality(seed, tree) for tree in trees),
    ])  # fmt: skip


def _selected(tree: Any, network: Network) -> list[np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x, np.float64) for p, x in leaves}
    return [named[path] for path in network.layers]


def digital(subject: Subject, cells: Cells) -> list[float]:
    """The quality of each seed as it was trained."""
    one = lambda s: [subject.quality(s, subject.params[s])]
    return [float(cells.get(f"seed {s}, digital", functools.partial(one, s))[0]) for s in range(len(subject.params))]


def sweep(config, subject: Subject, cells: Cells) -> dict[tuple[str, float], np.ndarray]:
    """{(mapping, resistance): [seeds, TILES + ERRORS + qualities]}; without resistance only the first mapping."""
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
    """(the table, the change of quality by name) of a sweep, `before` being the digital qualities; these times `scale`,
    in the subject's unit."""
    names = (*TILES, *ERRORS, *subject.qualities)
    lines, changes = [], {}
    for (mapping, resistance), values in found.items():
        of = dict(zip(names, values.T, strict=True))
        line: dict[str, Any] = {"r / R_on": resistance, "mapping": mapping}
        line |= {name: shown(over_seeds(of[name])) for name in TILES[:2]}
        base = found[BASE, resistance][:, TILES.index("MAC error")]
        rises = told(change(of["MAC error"], base), flag=True).endswith("(rises)") if mapping != BASE else False
        line["MAC error"] = shown(over_seeds(of["MAC error"])) + (" (rises)" if rises else "")
        line |= {name: shown(over_seeds(of[name])) for name in ERRORS}
        for name in subject.qualities:
            estimate = over_seeds(scale * (of[name] - np.asarray(before)), subject.unit)
            changes[f"r {resistance:g}, {mapping}, {name}: change"] = estimate
            line[f"{name} - digital, {subject.unit}"] = shown(estimate)
        line["index bits"] = f"{of['index bits'].mean():,.0f}"
        line["largest residual"] = f"{of['residual'].max():.1e}"
        lines.append(line)
    return lines, changes


def curves(
    subject: Subject, found: Mapping[tuple[str, float], np.ndarray], scale: float, what: str
) -> dict[str, Curve]:
    """The quality against the resistance, of each mapping, raw and calibrated."""
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
                [r for r, _ in points], [e.mean for e in of], [e.standard_error for e in of], subject.unit,
                f"{what}, {name}", "r / R_on", log=True,
            )  # fmt: skip
    return out


def cells_of(workdir: Path) -> Cells:
    """Where a study keeps what it has measured."""
    return Cells(workdir / "cells.jsonl")
