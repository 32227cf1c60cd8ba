"""Configs and their quick variants, as the programs read them; and `plan`, which needs no trained model."""

import json
from pathlib import Path

import programs
import pytest

from experiments import cli, plan

CONFIGS = sorted(
    p for p in Path("experiments/configs").resolve().glob("*.py") if not p.stem.startswith(("__init__", "base"))
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_has_one_variant(path):
    config, quick = cli.load_config(str(path)), cli.load_config(f"{path}:quick")
    assert config.is_locked and config.to_dict() != quick.to_dict()
    assert set(cli.flatten(config.to_dict())) == set(cli.flatten(quick.to_dict()))
    with pytest.raises(cli.UsageError, match="unknown variant 'fast': the only one is quick"):
        cli.load_config(f"{path}:fast")


def test_a_quick_variant_needs_nothing(tmp_path):
    """As a user runs it: the config of a pod, of a text that is not there, on this machine."""
    places = [f"--workdir={tmp_path}", f"--config.data.cache_dir={tmp_path}"]
    flags = ["--config=experiments/configs/owt_small.py:quick", *places]
    code, errors = programs.run("train", flags, tmp_path / "log")
    assert code == 0 and "step 40/40" in errors, errors
    assert json.loads((tmp_path / "report.json").read_text())["facts"]["data"]["name"] == "python_docs"


def test_plan_measures_every_program(monkeypatch, capfd, tmp_path):
    flags = ["--config=experiments/configs/plan.py:quick", f"--workdir={tmp_path}"]
    change = "--config.change=network.width=32 network.depth=1 data.length=16 mesh.fsdp=2"
    code = programs.run_here(plan.main, [*flags, change], monkeypatch)
    out, errors = capfd.readouterr()
    assert code == 0 and "the memory of a device is not known" in out, errors
    facts = json.loads((tmp_path / "report.json").read_text())["facts"]
    assert facts["mesh"] == "data 4, fsdp 2, tensor 1"
    assert all(facts[f"{program}: total, GiB"] > 0 for program in plan.PROGRAMS)
    assert facts["train: all-gather"] > 0  # parameters are in shares
