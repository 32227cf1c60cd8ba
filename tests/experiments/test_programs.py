"""train, evaluate and sample from the command line: what they leave behind, and what they say when it is wrong."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import ports
import programs
import pytest

from experiments import build, evaluate, plan, runs, sample, schedules, train
from mdmjax import data
from mdmjax.training import checkpoints


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    programs.write_text(folder / "text.txt")
    (folder / "other.txt").write_text("the dog that sat on the mat. " * 9)
    (folder / "foreign.txt").write_text("the cat sat\non the Ж; " * 9)
    (folder / "short.txt").write_text("the cat")
    (folder / "empty.txt").write_text("")
    (folder / "binary.bin").write_bytes(b"\x7fELF\x02\x01\x01\x00\xff\xfe" * 50)
    return folder


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(program, *flags) -> (exit code, standard output, standard error)` in this process, on its 8 devices."""

    def call(program, *arguments):
        capfd.readouterr()
        code = programs.run_here(program.main, [str(a) for a in arguments], monkeypatch)
        return code, *capfd.readouterr()

    return call


def arguments(place, workdir, **changes):
    return programs.train_flags(place / "text.txt", place / workdir, place / "cache", **changes)


@pytest.fixture(scope="module")
def trained(place):
    with pytest.MonkeyPatch.context() as patch:
        assert programs.run_here(train.main, arguments(place, "trained"), patch) == 0
    return place / "trained"


def read(workdir):
    return json.loads((workdir / "report.json").read_text())


def use(program, place, workdir, trained, *changes):
    config = f"--config=experiments/configs/{program}.py:quick"
    return [config, f"--workdir={place / workdir}", f"--config.checkpoint={trained}", *changes]


# ---- what they leave behind ------------------------------------------------------------------------------------------


def test_train_reports(trained):
    report = read(trained)
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
    code, out, _ = run(evaluate, *use("evaluate", place, "own", trained, *flags))
    assert code == 0 and "bits_per_char" in out
    own, training = read(place / "own"), read(trained)
    ours, theirs = own["metrics"]["nats_per_token"], training["metrics"]["validation nats_per_token"]
    assert abs(ours["mean"] - theirs["mean"]) < 4 * (ours["standard_error"] + theirs["standard_error"])
    expected = pytest.approx(training["baselines"]["validation order-2 n-gram"]["mean"])
    assert own["baselines"]["order-2 n-gram"]["mean"] == expected
    assert own["facts"]["checkpoint"].endswith("step 12")
    flags = f"--config.path={place / 'other.txt'}", "--config.which=best"
    assert run(evaluate, *use("evaluate", place, "text", trained, *flags))[0] == 0
    other = read(place / "text")
    assert other["facts"]["tokens"] == 29 * 9 and other["metrics"]["bits_per_char"]["standard_error"] > 0
    assert other["facts"]["data"]["sha256"] != training["facts"]["data"]["sha256"]


def test_two_runs_compared_row_by_row(run, place, trained):
    """A run against itself is even to the bit, for it has the same draws; counts may be drawn in other ways."""
    flags = f"--config.against={trained}", "--config.counts=iid", "--config.rows=8", "--config.split=validation"
    assert run(evaluate, *use("evaluate", place, "paired", trained, *flags))[0] == 0
    found = read(place / "paired")["metrics"]
    (difference,) = (found[name] for name in found if " - " in name)
    assert difference["mean"] == difference["standard_error"] == 0 and "paired" in difference["estimator"]
    assert found["perplexity"]["mean"] == pytest.approx(math.exp(found["nats_per_token"]["mean"]))


def test_changed_data_is_noticed(run, place, trained):
    text = place / "text.txt"
    kept = text.read_text()
    try:
        for content, words in (kept[::-1], "sha256"), (kept + "Ж", "cannot be had"):
            text.write_text(content)
            assert_refused(run(evaluate, *use("evaluate", place, "changed", trained)), words, "--config.path=FILE")
        text.unlink()
        flags = use("evaluate", place, "changed", trained, f"--config.path={place / 'other.txt'}")
        code, _, errors = run(evaluate, *flags)
        assert code == 0 and "no such file" in errors and "no n-gram baselines" in errors
        assert read(place / "changed")["baselines"] == {}
    finally:
        text.write_text(kept)


@pytest.mark.parametrize("program", [evaluate, sample, plan])
def test_the_report_of_a_training_run_is_left_alone(run, place, trained, program):
    before = (trained / "report.json").read_bytes()
    config = f"--config=experiments/configs/{program.__name__.split('.')[-1]}.py:quick"
    assert_refused(run(program, config, f"--workdir={trained}"), "holds a training run", "give another")
    assert (trained / "report.json").read_bytes() == before


