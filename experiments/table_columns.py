"""What a table of README.md is made of: its files, its rows, its columns, and how a number is shown."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdmjax.base import Estimate


def lookup(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at a path of keys; None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def estimate(value: dict) -> str:
    """A mean with its standard error, to two digits of the error."""
    return str(Estimate(float(value["mean"]), float(value["standard_error"]), "", 1, "")).strip()


def count(value: float) -> str:
    """An integer with separators."""
    return f"{value:,.0f}"


def milliseconds(value: float) -> str:
    """Seconds as ms."""
    return f"{1000 * value:,.0f} ms"


def fine(value: float) -> str:
    """Seconds as ms, two significant digits below 10."""
    return f"{1000 * value:.2g} ms" if value < 0.01 else milliseconds(value)


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / 2**20:,.0f} MiB"


def ratio(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def four(value: float) -> str:
    """Four decimals."""
    return f"{value:.4f}"


def probability(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}"


def giga(value: float) -> str:
    """In units of 10^9."""
    return f"{value / 1e9:.0f} G"


def plainly(value) -> str:
    """A cell as it is; a float in four digits, infinity by its sign."""
    return "∞" if value in ("Infinity", math.inf) else f"{value:.4g}" if isinstance(value, float) else str(value)


def commit(environment: dict) -> str:
    """The first digits of a commit, and whether the code had been changed since."""
    known = environment.get("commit")
    return "–" if known is None else f"{known[:8]}{' and changes' if environment.get('dirty') else ''}"


class Column(NamedTuple):
    """A header, the path of keys into the JSON, and how to show what is there. `ROW` begins a path inside the row."""

    header: str
    path: tuple[str, ...]
    show: Callable[[Any], str] = str


ROW = "."  # a list entry, or a dict entry with its key as `name`


class Table(NamedTuple):
    """Files below results/, columns, and where in a file the rows are; a file is one row if nowhere."""

    files: str
    columns: list[Column]
    rows: tuple[str, ...] = ()
    where: Callable[[dict], bool] = lambda row: True  # the rows that are shown

    def trees(self, file: Path) -> list[dict]:
        """What the paths of the columns lead into, for each row of a file."""
        tree = json.loads(file.read_text())
        if not self.rows:
            return [tree]
        rows = lookup(tree, self.rows)
        if isinstance(rows, dict):
            rows = [{"name": name, **row} for name, row in rows.items()]
        return [{**tree, ROW: row} for row in rows if self.where(row)]


MACHINE = Column("machine", ("environment", "machine", "cpu"))
CORES = Column("cores", ("environment", "machine", "cores"))
DEVICE = Column("device", ("environment", "devices", "kind"))
COMMIT = Column("commit", ("environment",), commit)


def rows_of(folder: str, rows: str, shown: Sequence[str | tuple[str, str]], **where: Callable) -> Table:
    """Rows among the facts of a kept report; a column is a key, or (header, key)."""
    pairs = [(n, n) if isinstance(n, str) else n for n in shown]
    columns = [Column(header, (ROW, key), plainly) for header, key in pairs]
    return Table(f"{folder}/report.json", [*columns, COMMIT], ("facts", rows), **where)


def of_run(run: str, *path: str) -> tuple[str, ...]:
    """Where a run of the sampling benchmark keeps a number."""
    return ("runs", run, *path)


def apart(sampler: str, steps: int) -> Column:
    """Total variation between a sampler of so many steps and first-hitting."""
    return Column(f"{sampler}, T = {steps}", ("total_variation", sampler, str(steps)), probability)
