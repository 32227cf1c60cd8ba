"""The command line that all programs share: one line for every mistake, and the exit code that tells whose it was."""

import errno
import io
import json
import re
import subprocess
import sys

import ml_collections
import programs
import pytest

from experiments import cli
from experiments.configs import base
from mdmjax.base import Estimate
from mdmjax.reports import Report

CONFIG = '''"""A config of the tests."""
import ml_collections

def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}: the only one is quick")
    return ml_collections.ConfigDict(dict(
        seed=0, rate=1e-3, name="x", flag=True, betas=(0.9, 0.99), steps=10 if variant else 1000,
        model=dict(width=8, dtype="float32"),
    ))
'''


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """`call(main, *flags) -> (exit code, standard output, lines of standard error)`; `{}` in a flag is the folder."""
    (tmp_path / "conf.py").write_text(CONFIG)

    def call(main, *arguments, fields=None):
        flags = [argument.replace("{}", str(tmp_path)) for argument in arguments]
        capfd.readouterr()
        code = programs.run_here(main, flags, monkeypatch, fields)
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return call


GOOD = ("--config={}/conf.py", "--workdir={}/run")


def fails(exception, late=False):
    """A program that raises before or after it has started."""

    def main(config, workdir):
        if late:
            cli.started()
        raise exception

    return main


def test_a_program_gets_its_config_and_workdir(call, tmp_path):
    seen = []
    changes = ("--config.rate=3", "--config.model.width=16", "--config.betas=(0.5,0.6)", "--config.flag=false")
    code, _, errors = call(lambda *given: seen.extend(given), "--config={}/conf.py:quick", *changes, GOOD[1])
    config, workdir = seen
    assert (code, errors) == (0, []) and workdir == tmp_path / "run" and workdir.is_dir()
    assert config.is_locked and config.rate == 3.0 and config.model.width == 16 and config.steps == 10
    assert cli.to_dict(config)["betas"] == [0.5, 0.6] and config.flag is False


def test_options_may_stand_in_any_order_and_apart(call):
    seen = []
    code, *_ = call(
        lambda *given: seen.extend(given), "--config.rate", "3", "--workdir", "{}/run", "--config", "{}/conf.py"
    )
    assert code == 0 and seen[0].rate == 3.0


@pytest.mark.parametrize(
    "flags, words",
    [
        ((GOOD[1],), r"--config is missing: give one of .*demo_python_docs\.py"),
        ((GOOD[0],), "--workdir is missing: give a folder for this run, for example --workdir="),
        (("--config={}/cnf.py", GOOD[1]), r"cnf\.py does not exist: did you mean .*/conf\.py\?"),
        (
            ("--config=experiments/configs/demo_python_doc.py", GOOD[1]),
            "did you mean experiments/configs/demo_python_docs.py?",
        ),
        (("--config={}", GOOD[1]), "does not exist: give one of experiments/configs/"),
        (("--config={}/conf.py:fast", GOOD[1]), "conf.py:fast: unknown variant 'fast': the only one is quick"),
        ((*GOOD, "--config.widht=9"), r"unknown config key 'widht' in .*: did you mean model\.width\?"),
        ((*GOOD, "--config.width=9"), r"unknown config key 'width' in .*: did you mean model\.width\?"),
        ((*GOOD, "--config.modl.width=9"), r"unknown config key 'modl\.width' in .*: did you mean model\.width\?"),
        ((*GOOD, "--config.rate.x=9"), r"unknown config key 'rate\.x' in .*: rate has no fields, it is 0\.001"),
        ((*GOOD, "--config.rate=fast"), r"--config\.rate=fast does not fit: rate is float, for example 0\.001"),
        ((*GOOD, "--config.model.width=1.5"), r"model\.width is int, for example 8"),
        ((*GOOD, "--config.flag=perhaps"), "flag is bool, for example True"),
        ((*GOOD, "--config.model=3"), "model is a group of fields"),
        ((*GOOD, "--config.rate"), r"--config\.rate has no value: write it as --config\.a\.b=value"),
        ((*GOOD, "--wrkdir=x"), r"unknown flag --wrkdir: did you mean --workdir\?"),
        ((*GOOD, "hello"), r"unexpected argument 'hello': a flag looks like --config\.a\.b=value"),
        ((GOOD[0], "--workdir={}/conf.py"), "cannot write to workdir .* .it is a file.: give a folder"),
        ((GOOD[0], "--workdir={}/conf.py/sub"), "cannot write to workdir .* .Not a directory.: give a folder"),
    ],
    ids=lambda value: value[-1].replace("{}/", "") if isinstance(value, tuple) else "",
)
def test_what_the_user_typed_wrong_is_said_in_one_line(call, flags, words):
    code, out, errors = call(lambda *_: pytest.fail("the program ran"), *flags)
    assert code == 2 and out == "" and len(errors) == 1, errors
    assert errors[0].startswith("error: ") and re.search(words, errors[0]), errors


