"""What train, evaluate and sample say of a command or a file that will not do: one line, and nothing is left behind."""

import dataclasses

import programs
import pytest

from experiments import build, evaluate, sample, train
from mdmjax import data

# ---- what they say ---------------------------------------------------------------------------------------------------


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
    programs.assert_refused(
        run(train, *programs.arguments(place, "refused"), f"--config.data.path={place / name}"), *words
    )
    assert not (place / "refused" / "config.json").exists()  # so that the right command is not refused after it
    programs.assert_refused(
        run(evaluate, *programs.use("evaluate", place, "refused", trained, f"--config.path={place / name}")), *words
    )


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
    programs.assert_refused(run(train, *programs.arguments(place, "refused", **changes)), *words)
    assert not (place / "refused" / "config.json").exists()


def test_data_with_only_a_training_split(run, place, monkeypatch):
    corpus = data.text_files(place / "text.txt", cache_dir=place / "cache")
    only = dataclasses.replace(corpus, splits={"train": corpus.splits["train"]})
    monkeypatch.setattr(build, "corpus", lambda config: only)
    result = run(train, *programs.arguments(place, "refused"))
    programs.assert_refused(result, "only a training split", "--config.data.splits.validation='train[99%:]'")


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
    programs.assert_refused(
        run(evaluate, *programs.use("evaluate", place, "refused", trained, f"--config.{name}={value}")), *words
    )


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
    programs.assert_refused(run(sample, *programs.use("sample", place, "refused", trained, *flags)), *words)


def test_a_user_sees_one_line_and_no_noise_of_the_libraries(place, trained, tmp_path):
    """As a user runs it: on one device, with the logging of absl, JAX and orbax as they come."""
    flags = programs.use("evaluate", place, "refused", trained, f"--config.path={place / 'foreign.txt'}")
    code, errors = programs.run("evaluate", flags, tmp_path / "log")
    assert code == 2 and len(errors.splitlines()) == 1 and "Ж" in errors
