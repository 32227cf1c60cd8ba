"""Writes the tables of README.md anew from the reports under results/, or checks that they are as the reports say.

    python -m experiments.tables [--check]

A table stands in the README between `<!-- table:NAME -->` and `<!-- /table -->`. Its rows come from the JSON files that
its entry in TABLES names, its columns from paths into them.
"""

import re
import sys
from pathlib import Path

from experiments.table_columns import lookup
from experiments.table_specs import TABLES

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "results"


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
    if set(argv[1:]) - {"--check"}:
        print(
            "usage: python -m experiments.tables [--check]: writes the tables of README.md, or says if they differ",
            file=sys.stderr,
        )
        return 2
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
