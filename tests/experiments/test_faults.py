"""What may happen to a run: a kill at any moment, a signal, damaged files, a full disk, a loss that is not finite."""

import json
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import programs
import pytest

from experiments import runs, train
from mdmjax import training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the text; its name ends the same in all runs, for a path is part of the config."""
    folder = tmp_path_factory.mktemp("faults")
    programs.write_text(folder / "text.txt")
    return folder


def arguments(place: Path, workdir: Path, **changes) -> list[str]:
    return programs.train_flags(place / "text.txt", workdir, place / "cache", **changes)


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(flags) -> (exit code, standard error)` of `train` in this process, where starting another proves nothing."""

    def call(flags):
        capfd.readouterr()
        return programs.run_here(train.main, flags, monkeypatch), capfd.readouterr().err

    return call


@pytest.fixture(scope="module")
def unbroken(place):
    """The workdir of a run that nothing happened to."""
    code, errors = programs.run("train", arguments(place, place / "unbroken"), place / "unbroken-log")
    assert code == 0, errors
    # Only what a person wants to read: no warnings of the libraries.
    lines = errors.splitlines()
    assert all(re.match(r"[\d,]+ parameters|step \d+/12|row \d+/|trained in|report: ", line) for line in lines), errors
    return place / "unbroken"


@pytest.fixture
def half(place, unbroken, tmp_path):
    """A workdir as a kill after the last checkpoint would leave it."""
    workdir = tmp_path / "half"
    shutil.copytree(unbroken, workdir)
    for file in ("report.json", "report.html"):
        (workdir / file).unlink()
    log = workdir / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 12, "bou')
    return workdir


def outcome(workdir: Path) -> dict:
    """All that a run ends with, to the bit."""
    run = runs.load(str(workdir))
    report = json.loads((workdir / "report.json").read_text())
    return dict(
        step=run.step,
        params=[np.asarray(x).tobytes() for x in jax.tree.leaves(run.params)],
        rows=[json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()],
        numbers=[report["metrics"], report["baselines"], report["samples"]],
    )


def newest(workdir: Path) -> int:
    """The step of the newest finished checkpoint, 0 for none."""
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*tmp*"))


def test_killed_at_any_moment_the_same_command_ends_as_an_unbroken_run(place, unbroken, tmp_path):
    workdir, log, chance = tmp_path / "killed", tmp_path / "log", random.Random(1)
    rows = workdir / "metrics.jsonl"

    def begun() -> int:
        """Another number once a run goes on from its checkpoint: it then puts a new file in place of the rows."""
        return rows.stat().st_ino if rows.exists() else 0

    def reached(step: int) -> bool:
        return any(row["step"] >= min(step, 12) for row in training.read_rows(rows))

    moments = [  # given the step that this run goes on from, and a number of steps drawn for it
        lambda start, more: saving(workdir),  # the very first save
        lambda start, more: reached(start + more),
        lambda start, more: reached(start + more) and (saving(workdir) or newest(workdir) == 12),
        lambda start, more: "trained in" in Path(f"{log}.err").read_text(),  # the final evaluation
    ]
    for moment in moments:
        before, start, more = begun(), newest(workdir), chance.randint(1, 4)
        child = programs.start("train", arguments(place, workdir), log)
        now = lambda: begun() != before and moment(start, more)
        assert programs.kill_when(child, now) == -signal.SIGKILL
    assert not (workdir / "report.json").exists()
    code, errors = programs.run("train", arguments(place, workdir), log)
    assert code == 0, errors
    assert "resuming from step 12" in errors and "Traceback" not in errors
    assert outcome(workdir) == outcome(unbroken)
    assert not saving(workdir)


def test_a_signal_saves_and_the_same_command_goes_on(place, unbroken, tmp_path):
    workdir, log = tmp_path / "stopped", tmp_path / "log"
    changes = dict(train__checkpoint_every=12, train__evaluate_every=12)  # so that only the signal saves
    child = programs.start("train", arguments(place, workdir, **changes), log)
    rows = workdir / "metrics.jsonl"
    code = programs.kill_when(child, lambda: rows.exists() and rows.read_text().count("\n") >= 2, signal.SIGTERM)
    errors = Path(f"{log}.err").read_text()
    assert code == 0, errors
    step = int(re.search(r"stopped by a signal after step (\d+), all saved", errors)[1])
    assert step == newest(workdir) and 2 <= step < 12

    code, errors = programs.run("train", arguments(place, workdir, **changes), log)
    assert code == 0 and f"resuming from step {step}" in errors, errors
    ours, theirs = outcome(workdir), outcome(unbroken)
    assert ours["params"] == theirs["params"] and ours["numbers"] == theirs["numbers"]


