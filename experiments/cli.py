"""What every program shares: the command line, its errors in one line, the workdir's config, progress and tables.

A program is `def main(config, workdir)` and `cli.run(main)`. Whatever is wrong with what the user typed ends with one
line on standard error that says what is wrong and what would be right, and exit code 2. Once the program has called
`cli.started()`, a failure ends with one line and exit code 1, and its traceback goes to WORKDIR/error.log.
"""

import ast
import difflib
import errno
import importlib.machinery
import importlib.util
import inspect
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from experiments.console import log, progress, show, summary, table
from mdmjax.reports import plain, to_json, write_atomic

__all__ = [
    "RunFailed",
    "UsageError",
    "check_workdir",
    "explain",
    "flatten",
    "keep",
    "load_config",
    "log",
    "parse",
    "progress",
    "run",
    "show",
    "started",
    "summary",
    "table",
    "to_dict",
]

CONFIGS = Path(__file__).parent / "configs"
USAGE, FAILED, INTERRUPTED = 2, 1, 130  # exit codes

_running = False  # set by `started`


class UsageError(ValueError):
    """Something the user typed is wrong: exit code 2, whenever it is raised."""


class RunFailed(Exception):
    """The run cannot go on: exit code 1, whenever it is raised. The text is what the user reads."""


def started() -> None:
    """Say that set-up is over: from here on an error is a failure of the run, not of what the user typed."""
    global _running
    _running = True


