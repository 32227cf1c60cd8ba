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
from mdmjax.anyprocess.timed import Timed
from mdmjax.anyprocess.transition import Controls, effects, moved, protect, within
from mdmjax.base import DELETE, INSERT, REMASK, UNMASK, Canvas, Trace
from mdmjax.process import example_keys
from mdmjax.sampling import drive

RUNNING, OVERFLOW, END, FIXED, LIMIT, STOPPED = range(6)  # why a row has finished, in the order of the tests
REASONS = ("running", "overflow", "end token", "fixed point", "step limit", "stopped")
COUNTED = (UNMASK, REMASK, INSERT, DELETE)
MOST = 1e4  # a finite logit for what is certain


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a policy's logits become decisions: the likeliest token and each operation whose probability is above its
    threshold (remask, insert, delete), or, with `draw`, a token and operations at random with those probabilities.

    With `draw`, what has a probability below `least` never happens, and an operation above 1 - `least` always does. The
    likeliest token is never left out.
    `single` inserts at one position of a row at most, as the decisions would do given that no more than one of them
    says so: P(i) is proportional to p_i / (1 - p_i), and that of none to 1; without `draw`, at the likeliest one.

    ValueError for thresholds that are not three numbers in [0, 1], and for `least` outside [0, 1/2).
    """

    thresholds: tuple[float, float, float] = (0.5, 0.5, 0.5)
    draw: bool = False
    least: float = 0.0
    single: bool = False

    def __post_init__(self):
        if np.shape(self.thresholds) != (3,) or not all(0 <= p <= 1 for p in self.thresholds):
            raise ValueError(f"Decoding(thresholds={self.thresholds}): three numbers in [0, 1] are needed")
        if not 0 <= self.least < 0.5:
            raise ValueError(f"Decoding(least={self.least}): must be in [0, 1/2)")

    def __call__(
        self,
        key: Key[Array, ""],
        logits: Float[Array, "N V"],
        controls: Float[Array, "N 3"],
    ) -> Controls:
        """The decisions for one row; `controls` are -inf beyond its end. With `draw` the key is consumed."""
        # logit p > logit threshold: at thresholds 0 and 1 it always and never fires
        limits = jnp.array([_logit(p) for p in self.thresholds], controls.dtype)[None]
        if self.draw:
            of_token, of_operation, of_place = jax.random.split(key, 3)
            likely = jax.nn.log_softmax(logits) >= _log(self.least)
            likely |= logits == logits.max(1, keepdims=True)  # something must be drawn
            values = jax.random.categorical(of_token, jnp.where(likely, logits, -jnp.inf))
            least = _logit(self.least)
            controls = jnp.where(controls < least, -jnp.inf, jnp.where(controls > -least, jnp.inf, controls))
            fired = jax.random.uniform(of_operation, controls.shape) < jax.nn.sigmoid(controls)
        else:
            values = jnp.argmax(logits, 1)
            fired = controls > limits
        remask, insert, delete = fired.T
        if self.single:
            odds = jnp.append(jnp.minimum(controls[:, 1], MOST), 0.0)
            place = jax.random.categorical(of_place, odds) if self.draw else jnp.argmax(controls[:, 1])
            insert = (jnp.arange(len(insert)) == place) & (insert | self.draw)
        return Controls(values, remask, insert.astype(jnp.int32), delete)


@dataclasses.dataclass(frozen=True)
class Halting:
    """When a row has finished, besides an overflow and the step limit: a token `end` is in it; a step has changed
    nothing (`fixed`, None: where decoding is not random); `stop(tokens [N], length)` is true. arXiv 2510.06190 leaves
    the rule open."""

    end: int | None = None
    fixed: bool | None = None
    stop: Callable | None = None


class Counts(NamedTuple):
    """What each step did to each row: six numbers, where a trace keeps five arrays of a canvas's size."""

    operations: Int[Array, "T B 4"]  # tokens unmasked, remasked, inserted, deleted
    lengths: Int[Array, "T B"]  # after the step
    steps: Int[Array, "T B"]  # its number, -1 where the row had finished