def test_a_signal_after_the_training_ends_the_program_at_once(place, half):
    log, draws = half.parent / "log", 20_000  # so many that the evaluation cannot have ended when the signal comes
    config = json.loads((half / "config.json").read_text())
    config["evaluate"]["draws"] = draws
    (half / "config.json").write_text(json.dumps(config))
    child = programs.start("train", arguments(place, half, evaluate__draws=draws), log)
    code = programs.kill_when(child, lambda: "trained in" in Path(f"{log}.err").read_text(), signal.SIGTERM)
    errors = Path(f"{log}.err").read_text()
    assert code == 0, errors
    assert errors.splitlines()[-1] == "stopped by a signal, all saved: the same command goes on from there", errors
    assert not (half / "report.json").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(place, unbroken, half, damage):
    step = newest(half)
    file = max((half / "checkpoints" / str(step) / "state").rglob("*"), key=lambda f: f.stat().st_size * f.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content[: len(content) // 3] if damage == "truncated" else content)
    flags = arguments(place, half)
    code, errors = programs.run("train", flags, half.parent / "log")
    assert code == 0, errors
    told = [line for line in errors.splitlines() if str(half / "checkpoints" / str(step)) in line]
    assert len(told) == 1 and "trying the one before" in told[0] and "Traceback" not in errors
    assert f"resuming from step {step - 2}" in errors
    assert (half / "checkpoints-damaged" / str(step)).exists()
    assert outcome(half) == outcome(unbroken)


def test_without_an_intact_checkpoint_it_stops_each_time(run, place, half):
    for file in (half / "checkpoints").rglob("*"):
        if file.is_file() and "state" in file.parts:
            file.write_bytes(b"")
    before = sorted((half / "checkpoints").iterdir())
    for _ in range(2):
        code, errors = run(arguments(place, half))
        last = errors.splitlines()[-1]
        assert code == 1 and "Traceback" not in errors
        assert last.startswith("error: no checkpoint under") and "start again in another workdir" in last
    assert sorted((half / "checkpoints").iterdir()) == before


def test_a_workdir_with_another_config_or_other_data_is_refused(run, place, unbroken, tmp_path):
    code, errors = run(arguments(place, unbroken, train__learning_rate=0.5))
    assert code == 2 and len(errors.splitlines()) == 1
    assert "train.learning_rate: workdir has 0.001, now 0.5" in errors and "give another --workdir" in errors

    workdir, text = shutil.copytree(unbroken, tmp_path / "moved"), place / "text.txt"
    kept = text.read_text()
    try:
        text.write_text(kept[::-1])
        code, errors = run(arguments(place, workdir))
    finally:
        text.write_text(kept)
    assert code == 2 and len(errors.splitlines()) == 1
    assert "holds a run on other data" in errors and "another --workdir" in errors
    assert newest(workdir) == 12 and not (workdir / "checkpoints-damaged").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (only root may)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_said_in_one_line(run, place, small_disk, tmp_path):
    code, errors = programs.run("train", arguments(place, small_disk / "run"), tmp_path / "log")
    told = [line for line in errors.splitlines() if not re.match(r"step \d+/12|[\d,]+ parameters", line)]
    assert code == 1 and len(told) == 1, errors
    assert told[0].startswith("error: no space left for") and "on another disk" in told[0]

    (small_disk / "filler").write_bytes(b"")
    with pytest.raises(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(1 << 12)):
            pass
    code, errors = run(arguments(place, small_disk / "other"))
    assert code == 2 and len(errors.splitlines()) == 1
    assert errors.startswith("error: no space left for") and "on another disk" in errors


def test_a_loss_that_is_not_finite_stops_the_run(run, place, tmp_path):
    changes = dict(train__learning_rate=1e30, train__clip=1e30, train__checkpoint_every=1, train__evaluate_every=12)
    code, errors = run(arguments(place, tmp_path / "run", **changes))
    last = errors.splitlines()[-1]
    assert code == 1 and "Traceback" not in errors
    found = re.match(r"error: the (loss|gradient norm) of step (\d+) is \S+ \(examples (\d+)\.\.(\d+)\)", last)
    assert found, errors
    step, first, final = map(int, found.groups()[1:])
    assert (first, final) == (8 * (step - 1), 8 * step - 1)
    assert f"the last good checkpoint is step {step - 1}" in last and "smaller learning rate" in last
    assert newest(tmp_path / "run") == step - 1