@pytest.mark.parametrize(
    "text, words",
    [
        ("def get_config(:", "does not load: SyntaxError: invalid syntax"),
        ("import no_such_module", "does not load: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "does not load: AttributeError: .* no attribute 'get_config'"),
        ("def get_config(): return {}", "must return an ml_collections.ConfigDict"),
        ("def get_config(): return 1", "has no variants: leave out :quick"),
    ],
)
def test_a_config_that_does_not_load_is_named(call, tmp_path, text, words):
    (tmp_path / "bad.py").write_text(text)
    variant = ":quick" if "variants" in words else ""
    code, _, errors = call(lambda *_: None, "--config={}/bad.py" + variant, GOOD[1])
    assert code == 2 and len(errors) == 1 and "bad.py" in errors[0] and re.search(words, errors[0]), errors


@pytest.mark.parametrize(
    "exception, late, code, words",
    [
        (ValueError("mesh 3 x 2 does\nnot fit"), False, 2, "error: mesh 3 x 2 does not fit"),
        (FileNotFoundError(2, "No such file", "a.txt"), False, 2, "error: a.txt: No such file"),
        (ValueError("loss is nan"), True, 1, "error: loss is nan (traceback: {}/run/error.log)"),
        (cli.RunFailed("loss is nan"), False, 1, "error: loss is nan (traceback: {}/run/error.log)"),
        (cli.UsageError("prompt too long"), True, 2, "error: prompt too long"),
        (ModuleNotFoundError("install y"), False, 2, "error: install y"),
        (ModuleNotFoundError("install y"), True, 1, "error: install y (traceback: {}/run/error.log)"),
        (ModuleNotFoundError("No module y", name="y"), False, 2, "error: ModuleNotFoundError: No module y"),
        (KeyError("x"), False, 1, "error: KeyError: 'x' (traceback: {}/run/error.log)"),
        (RuntimeError(""), True, 1, "error: RuntimeError (traceback: {}/run/error.log)"),
    ],
)
def test_an_error_is_the_users_until_the_run_has_started(call, tmp_path, exception, late, code, words):
    got, _, errors = call(fails(exception, late), *GOOD)
    assert (got, errors) == (code, [words.replace("{}", str(tmp_path))])
    log = tmp_path / "run" / "error.log"
    assert log.exists() == (code == 1)
    assert code == 2 or f"{type(exception).__name__}" in log.read_text() and "Traceback" in log.read_text()


@pytest.mark.parametrize("late", [False, True])
def test_a_full_disk_is_told_with_the_space_that_is_left(call, late):
    """Whether it comes as an errno, or inside an error of a library."""
    for cause in (OSError(errno.ENOSPC, "No space left on device"), ValueError("write: No space left on device [x]")):
        wrapped = RuntimeError("saving failed")
        wrapped.__cause__ = cause
        code, _, errors = call(fails(cause if not late else wrapped, late), *GOOD)
        assert code == (1 if late else 2) and len(errors) == 1
        assert re.match(
            r"error: no space left for .*/run \(\d+\.\d MiB free\): free some, or give a --workdir", errors[0]
        )


def test_an_error_that_names_the_disk_itself_is_left_alone(call):
    error = OSError("cannot write the cache in /c (No space left on device): free space there")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert call(fails(error), *GOOD)[2] == [f"error: {error}"]


def test_debug_prints_the_traceback_too(call):
    _, _, errors = call(fails(RuntimeError("why"), True), *GOOD, "--debug")
    assert errors[0].startswith("error: RuntimeError: why") and errors[-1] == "RuntimeError: why" and len(errors) > 3


def test_an_interrupt_is_no_failure(call):
    code, _, errors = call(fails(KeyboardInterrupt(), True), *GOOD)
    assert code == 130 and errors[-1] == "interrupted" and not any("Traceback" in line for line in errors)


def test_help_lists_configs_and_fields(call):
    code, out, errors = call(lambda *_: pytest.fail("the program ran"), "--help")
    assert code == 0 and errors == [] and __doc__.strip() in out
    assert "experiments/configs/demo_python_docs.py  " in out and "configs/base.py" not in out
    code, out, _ = call(lambda *_: None, "--config={}/conf.py:quick", "--help")
    assert code == 0 and "--config.model.width=8" in out and "--config.steps=10" in out
    code, _, errors = call(lambda *_: None, "--config={}/cnf.py", "--help")
    assert code == 2 and len(errors) == 1


def test_a_config_of_another_program_is_refused(call):
    """With those that would do, which are what `--help` lists too; and a seed below 0, which no generator takes."""
    code, _, errors = call(lambda *_: pytest.fail("the program ran"), *GOOD, fields=base.study)
    assert code == 2 and len(errors) == 1
    assert "conf.py is no config of this program, for it has no arms, data" in errors[0]
    assert "variance_sums.py" in errors[0] and "variance_demo.py" not in errors[0]
    _, out, _ = call(lambda *_: None, "--help", fields=base.variance)
    assert "variance_demo.py  " in out and "variance_sums.py" not in out and "demo_python_docs.py" not in out
    code, _, errors = call(lambda *_: pytest.fail("the program ran"), *GOOD, "--config.seed=-1")
    assert code == 2 and errors == ["error: seed=-1: must be at least 0"]


def test_a_user_sees_the_same_in_a_process_of_its_own(tmp_path):
    """The exit code and the streams, through `python -m`."""
    (tmp_path / "conf.py").write_text(CONFIG)
    (tmp_path / "prog.py").write_text(
        '"""Says hello."""\nfrom experiments import cli\n'
        "def main(config, workdir):\n    cli.started()\n    raise cli.RunFailed('it broke')\ncli.run(main)\n"
    )
    command = [sys.executable, str(tmp_path / "prog.py"), f"--config={tmp_path}/conf.py", f"--workdir={tmp_path}/run"]
    environment = programs.environment() | {"PYTHONPATH": str(programs.ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: it broke (traceback: {tmp_path}/run/error.log)\n"


# ---- workdir ---------------------------------------------------------------------------------------------------------


def config(**changes):
    return ml_collections.ConfigDict({"seed": 0, "model": {"width": 8, "tied": False}, "betas": (0.9, 0.99)} | changes)


def test_a_workdir_belongs_to_its_config(tmp_path):
    cli.check_workdir(tmp_path, config())
    kept = (tmp_path / "config.json").read_text()
    assert json.loads(kept) == {"seed": 0, "model": {"width": 8, "tied": False}, "betas": [0.9, 0.99]}
    cli.check_workdir(tmp_path, config())
    with pytest.raises(cli.UsageError) as error:
        cli.check_workdir(tmp_path, config(seed=1, model={"width": 16, "depth": 2}))
    for words in (
        "seed: workdir has 0, now 1",
        "model.width: workdir has 8, now 16",
        "model.tied: workdir has False, now nothing",
        "model.depth: workdir has nothing, now 2",
        "give another --workdir, or the config of that run",
    ):
        assert words in str(error.value)
    assert "betas" not in str(error.value) and (tmp_path / "config.json").read_text() == kept


def test_some_fields_may_be_free(tmp_path):
    cli.check_workdir(tmp_path, config())
    cli.check_workdir(tmp_path, config(seed=1, model={"width": 16}), free=("seed", "model"))
    with pytest.raises(cli.UsageError, match="seed"):
        cli.check_workdir(tmp_path, config(seed=1), free=("see", "seed.x"))


def test_of_several_processes_one_writes(tmp_path):
    cli.check_workdir(tmp_path, config(), write=False)
    assert list(tmp_path.iterdir()) == []
    cli.check_workdir(tmp_path, config())
    with pytest.raises(cli.UsageError, match="seed"):
        cli.check_workdir(tmp_path, config(seed=1), write=False)


def test_a_long_difference_is_cut_and_a_broken_file_is_named(tmp_path):
    cli.check_workdir(tmp_path, config(many={str(i): 0 for i in range(20)}))
    with pytest.raises(cli.UsageError, match="and 12 more fields"):
        cli.check_workdir(tmp_path, config(many={str(i): 1 for i in range(20)}))
    for text in ("{", "3"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(cli.UsageError, match="config.json is not a config: give another --workdir, or remove"):
            cli.check_workdir(tmp_path, config())


# ---- console ---------------------------------------------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 6.5, 7.0])
    monkeypatch.setattr("experiments.console.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    bound = Estimate(2.6134, 0.0112, "bits/char", 9, "e")
    with cli.progress(1200, initial=100, stream=stream, every=5) as bar:
        bar.update(101, loss=3.0)
        bar.update(150, loss=2.9)  # too soon
        bar.update(161, loss=2.81234, bound=bound)
        bar.update(162)  # too soon
        bar.update(1200, loss=2.0)  # the end is always said
    assert stream.getvalue().splitlines() == [
        "step 101/1200, loss 3",
        "step 161/1200, 10 steps/s, 1 min 44 s left, loss 2.812, bound 2.613 ± 0.011 bits/char",
        "step 1200/1200, 1.04e+03 steps/s, loss 2, bound 2.613 ± 0.011 bits/char",
    ]


def test_progress_on_a_terminal_is_one_bar():
    stream = io.StringIO()
    stream.isatty = lambda: True
    with cli.progress(10, initial=4, stream=stream) as bar:
        bar.update(7, loss=2.5)
        bar.update(10, loss=2.25)
    text = stream.getvalue()
    assert text.count("\n") == 1 and "4/10" in text and "10/10" in text and "loss 2.25" in text.split("\r")[-1]


def test_progress_that_is_not_shown():
    stream = io.StringIO()
    with cli.progress(10, stream=stream, shown=False) as bar:
        bar.update(10, loss=2.25)
    assert stream.getvalue() == ""


def test_tables_are_aligned():
    text = cli.table([("a", 1.23456, Estimate(2.6134, 0.0112, "u", 1, "e")), ("long", 2, "x")], ("name", "v", "bound"))
    assert text.splitlines() == ["name  v      bound", "a     1.235  2.613 ± 0.011 u", "long  2      x"]
    metrics = {"bound": Estimate(2.6134, 0.0112, "bits/char", 5120, "exact-count")}
    report = Report("t", {}, 0, 1.0, metrics, baselines={"order-1": Estimate(3.23, 0.01, "bits/char", 7, "n-gram")})
    assert cli.summary(report).splitlines() == [
        "bound    2.613 ± 0.011 bits/char  n = 5,120  exact-count",
        "order-1  3.230 ± 0.010 bits/char  n = 7      n-gram",
    ]
