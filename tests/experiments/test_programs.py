"""train, evaluate and sample from the command line: what they leave behind, and what they say when it is wrong."""

import json
from pathlib import Path

import programs
import pytest

from experiments import cli, evaluate, sample, train

CONFIGS = sorted(p for p in Path("experiments/configs").resolve().glob("*.py") if p.stem not in ("__init__", "base"))


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
    assert bound["estimator"] == "exact-count negative ELBO"
    for order in range(5):
        assert report["baselines"][f"validation order-{order} n-gram"]["unit"] == "bits/char"
    assert len(report["samples"]) == 2
    assert len(report["facts"]["data"]["sha256"]) == 64
    assert {"jax", "python"} <= {name.lower() for name in json.dumps(report["environment"]).lower().split('"')}
    assert report["config"]["train"]["steps"] == 12 and report["seed"] == 0 and report["wall_seconds"] > 0
    assert (trained / "report.html").read_text().startswith("<!doctype html") and list(trained.glob("tensorboard/*"))
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, 13))
    assert [r["step"] for r in rows if "bound" in r] == [4, 8, 12]
    assert all(r["bound_error"] > 0 for r in rows if "bound" in r)


def test_evaluate_own_data_and_another_text(run, place, trained):
    same = use("evaluate", place, "own", trained, "--config.split=validation", "--config.rows=0")
    code, out, _ = run(evaluate, *same, "--config.draws=8")
    assert code == 0 and "bits_per_char" in out
    own, training = read(place / "own"), read(trained)
    ours, theirs = own["metrics"]["nats_per_token"], training["metrics"]["validation nats_per_token"]
    assert abs(ours["mean"] - theirs["mean"]) < 4 * (ours["standard_error"] + theirs["standard_error"])
    expected = training["baselines"]["validation order-2 n-gram"]["mean"]
    assert own["baselines"]["order-2 n-gram"]["mean"] == pytest.approx(expected)
    assert own["facts"]["checkpoint"].endswith("step 12")

    text = use("evaluate", place, "text", trained, f"--config.path={place / 'other.txt'}", "--config.which=best")
    code, _, _ = run(evaluate, *text)
    assert code == 0
    other = read(place / "text")
    assert other["facts"]["tokens"] == 29 * 9 and other["metrics"]["bits_per_char"]["standard_error"] > 0
    assert other["facts"]["data"]["sha256"] != training["facts"]["data"]["sha256"]


@pytest.mark.parametrize("planner", ["first_hitting", "ancestral", "confidence", "random_count", "left_to_right"])
def test_sample_with_a_prompt(run, place, trained, planner):
    changes = ["--config.sample.prompt=the cat", f"--config.sample.planner={planner}", "--config.sample.steps=4"]
    code, out, _ = run(sample, *use("sample", place, planner, trained, *changes, "--config.sample.rows=2"))
    assert code == 0 and out.count("the cat") == 2
    report = read(place / planner)
    assert len(report["samples"]) == 2 and (place / planner / "trace.html").exists()
    for text in report["samples"]:
        assert text["pieces"][0] == ["the cat", True]
        assert sum(len(piece) for piece, _ in text["pieces"]) == 16


def test_sample_unconditionally_and_infilling(run, place, trained):
    code, _, _ = run(sample, *use("sample", place, "free", trained, "--config.trace=false"))
    (text,) = read(place / "free")["samples"]
    assert code == 0 and [given for _, given in text["pieces"]] == [False]
    assert not (place / "free" / "trace.html").exists()

    code, _, _ = run(sample, *use("sample", place, "infill", trained, "--config.infill=_he ___ sat on"))
    (text,) = read(place / "infill")["samples"]
    whole = "".join(piece for piece, _ in text["pieces"])
    assert code == 0 and len(whole) == 16 and whole[1:4] == "he " and whole[7:14] == " sat on"
    assert [given for _, given in text["pieces"]] == [False, True, False, True, False]


def test_an_autoregressive_baseline_goes_through_the_same_programs(run, place):
    assert run(train, *arguments(place, "causal", objective="autoregressive"))[0] == 0
    report = read(place / "causal")
    assert report["metrics"]["validation bits_per_char"]["estimator"] == "exact chain rule"
    code, _, _ = run(evaluate, *use("evaluate", place, "causal-eval", place / "causal", "--config.split=validation"))
    assert code == 0
    same = read(place / "causal-eval")["metrics"]["nats_per_token"]["mean"]
    assert same == pytest.approx(report["metrics"]["validation nats_per_token"]["mean"], rel=1e-5)
    prompt = "--config.sample.prompt=the cat"
    code, out, _ = run(sample, *use("sample", place, "causal-text", place / "causal", prompt))
    assert code == 0 and "the cat" in out
    for wrong in ("--config.infill=a _ b", "--config.sample.planner=ancestral"):
        code, _, errors = run(sample, *use("sample", place, "causal-text", place / "causal", wrong))
        assert code == 2 and "autoregressive" in errors and len(errors.splitlines()) == 1


def test_pmap_trains_the_same_model(run, place, trained):
    code, _, errors = run(train, *arguments(place, "pmap", parallel="pmap"))
    assert code == 0, errors
    ours, theirs = (read(w)["metrics"]["validation nats_per_token"] for w in (place / "pmap", trained))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-4)
    assert "Traceback" not in errors and "Warning" not in errors


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
    path = place / name
    assert_refused(run(train, *arguments(place, "refused"), f"--config.data.path={path}"), *words)
    assert not (place / "refused" / "config.json").exists()  # so that the right command is not refused after it
    assert_refused(run(evaluate, *use("evaluate", place, "refused", trained, f"--config.path={path}")), *words)


@pytest.mark.parametrize(
    "changes,words",
    [
        (dict(train__stepz=1), ["train.stepz", "did you mean train.steps"]),
        (dict(mesh__fsdp=3), ["there are 8", "choose sizes"]),
        (dict(train__batch=12), ["train.batch=12", "multiple of 8"]),
        (dict(train__micro=0), ["train.micro=0", "at least 1"]),
        (dict(train__warmup=12), ["warmup=12", "less than steps=12"]),
        (dict(sample__planner="magic"), ["magic", "choose one of", "first_hitting"]),
        (dict(sample__temperature=-1.0), ["temperature=-1.0", "finite and >= 0"]),
        (dict(sample__prompt="the cat sat on the mat"), ["22 tokens", "length is 16", "shorten"]),
        (dict(sample__prompt="Ж"), ["Ж", "vocabulary"]),
        (dict(law__name="magic"), ["law.name='magic'", "exact_count"]),
        (dict(objective="magic"), ["objective='magic'", "masked_diffusion"]),
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
    ],
)
def test_an_evaluation_that_will_not_do(run, place, trained, change, words):
    name, _, value = change.partition("=")
    value = place / value if name in ("path", "checkpoint") else value
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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_has_one_variant(path):
    config, quick = cli.load_config(str(path)), cli.load_config(f"{path}:quick")
    assert config.is_locked and config.to_dict() != quick.to_dict()
    assert set(cli.flatten(config.to_dict())) == set(cli.flatten(quick.to_dict()))
    with pytest.raises(cli.UsageError, match="unknown variant 'fast': the only one is quick"):
        cli.load_config(f"{path}:fast")
