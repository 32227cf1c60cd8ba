"""The tables of README.md of crossbars: which rows of a report, and which columns."""

from collections.abc import Callable, Sequence

from experiments.table_columns import Table, rows_of

QUALITIES = ("raw", "calibrated", "calibrated on inputs")
OVERESTIMATE = ("too high without a solve, at most, %", "largest overestimate without a solve, %")


def _deployed(name: str, unit: str, qualities: Sequence[str], **where: Callable) -> Table:
    """Deployments of a network."""
    shown = ["r / R_on", "mapping", "NF", "NF by column", "MAC error", "weight error", "weight error, calibrated"]
    changes = [f"{q} - digital, {unit}" for q in qualities]
    return rows_of(f"crossbar/{name}", "deployments", [*shown, *changes, "index bits"], **where)


CROSSBAR = {
    "crossbar_law": rows_of(
        "crossbar/manhattan_law",
        "law",
        [
            "tiles", "rho", "R_off / R_on", "mean NF", "mean MAC error", "R2, NF by S", "R2, NF by mean distance",
            "R2, lost current by S", "R2, lost current by Q", OVERESTIMATE,
        ],
    ),
    "crossbar_bell": rows_of(
        "crossbar/bell_weights",
        "mapping",
        [
            "weights", "layout", "rho", "on/off", "of", "conventional",
            *(f"{n}, %" for n in ("sorted", "reversed", "full", "greedy", "column", "sorted+swaps", "full+swaps")),
        ],
    ),
    "crossbar_digits": _deployed("digits", "points", QUALITIES, where=lambda row: row["r / R_on"] in (0, 2.5e-4, 1e-3)),
    "crossbar_devices": rows_of(
        "crossbar/digits",
        "devices that vary",
        ["r / R_on", "devices", "NF", "MAC error", *(f"{q} - digital, points" for q in QUALITIES)],
    ),
    "crossbar_model": _deployed("diffusion_model", "bits/char", QUALITIES[:2]),
}  # fmt: skip
