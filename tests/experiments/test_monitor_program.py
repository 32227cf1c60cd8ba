"""What `train` says of its own variance, in its log and its report, and what that may cost."""

import json
from types import SimpleNamespace

import numpy as np
import programs
import pytest

from experiments import build, cli, results, runs, train
from experiments.configs.base import base
from experiments.monitor import monitor
from mdmjax.data import Bytes, WindowSource

pytestmark = pytest.mark.slow

CHANGES = dict(
    train__steps=14, train__batch=256, train__checkpoint_every=14, train__evaluate_every=14, monitor__every=7,
    baseline__bins=4, law__spread="iid",
)  # fmt: skip


def test_a_run_says_where_its_variance_comes_from(monkeypatch, tmp_path):
    """On eight devices: rows in the log and curves in the report, and the adjusted loss beside the loss."""
    text = programs.write_text(tmp_path / "text.txt")
    flags = programs.train_flags(text, tmp_path / "run", tmp_path / "cache", **CHANGES)
    assert programs.run_here(train.main, flags, monkeypatch) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curves = json.loads((tmp_path / "run" / "report.json").read_text())["curves"]
    measured = [row for row in rows if "variance/loss_A" in row]
    assert [row["step"] for row in measured] == [7, 14] and all("loss" not in row for row in measured)
    assert all(row["variance/loss_total_error"] > 0 for row in measured)
    for name, part in (("A", "masking pattern (A)"), ("B", "masking rate (B)"), ("C", "data (C)"), ("total",) * 2):
        curve = curves[f"loss, {part}"]
        assert curve["y"] == [row[f"variance/loss_{name}"] for row in measured] and curve["x"] == [7, 14]
        assert curve["error"] == [row[f"variance/loss_{name}_error"] for row in measured]
    assert not any(name.startswith("gradient,") for name in curves)
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == len(curves["training loss, adjusted"]["y"]) == 14
    assert all(row["loss"] != row["loss_adjusted"] for row in steps[2:])


def test_a_gradient_has_curves_of_its_own():
    rows = [{"step": 3, "loss": 1.0}, {"step": 3, "variance/gradient_B": 2.0, "variance/gradient_B_error": 0.5}]
    corpus = SimpleNamespace(meta={"splits": {"train": {}, "validation": {}}})
    found = results.curves(rows, corpus, "validation")
    curve = found["gradient, masking rate (B)"]
    assert (curve.x, curve.y, curve.error, curve.panel) == ([3], [2.0], [0.5], "variance of the gradient")
    assert set(found) - set(results.curves(rows[:1], corpus, "validation")) == {"gradient, masking rate (B)"}


def test_a_run_from_before_there_were_these_fields_goes_on(tmp_path):
    """Watched or not; with a baseline it would be another run."""
    config, corpus = base(), SimpleNamespace(meta={"sha256": "0" * 64}, vocabulary=Bytes())
    older = {name: group for name, group in cli.to_dict(config).items() if name not in ("baseline", "monitor")}
    del older["law"]["often"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    config.monitor.every = 40
    runs.claim(tmp_path, config, corpus, 8)
    config.baseline.bins = 8
    with pytest.raises(cli.UsageError, match="baseline.bins: workdir has 0, now 8"):
        runs.claim(tmp_path, config, corpus, 8)


def of(**changes):
    """(the experiment, its training rows) of a small config on eight devices."""
    config = base()
    config.update_from_flattened_dict(
        {"network.width": 16, "network.heads": 2, "network.depth": 1, "train.batch": 64, "monitor.every": 100}
        | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return build.Experiment(config, 5, 8), WindowSource(np.arange(50, dtype=np.int32) % 5, 8)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(monitor__every=-1), "monitor.every=-1: must be at least 1; 0 is off"),
        (dict(monitor__rates=1), "monitor.rates=1: must be at least 2"),
        (dict(monitor__masks=1), "monitor.masks=1: must be at least 2"),
        (dict(monitor__examples=2), "monitor.examples=2: must be at least 3"),
        (dict(monitor__examples=12), "monitor.examples=12: must be a multiple of 8"),
        (dict(monitor__examples=12, parallel="pmap"), "monitor.examples=12: must be a multiple of 8"),
        (dict(monitor__examples=48), "monitor.examples=48: there are 43 training rows"),
        (dict(monitor__every=8), "monitor.every=8: 32 draws .* 2 % .* 64 rows; use monitor.every=9 or more"),
        (dict(monitor__every=74, monitor__gradient=True), "use monitor.every=75 or more"),
        (dict(train__steps=99, train__warmup=0), "monitor.every=100: more than train.steps=99"),
        (dict(network__attention="splash"), "one row at a time, which network.attention='splash' cannot"),
    ],
)
def test_a_monitor_that_will_not_do(changes, words):
    with pytest.raises(ValueError, match=words):
        monitor(*of(**changes))


def test_the_smallest_that_will_do_does():
    """An autoregressive run may be monitored as well: what it draws is nothing."""
    assert monitor(*of(monitor__every=0, monitor__examples=0)) is None
    for changes in (dict(monitor__every=9), dict(monitor__every=75, monitor__gradient=True)):
        assert monitor(*of(**changes, objective="autoregressive")) is not None


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(baseline__bins=1), "baseline.bins=1: must be at least 2"),
        (dict(baseline__bins=8, baseline__rate=0.0), r"baseline.rate=0.0: must be in \(0, 1\]"),
        (
            dict(baseline__bins=8, baseline__coefficient="half"),
            "baseline.coefficient='half': choose one of fitted, one",
        ),
        (dict(baseline__bins=8, objective="autoregressive"), "baseline.bins=8: an autoregressive model hides nothing"),
    ],
)
def test_a_baseline_that_will_not_do(changes, words):
    with pytest.raises(ValueError, match=words):
        _ = of(**changes)[0].baseline
