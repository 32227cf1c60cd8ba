"""train, evaluate and sample from the command line: what they leave behind, and what they say when it is wrong."""

import json
import math
import re
import shutil
from pathlib import Path

import ports
import programs
import pytest

from experiments import evaluate, plan, runs, sample, schedules, train
from mdmjax.training import checkpoints

# ---- what they leave behind ------------------------------------------------------------------------------------------


def test_train_reports(trained):
    report = programs.read(trained)
    bound = report["metrics"]["validation bits_per_char"]
    assert bound["unit"] == "bits/char" and bound["standard_error"] > 0 and bound["draws"] >= 2
    assert bound["estimator"] == f"exact-count negative ELBO, error over {bound['draws']} blocks"
    for order in range(5):
        assert report["baselines"][f"validation order-{order} n-gram"]["unit"] == "bits/char"
    assert len(report["samples"]) == 2
    assert len(report["facts"]["data"]["sha256"]) == 64
    assert {"jax", "python"} <= {name.lower() for name in json.dumps(report["environment"]).lower().split('"')}
    assert report["config"]["train"]["steps"] == 12 and report["seed"] == 0
    assert report["wall_seconds"] > report["facts"]["training seconds"] > 0
    assert (trained / "report.html").read_text().startswith("<!doctype html") and list(trained.glob("tensorboard/*"))
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    curve = report["curves"]["validation bound"]  # in the unit of the headline and of the baselines
    last = [r["bound"] for r in rows if "bound" in r][-1]
    assert curve["unit"] == report["curves"]["training loss"]["unit"] == "bits/char"
    assert curve["y"][-1] == pytest.approx(last / math.log(2))
    assert report["against"] == [f"validation order-{order} n-gram" for order in range(5)]
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, 13))
    assert [r["step"] for r in rows if "bound" in r] == [4, 8, 12]
    assert all(r["bound_error"] > 0 for r in rows if "bound" in r)


def test_evaluate_own_data_and_another_text(run, place, trained):
    flags = "--config.split=validation", "--config.rows=0", "--config.draws=8"
    code, out, _ = run(evaluate, *programs.use("evaluate", place, "own", trained, *flags))
    assert code == 0 and "bits_per_char" in out
    own, training = programs.read(place / "own"), programs.read(trained)
    ours, theirs = own["metrics"]["nats_per_token"], training["metrics"]["validation nats_per_token"]
    assert abs(ours["mean"] - theirs["mean"]) < 4 * (ours["standard_error"] + theirs["standard_error"])
    expected = pytest.approx(training["baselines"]["validation order-2 n-gram"]["mean"])
    assert own["baselines"]["order-2 n-gram"]["mean"] == expected
    assert own["facts"]["checkpoint"].endswith("step 12")
    flags = f"--config.path={place / 'other.txt'}", "--config.which=best"
    assert run(evaluate, *programs.use("evaluate", place, "text", trained, *flags))[0] == 0
    other = programs.read(place / "text")
    assert other["facts"]["tokens"] == 29 * 9 and other["metrics"]["bits_per_char"]["standard_error"] > 0
    assert other["facts"]["data"]["sha256"] != training["facts"]["data"]["sha256"]


def test_two_runs_compared_row_by_row(run, place, trained):
    """A run against itself is even to the bit, for it has the same draws; counts may be drawn in other ways."""
    flags = f"--config.against={trained}", "--config.counts=iid", "--config.rows=8", "--config.split=validation"
    assert run(evaluate, *programs.use("evaluate", place, "paired", trained, *flags))[0] == 0
    found = programs.read(place / "paired")["metrics"]
    (difference,) = (found[name] for name in found if " - " in name)
    assert difference["mean"] == difference["standard_error"] == 0 and "paired" in difference["estimator"]
    assert found["perplexity"]["mean"] == pytest.approx(math.exp(found["nats_per_token"]["mean"]))


def test_changed_data_is_noticed(run, place, trained):
    text = place / "text.txt"
    kept = text.read_text()
    try:
        for content, words in (kept[::-1], "sha256"), (kept + "Ж", "cannot be had"):
            text.write_text(content)
            programs.assert_refused(
                run(evaluate, *programs.use("evaluate", place, "changed", trained)), words, "--config.path=FILE"
            )
        text.unlink()
        flags = programs.use("evaluate", place, "changed", trained, f"--config.path={place / 'other.txt'}")
        code, _, errors = run(evaluate, *flags)
        assert code == 0 and "no such file" in errors and "no n-gram baselines" in errors
        assert programs.read(place / "changed")["baselines"] == {}
    finally:
        text.write_text(kept)


