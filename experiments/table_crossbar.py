"""The tables of README.md of crossbars: which rows of a report, and which columns."""

import math
from collections.abc import Callable, Sequence

from experiments.table_columns import COMMIT, ROW, Column, Table

QUALITIES = ("raw", "calibrated", "calibrated on inputs")
OVERESTIMATE = ("too high without a solve, at most, %", "largest overestimate without a solve, %")


def plainly(value) -> str:
    """A cell as it is; a float in four digits, infinity by its sign."""
    return "∞" if value in ("Infinity", math.inf) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(name: str, rows: str, shown: Sequence[str | tuple[str, str]], **where: Callable) -> Table:
    """Rows of a study; a column is a key, or (header, key)."""
    pairs = [(n, n) if isinstance(n, str) else n for n in shown]
    columns = [Column(header, (ROW, key), plainly) for header, key in pairs]
    return Table(f"crossbar/{name}/report.json", [*columns, COMMIT], ("facts", rows), **where)


def _deployed(name: str, unit: str, qualities: Sequence[str], **where: Callable) -> Table:
    """Deployments of a network."""
    shown = ["r / R_on", "mapping", "NF", "NF by column", "MAC error", "weight error", "weight error, calibrated"]
    changes = [f"{q} - digital, {unit}" for q in qualities]
    return _rows(name, "deployments", [*shown, *changes, "index bits"], **where)


CROSSBAR = {
    "crossbar_law": _rows(
        "manhattan_law",
        "law",
        [
            "tiles", "rho", "R_off / R_on", "mean NF", "mean MAC error", "R2, NF by S", "R2, NF by mean distance",
            "R2, lost current by S", "R2, lost current by Q", OVERESTIMATE,
        ],
    ),
    "crossbar_bell": _rows(
        "bell_weights",
        "mapping",
        [
            "weights", "layout", "rho", "on/off", "of", "conventional",
            *(f"{n}, %" for n in ("sorted", "reversed", "full", "greedy", "column", "sorted+swaps", "full+swaps")),
        ],
    ),
    "crossbar_digits": _deployed("digits", "points", QUALITIES, where=lambda row: row["r / R_on"] in (0, 2.5e-4, 1e-3)),
    "crossbar_devices": _rows(
        "digits",
        "devices that vary",
        ["r / R_on", "devices", "NF", "MAC error", *(f"{q} - digital, points" for q in QUALITIES)],
    ),
    "crossbar_model": _deployed("diffusion_model", "bits/char", QUALITIES[:2]),
}  # fmt: skip
