"""Generation by remask, insert and delete: a policy's decisions, the transition, and when a row has finished.

One step asks the policy once for all rows: tokens for the masks, and whether each position is remasked, inserted after,
deleted; the transition makes the next canvas of it. It is driven by the loop of every sampler (`sampling.drive`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.policy import Policy
from mdmjax.anyprocess.transition import Controls, effects, moved, protect, within
from mdmjax.base import DELETE, INSERT, REMASK, UNMASK, Canvas
from mdmjax.process import example_keys
from mdmjax.sampling import drive

RUNNING, OVERFLOW, END, FIXED, LIMIT, STOPPED = range(6)  # why a row has finished, in the order of the tests
REASONS = ("running", "overflow", "end token", "fixed point", "step limit", "stopped")
COUNTED = (UNMASK, REMASK, INSERT, DELETE)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a policy's logits become decisions: the likeliest token and each operation whose probability is above its
    threshold (remask, insert, delete), or, with `draw`, a token and operations at random with those probabilities.

    ValueError for a threshold outside [0, 1].
    """

    thresholds: tuple[float, float, float] = (0.5, 0.5, 0.5)
    draw: bool = False

    def __post_init__(self):
        if len(self.thresholds) != 3 or not all(0 <= p <= 1 for p in self.thresholds):
            raise ValueError(f"Decoding(thresholds={self.thresholds}): three numbers in [0, 1] are needed")

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "N V"], controls: Float[Array, "N 3"]) -> Controls:
        """The decisions for one row. With `draw` the key is consumed."""
        if self.draw:
            of_token, of_operation = jax.random.split(key)
            values = jax.random.categorical(of_token, logits)
            fired = jax.random.uniform(of_operation, controls.shape) < jax.nn.sigmoid(controls)
        else:
            values = jnp.argmax(logits, 1)
            # logit p > logit threshold: at thresholds 0 and 1 it always and never fires
            fired = controls > jnp.array([_logit(p) for p in self.thresholds], controls.dtype)[None]
        remask, insert, delete = fired.T
        return Controls(values, remask, insert.astype(jnp.int32), delete)


@dataclasses.dataclass(frozen=True)
class Halting:
    """When a row has finished, besides an overflow and the step limit: a token `end` is in it; a step has changed
    nothing (`fixed`, None: where decoding is not random); `stop(tokens [N], length)` is true. arXiv 2510.06190 leaves
    the rule open."""

    end: int | None = None
    fixed: bool | None = None
    stop: Callable | None = None


class Generated(NamedTuple):
    """What `generate` has made."""

    canvas: Canvas
    reason: Int[Array, "B"]  # why each row has finished: END, FIXED, ...
    steps: Int[Array, "B"]  # denoiser calls that served the row
    operations: Int[Array, "B 4"]  # how many tokens were unmasked, remasked, inserted, deleted
    needed: Int[Array, "B"]  # the most positions that the row wanted
    states: Canvas | None  # [T + 1, ...] with trace: the canvas before each step, and the last


class _Run(NamedTuple):
    canvas: Canvas
    reason: Int[Array, "B"]
    steps: Int[Array, "B"]
    operations: Int[Array, "B 4"]
    needed: Int[Array, "B"]