def run(
    main: Callable[[ml_collections.ConfigDict, Path], None],
    fields: Callable[[], ml_collections.ConfigDict] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line, call `main(config, workdir)` and exit with the code described at the top.

    `fields()` is a config of the program, with all of its fields: one without them is refused.
    """
    argv = list(sys.argv if argv is None else argv)
    debug, workdir = "--debug" in argv, None
    try:
        if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
            print(_help(main, fields, argv))
            return
        config, workdir, debug = parse(argv)
        _check_program(config, fields, argv)
        _check_writable(workdir)
        main(config, workdir)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        theirs = UsageError if _running else ValueError | OSError | ImportError
        usage = isinstance(error, theirs)
        print(f"error: {explain(error, workdir)}{'' if usage else _keep_traceback(workdir)}", file=sys.stderr)
        if debug:
            traceback.print_exc()
        sys.exit(USAGE if usage else FAILED)


def explain(error: BaseException, workdir: Path | None = None) -> str:
    """The error in one line; for a full disk, with the space that is left, unless the error says more itself."""
    chain, link = [], error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    full = any(getattr(e, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(e) for e in chain)
    own_words = isinstance(error, OSError) and error.errno is None  # not from the system: it says where and what to do
    if full and not own_words and workdir is not None:
        free = shutil.disk_usage(_existing(workdir)).free / 2**20
        return f"no space left for {workdir} ({free:.1f} MiB free): free some, or give a --workdir on another disk"
    known = isinstance(error, ValueError | OSError | RunFailed)
    known |= isinstance(error, ImportError) and error.name is None  # raised by us, with what to install
    text = " ".join(str(error).split())
    text = text if len(text) <= 1000 else f"{text[:997]}..."
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return text if known and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def _keep_traceback(workdir: Path | None) -> str:
    try:
        return f" (traceback: {write_atomic(Path(workdir) / 'error.log', traceback.format_exc())})"
    except (OSError, TypeError):  # no workdir, or no room in it
        return " (repeat with --debug for the traceback)"


# ---- command line ----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> tuple:
    """(config, workdir, debug) of a command line. The config is locked. Raises UsageError."""
    path, rest = _take_config(argv)
    if path is None:
        raise UsageError(f"--config is missing: give one of {_configs_here()}")
    config = load_config(path)
    for word in rest[1:]:
        if word.startswith(("--config.", "-config.")):
            _check_key(word.lstrip("-").partition("=")[0].removeprefix("config."), config, path)
    config_flags.DEFINE_config_dict("config", config, lock_config=True, flag_values=flag_values, sys_argv=rest)
    flags.DEFINE_string("workdir", None, "folder of this run: state, logs, report", flag_values=flag_values)
    flags.DEFINE_boolean("debug", False, "print the traceback of an error", flag_values=flag_values)
    try:
        unknown = flag_values(rest)[1:]
    except flags.UnrecognizedFlagError as error:
        ours = [f"--{name}" for name in ("config", "workdir", "debug")]
        raise UsageError(f"unknown flag --{error.flagname}{_near('--' + error.flagname, ours)}") from None
    except (flags.Error, ValueError, TypeError) as error:
        raise UsageError(_bad_value(error, config)) from None
    if unknown:
        raise UsageError(f"unexpected argument {unknown[0]!r}: a flag looks like --config.a.b=value")
    if not flag_values.workdir:
        raise UsageError("--workdir is missing: give a folder for this run, for example --workdir=runs/demo")
    return flag_values.config, Path(flag_values.workdir), flag_values.debug


def _check_program(config: ml_collections.ConfigDict, fields: Callable | None, argv: Sequence[str]) -> None:
    """UsageError where the config is that of another program, or its seed is none."""
    if lacking := _lacking(config, fields):
        path, _ = _take_config(argv)
        fit = ", ".join(map(str, _configs(fields)))
        raise UsageError(f"{path} is no config of this program, for it has no {', '.join(lacking)}: give one of {fit}")
    if config.get("seed", 0) < 0:
        raise UsageError(f"seed={config.seed}: must be at least 0")


def _lacking(config: ml_collections.ConfigDict, fields: Callable | None) -> list[str]:
    """The fields of a program that a config has not."""
    return [name for name in (fields() if fields else {}) if name not in config]


def _take_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of --config, and the command line without it."""
    path, rest, words = None, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            path = (value if equals else next(words, "")) or None
        else:
            rest.append(word)
    return path, rest


def load_config(path: str) -> ml_collections.ConfigDict:
    """`get_config()` of a file `FILE.py`, or `get_config(variant)` for `FILE.py:variant`. Raises UsageError."""
    name, _, variant = path.partition(":")
    file = Path(name)
    if not file.is_file():
        known = [str(p) for p in [*file.parent.glob("*.py"), *_configs()]]
        stems = {p: Path(p).stem for p in known}
        near = difflib.get_close_matches(file.stem, stems.values(), 1)
        say = next((p for p, stem in stems.items() if near and stem == near[0]), None)
        hint = f"did you mean {say}?" if say else f"give one of {_configs_here()}"
        raise UsageError(f"config {name} does not exist: {hint}")
    try:
        spec = importlib.util.spec_from_loader(file.stem, importlib.machinery.SourceFileLoader(file.stem, name))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        get_config = module.get_config
        if variant and not inspect.signature(get_config).parameters:
            raise UsageError(f"config {name} has no variants: leave out :{variant}")
        config = get_config(variant) if variant else get_config()
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and variant:
            raise UsageError(f"config {path}: {explain(error)}") from error
        raise UsageError(f"config {name} does not load: {explain(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(f"config {name}: get_config() must return an ml_collections.ConfigDict, not {type(config)}")
    return config.lock()


def _check_key(key: str, config: ml_collections.ConfigDict, path: str) -> None:
    node, done = config, []
    for part in key.split("."):
        if not isinstance(node, ml_collections.ConfigDict):
            raise UsageError(f"unknown config key {key!r} in {path}: {'.'.join(done)} has no fields, it is {node!r}")
        if part not in node:
            everywhere = [*(".".join([*done, name]) for name in node), *flatten(to_dict(config))]
            raise UsageError(f"unknown config key {key!r} in {path}{_near(key, everywhere)}")
        node, done = node[part], [*done, part]


def _near(word: str, known: Sequence[str]) -> str:
    same_end = [name for name in known if name.split(".")[-1] == word.split(".")[-1]]
    near = list(dict.fromkeys(same_end or difflib.get_close_matches(word, known, 3, 0.5)))[:3]
    return f": did you mean {' or '.join(near)}?" if near else f": known are {', '.join(list(known)[:12])}"


def _bad_value(error: Exception, config: ml_collections.ConfigDict) -> str:
    flag, _, reason = str(error).removeprefix("flag ").partition(": ")
    key, _, value = flag.partition("=")
    if flag.startswith("Missing value for flag "):
        return f"{flag.removeprefix('Missing value for flag ')} has no value: write it as --config.a.b=value"
    if not key.startswith("--config."):
        return explain(error)
    key = key.removeprefix("--config.")
    old = flatten(to_dict(config)).get(key)
    kind = "a group of fields" if old is None else f"{type(old).__name__}, for example {old!r}"
    return f"--config.{key}={value} does not fit: {key} is {kind}"


def _configs(fields: Callable | None = None) -> list[Path]:
    """The configs of a program; of all of them, where it is not known by its fields."""

    def fits(path: Path) -> bool:
        try:
            return not _lacking(load_config(str(path)), fields)
        except UsageError:  # it does not load: whoever gives it is told so
            return True

    files = sorted(path for path in CONFIGS.glob("*.py") if "\ndef get_config(" in path.read_text() and fits(path))
    return [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in files]


def _configs_here() -> str:
    return ", ".join(map(str, _configs())) or "the files in experiments/configs"


def _help(main: Callable, fields: Callable | None, argv: Sequence[str]) -> str:
    module = sys.modules[main.__module__]
    name = f"-m {module.__spec__.name}" if getattr(module, "__spec__", None) else Path(argv[0]).name
    lines = [
        f"usage: python {name} --config=FILE.py[:quick] --workdir=DIR [--config.a.b=value ...] [--debug]",
        *("", inspect.cleandoc(module.__doc__ or main.__doc__ or "")),
        *("", "  --config   a config file; `:quick` after it is a variant that runs anywhere in under a minute"),
        *("  --workdir  folder of this run: state, logs, report", "  --debug    print the traceback of an error"),
        *("", "configs:"),
    ]
    for path in _configs(fields):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines.append(f"  {path}  {text.partition(chr(10))[0]}")
    path, _ = _take_config(argv)
    if path is None:
        return "\n".join([*lines, "", "With --config=FILE.py --help lists the fields of that config."])
    fields = flatten(to_dict(load_config(path)))
    return "\n".join(
        [*lines, "", f"fields of {path}:", *(f"  --config.{key}={value}" for key, value in fields.items())]
    )


# ---- workdir and config ----------------------------------------------------------------------------------------------


def to_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as nested dicts of what JSON knows."""
    return plain(config.to_dict())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys. An empty dict stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def check_workdir(
    workdir: Path,
    config: ml_collections.ConfigDict,
    free: Sequence[str] = (),
    write: bool = True,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Keep the config in WORKDIR/config.json the first time; refuse a workdir that holds a run with another one.

    Fields named in `free` (or inside a group named there) may differ. Fields that a run has not, being older than they
    are, it has from `defaults`. Of several processes one should `write`. Raises UsageError with the difference.
    """
    path, now = workdir / "config.json", to_dict(config)
    if not path.exists():
        if write:
            write_atomic(path, to_json(now))
        return
    try:
        before = flatten(defaults or {}) | flatten(json.loads(path.read_text()))
    except (ValueError, AttributeError, TypeError):
        raise UsageError(f"{path} is not a config: give another --workdir, or remove the file") from None
    now, nothing = flatten(now), object()
    changed = [key for key in dict.fromkeys([*before, *now]) if before.get(key, nothing) != now.get(key, nothing)]
    changed = [key for key in changed if not any(f"{key}.".startswith(f"{name}.") for name in free)]
    if changed:
        say = lambda flat, key: repr(flat[key]) if key in flat else "nothing"
        shown = [f"{key}: workdir has {say(before, key)}, now {say(now, key)}" for key in changed[:8]]
        more = [f"and {len(changed) - 8} more fields"] if len(changed) > 8 else []
        raise UsageError(
            f"{workdir} holds a run with another config ({'; '.join(shown + more)}): "
            "give another --workdir, or the config of that run"
        )


def keep(path: Path, text: str, otherwise: str, write: bool = True) -> None:
    """Keep the text in a file of a workdir the first time; UsageError(`otherwise`) where the file has another."""
    if path.exists() and path.read_text() != text:
        raise UsageError(otherwise)
    if write:
        write_atomic(path, text)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def _check_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(bytes(1 << 12))
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "it is a file" if workdir.is_file() else error.strerror
        raise UsageError(f"cannot write to workdir {workdir} ({reason}): give a folder that you may write to") from None
