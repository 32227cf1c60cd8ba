"""Many rows through a few slots: rows that finish make room for others, and the last rows share fewer slots."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mdmjax.anyprocess.generation import RUNNING, Generated, canvas_of, check_overflow
from mdmjax.anyprocess.teachers import State
from mdmjax.base import Canvas


class Finished(NamedTuple):
    """What became of each of N rows."""

    states: list[State]
    reason: np.ndarray  # [N], of REASONS
    steps: np.ndarray  # [N] calls that served the row
    operations: np.ndarray  # [N, 4] tokens unmasked, remasked, inserted, deleted
    calls: int  # denoiser calls made, each of them for all slots there were


FEWER = 4  # slots are left by a quarter at a time: each number of slots is compiled for once


def generate_all(
    run: Callable[..., Generated],
    states: Sequence[State],
    *,
    length: int,
    slots: int,
    vocab: int,
    progress: Callable[[int], None] = lambda done: None,
    strict: bool = True,
) -> Finished:
    """Runs every state to its end, in `slots` rows of `length` positions at a time, and the last ones in fewer.

    `run(canvas, steps [B], ids [B]) -> Generated` makes some calls, going on from the given numbers of steps: that is
    `generate` with `begin` and `calls`, under jit. `ids` are the numbers of the states, so that each has the randomness
    that it would have in any other slots. `progress` is told how many rows have finished.

    ValueError for no state, for fewer than one slot, and as `canvas_of` and, where `strict`, `check_overflow`; else a
    row that wants more positions than there are ends with the reason "overflow", cut off.
    """
    if slots < 1 or not len(states):
        raise ValueError(f"{slots} slots for {len(states)} rows: at least one of each is needed")
    count, slots = len(states), min(slots, len(states))
    first = canvas_of(states, length, vocab=vocab)
    tokens, lengths = np.array(first.tokens), np.array(first.lengths)
    reason, steps, operations = np.full(count, RUNNING), np.zeros(count, int), np.zeros((count, 4), int)
    slot, waiting, calls = np.arange(slots), slots, 0
    while True:
        canvas = Canvas(jnp.asarray(tokens[slot]), jnp.asarray(lengths[slot]), jnp.zeros(len(slot), bool))
        found = run(canvas, jnp.asarray(steps[slot], jnp.int32), jnp.asarray(slot, jnp.int32))
        if strict:
            check_overflow(found, slot)
        live = reason[slot] == RUNNING  # a slot may hold a row that has finished, where none is waiting
        calls += int((np.asarray(found.steps) - steps[slot])[live].max(initial=0))
        rows, of_live = slot[live], lambda x, live=live: np.asarray(x)[live]
        operations[rows] += of_live(found.operations)
        tokens[rows], lengths[rows] = of_live(found.canvas.tokens), of_live(found.canvas.lengths)
        steps[rows], reason[rows] = of_live(found.steps), of_live(found.reason)
        progress(int((reason != RUNNING).sum()))
        done = reason[slot] != RUNNING
        if waiting == count:
            if done.all():
                rows = [tuple(row[:n].tolist()) for row, n in zip(tokens, lengths, strict=True)]
                return Finished(rows, reason, steps, operations, calls)
            while len(slot) >= 4 * FEWER and len(slot) >= FEWER * (~done).sum():
                kept = np.argsort(done, kind="stable")[: len(slot) // FEWER]  # running rows first
                slot, done = slot[kept], done[kept]
        taken = np.flatnonzero(done)[: count - waiting]
        slot[taken] = np.arange(waiting, waiting + len(taken))
        waiting += len(taken)
