"""The one training loop. It reads like a table of contents, and never waits for the device except to save."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mdmjax.training.checkpoints import Checkpoints, Restored
from mdmjax.training.state import NONE, SPOILED, TrainState


class NonFiniteLoss(Exception):
    """The loss of a step is not finite."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do when, in steps. An evaluation is followed by a checkpoint, which carries the bound."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int = 10


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    state: TrainState
    elapsed: float  # seconds of training and evaluation over all calls
    finished: bool  # False when a signal came, be it during the last save; everything is saved


def train(
    *,
    plan: Plan,
    make_state: Callable[[], TrainState],
    step: Callable,
    layout: Any,
    batches: Iterator[dict[str, np.ndarray]],
    checkpoints: Checkpoints,
    evaluate: Callable[[TrainState], float],
    write: Callable[..., None],
    progress: Callable[..., None] = lambda step, **fields: None,
    say: Callable[[str], None] = lambda line: None,
    on_start: Callable[[int], None] = lambda step: None,
    monitor: Callable[[int, TrainState], Callable | None] = lambda step, state: None,
    frozen: Any = None,
) -> Outcome:
    """Train to `plan.steps`, from the newest intact checkpoint if there is one.

    `make_state()` builds the first state, `step(state, batch)` is a `Step`, `layout` a `MeshLayout` or `PmapLayout`.
    `batches` yields this process's rows and has `get_state` / `set_state`. `evaluate(state)` returns the bound and may
    write its own rows; `write(step, **numbers)` receives the metrics of a step; `progress` and `say` inform a person.
    `on_start(step)` is called once the starting step is known. `monitor(step, state)` may start to measure something on
    the device, and then returns what fetches the numbers, which are written with those of the step. `frozen` is given
    to every step, placed by the layout; no checkpoint holds it. Raises NonFiniteLoss where a loss, a gradient or the
    bound is not finite, with the step, its example ids, the first one to blame and the last good checkpoint named.
    """
    # ---- state: from the newest checkpoint, else from the initialiser
    restored = restore(layout, make_state, checkpoints, say)
    if restored is not None:
        state, start, before = restored.state, restored.step, restored.meta["elapsed"]
        batches.set_state(restored.meta["data"])
        say(f"resuming from step {start}")
    else:
        state, start, before = layout.init(make_state), 0, 0.0
    on_start(start)
    began = time.monotonic()

    def elapsed() -> float:
        return before + time.monotonic() - began

    # ---- step: compiled at its first call, the state donated
    beside = () if frozen is None else (frozen,)
    compiled = layout.step(step, state, *beside)
    stop = _StopSignal()
    pending = None  # the step on the device: (number, example ids, metrics not yet fetched, what the monitor returned)
    bound, kind = None, "example"  # what `Step` calls spoiled is one

    def collect() -> None:
        """Fetch and check the pending metrics."""
        nonlocal pending
        if pending is None:
            return
        number, ids, metrics, measured = pending
        pending = None
        numbers = {name: float(value) for name, value in metrics.items()}
        first = int(numbers.pop(SPOILED, NONE))
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):  # either one spoils the parameters
            if not math.isfinite(numbers[name]):
                which = "" if first == NONE else f", first that of {kind} {first}"
                raise diverged(f"the {what} of step {number} is {numbers[name]} (examples {_span(ids)}{which})")
        progress(number, **numbers, bound=bound)
        if number % plan.log_every == 0 or number == 1:
            write(number, **numbers)
        if measured is not None:
            write(number, **measured())

    def diverged(what: str) -> NonFiniteLoss:
        checkpoints.wait()
        saved = checkpoints.steps()
        last = f"the last good checkpoint is step {saved[-1]}" if saved else "there is no checkpoint yet"
        return NonFiniteLoss(f"{what}; {last}: train with a smaller learning rate, or look at those examples")

    def save(number: int, bound: float | None) -> None:
        collect()
        meta = {"data": position, "elapsed": elapsed()}
        checkpoints.save(number, layout.shared(state), meta, bound)

    # ---- loop: dispatch a step, then look at the metrics of the one before
    position = batches.get_state()
    with stop:
        try:
            for number in range(start + 1, plan.steps + 1):
                batch = next(batches)
                position = batches.get_state()
                kind = "the pair on line" if "line" in batch else "pair" if "pair" in batch else "example"
                state, metrics = compiled(state, layout.put(batch), *beside)
                collect()
                pending = (number, batch["ids"], metrics, monitor(number, state))

                latest = None
                last = number == plan.steps
                if number % plan.evaluate_every == 0 or last:
                    collect()
                    latest = bound = evaluate(state)
                    if not math.isfinite(bound):
                        raise diverged(f"the bound after step {number} is {bound} (examples {_span(batch['ids'])})")
                leaving = stop.requested(number % plan.log_every == 0)  # asked once, so that what it stops is saved
                if number % plan.checkpoint_every == 0 or latest is not None or leaving:
                    save(number, latest)
                if leaving:
                    break
        finally:
            checkpoints.wait()
        return Outcome(state, elapsed(), finished=not stop.requested(True))


def restore(
    layout: Any, make_state: Callable, checkpoints: Checkpoints, say: Callable, step: int | None = None
) -> Restored | None:
    """The newest intact checkpoint (or that of `step`) placed as the layout wants it, or None."""
    shapes, places = jax.eval_shape(make_state), layout.shardings(make_state)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)
    restored = checkpoints.restore(abstract, say, step)
    return None if restored is None else restored._replace(state=layout.local(restored.state))


def _span(ids: np.ndarray) -> str:
    """The examples of a batch in words, whichever process has them. Called by all processes together."""
    ids = np.unique(multihost_utils.process_allgather(np.asarray(ids)))
    return f"{ids[0]}..{ids[-1]}" if len(ids) == ids[-1] - ids[0] + 1 else ", ".join(map(str, ids))


class _StopSignal:
    """Notes SIGTERM and SIGINT while the loop runs, so that it saves and leaves. A second SIGINT interrupts at once."""

    def __enter__(self):
        self._noted = False
        self._previous = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread (a notebook worker): signals stay with their owner
            pass
        return self

    def _note(self, number, frame):
        if self._noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = True

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, agree: bool) -> bool:
        """Whether to stop. Several processes agree on it, at the steps where `agree`, so that all stop together."""
        if jax.process_count() == 1:
            return self._noted
        return bool(agree and multihost_utils.process_allgather(np.array(self._noted)).any())
