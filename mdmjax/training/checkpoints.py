"""Checkpoints: asynchronous, atomic, verified, with a fall-back to the one before. The only user of orbax."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


class Restored(NamedTuple):
    """What `restore` found."""

    step: int
    state: Any
    meta: dict  # what was saved beside the state: position in the data, elapsed time, bound


class NoIntactCheckpoint(Exception):
    """There are checkpoints, and none can be read."""


@jax.jit
def fingerprint(tree: Any) -> jax.Array:
    """A checksum [leaves] of the bits of every leaf, computed where the leaf lives; tells a damaged checkpoint."""

    def bits(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[x.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32).reshape(-1)
        places = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(2654435761) + jnp.uint32(1)
        return (words * (places | 1)).sum(dtype=jnp.uint32)  # odd factors, so that no change of one word is lost

    return jnp.stack([bits(leaf) for leaf in jax.tree.leaves(tree)])


class Checkpoints:
    """The checkpoints of one run: the newest `keep` and the best by bound. Saving returns before the write is done."""

    def __init__(self, directory: str | pathlib.Path, keep: int = 2, read_only: bool = False):
        self.directory = pathlib.Path(directory).resolve()
        self._keep = keep
        self._read_only = read_only  # a reader beside a running training touches nothing
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else self, cleanup_tmp_directories=not read_only, read_only=read_only
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # Each process reads by itself, without a barrier that the others would wait at when one of them cannot.
        alone = ocp.options.MultiprocessingOptions(jax.process_index(), active_processes={jax.process_index()})
        self._reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=alone)
        self._bounds = {step: self._meta(step).get("bound") for step in self.steps()}

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """The preservation policy that orbax asks: the newest ones and the best."""
        newest = sorted(c.step for c in checkpoints)[-self._keep :]
        return [c.step in newest or c.step == self.best_step() for c in checkpoints]

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict, bound: float | None = None) -> None:
        """Save asynchronously. `meta` is what JSON can hold; with a `bound` the checkpoint may become the best.

        Raises OSError (ENOSPC) where the disk has no room for it, before anything is written.
        """
        self.wait()  # its room is taken then, and what it replaces is gone
        size = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))  # at least
        if shutil.disk_usage(self.directory).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))
        meta = {**meta, "bound": bound, "fingerprint": fingerprint(state).tolist()}
        meta["sha256"] = _sha256(meta)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._bounds[step] = bound
        self._manager.save(step, args=args, force=True)

    def best_step(self) -> int | None:
        """The step with the lowest bound among those kept, or None where none has one."""
        return min((s for s, b in self._bounds.items() if b is not None), key=self._bounds.get, default=None)

    def restore(self, abstract: Any, say: Callable[[str], None], step: int | None = None) -> Restored | None:
        """The newest intact checkpoint, or that of `step`; None where there is none.

        `abstract` is the state as ShapeDtypeStructs with shardings. A checkpoint that any process cannot read, or that
        is not what was saved, is named through `say`, and the one before is taken; once that is restored, the
        others are moved aside. Raises NoIntactCheckpoint where there are checkpoints and none is intact, and then
        leaves all where they are: the reason may lie elsewhere, in a lack of memory or a disk that was away.
        """
        steps = self.steps() if step is None else [step]
        failed = []
        for candidate in reversed(steps):
            found = self._read(candidate, abstract)
            if isinstance(found, Restored):
                if not self._read_only:
                    self._set_aside(failed)
                return found
            failed.append(candidate)
            after = "; trying the one before" if candidate != steps[0] else ""
            say(f"checkpoint {self.directory / str(candidate)} cannot be used ({found}){after}")
        if steps:
            raise NoIntactCheckpoint(
                f"no checkpoint under {self.directory} can be read (tried steps {steps}; none was changed): "
                "restore one from a copy, or start again in another workdir"
            )
        return None

    def _read(self, step: int, abstract: Any) -> Restored | str:
        """The checkpoint of a step, or what is wrong with it. All processes agree on whether it is good."""
        wrong = ""
        try:
            state, meta = self._restored(step, abstract)
            if meta["sha256"] != _sha256(meta):
                wrong = "its position and times do not match their checksum"
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            wrong = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if not multihost_utils.process_allgather(np.array(not wrong)).all():
            return wrong or "another process cannot read it"
        if meta["fingerprint"] != fingerprint(state).tolist():
            return "its contents do not match their fingerprint"
        return Restored(step, state, meta)

    def _restored(self, step: int, abstract: Any) -> tuple[Any, dict]:
        """(state, meta) as they are on the disk. A field that is None may be missing there: it is younger."""
        place = self.directory / str(step)
        item = abstract
        if dataclasses.is_dataclass(abstract):
            saved = ocp.StandardCheckpointHandler().metadata(place / "state").tree
            item = {name: value for name, value in vars(abstract).items() if value is not None or name in saved}
        args = ocp.args.Composite(state=ocp.args.StandardRestore(item), meta=ocp.args.JsonRestore())
        found = self._reader.restore(place, args=args)
        return (found.state if item is abstract else dataclasses.replace(abstract, **found.state)), found.meta

    def _meta(self, step: int) -> dict:
        try:
            return json.loads((self.directory / str(step) / "meta" / "metadata").read_text())
        except (OSError, ValueError):
            return {}

    def _set_aside(self, steps: list[int]) -> None:
        place = self.directory.with_name(self.directory.name + "-damaged")
        for step in steps:
            self._bounds.pop(step, None)
            if jax.process_index() == 0:
                place.mkdir(exist_ok=True)
                target = place / str(step)
                while target.exists():
                    target = target.with_name(target.name + "x")
                (self.directory / str(step)).rename(target)
        multihost_utils.sync_global_devices("set aside")  # before any process looks at the folder again
        self._manager.reload()

    def wait(self) -> None:
        """Until everything saved is on disk; raises what the write raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._reader.close()
        self._manager.close()


def _sha256(meta: dict) -> str:
    """The checksum of what is saved beside the state, itself excepted."""
    text = json.dumps({name: value for name, value in meta.items() if name != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