@pytest.mark.parametrize("program", [evaluate, sample, plan])
def test_the_report_of_a_training_run_is_left_alone(run, place, trained, program):
    before = (trained / "report.json").read_bytes()
    config = f"--config=experiments/configs/{program.__name__.split('.')[-1]}.py:quick"
    programs.assert_refused(run(program, config, f"--workdir={trained}"), "holds a training run", "give another")
    assert (trained / "report.json").read_bytes() == before


def test_a_run_goes_on_over_other_devices(run, place, trained):
    """Without its last checkpoint, from step 10, over a mesh of three axes."""
    workdir = shutil.copytree(trained, place / "moved")
    shutil.rmtree(workdir / "checkpoints" / "12")
    changes = dict(mesh__fsdp=2, mesh__tensor=2, train__micro=1, data__cache_dir=place / "another-cache")
    code, _, errors = run(train, *programs.arguments(place, "moved", **changes))
    assert code == 0 and "resuming from step 10" in errors, errors
    same_bound(workdir, trained)


def test_a_run_whose_attention_is_not_to_be_had_here(place, trained):
    workdir = shutil.copytree(trained, place / "splash")
    config = json.loads((workdir / "config.json").read_text())
    config["network"]["attention"] = "splash"
    (workdir / "config.json").write_text(json.dumps(config))
    said = []
    assert runs.load(str(workdir), "last", said.append).step == 12
    assert len(said) == 1 and "splash" in said[0] and "Going on with xla" in said[0]


def test_the_best_checkpoint_is_the_one_with_the_lowest_bound(place, trained):
    workdir = shutil.copytree(trained, place / "best")
    for bounds, step in ({10: 2.0, 12: 3.0}, 10), ({10: 2.0, 12: 1.0}, 12), ({10: None, 12: None}, None):
        for number, bound in bounds.items():
            path = workdir / "checkpoints" / str(number) / "meta" / "metadata"
            meta = json.loads(path.read_text()) | dict(bound=bound)
            path.write_text(json.dumps(meta | dict(sha256=checkpoints._sha256(meta))))
        if step is None:
            with pytest.raises(ValueError, match="has a bound yet: choose last, or"):
                runs.load(str(workdir), "best")
        else:
            assert runs.load(str(workdir), "best").step == step


@pytest.mark.parametrize(
    "planner", ["first_hitting", "ancestral", "confidence", "random_count", "left_to_right", "remdm", "informed"]
)
def test_sample_with_a_prompt(run, place, trained, planner):
    changes = ["--config.sample.prompt=the cat", f"--config.sample.planner={planner}", "--config.sample.steps=4"]
    if planner == "confidence":
        changes += ["--config.sample.block=5", "--config.sample.rounding=stochastic"]
    code, out, _ = run(sample, *programs.use("sample", place, planner, trained, *changes, "--config.sample.rows=2"))
    assert code == 0 and out.count("the cat") == 2
    report = programs.read(place / planner)
    assert len(report["samples"]) == 2 and (place / planner / "trace.html").exists()
    for text in report["samples"]:
        assert text["pieces"][0] == ["the cat", True]
        assert sum(len(piece) for piece, _ in text["pieces"]) == 16


def test_sample_unconditionally_and_infilling(run, place, trained):
    assert run(sample, *programs.use("sample", place, "free", trained, "--config.trace=false"))[0] == 0
    (text,) = programs.read(place / "free")["samples"]
    assert [given for _, given in text["pieces"]] == [False]
    assert not (place / "free" / "trace.html").exists()

    assert run(sample, *programs.use("sample", place, "infill", trained, "--config.infill=_he ___ sat on"))[0] == 0
    (text,) = programs.read(place / "infill")["samples"]
    whole = "".join(piece for piece, _ in text["pieces"])
    assert len(whole) == 16 and whole[1:4] == "he " and whole[7:14] == " sat on"
    assert [given for _, given in text["pieces"]] == [False, True, False, True, False]


