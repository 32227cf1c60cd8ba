"""The folder of a training run: what `train` keeps there beside its checkpoints, and how the other programs read it."""

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, cli
from experiments.configs.base import base
from mdmjax import data, training
from mdmjax.data import Corpus, Vocabulary
from mdmjax.reports import to_json

# Fields that say where and in which parts the work is done, or what is looked at, and so change no result: a run may
# go on with others.
FREE = (
    "mesh", "parallel", "distributed", "monitor", "train.micro", "evaluate.batch", "data.cache_dir", "data.data_dir",
    "data.download",
)  # fmt: skip


class Run(NamedTuple):
    """A `train` run at one of its checkpoints."""

    workdir: str
    experiment: build.Experiment
    vocabulary: Vocabulary
    sha256: Any  # of the data that it was trained on
    step: int
    params: Any  # the averaged ones

    def data(self) -> Corpus:
        """The data that it was trained on. Raises ValueError, without advice, where that is gone or has changed."""
        try:
            corpus = build.corpus(self.experiment.config, self.vocabulary)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"the data that {self.workdir} was trained on cannot be had ({error})") from None
        if corpus.meta["sha256"] != self.sha256:
            raise ValueError(
                f"{corpus.meta['source']} is not the data that {self.workdir} was trained on (sha256 "
                f"{_short(corpus.meta['sha256'])}, that of the run is {_short(self.sha256)})"
            )
        return corpus


def _short(sha256: Any) -> str:
    return f"{sha256[:12]}..." if isinstance(sha256, str) else str(sha256)


def quiet_orbax() -> None:
    """Orbax also logs what it raises, in hundreds of lines, from threads of its own; the program says it in one."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable


def _unraisable(unraisable) -> None:
    """Reads of orbax that another read's failure ended complain as they are collected: of those nothing is said."""
    code = getattr(unraisable.object, "cr_code", None)  # of a coroutine
    if code is None or "orbax" not in code.co_filename:
        sys.__unraisablehook__(unraisable)


def claim(workdir: Path, config: ConfigDict, corpus: Corpus, length: int, write: bool = True) -> None:
    """Makes the workdir that of a run of this config on this data, or finds that it is; several processes: one writes.

    `vocabulary.json` says what a checkpoint's tokens mean, and the hash of the data that they are from. Raises
    ValueError where the workdir holds a run with another config or on other data.
    """
    cli.check_workdir(workdir, config, free=FREE, write=write, defaults=cli.to_dict(base()))
    path = workdir / "vocabulary.json"
    text = to_json({"length": length, "sha256": corpus.meta["sha256"], **corpus.vocabulary.to_dict()})
    otherwise = (
        f"{workdir} holds a run on other data (its hash is in {path}; now it is {_short(corpus.meta['sha256'])}): "
        "give that data, or another --workdir"
    )
    cli.keep(path, text, otherwise, write)


def refuse_run(workdir: Path) -> None:
    """Raises UsageError for the folder of a training run, whose report another program would replace."""
    if (workdir / "config.json").exists():
        raise cli.UsageError(f"--workdir={workdir} holds a training run, whose report this would replace: give another")


def load(workdir: str, which: str = "last", say: Callable = lambda line: None) -> Run:
    """A run at its checkpoint `which` (last, best, or a step), its parameters shared out over the devices present.

    A run whose attention is not to be had here is read with plain XLA's, and `say` says so. Raises FileNotFoundError
    where there is no run, ValueError for a checkpoint that is not there.
    """
    quiet_orbax()
    root = Path(workdir)
    for name in ("config.json", "vocabulary.json", "checkpoints"):
        if not (root / name).exists():
            raise FileNotFoundError(f"no training run at {workdir} ({name} is missing): give the --workdir of `train`")
    config = base()  # with the defaults of fields that the run did not have yet, which change nothing
    config.update(json.loads((root / "config.json").read_text()))
    config.mesh, config.parallel = ConfigDict(dict(data=1, fsdp=-1, tensor=1)), "mesh"
    config.train.batch = config.evaluate.batch = jax.device_count() * config.train.micro
    description = json.loads((root / "vocabulary.json").read_text())
    length, sha256 = description.pop("length"), description.pop("sha256")
    vocabulary = data.vocabulary_from_dict(description)
    experiment = build.Experiment(config, vocabulary.size, length)
    try:
        experiment.check_attention()
    except ValueError as error:
        say(f"{error}. Going on with xla")
        config.network.attention = "xla"
        experiment = build.Experiment(config, vocabulary.size, length)
    checkpoints = training.Checkpoints(root / "checkpoints", read_only=True)
    step = _choose(which, checkpoints, workdir)
    restored = training.restore(experiment.layout, experiment.make_state, checkpoints, say, step)
    checkpoints.close()
    return Run(workdir, experiment, vocabulary, sha256, restored.step, restored.state.average)


def write(folder: Path, run: Run, params: Any) -> None:
    """Keeps parameters as a run that `load` reads: with the config, the vocabulary and the step of the run that they
    went out from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "vocabulary.json"):
        shutil.copy(Path(run.workdir) / name, folder / name)
    layout, make = run.experiment.layout, run.experiment.make_state
    state = layout.init(make)
    put = lambda tree: jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, tree)
    state = dataclasses.replace(state, params=put(state.params), average=put(state.average))
    checkpoints = training.Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.save(run.step, state, {"data": None, "elapsed": 0.0})
    checkpoints.close()


def _choose(which: str, checkpoints: training.Checkpoints, workdir: str) -> int | None:
    """The step of a checkpoint; None for the last one, in whose place the one before may be taken."""
    steps = checkpoints.steps()
    if not steps:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: let `train` reach its first one")
    if which == "last":
        return None
    if which == "best":
        step = checkpoints.best_step()
        if step is None:
            raise ValueError(f"which='best': no checkpoint of {workdir} has a bound yet: choose last, or of {steps}")
        return step
    if not (which.isdigit() and int(which) in steps):
        raise ValueError(f"which={which!r}: choose last, best, or one of the steps {steps} of {workdir}")
    return int(which)
