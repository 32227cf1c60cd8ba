"""What a program shows while it runs and when it ends: progress on standard error, tables on standard output."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from mdmjax.base import Estimate
from mdmjax.reports import Report, duration


def log(message: str) -> None:
    """One line on standard error, above a progress bar if there is one."""
    tqdm.write(f"{message}\n", file=sys.stderr, end="")  # in one piece, whatever signal comes


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Plain text in aligned columns, two spaces between; the last column is not padded."""
    lines = [[show(cell) for cell in row] for row in ([header] if header else []) + [list(row) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def summary(report: Report) -> str:
    """The table a program prints at its end: every metric with its error bar, then the baselines."""
    items = [*report.metrics.items(), *report.baselines.items()]
    return table((name, value, f"n = {value.draws:,}", value.estimator) for name, value in items)


def show(value: Any) -> str:
    """A cell: floats in four significant digits, an Estimate with its error and unit."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def progress(
    total: int,
    initial: int = 0,
    unit: str = "step",
    stream: TextIO | None = None,
    every: float = 10.0,
    shown: bool = True,
) -> "Progress":
    """Progress from `initial` to `total`: a bar on a terminal; elsewhere one line at once and then every `every` s.

    Use as a context manager, and call `.update(step, loss=2.31, bound=estimate)`: `step` units are done; fields stay
    shown until they change. Nothing is seen where it is not `shown`: of several processes one speaks.
    """
    stream = sys.stderr if stream is None else stream
    kind = Progress if not shown else _Bar if stream.isatty() else _Lines
    return kind(total, initial, unit, stream, every)


class Progress:
    """What `progress` returns; by itself it shows nothing."""

    def __init__(self, total: int, initial: int, unit: str, stream: TextIO, every: float):
        self.total, self.done, self.unit, self.stream, self.every = total, initial, unit, stream, every
        self.fields: dict[str, Any] = {}

    def update(self, step: int, **fields: float | int | str | Estimate) -> None:
        """`step` units are done in all. Fields given here replace those of the same name."""
        self.fields |= fields
        self._update(step, ", ".join(f"{name} {show(value)}" for name, value in self.fields.items()))

    def _update(self, step: int, text: str) -> None:
        pass

    def close(self) -> None:
        """Leave the last state standing."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Bar(Progress):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        options = {"file": self.stream, "dynamic_ncols": True, "smoothing": 0.1}
        self.bar = tqdm(total=self.total, initial=self.done, unit=f" {self.unit}", **options)

    def _update(self, step: int, text: str) -> None:
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(step - self.bar.n)

    def close(self) -> None:
        self.bar.close()


class _Lines(Progress):
    shown = None  # (time, step) of the last line; the rate is the one since then, so compilation is not in it

    def _update(self, step: int, text: str) -> None:
        now, self.done = time.monotonic(), step
        if self.shown and step < self.total and now - self.shown[0] < self.every:
            return
        parts = [f"{self.unit} {step}/{self.total}"]
        if self.shown and step > self.shown[1] and now > self.shown[0]:
            rate = (step - self.shown[1]) / (now - self.shown[0])
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
            if step < self.total:
                parts.append(f"{duration((self.total - step) / rate)} left")
        print(", ".join([*parts, text] if text else parts), file=self.stream, flush=True)
        self.shown = now, step
