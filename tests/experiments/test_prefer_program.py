"""The program `prefer`: what a run says and keeps, and what is said of a wrong command."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import programs
import pytest

from experiments import prefer, prefer_arms, prefer_tasks, runs, train
from experiments.configs.base_prefer import prefer as fields
from experiments.prefer_arms import Way


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, **changes)`: see `programs.quick`."""
    quick = programs.quick(prefer.main, monkeypatch, capfd, fields)
    return lambda workdir, **changes: quick("prefer_arithmetic", workdir, **changes)


TWO = dict(arms="('2x1','2x1+apart')", train__steps=4, train__evaluate_every=2, start__steps=6)


def test_a_run_compares_its_arms_and_is_not_repeated(run, tmp_path):
    """Shared draws vary less; a second call finds all done; without the last result it trains that arm again to the
    same numbers, from the start that was kept."""
    code, out, errors = run(tmp_path, **TWO)
    assert code == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    variance = {name: report["metrics"][f"{name}: variance of the score"]["mean"] for name in ("2x1", "2x1+apart")}
    assert 0 < variance["2x1"] < variance["2x1+apart"] / 3
    assert [row["arm"] for row in report["facts"]["arms"]] == ["2x1", "2x1+apart"] and "2x1+apart" in out
    assert {"2x1: right", "2x1: margin", "2x1: score_variance"} <= set(report["curves"])
    shutil.rmtree(tmp_path / "arms" / "2x1+apart")
    code, out, errors = run(tmp_path, **TWO)
    again = json.loads((tmp_path / "report.json").read_text())
    assert code == 0 and again["metrics"] == report["metrics"], errors
    assert "arm 2x1," not in errors.replace("arm 2x1+apart", "")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["2x1", "2x1+apart"])
def test_kept_bounds_are_those_of_the_reference(run, tmp_path, arm):
    """Draws that stay: bounds that are kept give the run that asking the reference gives."""
    changes = TWO | dict(arms=f"('{arm}',)", prefer__fixed=True)
    code, _, errors = run(tmp_path / "kept", **changes)
    assert code == 0, errors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefer_arms.Arm, "frozen", lambda self, folder: (self.start, None))
        code, _, errors = run(tmp_path / "asked", **changes)
    assert code == 0, errors
    one, other = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("kept", "asked"))
    assert len(list((tmp_path / "kept" / "arms").glob("bounds_*.npy"))) == 1
    assert not list((tmp_path / "asked" / "arms").glob("bounds_*"))
    compared = [name for name in one["curves"] if not name.endswith("accuracy")]  # at the reference s is 0 or nearly
    assert len(compared) >= 3
    for name in compared:
        curve = one["curves"][name]
        assert curve["y"] == pytest.approx(other["curves"][name]["y"], rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_one_run_over_many_devices(run, tmp_path):
    """A single run whose rows and parameters are shared out, the reference too, is the run of one device."""
    found = {}
    for name, mesh in (("one", dict(mesh__data=1)), ("eight", dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2))):
        changes = TWO | dict(arms="('2x1',)", seeds=1, train__batch=8) | mesh
        code, _, errors = run(tmp_path / name, **changes)
        assert code == 0, errors
        found[name] = json.loads((tmp_path / name / "report.json").read_text())
    for name, curve in found["one"]["curves"].items():
        if not name.endswith("accuracy"):  # at the reference s is 0 or nearly
            assert curve["y"] == pytest.approx(found["eight"]["curves"][name]["y"], rel=2e-3, abs=2e-5), name


@pytest.mark.slow
def test_adapters_in_place_of_the_network(run, tmp_path):
    code, _, errors = run(tmp_path, **TWO | dict(arms="('2x1','fine_tuning')", prefer__lora=2))
    assert code == 0, errors
    facts = json.loads((tmp_path / "report.json").read_text())["facts"]
    assert facts["parameters"]["2x1"] == facts["parameters"]["fine_tuning"] < 1500


