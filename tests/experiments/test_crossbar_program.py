"""The program of crossbars: what its studies report, what a kill leaves, and what is refused."""

import json
import math

import numpy as np
import programs
import pytest

from experiments import cli, crossbar, crossbar_digits, crossbar_networks, crossbar_parts
from experiments.crossbar_tiles import line
from mdmjax.crossbar import Crossbar, Wires, deployment

pytest.importorskip("sklearn")
TINY = ("--config.seeds=2", "--config.tiles=3")
LAW = ("manhattan_law", *TINY, "--config.tile.rows=16", "--config.tile.columns=16")
BELL = (
    "bell_weights", *TINY, "--config.tile.rows=16", "--config.tile.bits=4", "--config.layer.inputs=32",
    "--config.outputs=(4,)",
)  # fmt: skip
DIGITS = ("digits", "--config.hidden=8", "--config.train.steps=200", "--config.tile.rows=32", "--config.tile.bits=4")


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, config, *flags)`: see `programs.quick`."""
    quick = programs.quick(crossbar.main, monkeypatch, capfd)
    return lambda workdir, config, *flags: quick(config, workdir, *flags)


def read(workdir):
    return json.loads((workdir / "report.json").read_text())


def test_the_law(run, tmp_path):
    code, out, errors = run(tmp_path, *LAW)
    assert code == 0 and "R2, NF by S" in out, errors
    found = read(tmp_path)
    rows = found["facts"]["law"]
    assert len(rows) == 5 and {row["underestimates"] for row in rows} == {0}
    for row in rows[:3]:  # the quadratic form is the first order of what is lost
        assert float(row["R2, lost current by Q"].split(" ")[0]) > 0.9999
    alone = found["facts"]["one active cell"]
    assert alone[0]["R2"] > 1 - 1e-6 and abs(alone[0]["slope / rho"] - 1) < 2e-3 and alone[1]["R2"] < 0.99
    assert found["metrics"]["densities .05 to .5, rho 8.33e-06, on/off inf: mean NF"]["draws"] == 2
    page = (tmp_path / "report.html").read_text()
    assert "NF by Manhattan score" in page and "Attenuation of active cells" in page


def test_bell_weights(run, tmp_path):
    code, out, errors = run(tmp_path, *BELL)
    assert code == 0 and "MAC error" in out, errors
    found = read(tmp_path)
    rows = found["facts"]["mapping"]
    assert [row["of"] for row in rows] == ["NF", "MAC error"] * 4 and len(found["heatmaps"]) == 4
    assert all(float(row["full, %"].split(" ")[0]) < 0 for row in rows if row["of"] == "NF")
    for row in rows:
        for name in ("sorted, %", "reversed, %", "full, %"):
            mean, error = map(float, row[name].removesuffix(" (rises)").split(" ± "))
            assert ("(rises)" in row[name]) == (row["of"] == "MAC error" and mean > 2 * error), row
    planes = found["heatmaps"]["voltage drop, laplace, on/off 10, conventional"]["values"]
    assert np.shape(planes) == (16, 16) and 0 < np.min(planes) and np.argmax(np.mean(planes, 0)) > 8  # far from drivers


def test_digits(run, tmp_path):
    code, out, errors = run(tmp_path, *DIGITS)
    assert code == 0 and "calibrated on inputs" in out, errors
    found, lines = read(tmp_path), (tmp_path / "cells.jsonl").read_text().splitlines()
    rows = {(r["r / R_on"], r["mapping"]): r for r in found["facts"]["deployments"]}
    assert found["metrics"]["digital accuracy"]["mean"] > 60
    assert rows[1e-3, "conventional"]["index bits"] == "0" != rows[1e-3, "full"]["index bits"]
    assert len(found["facts"]["devices that vary"]) == 3
    layers = found["facts"]["layers"]
    assert [row["layer"] for row in layers] == ["hidden/kernel", "out/kernel"] * 3
    assert {row["largest residual"] for row in layers} != {"0.0e+00"}
    # killed in the middle, it goes on from there and ends the same
    (tmp_path / "cells.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    assert run(tmp_path, *DIGITS)[0] == 0
    again = read(tmp_path)
    assert again["facts"]["deployments"] == found["facts"]["deployments"]
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == len(lines)
    programs.assert_refused(run(tmp_path, *DIGITS, "--config.seed=1"), "holds a run with another config", "seed")


def test_without_resistance_it_is_what_was_quantised(run, tmp_path):
    """16 bits and no resistance: nothing is lost, under any mapping; with it something is."""
    flags = ("--config.resistances=(0.0, 2e-3)", "--config.tile.bits=16", "--config.mappings=('conventional', 'full')")
    assert run(tmp_path, *DIGITS, *flags)[0] == 0
    rows = read(tmp_path)["facts"]["deployments"]
    assert [r["mapping"] for r in rows] == ["conventional", "conventional", "full"]
    first = rows[0]
    assert first["NF"] == first["MAC error"] == "0" and float(first["weight error"].split(" ")[0]) < 1e-4
    assert first["raw - digital, points"] == first["calibrated - digital, points"] == "0"
    assert float(rows[1]["NF"].split(" ")[0]) > 0.1


def test_other_mappings_and_no_resistance_at_all(run, tmp_path):
    """What devices do besides is told of the mapping "full", whether it is compared or not."""
    flags = ("--config.resistances=(0.0,)", "--config.mappings=('conventional', 'sorted')")
    code, out, errors = run(tmp_path, *DIGITS, *flags)
    assert code == 0 and "lose by their distance" in out, errors
    assert len(read(tmp_path)["facts"]["deployments"]) == 1


@pytest.mark.slow
def test_a_diffusion_model(run, tmp_path):
    code, out, errors = run(tmp_path, "diffusion_model", "--config.train.steps=8", "--config.tile.bits=2")
    assert code == 0 and "raw - digital, bits/char" in out, errors
    found = read(tmp_path)
    assert found["metrics"]["digital bound"]["unit"] == "bits/char" and len(found["facts"]["deployments"]) == 2
    assert found["facts"]["data"]["name"] and (tmp_path / "model" / "checkpoints").exists()
    assert run(tmp_path, "diffusion_model", "--config.train.steps=8", "--config.tile.bits=2")[0] == 0
    assert read(tmp_path)["facts"]["deployments"] == found["facts"]["deployments"]


@pytest.mark.parametrize(
    "config, flags, words",
    [
        ("digits", ["--config.mappings=('full',)"], "mappings=('full',): must begin with conventional"),
        ("digits", ["--config.mappings=('conventional', 'up')"], "mappings='up'"),
        ("digits", ["--config.mappings=('conventional', 'full+down')"], "'full+down' has +down: choose from +swaps"),
        ("digits", ["--config.resistances=(-1.0,)"], "resistances must be finite and not negative"),
        ("digits", ["--config.resistances=()"], "resistances=(): give at least one"),
        ("digits", ["--config.tile.bits=17"], "bits=17): must be in 1..16"),
        ("digits", ["--config.tile.bits=0"], "bits=0): must be in 1..16"),
        ("digits", ["--config.tile.rows=0"], "rows=0"),
        ("digits", ["--config.device.on_off=0.5"], "R_off / R_on must be above 1"),
        ("digits", ["--config.device.variation=-1.0"], "device.variation=-1.0: must be at least 0"),
        ("digits", ["--config.share=1.0"], "share=1.0: must be in (0, 1)"),
        ("digits", ["--config.tile.layout=rows"], "layout='rows'): choose one of planes, words"),
        ("digits", ["--config.train.learning_rate=0.0"], "train.learning_rate=0.0: must be > 0"),
        ("digits", ["--config.penalty=-1.0"], "penalty=-1.0: must be at least 0"),
        ("digits", ["--config.study=cats"], "study='cats': choose"),
        ("manhattan_law", ["--config.tiles=0"], "tiles=0: must be at least 1"),
        ("bell_weights", ["--config.layer.laws=('cauchy',)"], "layer.laws='cauchy': choose"),
        ("bell_weights", ["--config.outputs=(64,)"], "is smaller than its tiles"),
        ("bell_weights", ["--config.mappings=('conventional', 'full+active')"], "needs the inputs of each layer"),
        ("bell_weights", ["--config.mappings=('conventional', 'full+bus')"], "so on no common bus"),
        ("digits", ["--config.mappings=('conventional', 'full+swaps+active')"], "cannot go with +active"),
        ("digits", ["--config.variations=(-0.1,)"], "variations=-0.1: must be at least 0"),
        ("digits", ["--config.read_noises=(-1.0,)"], "read_noises=-1.0"),
        ("manhattan_law", ["--config.tile.rows=4"], "at least 8 each"),
        ("diffusion_model", ["--config.where=nothing"], "where='nothing' finds no parameter"),
        ("diffusion_model", ["--config.mappings=('conventional', 'full+active')"], "needs the inputs of each layer"),
    ],
)
def test_what_is_refused(run, tmp_path, config, flags, words):
    programs.assert_refused(run(tmp_path / "run", config, *flags), words)
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_failure_to_converge_ends_the_run(run, tmp_path, monkeypatch):
    """Too few iterations: one line with the layer, the tile and its residual, and exit code 1."""
    monkeypatch.setattr(deployment, "iterations_for", lambda *_: 1)
    code, _, errors = run(tmp_path, *DIGITS)
    assert code == 1 and "hidden/kernel, matrix 0, tile" in errors and "the residual is" in errors
    assert "Traceback" not in errors


def test_names_of_mappings():
    fields, active = crossbar_parts.choices("sorted+swaps+active", 3)
    assert active and fields == dict(flow="conventional", key="popcount", swaps=3, scope="tile")
    config = cli.load_config("experiments/configs/digits.py")
    made = crossbar_parts.crossbar_of(config, "full+bus", 1e-3)
    assert made == Crossbar(wires=Wires(1e-3, 1e-3), on_off=10.0, scope="bus")
    with pytest.raises(ValueError, match=r"tile.swaps=0: 'full\+swaps' needs at least 1"):
        crossbar_parts.choices("full+swaps", 0)


def test_a_line_through_points():
    x = np.arange(9.0)
    slope, r2 = line(x, 3 * x - 1)
    assert math.isclose(slope, 3) and math.isclose(r2, 1)
    noise = np.array([1, -1, 0.5, 2, -2, 0, 1, -1, -0.5])
    fitted = np.polyfit(x, 3 * x + noise, 1)
    residual = 3 * x + noise - np.polyval(fitted, x)
    slope, r2 = line(x, 3 * x + noise)
    assert math.isclose(slope, fitted[0]) and math.isclose(r2, 1 - residual.var() / (3 * x + noise).var())


def test_scikit_learn_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(cli.UsageError, match=r"not installed: pip install 'mdmjax\[digits\]'"):
        crossbar_digits.images()


def test_a_rise_is_flagged():
    """Of the MAC error in pairs of seeds, beyond two standard errors."""
    up, down = (crossbar_parts.change([1.1 * f, 1.2 * f], [1.0, 1.1]) for f in (1, 0.8))
    assert crossbar_parts.told(up, flag=True).endswith("(rises)") and "rises" not in crossbar_parts.told(up)
    assert "rises" not in crossbar_parts.told(down, flag=True)
    noisy = crossbar_parts.change([1.5, 0.9], [1.0, 1.0])
    assert noisy.mean > 0 and "rises" not in crossbar_parts.told(noisy, flag=True)
    assert crossbar_networks.TILES[2] == "MAC error"
