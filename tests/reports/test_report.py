import json
import math
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.base import Estimate
from mdmjax.reports import (
    Curve,
    Heatmap,
    Report,
    Sample,
    environment,
    plain,
    read_report,
    to_json,
    write_atomic,
    write_report,
)
from mdmjax.reports import report as report_module

environment_module = sys.modules["mdmjax.reports.environment"]  # the function has the module's name

BOUND = Estimate(2.613, 0.011, "bits/char", 512, "exact-count bound")


def report(**fields):
    return Report(**{"title": "t", "config": {}, "seed": 0, "wall_seconds": 1.0, "metrics": {}} | fields)


def forbid(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_what_is_written_is_read_back(tmp_path):
    original = report(
        config={"model": {"width": 8}, "betas": [0.9, 0.99], "name": None, "quick": True},
        metrics={"bound": BOUND, "speed": Estimate(1e4, math.inf, "tokens/s", 1, "one window")},
        baselines={"order-1": Estimate(3.2, 0.0, "bits/char", 7, "n-gram")},
        against=["order-1"],
        facts={"parameters": 10**12, "data": {"sha256": "ab"}},
        curves={"loss": Curve([0, 1], [3.0, 2.0], [0.1, 0.2], "nats/token", "both", "step"), "empty": Curve([], [])},
        heatmaps={"grid": Heatmap([[1.0, math.nan], [0.5, 2.0]], ["a", "b"], ["c", "d"], "y", "x", "nats", (1, 0))},
        samples=[Sample([("given ", True), ("é\n<b>\u2028", False)], "a"), Sample([("NaN", False)])],
        summary="s",
        command="c",
    )
    page = write_report(tmp_path / "new" / "folder", original)
    assert page.name == "report.html" and page.exists()
    text = (page.parent / "report.json").read_text()
    json.loads(text, parse_constant=forbid)
    assert to_json(read_report(page.parent)) == text  # through the folder,
    assert to_json(read_report(page.parent / "report.json")) == text  # or the file
    back = read_report(page.parent)
    assert back.metrics == original.metrics and back.baselines == original.baselines
    assert back.config == original.config and back.facts == original.facts and back.curves["loss"].y == [3.0, 2.0]
    assert back.heatmaps["grid"].best == (1, 0) and math.isnan(back.heatmaps["grid"].values[0][1])
    assert "<h3>grid</h3>" in page.read_text()
    assert [s.text for s in back.samples] == ["given é\n<b>\u2028", "NaN"]


def test_numbers_that_json_lacks_survive(tmp_path):
    odd = report(
        metrics={"m": Estimate(math.nan, math.inf, "u", 0, "e")}, curves={"c": Curve([0, 1], [math.nan, -math.inf])}
    )
    path = write_atomic(tmp_path / "report.json", to_json(odd))
    json.loads(path.read_text(), parse_constant=forbid)
    back = read_report(tmp_path)
    assert math.isnan(back.metrics["m"].mean) and back.metrics["m"].standard_error == math.inf
    assert math.isnan(back.curves["c"].y[0]) and back.curves["c"].y[1] == -math.inf


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
TREES = st.recursive(LEAVES, lambda t: st.lists(t) | st.dictionaries(st.text(st.characters(codec="utf-8")), t))


@given(TREES)
def test_json_is_strict_and_loses_nothing(tree):
    assert json.loads(to_json(tree), parse_constant=forbid) == plain(tree)


def test_plain_takes_what_configs_and_arrays_hold(tmp_path):
    value = {
        "array": jnp.arange(3),
        "scalar": np.float32(0.5),
        "tuple": (1, 2),
        "path": tmp_path,
        "function": math.sqrt,
        "type": dict,
        "estimate": BOUND,
        "set": {"b", "a"},
        3: "number as key",
    }
    assert plain(value) == {
        "array": [0, 1, 2],
        "scalar": 0.5,
        "tuple": [1, 2],
        "path": str(tmp_path),
        "function": "sqrt",
        "type": "dict",
        "estimate": {
            "mean": 2.613,
            "standard_error": 0.011,
            "unit": "bits/char",
            "draws": 512,
            "estimator": BOUND.estimator,
        },
        "set": ["a", "b"],
        "3": "number as key",
    }


def test_a_metric_without_an_error_bar_is_refused():
    with pytest.raises(ValueError, match="'bound' is float 2.6: give an Estimate"):
        report(metrics={"bound": 2.6})


def test_unreadable_reports_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no report at .*: give the workdir of a finished run"):
        read_report(tmp_path)
    for text in ("", "{", "[]", "{}", '{"metrics": {"m": 3}}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ValueError, match="is not a report"):
            read_report(tmp_path)


def test_who_reads_while_it_is_written_sees_the_old_file(tmp_path):
    path = write_atomic(tmp_path / "report.json", "old")
    with open(path) as reader:
        write_atomic(path, "new")
        assert reader.read() == "old" and path.read_text() == "new"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "report.json", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module.os, "fsync", full)
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_two_hosts_may_write_the_same_file(tmp_path, monkeypatch):
    """Their processes can have the same number: each writes a file of its own, with the mode of the umask."""
    partial, replace = [], os.replace
    monkeypatch.setattr(report_module.os, "getpid", lambda: 7)
    monkeypatch.setattr(report_module.os, "replace", lambda a, b: partial.append(a) or replace(a, b))
    before = os.umask(0o027)
    try:
        paths = [write_atomic(tmp_path / "report.json", text) for text in "ab"]
    finally:
        os.umask(before)
    assert partial[0] != partial[1] and {path.parent for path in partial} == {tmp_path}
    assert paths[0].read_text() == "b" and paths[0].stat().st_mode & 0o777 == 0o640


def test_the_headline_is_compared_with_baselines_of_its_data_and_unit():
    baselines = {
        name: Estimate(3.0, 0.1, unit, 7, "e") for name, unit in dict(a="bits/char", b="bits/char", c="s").items()
    }
    made = lambda against, metrics: report(metrics=metrics, baselines=baselines, against=against)
    assert list(made(None, {"bound": BOUND}).rivals) == ["a", "b"]
    assert list(made(["b", "c"], {"bound": BOUND}).rivals) == ["b"]
    assert made([], {"bound": BOUND}).rivals == made(None, {}).rivals == {}
    with pytest.raises(ValueError, match="against=\\['d'\\]: these are not among"):
        made(["d"], {"bound": BOUND})


def test_environment_names_the_circumstances(root, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    env = environment()
    assert env["variables"]["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1" and "OMP_NUM_THREADS" not in env["variables"]
    assert env["devices"]["platform"] == "cpu" and env["devices"]["count"] == 8
    assert {"jax", "numpy", "flax"} <= env["packages"].keys()
    assert env["machine"]["cores"] >= 1 and env["machine"]["cpu"]
    json.dumps(env)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_checkout(root):
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("this is no checkout")
    env = environment()
    assert env["commit"] == head.stdout.strip() and env["dirty"] in (True, False)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_copy_in_another_repository_has_no_commit(tmp_path, monkeypatch):
    """As an installed one has that lies in a virtual environment inside the user's checkout."""
    user = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init"], [*user, "commit", "--allow-empty", "-m", "m"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)
    shutil.copy(environment_module.__file__, tmp_path / "environment.py")
    monkeypatch.setattr(environment_module, "__file__", str(tmp_path / "environment.py"))
    assert environment_module._commit() == (None, None)
