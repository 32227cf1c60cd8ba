"""Writes the tables of README.md anew from the reports under results/, or checks that they are as the reports say.

    python -m experiments.tables [--check]

A table stands in the README between `<!-- table:NAME -->` and `<!-- /table -->`. Its rows come from the JSON files that
its entry in TABLES names, its columns from paths into them.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mdmjax.base import Estimate
from mdmjax.reports import duration

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "results"


def estimate(value: dict) -> str:
    """A mean with its standard error, to two digits of the error."""
    return str(Estimate(float(value["mean"]), float(value["standard_error"]), "", 1, "")).strip()


def count(value: float) -> str:
    """An integer with separators."""
    return f"{value:,.0f}"


def milliseconds(value: float) -> str:
    """Seconds as ms."""
    return f"{1000 * value:,.0f} ms"


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


def of_run(run: str, *path: str) -> tuple[str, ...]:
    """Where a run of the sampling benchmark keeps a number."""
    return ("runs", run, *path)


def apart(sampler: str, steps: int) -> Column:
    """Total variation between a sampler of so many steps and first-hitting."""
    return Column(f"{sampler}, T = {steps}", ("total_variation", sampler, str(steps)), probability)


TABLES = {
    "training": Table(
        "training/*/report.json",
        [
            Column("model", ("title",)),
            Column("parameters", ("facts", "parameters"), count),
            Column("tokens seen", ("facts", "tokens seen"), count),
            Column("validation, bits/char", ("metrics", "validation bits_per_char"), estimate),
            Column("test, bits/char", ("metrics", "test bits_per_char"), estimate),
            Column("order-1 n-gram", ("baselines", "validation order-1 n-gram"), estimate),
            Column("order-4 n-gram", ("baselines", "validation order-4 n-gram"), estimate),
            Column("wall time", ("wall_seconds",), duration),
            MACHINE,
            Column("Python", ("environment", "python")),
            COMMIT,
        ],
    ),
    "train_step": Table(
        "benchmarks/train_step*.json",
        [
            Column("V", ("config", "vocab")),
            Column("head", ("config", "head")),
            Column("a step", ("step_seconds", "median"), milliseconds),
            Column("tokens/s", ("tokens_per_second",), count),
            Column("model FLOP/s", ("model_flops_per_second",), giga),
            Column("matmul FLOP/s", ("matmul_flops_per_second",), giga),
            Column("fraction", ("fraction_of_matmul",), ratio),
            Column("its quartiles", ("fraction_quartiles",), lambda pair: " to ".join(map(ratio, pair))),
            Column("of 6 N tokens", ("fraction_of_matmul_by_convention",), ratio),
            Column("temporaries", ("memory_bytes", "temporaries"), mebibytes),
            Column("one [B, L, V]", ("logits_bytes",), mebibytes),
            Column("measured peak", ("peak_bytes", "bytes"), mebibytes),
            Column("compile", ("compile_seconds",), duration),
            *(DEVICE, MACHINE, CORES, COMMIT),
        ],
    ),
    "train_step_gpu": Table(
        "benchmarks/gpu/train_step*.json",
        [
            Column("parameters", ("parameters",), count),
            Column("V", ("config", "vocab")),
            Column("L", ("config", "length")),
            Column("rows", ("config", "batch")),
            Column("attention", ("config", "attention")),
            Column("a step", ("step_seconds", "median"), milliseconds),
            Column("tokens/s", ("tokens_per_second",), count),
            Column("matmul FLOP/s", ("matmul_flops_per_second",), giga),
            Column("fraction", ("fraction_of_matmul",), ratio),
            Column("its quartiles", ("fraction_quartiles",), lambda pair: " to ".join(map(ratio, pair))),
            Column("temporaries", ("memory_bytes", "temporaries"), mebibytes),
            *(DEVICE, COMMIT),
        ],
    ),
    "sample_step": Table(
        "benchmarks/sample_step*.json",
        [
            Column("V", ("config", "vocab")),
            Column("forward pass", ("forward", "step_seconds"), milliseconds),
            Column("its fraction", ("forward", "fraction_of_matmul"), ratio),
            Column("ancestral step, all logits", of_run("ancestral, full", "step_seconds"), milliseconds),
            Column("tokens written/s", of_run("ancestral, full", "tokens_per_second"), count),
            Column("in forward passes", of_run("ancestral, full", "forward_passes_per_step"), ratio),
            Column("logits where asked", of_run("ancestral, asked", "forward_passes_per_step"), ratio),
            Column("first-hitting", of_run("first-hitting, asked", "forward_passes_per_step"), ratio),
            Column("confidence", of_run("confidence, full", "forward_passes_per_step"), ratio),
            Column("matmul FLOP/s", ("matmul_flops_per_second",), giga),
            *(DEVICE, MACHINE, CORES, COMMIT),
        ],
    ),
    "sampler_laws": Table(
        "benchmarks/sampler_laws*.json",
        [
            Column("V", ("config", "vocab")),
            Column("L", ("config", "length")),
            *(apart("ancestral", steps) for steps in (1, 4, 16, 64)),
            *(apart("random count", steps) for steps in (2, 3)),
            *(apart("confidence", steps) for steps in (2, 3)),
            COMMIT,
        ],
    ),
    "schedule_toys": Table(
        "schedules/toy/report.json",
        [
            Column("target", (ROW, "target")),
            Column("sampler", (ROW, "sampler")),
            Column("T", (ROW, "T")),
            Column("schedule", (ROW, "schedule")),
            Column("total variation", (ROW, "tv"), four),
            Column("KL, nats", (ROW, "kl"), four),
            Column("wall time", ("wall_seconds",), duration),
            COMMIT,
        ],
        ("facts", "comparison"),
        where=lambda row: row["sampler"] == "ancestral",
    ),
    "schedule_search": Table(
        "schedules/search-text*/report.json",
        [
            Column("metric", ("config", "metric")),
            Column("sampler", (ROW, "sampler")),
            Column("T", (ROW, "T")),
            Column("schedule", (ROW, "schedule")),
            Column("on other rows", (ROW, "value")),
            Column("unit", (ROW, "unit")),
            Column("best is better by", (ROW, "best is better by")),
            Column("in standard errors", (ROW, "standard errors")),
            Column("tokens a step", (ROW, "tokens a step")),
            Column("wall time", ("wall_seconds",), duration),
            Column("seed", ("seed",)),
            COMMIT,
        ],
        ("facts", "comparison"),
    ),
    "schedule_chain": Table(
        "schedules/search-chain/report.json",
        [
            Column("sampler", (ROW, "sampler")),
            Column("T", (ROW, "T")),
            Column("schedule", (ROW, "schedule")),
            Column("nats above the entropy", (ROW, "value")),
            Column("best is better by", (ROW, "best is better by")),
            Column("bound on KL, nats", (ROW, "bound on KL, nats"), four),
            Column("total variation of neighbours", (ROW, "total variation of neighbours"), four),
            Column("tokens a step", (ROW, "tokens a step")),
            Column("wall time", ("wall_seconds",), duration),
            Column("seed", ("seed",)),
            COMMIT,
        ],
        ("facts", "comparison"),
        where=lambda row: row["T"] == 8,
    ),
    "orders": Table(
        "orders/*/report.json",
        [
            Column("data", ("title",), lambda title: title.partition(":")[0]),
            Column("seeds", ("config", "seeds")),
            Column("first seed", ("seed",)),
            Column("plain", ("baselines", "plain"), estimate),
            Column("learned order", ("metrics", "learned, own order"), estimate),
            Column("learned - plain, paired, over seeds", ("metrics", "learned - plain"), estimate),
            Column("the same, error over rows", ("metrics", "learned - plain, error over rows"), estimate),
            Column(
                "learned network, uniform orders", ("metrics", "learned, the same network in uniform orders"), estimate
            ),
            Column("cold start", ("metrics", "cold, own order"), estimate),
            Column("known order", ("metrics", "fixed, own order"), estimate),
            Column("way to it", ("metrics", "learned, share of the way from plain to fixed"), estimate),
            Column("unit", ("baselines", "plain", "unit")),
            Column("wall time", ("wall_seconds",), duration),
            COMMIT,
        ],
    ),
    "order_laws": Table(
        "orders/bayes/report.json",
        [
            *(
                Column(f"{arm}, {order}", ("metrics", f"total variation of samples, {arm}, {order}"), estimate)
                for arm, order in (
                    ("plain", "own order"),
                    ("learned", "own order"),
                    ("learned", "random order"),
                    ("cold", "own order"),
                    ("fixed", "own order"),
                )
            ),
            COMMIT,
        ],
    ),
    "order_steps": Table(
        "orders/bayes/report.json",
        [
            Column("T", (ROW, "T")),
            Column("linear schedule, equal weights", (ROW, "neither")),
            Column("best (a, b)", (ROW, "how many")),
            Column("learned weights", (ROW, "which")),
            Column("both", (ROW, "both")),
            Column("gain of both - sum of gains", (ROW, "gain of both - sum of gains")),
            COMMIT,
        ],
        ("facts", "bounds of few steps"),
    ),
    "order_samples": Table(
        "orders/[am]*/report.json",
        [
            Column("table", ("title",), lambda title: title.partition(":")[0]),
            Column("Shape, plain", ("metrics", "shape, plain"), estimate),
            Column("Shape, learned", ("metrics", "shape, learned"), estimate),
            Column("own order - random order", ("metrics", "shape, learned: own order - random order"), estimate),
            Column("Trend, plain", ("metrics", "trend, plain"), estimate),
            Column("Trend, learned", ("metrics", "trend, learned"), estimate),
            Column("own - random", ("metrics", "trend, learned: own order - random order"), estimate),
            COMMIT,
        ],
    ),
    "order_text_samples": Table(
        "orders/text/report.json",
        [
            Column("plain", ("metrics", "n-gram bits, plain"), estimate),
            Column("learned", ("metrics", "n-gram bits, learned"), estimate),
            Column("own order - random order", ("metrics", "n-gram bits, learned: own order - random order"), estimate),
            COMMIT,
        ],
    ),
    "schedule_sweep": Table(
        "benchmarks/schedule_sweep.json",
        [
            Column("schedules", ("schedules",)),
            Column("steps", ("config", "steps")),
            Column("samples of each", ("config", "samples")),
            Column("compilations", ("compilations",)),
            Column("seconds in all", ("seconds",), ratio),
            Column("of which compilation", ("compile_seconds",), ratio),
            *(MACHINE, CORES, COMMIT),
        ],
    ),
    "order_gradients": Table(
        "benchmarks/order_gradients.json",
        [
            Column("estimator, K = 2", (ROW, "name")),
            Column("deviation in log w", (ROW, "deviation"), lambda values: ", ".join(map(ratio, values))),
            Column("root mean square", (ROW, "root mean square"), ratio),
            Column("denoiser calls", (ROW, "calls")),
            Column("times square root of calls", (ROW, "per call"), ratio),
            COMMIT,
        ],
        ("estimators",),
    ),
}


def lookup(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at a path of keys; None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def render(name: str, results: Path = RESULTS) -> str:
    """The table in Markdown. ValueError where it has no results."""
    table = TABLES[name]
    files = sorted(results.glob(table.files))
    if not files:
        raise ValueError(f"table {name}: nothing matches {results / table.files}; keep the report of a run there")
    columns = table.columns
    lines = ["| " + " | ".join(c.header for c in columns) + " |", "|" + " --- |" * len(columns)]
    for tree in (tree for file in files for tree in table.trees(file)):
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
