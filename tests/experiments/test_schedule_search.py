"""The schedule search: halving, what it keeps, and the program."""

import dataclasses
import json

import numpy as np
import programs
import pytest

from experiments import schedules, targets
from experiments.search import Cells, halve, rows_needed


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(config, workdir, *flags)`: see `programs.quick`."""
    return programs.quick(schedules.main, monkeypatch, capfd)


def read(workdir):
    return json.loads((workdir / "report.json").read_text())


# ---- halving ---------------------------------------------------------------------------------------------------------


def test_halving_goes_on_with_the_best_and_measures_no_row_twice():
    quality = {name: q for q, name in enumerate("abcdefgh")}
    noise = np.random.default_rng(0).normal(size=64)  # shared by all, so that no rung errs
    asked = []

    def measure(name, start, stop):
        asked.append((name, start, stop))
        return quality[name] + noise[start:stop]

    found = halve(list(quality), (4, 16, 64), 0.25, measure, higher=True)
    assert found.best == "h"
    assert {name: len(v) for name, v in found.values.items()} == dict.fromkeys("abcdef", 4) | dict(g=16, h=64)
    assert sum(stop - start for _, start, stop in asked) == rows_needed(8, (4, 16, 64), 0.25)
    assert halve(list(quality), (4, 16, 64), 0.25, measure, higher=False).best == "a"


@pytest.mark.parametrize(
    "rungs, keep, words",
    [((), 0.5, "rungs"), ((4, 4), 0.5, "must increase"), ((1,), 0.5, "at least 2"), ((4,), 0.0, "keep=0.0")],
)
def test_halving_that_will_not_do(rungs, keep, words):
    with pytest.raises(ValueError, match=words):
        halve(["a"], rungs, keep, None, True)


def test_what_was_measured_is_kept_but_for_half_a_line(tmp_path):
    path = tmp_path / "cells.jsonl"
    values = np.array([0.1, 1 / 3])
    first = Cells(path).get("a", lambda: values)
    Cells(path).get("b", lambda: values)
    whole = path.read_bytes()
    for kept in (whole[:-5], whole[:-1]):  # as a kill leaves it
        path.write_bytes(kept)
        cells = Cells(path)
        np.testing.assert_array_equal(cells.get("a", None), first)
        assert "a" in cells and "b" not in cells
        cells.get("b", lambda: values)
        cells.get("c", lambda: values)
        assert all(name in Cells(path) for name in "abc") and Cells(path).seconds >= 0


# ---- the program -----------------------------------------------------------------------------------------------------


def test_toys_have_the_known_values(x64):
    """Linear, sine, sine squared and cosine on the extreme toy in 3 steps: independent reference values."""
    law = targets.TOYS["extreme"]()
    table = schedules.analysis.true_conditionals(law)
    known = dict(linear=(0.4051, 0.5193), sine=(0.5816, 0.8713), sine_squared=(0.3882, 0.4913), cosine=(0.3235, 0.3908))
    for name, (tv, kl) in known.items():
        grid = schedules.OnGrid.sampled(schedules.USUAL[name], 3)
        found = schedules.exactly(law, table, "ancestral", grid, 3)
        assert found["tv"] == pytest.approx(tv, abs=1e-4) and found["kl"] == pytest.approx(kl, abs=1e-4)
    worst = schedules.exactly(law, table, "ancestral", schedules.OnGrid.sampled(schedules.process.beta(0.1, 1.0), 3), 3)
    assert worst["tv"] == pytest.approx(0.9288, abs=1e-4) and worst["kl"] == pytest.approx(2.6420, abs=1e-4)


def test_the_best_beats_the_usual_ones_on_both_toys_from_opposite_halves():
    """The whole grid in 3 ancestral steps, by enumeration."""
    tenths = [round(0.1 * i, 1) for i in range(1, 11)]
    grid = {(a, b): schedules.OnGrid.sampled(schedules.process.beta(a, b), 3) for a in tenths for b in tenths}
    usual = {name: schedules.OnGrid.sampled(s, 3) for name, s in schedules.USUAL.items()}
    order = {}
    for toy, law in targets.TOYS.items():
        table = schedules.analysis.true_conditionals(law())
        tv = {ab: schedules.exactly(law(), table, "ancestral", s, 3)["tv"] for ab, s in (grid | usual).items()}
        a, b = best = min(grid, key=tv.get)
        assert tv[best] < min(tv[name] for name in usual)
        assert b < a if toy == "extreme" else a < b
        order[toy] = sorted(usual, key=tv.get)
    assert order["extreme"] == order["middle"][::-1] and order["middle"][0] == "sine"


def test_the_two_toys_prefer_opposite_halves(run, tmp_path):
    code, out, errors = run("schedules_toy", tmp_path)
    assert code == 0 and "best, beta(0.5, 0.3)" in out, errors
    rows = read(tmp_path)["facts"]["comparison"]
    of = lambda **known: [r for r in rows if known.items() <= r.items()]
    for toy, best in dict(extreme="best, beta(0.5, 0.3)", middle="best, beta(0.3, 0.5)").items():
        tv = {r["schedule"]: r["tv"] for r in of(target=toy, sampler="ancestral")}
        assert best in tv and tv[best] == min(v for name, v in tv.items() if "beta" in name)
    assert of(target="extreme", sampler="random_count", schedule="optimal budget")[0]["kl"] == pytest.approx(
        0, abs=1e-12
    )


@pytest.fixture
def patch():
    """A monkeypatch that outlives a call of the program."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_search_that_is_stopped_goes_on_without_repeating(run, tmp_path, patch):
    made, calls, stop = targets.sampler, [], [5]

    def sampler(*arguments):
        complete = made(*arguments)

        def counted(*cell):
            if len(calls) == stop[0]:
                raise KeyboardInterrupt
            calls.append((arguments[1], cell[1:]))
            return complete(*cell)

        return counted

    patch.setattr(targets, "sampler", sampler)
    flags = ["--config.planners=('ancestral', 'confidence')"]
    assert run("schedules_chain", tmp_path, *flags)[0] == 130
    stop[0] = None
    code, out, errors = run("schedules_chain", tmp_path, *flags)
    assert code == 0 and "beta(0.9, 0.9)" in out, errors
    assert len(calls) == 2 * (4 + 7 + 7)  # schedules of the grid, those compared, and their neighbours
    report = read(tmp_path)
    gain = report["metrics"]["ancestral, T = 4, gain over linear"]
    assert gain["mean"] > 3 * gain["standard_error"] > 0
    assert len(report["heatmaps"]) == 2 and report["facts"]["comparison"][0]["T"] == 4
    once = [row for row in report["facts"]["comparison"] if row["schedule"] == schedules.AT_ONCE]
    assert [row["tokens a step"] for row in once] == [f"0 0 0 {sum(map(int, once[0]['tokens a step'].split()))}"] * 2
    for row in report["facts"]["comparison"]:  # the samples are no nearer to the chain than the bound allows
        excess, error = map(float, row["value"].split(" ± "))
        assert row["sampler"] == "confidence" or row["bound on KL, nats"] > 1
        assert 0 < row["total variation of neighbours"] < 1 and excess > error > 0

    stop[0] = len(calls)  # nothing may be measured again
    assert run("schedules_chain", tmp_path, *flags)[0] == 0
    same = read(tmp_path)
    assert same["metrics"] == report["metrics"] and same["heatmaps"] == report["heatmaps"]


@pytest.mark.parametrize("planner", ["random_count", "confidence"])
def test_a_sampler_serves_every_schedule_by_one_compilation(planner):
    traces = []
    target = dataclasses.replace(targets.toy("middle"), bind=lambda table: traces.append(1) or table)
    complete = targets.sampler(target, planner, 3, batch=32)
    samples = [complete(schedules.OnGrid.sampled(s, 3), "search", 0, 64) for s in schedules.USUAL.values()]
    values = [target.score("search", np.arange(64), tokens).mean() for tokens in samples]
    assert len(traces) == 1
    assert len(set(values)) > 1 and all(0 < v <= 1 for v in values)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["steps=(0,)"], ["steps=(0,)", "at least 1"]),
        (["steps=()"], ["steps=()", "at least 1"]),
        (["grid.a=(0.0,)"], ["a=0.0", "must be > 0"]),
        (["grid.b=()"], ["grid.b is empty"]),
        (["family=magic"], ["family='magic'", "kumaraswamy"]),
        (["target=magic"], ["target='magic'", "checkpoint"]),
        (["metric=magic"], ["metric='magic'", "kl"]),
        (["planners=('confidence',)"], ["planners", "ancestral, random_count"]),
        (["target=chain", "rungs=(9, 4)"], ["rungs=(9, 4)", "must increase"]),
        (["target=chain", "keep=2.0"], ["keep=2.0", "(0, 1]"]),
        (["target=chain", "held_out=1"], ["held_out=1", ">= 2"]),
        (["target=chain", "planners=('magic',)"], ["planners: 'magic'", "confidence"]),
        (["target=checkpoint", "checkpoint.run=nowhere"], ["no training run at nowhere"]),
    ],
    ids=str,
)
def test_what_will_not_do(run, tmp_path, flags, words):
    code, out, errors = run("schedules_toy", tmp_path, *(f"--config.{flag}" for flag in flags))
    assert code == 2 and len(errors.splitlines()) == 1 and "Traceback" not in errors + out, errors
    assert all(word in errors for word in words), errors
