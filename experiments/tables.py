"""Writes the tables of README.md anew from the reports under results/, or checks that they are as the reports say.

    python -m experiments.tables [--check]

A table stands in the README between `<!-- table:NAME -->` and `<!-- /table -->`. Its rows come from the JSON files that
its entry in TABLES names, its columns from paths into them.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "results"


def estimate(value: dict) -> str:
    """A mean with its standard error, to two digits of the error."""
    mean, error = float(value["mean"]), float(value["standard_error"])
    if not (math.isfinite(error) and error > 0):
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def seconds(value: float) -> str:
    """Minutes and seconds."""
    return f"{value:.0f} s" if value < 120 else f"{int(value // 60)} min {value % 60:.0f} s"


def count(value: float) -> str:
    """An integer with separators."""
    return f"{value:,.0f}"


def milliseconds(value: float) -> str:
    """Seconds as ms."""
    return f"{1000 * value:.0f} ms"


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / 2**20:,.0f} MiB"


def ratio(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def giga(value: float) -> str:
    """In units of 10^9."""
    return f"{value / 1e9:.0f} G"


class Column(NamedTuple):
    """A header, the path of keys into the JSON, and how to show what is there."""

    header: str
    path: tuple[str, ...]
    show: Callable[[Any], str] = str


MACHINE = Column("machine", ("environment", "machine", "cpu"))
COMMIT = Column("commit", ("environment", "commit"), lambda value: str(value)[:8])

# name: (glob below results/, columns)
TABLES = {
    "training": (
        "training/*/report.json",
        [
            Column("model", ("title",)),
            Column("parameters", ("facts", "parameters"), count),
            Column("tokens seen", ("facts", "tokens seen"), count),
            Column("validation, bits/char", ("metrics", "validation bits_per_char"), estimate),
            Column("test, bits/char", ("metrics", "test bits_per_char"), estimate),
            Column("order-1 n-gram", ("baselines", "validation order-1 n-gram"), estimate),
            Column("order-4 n-gram", ("baselines", "validation order-4 n-gram"), estimate),
            Column("wall time", ("wall_seconds",), seconds),
            MACHINE,
            COMMIT,
        ],
    ),
    "train_step": (
        "benchmarks/train_step*.json",
        [
            Column("V", ("config", "vocab")),
            Column("head", ("config", "head")),
            Column("a step", ("step_seconds", "median"), milliseconds),
            Column("tokens/s", ("tokens_per_second",), count),
            Column("model FLOP/s", ("model_flops_per_second",), giga),
            Column("matmul FLOP/s", ("matmul_flops_per_second",), giga),
            Column("fraction", ("fraction_of_matmul",), ratio),
            Column("temporaries", ("memory_bytes", "temporaries"), mebibytes),
            Column("one [B, L, V]", ("logits_bytes",), mebibytes),
            Column("compile", ("compile_seconds",), seconds),
            Column("machine", ("machine", "device")),
        ],
    ),
    "sample_step": (
        "benchmarks/sample_step*.json",
        [
            Column("V", ("config", "vocab")),
            Column("forward pass", ("forward_milliseconds",), "{:.0f} ms".format),
            Column(
                "ancestral step, all logits", ("runs", "ancestral, full", "milliseconds_per_step"), "{:.0f} ms".format
            ),
            Column("in forward passes", ("runs", "ancestral, full", "forward_passes_per_step"), ratio),
            Column("logits where asked", ("runs", "ancestral, asked", "forward_passes_per_step"), ratio),
            Column("first-hitting", ("runs", "first-hitting, asked", "forward_passes_per_step"), ratio),
            Column("confidence", ("runs", "confidence, full", "forward_passes_per_step"), ratio),
            Column("matmul FLOP/s", ("matmul_flops_per_second",), giga),
            Column("machine", ("machine", "device")),
        ],
    ),
}


def lookup(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at a path of keys; None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def render(name: str, results: Path = RESULTS) -> str:
    """The table in Markdown. ValueError where it has no results."""
    pattern, columns = TABLES[name]
    files = sorted(results.glob(pattern))
    if not files:
        raise ValueError(f"table {name}: nothing matches {results / pattern}; keep the report of a run there")
    lines = ["| " + " | ".join(c.header for c in columns) + " |", "|" + " --- |" * len(columns)]
    for file in files:
        tree = json.loads(file.read_text())
        values = [(c, lookup(tree, c.path)) for c in columns]
        lines.append("| " + " | ".join("–" if v is None else c.show(v).replace("|", "\\|") for c, v in values) + " |")
    return "\n".join(lines)


def rebuild(text: str, results: Path = RESULTS) -> str:
    """README text with every table made anew. ValueError for a table that TABLES does not know."""

    def table(match: re.Match) -> str:
        if match[1] not in TABLES:
            raise ValueError(f"README has a table {match[1]!r}: known are {', '.join(TABLES)}")
        return f"<!-- table:{match[1]} -->\n{render(match[1], results)}\n<!-- /table -->"

    return re.sub(r"<!-- table:(\w+) -->.*?<!-- /table -->", table, text, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    """0 when README agrees with results/ (after writing it, unless --check), 1 when --check finds a difference."""
    before = README.read_text()
    after = rebuild(before)
    if "--check" in argv[1:]:
        if before != after:
            print("README.md differs from results/: run `make tables`", file=sys.stderr)
        return int(before != after)
    README.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
