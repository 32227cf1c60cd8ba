"""Checkpoints: asynchronous, atomic, verified, with a fall-back to the one before. The only user of orbax."""

import errno
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


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
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._bounds[step] = bound
        self._manager.save(step, args=args, force=True)

    def best_step(self) -> int | None:
        """The step with the lowest bound among those kept, or None where none has one."""
        return min((s for s, b in self._bounds.items() if b is not None), key=self._bounds.get, default=None)

    def restore(self, abstract: Any, say: Callable[[str], None], step: int | None = None) -> Restored | None:
        """The newest intact checkpoint, or that of `step`; None where there is none.

        `abstract` is the state as ShapeDtypeStructs with shardings. A checkpoint that cannot be read, or whose
        fingerprint differs, is named through `say`, moved aside, and the one before is taken. Raises
        NoIntactCheckpoint where checkpoints exist and none is intact.
        """
        steps = self.steps() if step is None else [step]
        for candidate in reversed(steps):
            try:
                return self._restore(candidate, abstract)
            except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
                say(f"checkpoint {self.directory / str(candidate)} cannot be used ({reason}); trying the one before")
                if step is None and not self._read_only:
                    self._set_aside(candidate)
        if steps:
            raise NoIntactCheckpoint(
                f"no checkpoint under {self.directory} can be read (tried steps {steps}): "
                "restore one from a copy, or start again in another workdir"
            )
        return None

    def _restore(self, step: int, abstract: Any) -> Restored:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        if restored.meta["fingerprint"] != fingerprint(restored.state).tolist():
            raise ValueError("its contents do not match their fingerprint")
        return Restored(step, restored.state, restored.meta)

    def _meta(self, step: int) -> dict:
        try:
            return json.loads((self.directory / str(step) / "meta" / "metadata").read_text())
        except (OSError, ValueError):
            return {}

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            place = self.directory.with_name(self.directory.name + "-damaged")
            place.mkdir(exist_ok=True)
            target = place / str(step)
            while target.exists():
                target = target.with_name(target.name + "x")
            (self.directory / str(step)).rename(target)
        self._manager.reload()
        self._bounds.pop(step, None)

    def wait(self) -> None:
        """Until everything saved is on disk; raises what the write raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
