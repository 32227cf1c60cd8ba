"""The tables of README.md: which reports their rows come from, and which number each column shows."""

from experiments.table_benchmarks import BENCHMARKS
from experiments.table_columns import (
    COMMIT,
    MACHINE,
    ROW,
    Column,
    Table,
    count,
    estimate,
    four,
)
from experiments.table_crossbar import CROSSBAR
from experiments.table_expressivity import EXPRESSIVITY
from mdmjax.reports import duration


def _study(name: str, unit: str, *answers: Column) -> Table:
    """The arms of a study of training."""
    columns = [
        Column("arm", (ROW, "arm")),
        *answers,
        Column(f"bound, {unit}", (ROW, f"bound, {unit}")),
        Column("its sd", (ROW, "its sd over seeds")),
        Column("bound - base", (ROW, "- base")),
        Column("calls to base's last bound", (ROW, "share of base's calls to its last bound")),
        Column("noise of the gradient norm, base / this", (ROW, "noise of the gradient norm, base / this")),
        COMMIT,
    ]
    return Table(f"studies/{name}/report.json", columns, ("facts", "arms"))


PREFER = {
    "arithmetic": (
        "right, %", "right - start", "variance of the score", "bound on the bias", "held-out loss", "gradient noise",
    ),
    "ablation": ("variance of the score", "bound on the bias", "held-out loss", "gradient noise"),
}  # fmt: skip


def _prefer(name: str, *shown: str) -> Table:
    """The arms of an experiment with preferences."""
    columns = [Column(n, (ROW, n)) for n in ("arm", "forward passes", *shown)]
    return Table(f"prefer/{name}/report.json", [*columns, COMMIT], ("facts", "arms"))


def _reinforce(name: str) -> Table:
    """The arms of an experiment with rewards."""
    shown = ("arm", "right, %", "right - start", "mean reward of the last steps")
    columns = [Column(n, (ROW, n)) for n in shown]
    return Table(f"reinforce/{name}/report.json", [*columns, COMMIT], ("facts", "arms"))


def _anyprocess(name: str, *more: str) -> Table:
    """The tests of an any-process experiment."""
    shown = (
        "arm", "test", "problems", "right, %", "steps", "unmask", "remask", "insert", "delete", "at the step limit, %",
        *more, "calls", "commit",
    )  # fmt: skip
    columns = [Column(n, (ROW, n)) for n in shown]
    columns.insert(1, Column("seeds", ("config", "seeds")))
    return Table(f"anyprocess/{name}/report.json", columns, ("facts", "tests"))


TABLES = (
    BENCHMARKS
    | CROSSBAR
    | EXPRESSIVITY
    | {
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
        **{
            f"anyprocess_{name}": _anyprocess(name)
            for name in ("parity", "sudoku4", "sudoku9", "sudoku9_baselines", "mincut")
        },
        "fine_tuning": Table(
            "fine_tuning/*/report.json",
            [
                Column("data", ("facts", "data", "name")),
                Column("records", ("facts", "data", "splits", "train", "rows"), count),
                Column("left out", ("facts", "data", "left out, for they are longer than a row"), count),
                Column("parameters", ("facts", "parameters"), count),
                Column("steps", ("facts", "steps"), count),
                Column("validation, bits/byte", ("metrics", "validation bits_per_token"), estimate),
                Column("test, bits/byte", ("metrics", "test bits_per_token"), estimate),
                Column("wall time", ("wall_seconds",), duration),
                COMMIT,
            ],
        ),
        **{f"prefer_{name}": _prefer(name, *shown) for name, shown in PREFER.items()},
        **{f"reinforce_{name}": _reinforce(name) for name in ("arithmetic", "countdown")},
        "surrogates": Table(
            "reinforce/*/report.json",
            [
                Column("rewarded", ("config", "task")),
                *(
                    Column(n, (ROW, n))
                    for n in ("arm", "surrogate", "B, start", "surrogate - B, start", "surrogate - B, end")
                ),
                COMMIT,
            ],
            ("facts", "bias against B, nats"),
        ),
        "anyprocess_dyck": _anyprocess(
            "dyck", *(f"of the {n} words of {k} letters, %" for k, n in ((2, 4), (4, 28), (6, 232)))
        ),
        "anyprocess_text": _anyprocess(
            "text_selfcorrect",
            "edits to the clean text before, %",
            "after, %",
            "AUC of remask",
            "AUC of insert",
            "AUC of delete",
            "order-4 n-gram, bits/char",
            "entropy of its characters, bits",
        ),  # fmt: skip
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
                    "learned network, uniform orders",
                    ("metrics", "learned, the same network in uniform orders"),
                    estimate,
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
                Column(
                    "own order - random order", ("metrics", "n-gram bits, learned: own order - random order"), estimate
                ),
                COMMIT,
            ],
        ),
        "variance": Table(
            "variance/*/report.json",
            [
                Column("law", (ROW, "law")),
                Column("mean loss, nats/token", (ROW, "mean loss")),
                Column("mean - base", (ROW, "mean - base")),
                Column("A", (ROW, "A")),
                Column("B", (ROW, "B")),
                Column("C", (ROW, "C")),
                Column("total", (ROW, "total")),
                Column("calls", (ROW, "calls")),
                Column("total x calls", (ROW, "total x calls")),
                Column("base / this", (ROW, "base / this")),
                COMMIT,
            ],
            ("facts", "laws"),
            where=lambda row: row["of"] == "gradient",
        ),
        "variance_of_loss": Table(
            "variance/*/report.json",
            [
                Column("law", (ROW, "law")),
                Column("A", (ROW, "A")),
                Column("B", (ROW, "B")),
                Column("C", (ROW, "C")),
                Column("total x calls", (ROW, "total x calls")),
                Column("base / this", (ROW, "base / this")),
                COMMIT,
            ],
            ("facts", "laws"),
            where=lambda row: row["of"] == "loss",
        ),
        "variance_of_batches": Table(
            "variance/*/report.json",
            [
                Column("law", (ROW, "law")),
                Column("of the", (ROW, "group")),
                Column("independent rates", (ROW, "iid")),
                Column("stratified", (ROW, "stratified")),
                Column("systematic", (ROW, "systematic")),
                Column("sqrt(rows) strata", (ROW, "strata")),
                COMMIT,
            ],
            ("facts", "A + B of a batch, times its rows"),
        ),
        "study_of_sums": _study(
            "sums",
            "bits/token",
            Column("right answers, %", (ROW, "right answers, %")),
            Column("sd over seeds", (ROW, "sd over seeds")),
            Column("right - base", (ROW, "right - base")),
        ),
        "study_of_text": _study("text", "bits/char"),
        "study_of_markov": _study("markov", "bits/token", Column("calls of fitting", (ROW, "calls of fitting"))),
    }
)
