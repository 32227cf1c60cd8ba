"""Running the programs from tests: in this process where that will do, as a user would where it will not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags

from experiments import cli

ROOT = Path(__file__).resolve().parents[2]

# As small as a run can be: about three seconds, most of them imports and compilation.
SMALL = dict(
    data__length=16,
    network__width=32,
    network__depth=1,
    network__heads=2,
    train__steps=12,
    train__batch=8,
    train__learning_rate=1e-3,
    train__warmup=2,
    train__log_every=1,
    train__evaluate_every=4,
    train__checkpoint_every=2,
    evaluate__batch=8,
    evaluate__rows=16,
    evaluate__draws=2,
    evaluate__splits="('validation',)",
    sample__rows=2,
)


def write_text(path: Path) -> Path:
    """A text that is cheap to learn a little about."""
    path.write_text("the cat sat on the mat; the dog sat on the log.\n" * 60)
    return path


def train_flags(text: Path, workdir: Path, cache: Path, **changes) -> list[str]:
    """The command line of a small training run, without the program."""
    fields = SMALL | changes
    return [
        "--config=experiments/configs/tinyshakespeare.py:quick",
        f"--workdir={workdir}",
        "--config.data.source=text",
        f"--config.data.path={text}",
        f"--config.data.cache_dir={cache}",
        *(f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()),
    ]


def run_here(main, arguments: list[str], monkeypatch, fields=None) -> int:
    """The exit code of `cli.run(main, fields)` in this process."""
    parse = cli.parse
    monkeypatch.setattr(cli, "parse", lambda argv, values=None: parse(argv, values or flags.FlagValues()))
    monkeypatch.setattr(cli, "_running", False)
    monkeypatch.chdir(ROOT)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["program", *arguments])
            cli.run(main, fields)
        return 0
    except SystemExit as exit:
        return exit.code
    finally:
        monkeypatch.undo()


def quick(main, monkeypatch, capfd, fields=None):
    """`run(config, workdir, *flags, **changes) -> (exit code, standard output, standard error)` in this process: the
    quick variant of a config, with fields of it changed; `a__b=1` is --config.a.b=1."""

    def run(config, workdir, *arguments, **changes):
        capfd.readouterr()
        changed = [f"--config.{name.replace('__', '.')}={value}" for name, value in changes.items()]
        arguments = [f"--config=experiments/configs/{config}.py:quick", f"--workdir={workdir}", *arguments, *changed]
        return run_here(main, arguments, monkeypatch, fields), *capfd.readouterr()

    return run


def environment() -> dict[str, str]:
    """That of a user who has one CPU device; programs are compiled with as little effort as the tests are."""
    return {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}


def start(program: str, arguments: list[str], log: Path, before: str = "", **variables: str) -> subprocess.Popen:
    """A program as a user starts it, its output in files `log`.out and `log`.err; `before` is a shell command.

    `variables` are added to its environment.
    """
    command = [sys.executable, "-m", f"experiments.{program}", *arguments]
    if before:
        command = ["bash", "-c", f'{before}; exec "$@"', "bash", *command]
    with open(f"{log}.out", "w") as out, open(f"{log}.err", "w") as err:
        return subprocess.Popen(command, cwd=ROOT, env=environment() | variables, stdout=out, stderr=err)


def run(program: str, arguments: list[str], log: Path, before: str = "", **variables: str) -> tuple[int, str]:
    """(exit code, standard error) of a program."""
    child = start(program, arguments, log, before, **variables)
    try:
        return child.wait(timeout=240), Path(f"{log}.err").read_text()
    finally:
        child.kill()


def kill_when(child: subprocess.Popen, condition, number=signal.SIGKILL) -> int:
    """Send the signal as soon as the condition holds, and return the exit code."""
    end = time.monotonic() + 240
    while not condition():
        if child.poll() is not None or time.monotonic() > end:
            child.kill()
            pytest.fail("the program ended before it could be killed")
        time.sleep(0.001)
    child.send_signal(number)
    try:
        return child.wait(timeout=120)
    finally:
        child.kill()


def arguments(place, workdir, **changes):
    return train_flags(place / "text.txt", place / workdir, place / "cache", **changes)


def read(workdir):
    return json.loads((workdir / "report.json").read_text())


def use(program, place, workdir, trained, *changes):
    config = f"--config=experiments/configs/{program}.py:quick"
    return [config, f"--workdir={place / workdir}", f"--config.checkpoint={trained}", *changes]


def assert_refused(result, *words):
    code, out, errors = result
    assert code == 2, errors
    assert len(errors.splitlines()) == 1 and errors.startswith("error: ") and "Traceback" not in errors + out
    assert all(word in errors for word in words), errors
