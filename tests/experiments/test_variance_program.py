"""The program that reports the variance of training: what it leaves behind, and what it says when it is wrong."""

import json
import shutil

import programs
import pytest

from experiments import cli, runs, variance
from mdmjax import process

pytestmark = pytest.mark.slow

SMALL = dict(
    model__train__steps=2, model__train__batch=8, model__evaluate__batch=8, model__train__log_every=1,
    model__train__evaluate_every=2,
    model__train__checkpoint_every=2, model__train__warmup=1, model__evaluate__rows=2, model__network__depth=1,
    model__network__width=16, model__data__length=8, model__sample__rows=1, examples=4, rates=2, masks=2,
    probe_rows=2, probe_masks=2, batch=4, replicates=3,
)  # fmt: skip


TEXT = "the cat sat on the mat; the dog sat on the log.\n" * 60
LAWS = dict(laws="('base','complementary','clipped')", spreads="()", groups="(('all','.'),)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts: what the model is trained on, and others."""
    folder = tmp_path_factory.mktemp("variance")
    (folder / "text.txt").write_text(TEXT)
    (folder / "other.txt").write_text("the dog that sat on the mat. " * 9)
    (folder / "foreign.txt").write_text("the cat sat\non the Ж; " * 9)
    (folder / "short.txt").write_text("the cat")
    return folder


def flags_of(place, workdir, **changes):
    data = dict(source="text", path=place / "text.txt", cache_dir=place / "cache")
    fields = SMALL | {f"model__data__{name}": value for name, value in data.items()} | changes
    fields = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    return ["--config=experiments/configs/variance_demo.py:quick", f"--workdir={workdir}", *sorted(fields)]


@pytest.fixture
def run(monkeypatch, capfd, place):
    """`run(workdir, **changes) -> (exit code, standard output, standard error)` in this process."""

    def call(workdir, **changes):
        capfd.readouterr()
        return programs.run_here(variance.main, flags_of(place, workdir, **changes), monkeypatch), *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def reported(place):
    """The folder of a report, which holds that of the model."""
    with pytest.MonkeyPatch.context() as patch:
        assert programs.run_here(variance.main, flags_of(place, place / "reported", **LAWS), patch) == 0
    return place / "reported"


def read(workdir):
    return json.loads((workdir / "report.json").read_text())


def test_a_model_is_trained_and_its_variance_split(reported):
    """All laws by name; the twin that draws nothing has no noise of masks."""
    report = read(reported)
    rows = {(row["law"], row["of"]): row for row in report["facts"]["laws"]}
    assert {law for law, _ in rows} == {"base", "complementary", "clipped (biased)", "autoregressive"}
    assert rows["complementary", "gradient"]["calls"] == 2 and rows["base", "loss"]["base / this"] == "1.00"
    assert rows["autoregressive", "loss"]["A"] == rows["autoregressive", "loss"]["B"] == "0"
    advice = report["facts"]["recommendation"]
    assert "clipped" not in advice and "equal denoiser calls" in advice and "max_weight" not in advice
    weights = {row["law"]: row for row in report["facts"]["weights"]}
    assert weights["base"]["effective share of weight x rate"] == "1.000"
    assert {row["share clamped"] for row in weights.values()} == {"0.0000"}
    assert {"loss, base", "gradient, base", "complementary"} <= set(report["curves"])


def test_the_same_command_trains_nothing_again(run, reported):
    saved = reported / "masked_diffusion" / "checkpoints"
    before = {p: p.stat().st_mtime_ns for p in saved.rglob("*")}

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variance.Bench, "measure", stop)
        assert run(reported, **LAWS)[0] == 130
    assert before == {p: p.stat().st_mtime_ns for p in saved.rglob("*")}