def generate(
    policy: Policy,
    canvas: Canvas,
    *,
    vocab: int,
    key: Key[Array, ""],
    limit: int,
    decoding: Decoding = Decoding(),
    halting: Halting = Halting(),
    protected: Int[Array, "B"] | None = None,
    ids: Int[Array, "B"] | None = None,
    variant: str = "algorithm1",
    trace: bool = False,
) -> Generated:
    """Steps of `policy(tokens [B, N], lengths [B]) -> (logits [B, N, V], controls [B, N, 3])` until each row finishes.

    A row that has finished stays as it is; the loop ends with the last one, after `limit` steps at most. `protected`
    tokens at the beginning of a row are never remasked or deleted. Randomness of a row is that of fold_in(key, its id)
    and the number of the step. Consumes `key`. A trace keeps limit + 1 canvases. Pure; ValueError for limit < 1.
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: at least one step is needed")
    fixed = not decoding.draw if halting.fixed is None else halting.fixed
    rows = len(canvas.tokens)
    row_keys = example_keys(key, jnp.arange(rows) if ids is None else ids)
    nothing = jnp.zeros(rows, jnp.int32)

    def finished(canvas: Canvas, same: Bool[Array, "B"], steps: Int[Array, "B"]) -> Int[Array, "B"]:
        never = jnp.zeros(rows, bool)
        inside = within(canvas.tokens, canvas.lengths)
        tests = (
            canvas.overflow,
            never if halting.end is None else ((canvas.tokens == halting.end) & inside).any(1),
            same & fixed,
            steps >= limit,
            never if halting.stop is None else jax.vmap(halting.stop)(canvas.tokens, canvas.lengths),
        )
        return jnp.select(tests, (OVERFLOW, END, FIXED, LIMIT, STOPPED), RUNNING).astype(jnp.int32)

    def advance(run: _Run):
        logits, operations = policy(run.canvas.tokens, run.canvas.lengths)
        keys = jax.vmap(jax.random.fold_in)(row_keys, run.steps)
        controls = jax.vmap(decoding)(keys, logits, operations)
        if protected is not None:
            controls = protect(controls, protected)
        live = run.reason == RUNNING
        stay = lambda new, old: jnp.where(live.reshape(-1, *[1] * (old.ndim - 1)), new, old)
        done = effects(run.canvas, controls, vocab=vocab, variant=variant)
        after = moved(run.canvas, done, vocab=vocab)
        counts = [done.inserted.sum(1) if o == INSERT else (done.operations == o).sum(1) for o in COUNTED]
        same = (after.tokens == run.canvas.tokens).all(1) & (after.lengths == run.canvas.lengths)
        steps = run.steps + live
        run = _Run(
            jax.tree.map(stay, after, run.canvas),
            stay(finished(after, same, steps), run.reason),
            steps,
            run.operations + jnp.where(live[:, None], jnp.stack(counts, 1), 0).astype(jnp.int32),
            jnp.where(live, jnp.maximum(run.needed, run.canvas.lengths + counts[2] - counts[3]), run.needed),
        )
        return run, run.canvas

    begin = finished(canvas, jnp.zeros(rows, bool), nothing)
    run = _Run(canvas, begin, nothing, jnp.zeros((rows, 4), jnp.int32), canvas.lengths)
    live = lambda run: (run.reason == RUNNING).any()
    run, seen = drive(advance, run, live, limit, (lambda run: run.canvas) if trace else None)
    states = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), canvas, seen) if trace else None
    return Generated(*run, states)


def canvas_of(states, length: int, *, vocab: int) -> Canvas:
    """Rows of tokens, lists of any lengths up to N = `length`, as a canvas; V = `vocab` is the mask.

    ValueError that names the row: for one that is empty, does not fit (with the size it needs), or has another token.
    """
    tokens = np.full((len(states), length), vocab + 1, np.int32)
    for row, state in enumerate(states):
        if not len(state):
            raise ValueError(f"row {row} is empty: a row begins with at least one token, after which masks can come")
        if len(state) > length:
            raise ValueError(f"row {row} needs {len(state)} positions, and there are {length}")
        if wrong := [x for x in state if not 0 <= x <= vocab]:
            raise ValueError(f"row {row} has {wrong[0]}: a token is in 0..{vocab - 1}, the mask {vocab}")
        tokens[row, : len(state)] = state
    lengths = np.array([len(state) for state in states], np.int32)
    return Canvas(jnp.asarray(tokens), jnp.asarray(lengths), jnp.zeros(len(states), bool))


def check_overflow(found: Generated) -> None:
    """ValueError that names a row which wanted more positions than there are, and how many; waits for the device."""
    rows = np.flatnonzero(np.asarray(found.canvas.overflow))
    if len(rows):
        row, size = rows[0], found.canvas.tokens.shape[1]
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise ValueError(
            f"row {row}{more}: step {int(found.steps[row])} needs {int(found.needed[row])} positions and the canvas "
            f"has {size}: give a longer one"
        )


def _logit(p: float) -> float:
    """log(p / (1 - p)), infinite at the ends."""
    return -math.inf if p == 0 else math.inf if p == 1 else math.log(p / (1 - p))