def test_a_schedule_is_searched_and_sampled_with(run, place, trained):
    flags = ["--config=experiments/configs/schedules_text.py:quick", f"--workdir={place / 'search'}"]
    flags += [f"--config.checkpoint.run={trained}", "--config.rungs=(4,)", "--config.held_out=4", "--config.batch=4"]
    code, out, errors = run(schedules, *flags)
    assert code == 0 and "optimal budget" in out, errors
    report = programs.read(place / "search")
    (best,) = (row for row in report["facts"]["comparison"] if row["best is better by"] == "")
    a, b = map(float, re.findall(r"[0-9.]+", best["schedule"]))
    flag = f"--config={place / 'search' / 'best_confidence_4.py'}"
    assert run(sample, flag, f"--workdir={place / 'searched'}", "--config.sample.rows=2")[0] == 0
    used = programs.read(place / "searched")["config"]["sample"]
    assert [used[x] for x in ("schedule", "schedule_args", "steps")] == ["beta", [a, b], 4]

    assert json.loads((stamp := place / "search" / "target.json").read_text())["step"] == 12
    stamp.write_text(stamp.read_text().replace("12", "10"))
    programs.assert_refused(run(schedules, *flags), "a search for another model")
    refused = flags[:1] + [f"--workdir={place / 'no-search'}", *flags[2:]]
    for change, words in [
        ("checkpoint.split=test", ["must not see the test split", "validation and test"]),
        ("checkpoint.held_out=validation", ["nor the split that it is judged on"]),
        ("held_out=4000", ["held-out rows: 4000", "ask for fewer"]),
        ("metric=magic", ["metric='magic'", "infill"]),
        ("checkpoint.hidden=0.0", ["checkpoint.hidden=0.0", "(0, 1]"]),
        ("checkpoint.curve_rows=0", ["curve_rows=0", "at least 1"]),
    ]:
        programs.assert_refused(run(schedules, *refused, f"--config.{change}"), *words)
        assert not (place / "no-search" / "config.json").exists()


@pytest.mark.slow
def test_an_autoregressive_baseline_goes_through_the_same_programs(run, place):
    assert run(train, *programs.arguments(place, "causal", objective="autoregressive"))[0] == 0
    report = programs.read(place / "causal")
    assert report["metrics"]["validation bits_per_char"]["estimator"].startswith("exact chain rule")
    assert (
        run(evaluate, *programs.use("evaluate", place, "causal-eval", place / "causal", "--config.split=validation"))[0]
        == 0
    )
    same = programs.read(place / "causal-eval")["metrics"]["nats_per_token"]["mean"]
    assert same == pytest.approx(report["metrics"]["validation nats_per_token"]["mean"], rel=1e-5)
    writes = lambda flag: run(sample, *programs.use("sample", place, "causal-text", place / "causal", flag))
    code, out, _ = writes("--config.sample.prompt=the cat")
    assert code == 0 and "the cat" in out
    for wrong in ("--config.infill=a _ b", "--config.sample.planner=ancestral"):
        programs.assert_refused(writes(wrong), "autoregressive")


def same_bound(workdir, trained):
    ours, theirs = (programs.read(w)["metrics"]["validation nats_per_token"] for w in (workdir, trained))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-4)


@pytest.mark.slow
def test_pmap_trains_the_same_model(run, place, trained):
    code, _, errors = run(train, *programs.arguments(place, "pmap", parallel="pmap"))
    assert code == 0 and not any(word in errors for word in ("Traceback", "Warning")), errors
    same_bound(place / "pmap", trained)


@pytest.mark.slow
def test_two_processes_train_the_same_model_and_one_reports(place, trained):
    """As a cluster starts them: jax.distributed finds what it needs in the environment."""
    job = dict(SLURM_JOB_ID="1", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2", SLURM_LOCALID="0")
    job |= dict(JAX_NUM_CPU_DEVICES="2", JAX_DEFAULT_MATMUL_PRECISION="highest")
    job |= dict(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{ports.free_port()}")
    flags = programs.arguments(place, "two", distributed=True, mesh__fsdp=4)
    logs = [place / f"two-{rank}" for rank in range(2)]
    children = [programs.start("train", flags, log, SLURM_PROCID=str(rank), **job) for rank, log in enumerate(logs)]
    try:
        codes = [child.wait(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    errors = [Path(f"{log}.err").read_text() for log in logs]
    assert codes == [0, 0], errors
    report, other = programs.read(place / "two"), programs.read(trained)
    assert report["environment"]["devices"]["processes"] == 2
    ours, theirs = (r["metrics"]["validation nats_per_token"] for r in (report, other))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-4)
    assert [sum(len(text) for text, _ in sample["pieces"]) for sample in report["samples"]] == [16, 16]
    assert "report: " in errors[0] and "report: " not in errors[1]