def test_another_text_and_capped_weights(run, place, reported):
    """The examples are those of the text; a law whose weights were capped says how often, and that it is biased.

    The noise of a batch is another one for each spread of its rates.
    """
    only = dict(laws="('base','p_pots')", spreads="('base',)", groups="()", max_weight=1.0, rates=8)
    own = dict(checkpoint__run=reported / "masked_diffusion")
    code, out, errors = run(place / "other", **only, **own, path=place / "other.txt")
    assert code == 0 and "p_pots (biased)" in out, errors
    report = read(place / "other")
    assert report["title"].endswith("masked_diffusion on " + str(place / "other.txt"))
    shares = {row["law"]: float(row["share clamped"]) for row in report["facts"]["weights"]}
    assert shares["base"] == 0 and 0.1 < shares["p_pots"] < 0.9
    assert "none has less variance" in report["facts"]["recommendation"]  # of the unbiased ones, which are base
    mean = lambda folder: read(folder)["metrics"]["base: mean loss"]["mean"]
    assert abs(mean(place / "other") - mean(reported)) > 1e-3
    (batch,) = report["facts"]["A + B of a batch, times its rows"]
    assert set(batch) == {"law", "group", "iid", "stratified", "systematic", "strata"}
    assert len({batch[spread] for spread in ("iid", "stratified", "systematic", "strata")}) == 4


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(path="foreign.txt"), ["'Ж' (U+0416)", "(line 2)", "the 16 characters of the vocabulary"]),
        (dict(path="short.txt"), ["text split has 0 whole rows of 8 tokens, the model's length", "need 6"]),
        (dict(path="nowhere.txt"), ["no such file", "nowhere.txt"]),
        (dict(split="dev"), ["split='dev'", "train, validation, test"]),
        (dict(probe_rows=999), ["train split has 324 whole rows of 8", "need 1003"]),
    ],
)
def test_data_that_do_not_fit_are_one_line(run, place, reported, changes, words):
    changes = {name: place / value if name == "path" else value for name, value in changes.items()}
    refused(run(place / "refused", checkpoint__run=reported / "masked_diffusion", **changes), *words)


def test_data_of_the_run_that_are_gone_are_one_line(run, place, reported):
    text, own = place / "text.txt", dict(checkpoint__run=reported / "masked_diffusion")
    try:
        for content, words in (TEXT[::-1], "sha256"), (TEXT + "Ж", "cannot be had"), (None, "no such file"):
            text.unlink() if content is None else text.write_text(content)
            refused(run(place / "refused", **own), words, "give that data, or others with --config.path=FILE")
    finally:
        text.write_text(TEXT)


def test_a_run_of_before_some_fields_is_read(place, reported):
    """With their defaults, whatever asks for them."""
    folder = shutil.copytree(reported / "masked_diffusion", place / "older")
    config = json.loads((folder / "config.json").read_text())
    config["law"] = {name: config["law"][name] for name in ("name", "spread", "schedule", "schedule_args")}
    (folder / "config.json").write_text(json.dumps(config))
    run = runs.load(str(folder))
    assert run.experiment.law == process.ExactCount() and run.experiment.step.refit is None


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(masks=1), ["masks=1", "at least 2"]),
        (dict(rates=1), ["rates=1", "at least 2"]),
        (dict(examples=2), ["examples=2", "at least 3"]),
        (dict(eps=0.0), ["eps=0.0", "(0, 1)"]),
        (dict(eps=1.0), ["eps=1.0", "(0, 1)"]),
        (dict(laws="('base','magic')"), ["laws: the law 'magic'", "p_pots"]),
        (dict(laws="('base','p_pots+')"), ["laws: the law 'p_pots+': there is nothing after the +"]),
        (dict(laws="('base','isad')"), ["laws: the law 'isad': no token is named"]),
        (dict(groups="(('a','('),)"), ["groups=", "no pair of a name and a regular expression"]),
        (dict(groups="('a','.')"), ["groups=", "no pair of a name and a regular expression"]),
        (dict(bins=0), ["bins=0: must be at least 1"]),
        (dict(laws="('base','base+magic')"), ["'base+magic'", "mirror"]),
        (dict(laws="('exact_count',)"), ["must hold base"]),
        (dict(laws="('base','complementary+mirror')"), ["two ways of its own"]),
        (dict(checkpoint__run="nowhere"), ["no training run at nowhere"]),
        (dict(path="other.txt"), ["path='other.txt' is for a run that is there"]),
        (dict(max_weight=0.5, laws="('base','p_pots')"), ["max_weight=0.5", "at least 1"]),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, changes, words):
    refused(run(tmp_path / "new", **changes), *words)
    assert not (tmp_path / "new" / "masked_diffusion").exists()


@pytest.mark.parametrize("variant", ["", ":quick"])
def test_the_config_is_accepted(variant):
    """As it is: the tests above change much of it."""
    variance.check(cli.load_config(f"{programs.ROOT}/experiments/configs/variance_demo.py{variant}"))


def refused(outcome, *words):
    """The command line was wrong, and one line says how."""
    code, out, errors = outcome
    assert code == 2 and out == "" and [word for word in words if word not in errors] == [], errors
    assert len(errors.strip().splitlines()) == 1
