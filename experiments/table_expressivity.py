"""The tables of README.md of expressivity: which rows of the reports, and which columns."""

from collections.abc import Callable, Sequence

from experiments.table_columns import Table, rows_of

SCANS = ("level-expanded scan", "two-sweep scan", "Hillis-Steele")
CHAIN = "chain of thought"


def _rows(rows: str, shown: Sequence[str | tuple[str, str]], **where: Callable) -> Table:
    """Rows of the study of constructions."""
    return rows_of("expressivity/constructions", rows, shown, **where)


def _by_length(task: str, lengths: Sequence[int]) -> Table:
    """How a trained model's right answers go with the length of the words."""
    shown = ["arm", *(f"N={n}" for n in lengths)]
    return rows_of("expressivity/trained", f"{task}, answers right by length", shown)


EXPRESSIVITY = {
    "expressivity_steps": _rows(
        "steps and cells, counted",
        ["N", "tree", *SCANS, "Hillis-Steele, copied", CHAIN],
        where=lambda row: row["N"] in (3, 16, 33, 64, 256, 1000, 4096),
    ),
    "expressivity_time": _rows(
        "on the engine, 4 words at once, median of 5",
        ["automaton", "N", "words with errors", "tree", *SCANS, CHAIN, f"{CHAIN} / tree, time"],
        where=lambda row: row["N"] != 1024,
    ),
    "expressivity_orders": _rows(
        "probability of a valid order of the tree",
        [
            "N", "one at a time", ("simulated", "one at a time: simulated"),
            ("in 8 independent steps", "independent, T=8: value"), ("simulated", "independent, T=8: simulated"),
        ],
        where=lambda row: row["N"] in (2, 4, 8, 16, 32),
    ),
    "expressivity_planners": _rows(
        "right answers by planner and steps, s3, 16 symbols (share; in brackets: valid orders)",
        ["planner", *((f"T = {t}", f"T={t}") for t in (1, 2, 4, 8, 12, 15))],
    ),
    "expressivity_weights": _rows(
        "weights written down: least margins of predictor / planner",
        [
            "automaton", "N", "steps", "margins promised",
            *(f"{dtype}: {what}" for dtype in ("float32", "bfloat16") for what in ("errors", "margins")),
        ],
        where=lambda row: row["automaton"] == "a5",
    ),
    "expressivity_scales": _rows(
        "scale c of the scores, 64 symbols: words with errors",
        ["c", "eps at most", "margin at least", "parity", "s3", "a5"],
    ),
    "expressivity_conversions": _rows(
        "conversions: runs equal at every step",
        ["conversion", "T", "P", "as accounted", "equal", "cells written again", "different ends"],
        where=lambda row: " 4 bits" not in row["conversion"] and " 8 bits" not in row["conversion"],
    ),
    "expressivity_chains": _rows(
        "sizes of corollary 3.5, as the paper counts them; no proof of any inclusion",
        ["N", "T", "CoT = pCoT: steps", "symbols", "in MDM: cells", "in pCoT: symbols", "in CoT: at most"],
        where=lambda row: row["layers"] == 1,
    ),
    "expressivity_trained": rows_of(
        "expressivity/trained",
        "trained models",
        [
            "task", "N", "arm", "parameters", "calls", "answers right, %", "worst seed, %", "cells right, %",
            "seeds at 99 %", "steps to it", "seconds to it", "seconds in all",
        ],
    ),
    "expressivity_parity": _by_length("parity", (16, 32, 48, 64, 128)),
    "expressivity_s3": _by_length("s3", (8, 16, 24, 32, 64)),
    "expressivity_a5": _by_length("a5", (4, 8, 12, 16, 32)),
}  # fmt: skip
