"""The program that reports the variance of training: what it leaves behind, and what it says when it is wrong."""

import json

import programs
import pytest

from experiments import variance, variance_report

SMALL = dict(
    model__train__steps=2, model__train__batch=8, model__evaluate__batch=8, model__train__log_every=1,
    model__train__evaluate_every=2,
    model__train__checkpoint_every=2, model__train__warmup=1, model__evaluate__rows=2, model__network__depth=1,
    model__network__width=16, model__data__length=8, model__sample__rows=1, examples=4, rates=2, masks=2,
    probe_rows=2, probe_masks=2, batch=4, replicates=3,
)  # fmt: skip


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, **changes) -> (exit code, standard output, standard error)` in this process."""

    def call(workdir, **changes):
        capfd.readouterr()
        fields = {f"--config.{name.replace('__', '.')}={value}" for name, value in (SMALL | changes).items()}
        flags = ["--config=experiments/configs/variance_demo.py:quick", f"--workdir={workdir}", *sorted(fields)]
        return programs.run_here(variance.main, flags, monkeypatch), *capfd.readouterr()

    return call


def test_a_model_is_trained_and_its_variance_split(run, tmp_path):
    """All laws by name; the twin that draws nothing has no noise of masks; the same command trains nothing again."""
    laws = dict(laws="('base','base+mirror','p_pots','clipped')", spreads="('base',)")
    code, out, errors = run(tmp_path, **laws)
    assert code == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {(row["law"], row["of"]): row for row in report["facts"]["laws"]}
    assert {law for law, _ in rows} == {"base", "base+mirror", "p_pots", "clipped (biased)", "autoregressive"}
    assert rows["base+mirror", "gradient"]["calls"] == 2 and rows["base", "loss"]["base / this"] == "1.00"
    assert rows["autoregressive", "loss"]["A"] == rows["autoregressive", "loss"]["B"] == "0"
    (batch, _) = report["facts"]["A + B of a batch, times its rows"]
    assert set(batch) == {"law", "group", "iid", "stratified", "systematic"}
    advice = report["facts"]["recommendation"]
    assert advice in out and "clipped" not in advice and "equal denoiser calls" in advice
    weights = {row["law"]: row for row in report["facts"]["weights"]}
    assert weights["base"]["effective share of weight x rate"] == "1.000"
    assert {"loss, base", "gradient, base", "base+mirror"} <= set(report["curves"])

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "masked_diffusion" / "checkpoints").rglob("*")}

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variance.Bench, "measure", stop)
        assert run(tmp_path, **laws)[0] == 130
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "masked_diffusion" / "checkpoints").rglob("*")}


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(masks=1), ["masks=1", "at least 2"]),
        (dict(rates=1), ["rates=1", "at least 2"]),
        (dict(examples=2), ["examples=2", "at least 3"]),
        (dict(eps=0.0), ["eps=0.0", "(0, 1)"]),
        (dict(eps=1.0), ["eps=1.0", "(0, 1)"]),
        (dict(laws="('base','magic')"), ["laws='magic'", "p_pots"]),
        (dict(laws="('base','base+magic')"), ["'base+magic'", "mirror"]),
        (dict(laws="('exact_count',)"), ["must hold base"]),
        (dict(laws="('base','complementary+mirror')"), ["two ways of its own"]),
        (dict(checkpoint__run="nowhere"), ["no training run at nowhere"]),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, changes, words):
    code, out, errors = run(tmp_path / "new", **changes)
    assert code == 2 and out == "" and all(word in errors for word in words)
    assert len(errors.strip().splitlines()) == 1 and not (tmp_path / "new" / "masked_diffusion").exists()


def test_calls_are_those_of_a_draw():
    assert [variance_report.biased(n) for n in ("clipped+mirror", "clipped", "p_pots+mirror")] == [True, True, False]
    assert [variance_report.calls_of(n) for n in ("base", "base+mirror", "complementary", "exact_count+copies")] == [
        *(1, 2, 2, 2)
    ]
