"""Generation along a grid of times from t = 1 (nothing) to t = 0 (data), by steps that may change a canvas's length.

The steps of `flexible` and `edit_flows` are driven here, by the loop of every sampler (`sampling.drive`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mdmjax.base import DELETE, Canvas, Trace
from mdmjax.process import example_keys
from mdmjax.sampling import drive


class Moved(NamedTuple):
    """What one step has made, and what it did at each position of the canvas before it, as a `Trace` says it."""

    canvas: Canvas
    confidence: Float[Array, "B N"]  # probability of the token written there, 0 where none was
    operations: Int[Array, "B N"]  # KEEP, UNMASK, REMASK or DELETE
    inserted: Int[Array, "B N"]  # tokens that appear behind it


class Timed(NamedTuple):
    """What `generate_flexible` and `generate_edits` have made."""

    canvas: Canvas
    steps: Int[Array, "B"]  # steps that the row has made, the last one being that at which it overflowed
    needed: Int[Array, "B"]  # the most positions that the row wanted
    trace: Trace | None


class _Run(NamedTuple):
    canvas: Canvas
    steps: Int[Array, "B"]
    needed: Int[Array, "B"]
    number: Int[Array, ""]


def along(
    step: Callable,
    canvas: Canvas,
    times: Float[Array, "T"],
    *,
    key: Key[Array, ""],
    ids: Int[Array, "B"] | None = None,
    trace: bool = False,
) -> Timed:
    """`step(keys [B], canvas, number) -> Moved` for number = 0..T-1; `times` are what the network is given, for the
    trace. The trace, None unless wanted, has T + 1 canvases. The keys are those of fold_in(key, a row's id) and the
    number, so a row does not depend on those beside it. Consumes `key`. A row that has overflowed stands still."""
    rows = len(canvas.tokens)
    row_keys = example_keys(key, jnp.arange(rows) if ids is None else ids)

    def advance(run: _Run):
        number, canvas = run.number, run.canvas
        made = step(jax.vmap(jax.random.fold_in, (0, None))(row_keys, number), canvas, number)
        live = ~canvas.overflow
        stay = lambda new, old: jnp.where(live.reshape(-1, *[1] * (old.ndim - 1)), new, old)
        after = jax.tree.map(stay, made.canvas, canvas)
        did = jax.tree.map(lambda x: stay(x, jnp.zeros_like(x)), made[1:])
        needed = canvas.lengths + made.inserted.sum(1) - (made.operations == DELETE).sum(1)
        needed = stay(jnp.maximum(run.needed, needed.astype(run.needed.dtype)), run.needed)
        return _Run(after, run.steps + live, needed, number + 1), (after, *did, jnp.where(live, number, -1))

    shape = canvas.tokens.shape
    nothing = (jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.full(rows, -1))
    idle = (lambda run: (run.canvas, *nothing)) if trace else None
    live = lambda run: ~run.canvas.overflow.all()
    run = _Run(canvas, jnp.zeros(rows, jnp.int32), canvas.lengths, jnp.zeros((), jnp.int32))
    run, seen = drive(advance, run, live, len(times), idle)
    if seen is None:
        return Timed(*run[:3], None)
    states, confidence, operations, inserted, numbers = seen
    grown = lambda first, rest: jnp.concatenate([first[None], rest])
    told = Trace(
        grown(canvas.tokens, states.tokens),
        confidence,
        operations,
        numbers,
        jnp.broadcast_to(times[:, None], numbers.shape),
        inserted,
        grown(canvas.lengths, states.lengths),
    )
    return Timed(*run[:3], told)