def test_from_answers_to_preferences(run, tmp_path, monkeypatch, capfd):
    """A run of `train` on prompts with answers, then preferences from its checkpoint on a file of pairs."""
    lines = [dict(prompt=f"{i}+1", answer=str(i + 1), chosen=str(i + 1), rejected=str(i + 2)) for i in range(60)]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    flags = programs.train_flags(
        path, tmp_path / "sft", tmp_path / "cache", data__source="answers", data__length=8, evaluate__rows=0,
        data__vocabulary="bytes", sample__prompt="4+1\n",
    )  # fmt: skip
    assert programs.run_here(train.main, flags, monkeypatch) == 0, capfd.readouterr().err
    report = json.loads((tmp_path / "sft" / "report.json").read_text())
    data = report["facts"]["data"]
    assert data["splits"]["train"]["rows"] == 54 and data["splits"]["test"]["tokens"] < 3 * 8
    assert "validation bits_per_token" in report["metrics"] and report["samples"][0]["pieces"][0] == ["4+1\n", True]
    changes = dict(task="pairs", start__run=tmp_path / "sft", data__path=path, data__held_out=4, arms="('2x1',)")
    code, out, errors = run(tmp_path / "prefer", **changes, train__steps=2, train__evaluate_every=2)
    assert code == 0, errors
    found = json.loads((tmp_path / "prefer" / "report.json").read_text())
    assert "2x1: held-out pairs in order" in found["metrics"] and "2x1: right answers" not in found["metrics"]
    one, start = runs.load(str(tmp_path / "prefer/arms/2x1/policy/1")), runs.load(str(tmp_path / "sft"))
    assert one.step == start.step and one.vocabulary.size == start.vocabulary.size
    moved = jax.tree.map(lambda a, b: float(abs(np.asarray(a) - b).max()), one.params, start.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01
    kept = json.loads((tmp_path / "prefer/arms/2x1/result.json").read_text())
    assert np.all(np.array(kept["probe"]["loss variance"]) <= kept["probe"]["score variance"])
    assert min(kept["probe"]["gradient bias bound"] + kept["probe"]["gradient variance bound"]) > 0
    path.write_text(path.read_text().replace('"rejected": "3"', '"rejected": "2"', 1))
    code, _, errors = run(tmp_path / "prefer", **changes, train__steps=2, train__evaluate_every=2)
    assert code == 2 and "line 2: 'chosen' and 'rejected' are the same" in errors.splitlines()[-1]


def test_an_autoregressive_start_is_refused(tmp_path):
    config = fields()
    config.data.path = str(tmp_path / "pairs.jsonl")
    start = SimpleNamespace(workdir="ar", experiment=SimpleNamespace(autoregressive=True))
    with pytest.raises(ValueError, match="start.run=ar: an autoregressive model has no masks"):
        prefer_tasks.of_file(config.data, start)


def test_names_of_arms():
    assert Way.of("8x1") == Way(8, 1) and Way.of("1x4+apart+iid") == Way(1, 4, shared=False, spread="iid")
    assert Way.of("2x2+together") == Way(2, 2, together=True)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(task="chess"), "task='chess': choose one of sums, markov, pairs"),
        (dict(arms="('8',)"), "arms: '8': must be fine_tuning, or RATESxMASKS"),
        (dict(arms="('8x1+alone',)"), "arms: '8x1+alone'"),
        (dict(arms="('8x1+iid+stratified',)"), "arms: '8x1+iid+stratified'"),
        (dict(prefer__law="continuous", prefer__eps=0.0), "prefer.eps=0.0: must be in (0, 1)"),
        (dict(arms="('0x1',)"), "Allocation(rates=0, masks=1)"),
        (dict(arms="('fine_tuning',)"), "must have one besides fine_tuning"),
        (dict(arms="('2x1','2x1')"), "each named once"),
        (dict(seeds=0), "seeds=0: must be at least 1"),
        (dict(prefer__beta=0.0), "beta=0.0"),
        (dict(prefer__law="uniform"), "prefer.law='uniform'"),
        (dict(prefer__lora=-1), "prefer.lora=-1"),
        (dict(evaluate__repeats=1), "evaluate.repeats=1: a variance needs at least 2"),
        (dict(data__digits=1), "data.digits=1: must be in 1..3, with at least as many sums"),
        (dict(mesh__data=3), "mesh={'data': 3, 'fsdp': 1, 'tensor': 1}: there are 8 devices, and data x fsdp of them"),
        (dict(task="markov", data__states=1), "data.states=1"),
        (dict(data__slips=1.5), "data.slips=1.5: must be in [0, 1]"),
        (dict(data__judged=1), "data.judged=1: must be at least 2"),
        (dict(task="pairs"), "start.run is empty"),
        (dict(start__run="none"), "none"),
    ],
)
def test_mistakes_are_said_in_a_line(run, tmp_path, changes, words):
    code, _, errors = run(tmp_path / "run", **changes)
    assert code == 2 and words in errors.splitlines()[-1], errors
    assert not (tmp_path / "run" / "config.json").exists()