def test_a_run_goes_on_over_other_devices(run, place, trained):
    """Without its last checkpoint, from step 10, over a mesh of three axes."""
    workdir = shutil.copytree(trained, place / "moved")
    shutil.rmtree(workdir / "checkpoints" / "12")
    changes = dict(mesh__fsdp=2, mesh__tensor=2, train__micro=1, data__cache_dir=place / "another-cache")
    code, _, errors = run(train, *arguments(place, "moved", **changes))
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
    code, out, _ = run(sample, *use("sample", place, planner, trained, *changes, "--config.sample.rows=2"))
    assert code == 0 and out.count("the cat") == 2
    report = read(place / planner)
    assert len(report["samples"]) == 2 and (place / planner / "trace.html").exists()
    for text in report["samples"]:
        assert text["pieces"][0] == ["the cat", True]
        assert sum(len(piece) for piece, _ in text["pieces"]) == 16


def test_sample_unconditionally_and_infilling(run, place, trained):
    assert run(sample, *use("sample", place, "free", trained, "--config.trace=false"))[0] == 0
    (text,) = read(place / "free")["samples"]
    assert [given for _, given in text["pieces"]] == [False]
    assert not (place / "free" / "trace.html").exists()

    assert run(sample, *use("sample", place, "infill", trained, "--config.infill=_he ___ sat on"))[0] == 0
    (text,) = read(place / "infill")["samples"]
    whole = "".join(piece for piece, _ in text["pieces"])
    assert len(whole) == 16 and whole[1:4] == "he " and whole[7:14] == " sat on"
    assert [given for _, given in text["pieces"]] == [False, True, False, True, False]


def test_a_schedule_is_searched_and_sampled_with(run, place, trained):
    flags = ["--config=experiments/configs/schedules_text.py:quick", f"--workdir={place / 'search'}"]
    flags += [f"--config.checkpoint.run={trained}", "--config.rungs=(4,)", "--config.held_out=4", "--config.batch=4"]
    code, out, errors = run(schedules, *flags)
    assert code == 0 and "optimal budget" in out, errors
    report = read(place / "search")
    (best,) = (row for row in report["facts"]["comparison"] if row["best is better by"] == "")
    a, b = map(float, re.findall(r"[0-9.]+", best["schedule"]))
    flag = f"--config={place / 'search' / 'best_confidence_4.py'}"
    assert run(sample, flag, f"--workdir={place / 'searched'}", "--config.sample.rows=2")[0] == 0
    used = read(place / "searched")["config"]["sample"]
    assert [used[x] for x in ("schedule", "schedule_args", "steps")] == ["beta", [a, b], 4]

    assert json.loads((stamp := place / "search" / "target.json").read_text())["step"] == 12
    stamp.write_text(stamp.read_text().replace("12", "10"))
    assert_refused(run(schedules, *flags), "a search for another model")
    refused = flags[:1] + [f"--workdir={place / 'no-search'}", *flags[2:]]
    for change, words in [
        ("checkpoint.split=test", ["must not see the test split", "validation and test"]),
        ("checkpoint.held_out=validation", ["nor the split that it is judged on"]),
        ("held_out=4000", ["held-out rows: 4000", "ask for fewer"]),
        ("metric=magic", ["metric='magic'", "infill"]),
        ("checkpoint.hidden=0.0", ["checkpoint.hidden=0.0", "(0, 1]"]),
        ("checkpoint.curve_rows=0", ["curve_rows=0", "at least 1"]),
    ]:
        assert_refused(run(schedules, *refused, f"--config.{change}"), *words)
        assert not (place / "no-search" / "config.json").exists()


@pytest.mark.slow
def test_an_autoregressive_baseline_goes_through_the_same_programs(run, place):
    assert run(train, *arguments(place, "causal", objective="autoregressive"))[0] == 0
    report = read(place / "causal")
    assert report["metrics"]["validation bits_per_char"]["estimator"].startswith("exact chain rule")
    assert run(evaluate, *use("evaluate", place, "causal-eval", place / "causal", "--config.split=validation"))[0] == 0
    same = read(place / "causal-eval")["metrics"]["nats_per_token"]["mean"]
    assert same == pytest.approx(report["metrics"]["validation nats_per_token"]["mean"], rel=1e-5)
    writes = lambda flag: run(sample, *use("sample", place, "causal-text", place / "causal", flag))
    code, out, _ = writes("--config.sample.prompt=the cat")
    assert code == 0 and "the cat" in out
    for wrong in ("--config.infill=a _ b", "--config.sample.planner=ancestral"):
        assert_refused(writes(wrong), "autoregressive")


def same_bound(workdir, trained):
    ours, theirs = (read(w)["metrics"]["validation nats_per_token"] for w in (workdir, trained))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-4)


