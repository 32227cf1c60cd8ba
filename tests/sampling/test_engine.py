"""The engine: transformations and devices, times, capacity, other planners than ours, donation, bad input."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.base import REMASK, UNMASK, Planner, Turn
from mdmjax.process import Linear, SineSquared
from mdmjax.sampling import (
    Ancestral,
    Confidence,
    FirstHitting,
    Guided,
    LeftToRight,
    TokenDraw,
    jit_sampler,
    sample,
    scores,
)

V, L, B = 3, 4, 8
TABLE = random_table(jax.random.key(0), L, V, scale=2.0)
DENOISER = table_denoiser(TABLE)
TOKENS = jnp.full((B, L), V).at[1, 1:3].set(1).at[2:4].set(0).at[4:6, 1:].set(2)
KEY = jax.random.key(1)
IDS = jnp.arange(B)
PLANNERS = [FirstHitting(), Ancestral(SineSquared(), 3), Confidence(Linear(), 3)]


CALLS = []  # one entry for each time that the denoiser of `alone` ran


@functools.partial(jax.jit, static_argnames="planner")
def alone(planner, key):
    """What one device makes of the whole batch."""

    def denoiser(tokens, t=None, *, at=None):
        jax.debug.callback(lambda: CALLS.append(1))
        return DENOISER(tokens, t, at=at)

    return sample(denoiser, planner, TOKENS, vocab=V, key=key)


@functools.cache
def expected(planner):
    return alone(planner, KEY)


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_batch_needs_as_many_calls_as_its_slowest_row(planner):
    jax.effects_barrier()
    CALLS.clear()
    out = jax.block_until_ready(alone(planner, KEY))
    jax.effects_barrier()
    assert len(CALLS) == int(out.calls) == out.row_calls.max() > out.row_calls.min() == 0


@pytest.mark.parametrize("planner, trace, capacity", [(PLANNERS[1], False, 2), (PLANNERS[2], True, 1)])
def test_shard_map_over_rows(planner, trace, capacity):
    """Each device stops when its own rows are finished; the tokens are those of one device that is asked everywhere.

    Asked at one of 4 positions, nearly all calls fall back to asking all.
    """
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def shard(tokens, ids):
        out = sample(DENOISER, planner, tokens, vocab=V, key=KEY, ids=ids, capacity=capacity, trace=trace)
        return out.tokens, out.calls[None]

    rows = P("data")
    tokens, calls = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=rows, out_specs=rows))(TOKENS, IDS)
    np.testing.assert_array_equal(tokens, expected(planner).tokens)
    needed = np.asarray(expected(planner).row_calls).reshape(4, 2).max(1)
    assert calls.tolist() == needed.tolist()
    assert needed[1] == 0 and len(set(needed.tolist())) > 2  # devices that differ, and one with nothing to do


def test_jit_over_sharded_rows_and_pmap():
    planner = Ancestral(SineSquared(), 3)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(TOKENS, NamedSharding(mesh, P("data")))
    out = jax.jit(lambda tokens: sample(DENOISER, planner, tokens, vocab=V, key=KEY).tokens)(spread)
    np.testing.assert_array_equal(out, expected(planner).tokens)
    each = jax.pmap(lambda tokens, ids: sample(DENOISER, planner, tokens, vocab=V, key=KEY, ids=ids).tokens)
    np.testing.assert_array_equal(
        each(TOKENS.reshape(2, 4, L), IDS.reshape(2, 4)).reshape(B, L), expected(planner).tokens
    )


def test_vmap_over_keys():
    keys = jax.random.split(KEY, 3)
    planner = PLANNERS[1]
    together = jax.jit(jax.vmap(lambda key: sample(DENOISER, planner, TOKENS, vocab=V, key=key).tokens))(keys)
    np.testing.assert_array_equal(together, jnp.stack([alone(planner, key).tokens for key in keys]))


def test_float64(x64):
    table = np.asarray(TABLE, np.float64)
    out = jax.jit(lambda: sample(table_denoiser(table), FirstHitting(), TOKENS, vocab=V, key=KEY, trace=True))()
    assert out.trace.confidence.dtype == out.trace.times.dtype == jnp.float64
    assert not (out.tokens == V).any()


def test_positions_asked():
    """One position a row for one-by-one planners; with a capacity, a branch for that many and one for all."""

    def asked(planner, capacity=None):
        shapes = set()

        def watched(tokens, t=None, *, at=None):
            shapes.add(None if at is None else at.shape)
            return DENOISER(tokens, t, at=at)

        jax.eval_shape(lambda: sample(watched, planner, TOKENS, vocab=V, key=KEY, capacity=capacity))
        return shapes

    assert asked(FirstHitting()) == asked(LeftToRight()) == {(B, 1)}
    assert asked(FirstHitting(), 3) == {(B, 1)}  # no more than may change
    assert asked(PLANNERS[1]) == asked(PLANNERS[2]) == {None}
    assert asked(PLANNERS[1], 2) == asked(PLANNERS[2], 2) == {(B, 2), None}


def test_drawing_some_positions_at_a_time_changes_nothing(monkeypatch):
    """In three parts, the last of which overlaps another."""
    length = 70
    logits = jax.random.normal(KEY, (2, length, V))
    denoiser = lambda tokens, t=None, *, at=None: logits

    def tokens():
        masks = jnp.full((2, length), V)
        return jax.jit(lambda: sample(denoiser, Ancestral(Linear(), 2), masks, vocab=V, key=KEY).tokens)()

    some = tokens()
    monkeypatch.setattr("mdmjax.sampling.engine.DRAWN_AT_ONCE", length)
    np.testing.assert_array_equal(some, tokens())


@pytest.mark.parametrize(
    "draw, score",
    [
        (TokenDraw(), None),
        (TokenDraw(0.0), scores.margin),
        (TokenDraw(0.7), scores.negative_entropy),
        (TokenDraw(0.7, 0.9), None),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_no_second_array_of_the_size_of_the_logits(draw, score):
    """Whatever a draw holds, and a score, which is taken where tokens are drawn: for some positions at a time."""
    batch, length, vocab = 1, 256, 20_000
    planner = Ancestral(Linear(), 2) if score is None else Confidence(Linear(), 2, score=score)

    def run(logits, tokens, key):
        return sample(lambda *_, **__: logits, planner, tokens, vocab=vocab, key=key, draw=draw).tokens

    shapes = jax.eval_shape(lambda: (jnp.zeros((batch, length, vocab)), jnp.zeros((batch, length), int), KEY))
    temporary = jax.jit(run).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 0.3 * batch * length * vocab * 4


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """Writes all masks, then `rounds` times takes back the least confident half and writes it anew: a remasking planner
    with a state, as outside of the library."""

    rounds: int

    def calls(self, length: int) -> int:
        return 1 + 2 * self.rounds

    def width(self, length: int) -> int:
        return length

    def init(self, key, open) -> Any:
        return open, jnp.zeros(open.shape), 0

    def turn(self, state, open) -> Turn:
        free, _, step = state
        return Turn(jnp.asarray(step), jnp.asarray(0.5), free & (step < self.calls(0)))

    def choose(self, state, turn, confidence):
        free, written_with, step = state
        doubted = free & (jnp.argsort(jnp.argsort(jnp.where(free, written_with, 2))) < free.sum() // 2)
        masked = jnp.where(step == 0, free, doubted)
        writes = step % 2 == 0
        return jnp.where(masked, jnp.where(writes, UNMASK, REMASK), 0), (
            free,
            jnp.where(masked & writes, confidence, written_with),
            step + 1,
        )


def test_a_planner_that_remasks():
    """The engine serves it as it is: masks come back, prompts stay, each row ends by itself and without masks."""
    out = jax.jit(lambda: sample(DENOISER, Rewrite(2), TOKENS, vocab=V, key=KEY, trace=True))()
    operations = np.asarray(out.trace.operations)
    assert out.finished.all()
    assert out.row_calls.tolist() == [5, 5, 0, 0, 5, 5, 5, 5] and not (out.tokens == V).any()
    assert (operations == REMASK).any(2).sum(0).tolist() == [2, 2, 0, 0, 0, 0, 2, 2]
    assert (operations == REMASK).sum(2).max() == L // 2
    np.testing.assert_array_equal(np.asarray(out.trace.tokens[1:] == V)[operations == REMASK], True)
    given = np.asarray(TOKENS != V)
    np.testing.assert_array_equal(np.asarray(out.tokens)[given], np.asarray(TOKENS)[given])
    plain = jax.jit(lambda: sample(DENOISER, Rewrite(2), TOKENS, vocab=V, key=KEY))()
    np.testing.assert_array_equal(plain.tokens, out.tokens)
    assert isinstance(Rewrite(2), Planner)


class Endless(Rewrite):
    """Never finishes, and would touch everything."""

    def turn(self, state, open) -> Turn:
        return Turn(jnp.asarray(state[2]), jnp.asarray(0.5), jnp.ones_like(open))

    def choose(self, state, turn, confidence):
        return jnp.full(confidence.shape, UNMASK), (*state[:2], state[2] + 1)


@pytest.mark.parametrize("trace", [False, True])
def test_a_planner_that_never_halts_is_stopped_and_prompts_are_safe(trace):
    out = jax.jit(lambda: sample(DENOISER, Endless(1), TOKENS, vocab=V, key=KEY, trace=trace))()
    assert int(out.calls) == 3 and not out.finished.any()
    given = np.asarray(TOKENS != V)
    np.testing.assert_array_equal(np.asarray(out.tokens)[given], np.asarray(TOKENS)[given])


def test_an_empty_batch():
    out = jax.jit(lambda: sample(DENOISER, FirstHitting(), TOKENS[:0], vocab=V, key=KEY))()
    assert out.tokens.shape == (0, L) and int(out.calls) == 0


def test_jit_sampler_compiles_once_and_donates_the_canvas():
    """And tokens keep their dtype."""
    bind, small = chex.assert_max_traces(table_denoiser, 1), TOKENS.astype(jnp.int8)
    run = jit_sampler(bind, FirstHitting(), vocab=V, trace=True)
    canvas = small.copy()
    out = run(TABLE, canvas, KEY)
    assert canvas.is_deleted()
    assert out.tokens.dtype == out.trace.tokens.dtype == jnp.int8
    np.testing.assert_array_equal(out.tokens, expected(FirstHitting()).tokens)
    assert out.trace is not None
    run(2 * TABLE, small.copy(), jax.random.key(5))
    with pytest.raises(ValueError, match=r"tokens\[3, 2\] = 5: must be a value in 0..2, the mask 3, or padding 4"):
        run(TABLE, small.at[3, 2].set(5), KEY)


def test_jit_sampler_guides():
    """By what is given in each row; where nothing is, guidance changes nothing."""
    run = jit_sampler(table_denoiser, FirstHitting(), vocab=V, guidance=2.0)
    out = run(TABLE, jnp.array(TOKENS), KEY)
    guided = jax.jit(
        lambda: sample(Guided(DENOISER, TOKENS != V, V, 2.0), FirstHitting(), TOKENS, vocab=V, key=KEY).tokens
    )()
    assert (out.tokens == guided).all() and int(out.passes) == 2 * int(out.calls)
    plain, nothing = expected(FirstHitting()).tokens, (TOKENS == V).all(1)
    assert (out.tokens == plain)[nothing].all() and nothing.any() and (out.tokens != plain).any()


@pytest.mark.parametrize(
    "tokens, options, message",
    [
        (TOKENS.at[0, 1].set(-1), {}, r"tokens\[0, 1\] = -1: must be a value in 0..2, the mask 3, or padding 4"),
        (TOKENS[:, :0], {}, r"tokens int32\[8, 0\]: must be integers \[B, L\] with L >= 1"),
        (TOKENS, {"capacity": 0}, r"capacity=0: must be >= 1"),
    ],
)
def test_bad_input(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        sample(DENOISER, FirstHitting(), tokens, vocab=V, key=KEY, **options)
