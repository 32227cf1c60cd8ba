"""The program that compares decoding orders: what it leaves behind, that it resumes, what it says when it is wrong."""

import json
import math

import programs
import pytest

from experiments import cli, order_arms, order_rows, orders
from experiments.order_report import kept, over_rows
from experiments.results import over_seeds

pytestmark = pytest.mark.slow

SMALL = dict(
    data__rows=512,
    order__warmup=2,
    train__steps=6,
    train__batch=8,
    train__log_every=2,
    train__evaluate_every=3,
    train__checkpoint_every=3,
)
ARMS = "('plain','learned','fixed')"
TABLE = dict(
    arms="('plain','learned')", network__name="linear", evaluate__rows=16, evaluate__test_rows=32, evaluate__batch=16,
    evaluate__draws=1, sample__rows=24,
)  # fmt: skip


def flags(config, workdir, **changes):
    fields = {f"--config.{name.replace('__', '.')}={value}" for name, value in (SMALL | changes).items()}
    return [f"--config=experiments/configs/orders_{config}.py:quick", f"--workdir={workdir}", *sorted(fields)]


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(config, workdir, **changes) -> (exit code, standard output, standard error)` in this process."""

    def call(*arguments, **changes):
        capfd.readouterr()
        code = programs.run_here(orders.main, flags(*arguments, **changes), monkeypatch)
        return code, *capfd.readouterr()

    return call


def read(folder, name="report"):
    return json.loads((folder / f"{name}.json").read_text())


def test_a_comparison_with_a_known_law_resumes_without_repeating(run, tmp_path, monkeypatch):
    """Killed while it learns an order, after a checkpoint; the same command goes on, and ends as if nothing was."""
    trained, evaluated, whole = [], [], order_arms.Bench.train

    def interrupted(self, arm, seed, start, folder, evaluate, *rest):
        trained.append(folder.name)

        def killed(params):
            evaluated.append(folder.name)
            if evaluated.count("learned-0") == 2:
                raise KeyboardInterrupt
            return evaluate(params)

        return whole(self, arm, seed, start, folder, killed, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(order_arms.Bench, "train", interrupted)
        assert programs.run_here(orders.main, flags("bayes", tmp_path, arms=ARMS), patch) == 130
    assert trained == ["plain-0", "learned-0"] and not (tmp_path / "report.json").exists()
    first = (tmp_path / "runs" / "plain-0" / "result.json").read_bytes()

    code, out, errors = run("bayes", tmp_path, arms=ARMS)
    assert code == 0 and errors.count("resuming from step 3") == 1, errors
    assert (tmp_path / "runs" / "plain-0" / "result.json").read_bytes() == first
    for words in ("learned, own order", "nats/row above the entropy", "position", "child 5"):
        assert words in out
    report = read(tmp_path)
    assert report["facts"]["parameters"] == {"network": 19 * 18, "order": 6}
    assert report["facts"]["plain"]["effective number of orders by seed"] == pytest.approx([720, 720], rel=1e-5)
    assert report["facts"]["fixed"]["first position by seed"] == ["root"] * 2
    assert {"learned, own order", "learned - plain", "learned, share of the way from plain to fixed"} <= set(
        report["metrics"]
    )
    assert report["metrics"]["learned - plain"]["draws"] == 2 and "plain" in report["baselines"]
    assert {"precedence, learned", "log-weights, learned"} == set(report["heatmaps"])

    plain, learned = (read(tmp_path / "runs" / f"{arm}-0", "result") for arm in ("plain", "learned"))
    assert plain["own"] == plain["uniform"] and plain["log_weights"] == [0] * 6
    assert plain["apart"][0] == plain["apart"][1] and 0 < learned["apart"][0] < 1
    few = plain["few steps"]["2"]
    assert few["which"] == few["neither"] and few["both"] == few["how many"] <= few["neither"]
    assert [row["T"] for row in report["facts"]["bounds of few steps"]] == [2, 3, 6]
    assert learned["own"] != plain["own"] and abs(sum(learned["log_weights"])) < 1e-5
    log = [json.loads(line) for line in (tmp_path / "runs" / "plain-0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["orders"] for row in log if "orders" in row] == pytest.approx([720, 720], rel=1e-5)
    assert learned["history"]["step"] == [3, 6] and any(learned["history"]["log_weights"][0])

    assert run("bayes", tmp_path / "unbroken", arms="('learned',)", seeds=1)[0] == 0
    unbroken = read(tmp_path / "unbroken" / "runs" / "learned-0", "result")
    seconds = {"training seconds", "scoring seconds"}
    assert {k: learned[k] for k in learned.keys() - seconds} == {k: unbroken[k] for k in learned.keys() - seconds}

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}
    monkeypatch.setattr(order_arms.Bench, "train", None)  # nothing is trained any more
    assert run("bayes", tmp_path, arms=ARMS)[0] == 0
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*")}


SUM = "sum of the gradient in the log-weights by seed, and its error"


def plain(folder):
    return read(folder / "runs" / "plain-0", "result")["own"][0]


def test_a_table_with_starts_and_tied_weights(run, tmp_path):
    """The made-up table, in time space: bounds with errors, samples compared; of several starts the best counts."""
    changes = dict(order__starts=3, seeds=1, order__groups="(0,1,1,1,2,2)", order__estimator="time")
    code, _, errors = run("adult", tmp_path, **TABLE | changes)
    assert code == 0, errors
    report = read(tmp_path)
    for name in ("shape, learned", "trend, plain", "shape, learned: own order - random order"):
        assert math.isfinite(report["metrics"][name]["mean"])
    over_rows = report["metrics"]["learned - plain, error over rows"]
    assert over_rows["mean"] == pytest.approx(report["metrics"]["learned - plain"]["mean"]) and over_rows["draws"] == 32
    assert 0 < report["facts"]["learned"]["its part from the draws alone by seed"][0]
    alone = report["metrics"]["learned, own order, first start alone"]["mean"]
    assert report["metrics"]["learned - plain, first start alone"]["mean"] == pytest.approx(alone - plain(tmp_path))
    ((sum_of_gradient, error),) = report["facts"]["learned"][SUM]
    assert 0 < abs(sum_of_gradient) < 4 * error + 0.05
    results = [read(tmp_path / "runs" / f"learned-0{end}", "result") for end in ("", "-1", "-2")]
    for result in results:
        w = result["log_weights"]
        assert w[1] == w[2] == w[3] != w[0] and w[4] == w[5] and min(result["own"][1:]) > 0
    assert alone == results[0]["own"][0] and len(results[0]["rows"]) == 32
    best = min(results, key=lambda r: r["validation"])
    assert report["facts"]["learned"]["start by seed"] == [best["start"]]
    assert len({r["log_weights"][0] for r in results}) == 3
    assert report["facts"]["parameters"]["order"] == 3


def test_samples_of_a_text_are_judged_by_an_ngram(run, tmp_path):
    """In the learned order and in random ones; after six steps they are noise, which it finds unlikely."""
    changes = TABLE | dict(seeds=1, sample__rows=40, data__length=4)
    code, _, errors = run("text", tmp_path, **changes)
    assert code == 0, errors
    metrics, name = read(tmp_path)["metrics"], "n-gram bits"
    assert metrics[f"{name}, learned"]["unit"] == "bits/token" and 2 < metrics[f"{name}, learned"]["mean"] < 20
    learned = read(tmp_path / "runs" / "learned-0", "result")
    difference = learned[f"{name}, own"] - learned[f"{name}, random"]
    found = metrics[f"{name}, learned: own order - random order"]
    assert found["mean"] == pytest.approx(difference) and difference != 0
    plain = read(tmp_path / "runs" / "plain-0", "result")
    assert plain[f"{name}, own"] == plain[f"{name}, random"]  # the same law and keys


def test_the_error_over_rows_is_of_their_mean_difference():
    runs = lambda *rows: [dict(rows=list(r)) for r in rows]
    difference = over_rows(runs((1, 2, 6), (3, 4, 8)), runs((0, 0, 0), (0, 4, 2)))  # by row 2, 1, 6
    assert (difference.mean, difference.draws) == (3, 3)
    assert difference.standard_error == pytest.approx(math.sqrt((1 + 4 + 9) / 2 / 3))


def test_of_several_starts_the_best_on_validation_is_kept():
    results = [dict(arm="learned", seed=s, start=i, validation=v) for s, i, v in [(0, 0, 2), (0, 1, 1), (1, 0, 3)]]
    assert [r["start"] for r in kept(results)["learned"]] == [1, 0]
    estimate = over_seeds([1.0, 3.0], "nats")
    assert (estimate.mean, estimate.standard_error, estimate.draws) == (2, pytest.approx(1), 2)
    assert math.isnan(over_seeds([1.0], "nats").standard_error)


@pytest.mark.parametrize(
    "changes,words",
    [
        (dict(arms="('magic',)"), ["arms='magic'", "plain, learned, cold, fixed"]),
        (dict(arms="()"), ["arms=()", "at least one"]),
        (dict(seeds=0), ["seeds=0", "at least 1"]),
        (dict(order__estimator="magic"), ["order.estimator='magic'", "order, time"]),
        (dict(order__estimator="time"), ["order.estimator='time'", "'fixed' needs"]),
        (dict(order__samples=0), ["order.samples=0", "at least 1"]),
        (dict(order__known="(0,1,1,2,3,4)"), ["order.known", "must be a permutation of 0..5"]),
        (dict(order__known="(0,1,2)"), ["order.known=(0, 1, 2)", "permutation of 0..5"]),
        (dict(order__warmup=7), ["order.warmup=7", "0..6"]),
        (dict(order__kick=-1.0), ["order.kick=-1.0", ">= 0"]),
        (dict(order__estimator="time", arms="('plain',)", order__t_min=1.0), ["order.t_min=1.0", "(0, 1)"]),
        (dict(order__power=0.0), ["order.power=0.0", "> 0"]),
        (dict(data__categories=0, data__source="table", data__path="setup.cfg"), ["data.categories=0", "at least 1"]),
        (dict(order__rate=0.0), ["learning_rate=0.0", "order", "> 0"]),
        (dict(order__groups="(0,2,2,2,2,2)", arms="('plain',)"), ["order.groups", "6 numbers"]),
        (dict(data__source="magic"), ["data.source='magic'", "bayes, synthetic, table, python_docs"]),
        (dict(data__source="table"), ["data.path=''", "--config.data.path=FILE"]),
        (dict(data__path="my.csv"), ["data.path='my.csv' is not read", "or table"]),
        (dict(data__source="table", data__path="nowhere.csv"), ["nowhere.csv", "CSV file"]),
        (dict(train__batch=12), ["train.batch=12", "multiple of 8"]),
        (dict(network__name="magic"), ["network.name='magic'", "transformer, linear"]),
    ],
    ids=lambda x: "-".join(f"{k}={v}" for k, v in x.items()) if isinstance(x, dict) else "",
)
def test_a_config_that_will_not_do(run, tmp_path, changes, words):
    code, _, errors = run("bayes", tmp_path / "refused", **changes)
    assert code == 2 and len(errors.splitlines()) == 1 and errors.startswith("error: "), errors
    assert not [word for word in words if word not in errors], errors
    assert not (tmp_path / "refused" / "config.json").exists()


@pytest.mark.parametrize("name,test,positions", [("adult.csv", "", 15), ("magic.train.csv", "magic.test.csv", 11)])
def test_real_tables(real_data, name, test, positions):
    c = cli.load_config(str(programs.ROOT / "experiments/configs/orders_adult.py")).data
    c.path, c.test = str(real_data(name)), str(real_data(test)) if test else ""
    rows = order_rows.table(c, 0)
    train = rows.source.rows
    assert rows.length == positions and rows.allowed.sum(0).max() == 1
    for part in (train, rows.validation, rows.test):
        assert rows.allowed[range(positions), part].all()
    assert 0.6 < len(train) / (len(train) + len(rows.validation) + len(rows.test)) < 0.85