@pytest.mark.slow
def test_pmap_trains_the_same_model(run, place, trained):
    code, _, errors = run(train, *arguments(place, "pmap", parallel="pmap"))
    assert code == 0 and not any(word in errors for word in ("Traceback", "Warning")), errors
    same_bound(place / "pmap", trained)


@pytest.mark.slow
def test_two_processes_train_the_same_model_and_one_reports(place, trained):
    """As a cluster starts them: jax.distributed finds what it needs in the environment."""
    job = dict(SLURM_JOB_ID="1", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2", SLURM_LOCALID="0")
    job |= dict(JAX_NUM_CPU_DEVICES="2", JAX_DEFAULT_MATMUL_PRECISION="highest")
    job |= dict(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{ports.free_port()}")
    flags = arguments(place, "two", distributed=True, mesh__fsdp=4)
    logs = [place / f"two-{rank}" for rank in range(2)]
    children = [programs.start("train", flags, log, SLURM_PROCID=str(rank), **job) for rank, log in enumerate(logs)]
    try:
        codes = [child.wait(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    errors = [Path(f"{log}.err").read_text() for log in logs]
    assert codes == [0, 0], errors
    report, other = read(place / "two"), read(trained)
    assert report["environment"]["devices"]["processes"] == 2
    ours, theirs = (r["metrics"]["validation nats_per_token"] for r in (report, other))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-4)
    assert [sum(len(text) for text, _ in sample["pieces"]) for sample in report["samples"]] == [16, 16]
    assert "report: " in errors[0] and "report: " not in errors[1]


# ---- what they say ---------------------------------------------------------------------------------------------------


def assert_refused(result, *words):
    code, out, errors = result
    assert code == 2, errors
    assert len(errors.splitlines()) == 1 and errors.startswith("error: ") and "Traceback" not in errors + out
    assert all(word in errors for word in words), errors


@pytest.mark.parametrize(
    "name,words",
    [
        ("empty.txt", ["empty", "at least one character"]),
        ("binary.bin", ["not", "text", "byte", "give a text file"]),
        ("missing.txt", ["no such file or folder", "missing.txt", "give the path"]),
        ("short.txt", ["tokens", "length"]),
    ],
)
def test_a_file_that_will_not_do(run, place, trained, name, words):
    assert_refused(run(train, *arguments(place, "refused"), f"--config.data.path={place / name}"), *words)
    assert not (place / "refused" / "config.json").exists()  # so that the right command is not refused after it
    assert_refused(run(evaluate, *use("evaluate", place, "refused", trained, f"--config.path={place / name}")), *words)


@pytest.mark.parametrize(
    "changes,words",
    [
        (dict(train__stepz=1), ["train.stepz", "did you mean train.steps"]),
        (dict(mesh__fsdp=3), ["there are 8", "choose sizes"]),
        (dict(train__batch=12), ["train.batch=12", "multiple of 8"]),
        (dict(train__micro=0), ["train.micro=0", "at least 1"]),
        (dict(train__warmup=12), ["warmup=12", "less than train.steps=12"]),
        (dict(sample__planner="magic"), ["magic", "choose one of", "first_hitting"]),
        (dict(sample__rows=0), ["sample.rows=0", "at least 1"]),
        (dict(sample__capacity=-1), ["sample.capacity=-1", "at least 1"]),
        (dict(sample__block=17), ["sample.block=17", "0..16"]),
        (
            dict(sample__rounding="floor"),
            ["sample.rounding='floor'", "only confidence, random_count, path_planning have counts"],
        ),
        (dict(network__attention="magic"), ["magic", "choose one of", "cudnn"]),
        (dict(network__attention="cudnn"), ["NVIDIA GPU", "choose xla"]),
        (dict(network__attention="splash"), ["multiple of 128", "16"]),
        (dict(network__attention="splash", data__length=128), ["TPU kernel", "choose xla"]),
        (dict(law__schedule="linear", law__schedule_args="(2.0,)"), ["law.schedule_args=(2.0,)", "arguments"]),
        (dict(law__schedule="polynomial", law__schedule_args="(0.0,)"), ["law.schedule_args=(0.0,)", "must be > 0"]),
        (dict(law__schedule="tabulated"), ["law.schedule_args=()", "at least two values"]),
        (dict(sample__schedule="geometric", sample__schedule_args="(2.0,1.0)"), ["sample.schedule_args", "sigma_min"]),
        (dict(law__name="continuous", law__t_min=1.0), ["t_min=1.0", "less than 1"]),
        (dict(sample__temperature=-1.0), ["temperature=-1.0", "finite and >= 0"]),
        (dict(sample__prompt="the cat sat on the mat"), ["22 tokens", "length is 16", "shorten"]),
        (dict(sample__prompt="Ж"), ["Ж", "vocabulary"]),
        (dict(law__name="magic"), ["law.name='magic'", "exact_count"]),
        (dict(objective="magic"), ["objective='magic'", "masked_diffusion"]),
        (dict(objective="autoregressive", network__time=True), ["network.time=True", "network.time=False"]),
        (dict(readout__chunk=0), ["chunk=0", "must be >= 1"]),
        (dict(data__path=""), ["data.path is empty", "text file"]),
        (dict(data__source="python_docs"), ["text.txt' is not read", "--config.data.source=text"]),
        (dict(sample__schedule_args="(2.0,)"), ["sample.schedule_args=(2.0,)", "without sample.schedule"]),
        (dict(network__time=True, sample__schedule="cosine"), ["sample.schedule='cosine'", "law.schedule='linear'"]),
        (dict(parallel="magic"), ["parallel='magic'", "pmap"]),
        (dict(data__source="magic"), ["data.source='magic'", "python_docs"]),
        (dict(network__heads=5), ["width=32", "heads"]),
        (dict(evaluate__splits="('dev',)"), ["dev", "validation"]),
        (dict(evaluate__splits="()"), ["choose from", "validation"]),
        (dict(evaluate__groups=1), ["groups=1", "groups >= 2"]),
        (dict(evaluate__rows=1), ["at least 2"]),
    ],
    ids=lambda x: "-".join(f"{k}={v}" for k, v in x.items()) if isinstance(x, dict) else "",
)
def test_a_config_that_will_not_do(run, place, changes, words):
    assert_refused(run(train, *arguments(place, "refused", **changes)), *words)
    assert not (place / "refused" / "config.json").exists()


def test_data_with_only_a_training_split(run, place, monkeypatch):
    corpus = data.text_files(place / "text.txt", cache_dir=place / "cache")
    only = dataclasses.replace(corpus, splits={"train": corpus.splits["train"]})
    monkeypatch.setattr(build, "corpus", lambda config: only)
    result = run(train, *arguments(place, "refused"))
    assert_refused(result, "only a training split", "--config.data.splits.validation='train[99%:]'")


@pytest.mark.parametrize(
    "change,words",
    [
        ("path=foreign.txt", ["Ж", "line 2", "vocabulary", "bytes"]),
        ("checkpoint=nowhere", ["no training run", "nowhere"]),
        ("which=99", ["which='99'", "last, best"]),
        ("split=dev", ["dev", "validation, test"]),
        ("batch=12", ["batch=12", "multiple of 8"]),
        ("groups=1", ["groups >= 2"]),
        ("rows=1", ["at least 2"]),
        ("counts=all", ["counts='all'", "iid, stratified, systematic, enumerate"]),
        ("counts=enumerate", ["at most 10 scored tokens"]),
        ("against=nowhere", ["no training run", "nowhere"]),
    ],
)
def test_an_evaluation_that_will_not_do(run, place, trained, change, words):
    name, _, value = change.partition("=")
    value = place / value if name in ("path", "checkpoint", "against") else value
    assert_refused(run(evaluate, *use("evaluate", place, "refused", trained, f"--config.{name}={value}")), *words)


@pytest.mark.parametrize(
    "changes,words",
    [
        (["sample.prompt=the cat sat on the mat"], ["22 tokens", "length is 16", "shorten"]),
        (["sample.prompt=Ж"], ["Ж", "vocabulary"]),
        (["infill=the ___ sat on the _"], ["20 tokens", "length is 16", "shorten"]),
        (["infill=the _", "sample.prompt=the"], ["one of them"]),
        (["infill=the _", "blank=__"], ["one character"]),
        (["sample.planner=magic"], ["magic", "first_hitting"]),
        (["sample.planner=ancestral", "sample.steps=0"], ["steps"]),
        (["sample.rows=0"], ["sample.rows=0", "at least 1"]),
        (["sample.top_p=0.0"], ["top_p=0.0"]),
        (["which=7x"], ["last, best"]),
    ],
)
def test_a_sampling_that_will_not_do(run, place, trained, changes, words):
    flags = [f"--config.{change}" for change in changes]
    assert_refused(run(sample, *use("sample", place, "refused", trained, *flags)), *words)


def test_a_user_sees_one_line_and_no_noise_of_the_libraries(place, trained, tmp_path):
    """As a user runs it: on one device, with the logging of absl, JAX and orbax as they come."""
    flags = use("evaluate", place, "refused", trained, f"--config.path={place / 'foreign.txt'}")
    code, errors = programs.run("evaluate", flags, tmp_path / "log")
    assert code == 2 and len(errors.splitlines()) == 1 and "Ж" in errors