class Generated(NamedTuple):
    """What `generate` has made."""

    canvas: Canvas
    reason: Int[Array, "B"]  # why each row has finished: END, FIXED, ...
    steps: Int[Array, "B"]  # denoiser calls that served the row
    operations: Int[Array, "B 4"]  # how many tokens were unmasked, remasked, inserted, deleted
    needed: Int[Array, "B"]  # the most positions that the row wanted
    trace: Trace | None  # t is 0 throughout, for a policy knows no time
    counts: Counts | None = None


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
    begin: Int[Array, "B"] | None = None,
    calls: int | None = None,
    trace: bool = False,
    counts: bool = False,
) -> Generated:
    """Steps of `policy(tokens [B, N], lengths [B]) -> (logits [B, N, V], controls [B, N, 3])` until each row finishes.

    A row that has finished stays as it is; the loop ends with the last one, after `limit` steps at most. `protected`
    tokens at the beginning of a row are never remasked or deleted. Randomness of a row is that of fold_in(key, its id)
    and the number of the step. Consumes `key`.

    The work can be done in pieces: after `calls` steps a row that has not finished is RUNNING still, and goes on from
    its canvas with `begin`, the steps that it has had; all the same then as in one piece (see `generate_all`). A trace
    keeps calls + 1 canvases, and four arrays of their size; `counts` keep six numbers of a row's step. Pure; ValueError
    for limit < 1 and calls < 1, and for a trace and counts at once.
    """
    calls = limit if calls is None else calls
    if min(limit, calls) < 1:
        raise ValueError(f"limit={limit}, calls={calls}: at least one step is needed")
    if trace and counts:
        raise ValueError("trace=True and counts=True: a trace says all that the counts do; ask for one")
    fixed = not decoding.draw if halting.fixed is None else halting.fixed
    rows = len(canvas.tokens)
    row_keys = example_keys(key, jnp.arange(rows) if ids is None else ids)
    begin = jnp.zeros(rows, jnp.int32) if begin is None else begin.astype(jnp.int32)

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
        inside = within(run.canvas.tokens, run.canvas.lengths)
        keys = jax.vmap(jax.random.fold_in)(row_keys, run.steps)
        controls = jax.vmap(decoding)(keys, logits, jnp.where(inside[..., None], operations, -jnp.inf))
        if protected is not None:
            controls = protect(controls, protected)
        live = run.reason == RUNNING
        stay = lambda new, old: jnp.where(live.reshape(-1, *[1] * (old.ndim - 1)), new, old)
        done = effects(run.canvas, controls, vocab=vocab, variant=variant)
        after = moved(run.canvas, done, vocab=vocab)
        happened = [done.inserted.sum(1) if o == INSERT else (done.operations == o).sum(1) for o in COUNTED]
        these = jnp.where(live[:, None], jnp.stack(happened, 1), 0).astype(jnp.int32)
        same = (after.tokens == run.canvas.tokens).all(1) & (after.lengths == run.canvas.lengths)
        steps = run.steps + live
        number = jnp.where(live, run.steps, -1)
        run = _Run(
            jax.tree.map(stay, after, run.canvas),
            stay(finished(after, same, steps), run.reason),
            steps,
            run.operations + these,
            jnp.where(live, jnp.maximum(run.needed, run.canvas.lengths + happened[2] - happened[3]), run.needed),
        )
        if counts:
            return run, Counts(these, run.canvas.lengths, number)
        if not trace:
            return run, None
        written = (done.operations == UNMASK) & live[:, None]
        chosen = jnp.take_along_axis(logits, controls.values[..., None], 2)[..., 0]
        confidence = jnp.where(written, jnp.exp(chosen - jax.nn.logsumexp(logits, 2)), 0)
        of_live = lambda x: jnp.where(live[:, None], x, 0)  # 0 is KEEP
        return run, (run.canvas, confidence, of_live(done.operations), of_live(done.inserted), number)

    def idle(run: _Run):
        if counts:
            return Counts(jnp.zeros_like(run.operations), run.canvas.lengths, jnp.full_like(run.steps, -1))
        nothing = jnp.zeros_like(run.canvas.tokens)
        return run.canvas, nothing.astype(jnp.result_type(float)), nothing, nothing, jnp.full_like(run.steps, -1)

    start = finished(canvas, jnp.zeros(rows, bool), begin)
    run = _Run(canvas, start, begin, jnp.zeros((rows, 4), jnp.int32), canvas.lengths)
    live = lambda run: (run.reason == RUNNING).any()
    run, seen = drive(advance, run, live, calls, idle if trace or counts else None)
    if seen is None or counts:
        return Generated(*run, None, seen)
    states, confidence, operations, inserted, numbers = seen
    tokens, lengths = (
        jnp.concatenate([first[None], rest])
        for first, rest in ((canvas.tokens, states.tokens), (canvas.lengths, states.lengths))
    )
    times = jnp.zeros_like(numbers, jnp.result_type(float))
    return Generated(*run, Trace(tokens, confidence, operations, numbers, times, inserted, lengths))


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


def check_overflow(found: Generated | Timed, ids: np.ndarray | None = None) -> None:
    """ValueError that names a row which wanted more positions than there are, and how many; waits for the device.

    For what `generate`, `generate_flexible` and `generate_edits` have made. `ids` are the numbers by which the user
    knows the rows.
    """
    rows = np.flatnonzero(np.asarray(found.canvas.overflow))
    if len(rows):
        row, size = rows[0], found.canvas.tokens.shape[1]
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise ValueError(
            f"row {row if ids is None else ids[row]}{more}: step {int(found.steps[row])} needs "
            f"{int(found.needed[row])} positions and the canvas has {size}: give a longer one"
        )


def _logit(p: float) -> float:
    """log(p / (1 - p)), infinite at the ends."""
    return -math.inf if p == 0 else math.inf if p == 1 else math.log(p / (1 - p))


def _log(p: float) -> float:
    """log p, -inf at 0."""
    return -math.inf if p == 0 else math.log(p)
