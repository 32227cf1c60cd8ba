"""Successive halving over schedules, with everything that was measured kept in a file at once."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Cells:
    """What was measured, by name, in a file of lines: a program that is killed goes on without repeating any of it."""

    def __init__(self, path: Path):
        self._path, self._known = path, {}
        self.seconds = 0.0  # that all cells took, also those of earlier calls of the program
        intact = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                cell = json.loads(line)
                values, seconds = np.array(cell["values"], float), float(cell["seconds"])
            except (ValueError, KeyError):
                break
            if not line.endswith(b"\n"):
                break  # half of a line, which a kill left
            self._known[cell["name"]] = values
            self.seconds += seconds
            intact += len(line)
        if path.exists() and intact < path.stat().st_size:
            os.truncate(path, intact)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def get(self, name: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
        """What is known of that name, else `measure()`, which is then known."""
        if name not in self._known:
            began = time.monotonic()
            values = np.asarray(measure(), float)
            seconds = time.monotonic() - began
            with open(self._path, "a", encoding="utf-8") as file:
                short = [float(f"{v:.7g}") for v in values]
                file.write(json.dumps({"name": name, "seconds": round(seconds, 3), "values": short}) + "\n")
                file.flush()
            self.seconds += seconds
            self._known[name] = np.array(short)  # as a later run will read it
        return self._known[name]


class Search(NamedTuple):
    """Every measured value by name, over as many rows as the name came to; and the best of those that came furthest."""

    values: dict[str, np.ndarray]
    best: str


def rows_needed(names: int, rungs: Sequence[int], keep: float) -> int:
    """Rows that `halve` measures in all. ValueError as there."""
    _check(rungs, keep)
    total, before = 0, 0
    for rows in rungs:
        total += names * (rows - before)
        names, before = _kept(names, keep), rows
    return total


def halve(
    names: Sequence[str],
    rungs: Sequence[int],
    keep: float,
    measure: Callable[[str, int, int], np.ndarray],
    higher: bool,
) -> Search:
    """All names on the first `rungs[0]` rows, the best share `keep` of them on rungs[1] rows, and so on.

    `measure(name, start, stop)` are the values of those rows; rows are shared, so that names are compared in pairs.
    Jamieson and Talwalkar, arXiv 1502.07943. ValueError for rungs that do not increase and for keep outside (0, 1].
    """
    _check(rungs, keep)
    values, alive, before = {name: np.zeros(0) for name in names}, list(names), 0
    for rows in rungs:
        for name in alive:
            values[name] = np.concatenate([values[name], measure(name, before, rows)])
        ranked = sorted(alive, key=lambda name: values[name].mean(), reverse=higher)
        alive, before = ranked[: _kept(len(ranked), keep)], rows
    return Search(values, ranked[0])


def _check(rungs: Sequence[int], keep: float) -> None:
    if not rungs or rungs[0] < 2 or list(rungs) != sorted(set(rungs)):
        raise ValueError(f"rungs={tuple(rungs)}: must increase, from at least 2 rows")
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep}: must be in (0, 1]")


def _kept(names: int, keep: float) -> int:
    return max(1, math.ceil(names * keep))
