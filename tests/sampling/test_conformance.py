"""What every planner must do, in one suite: a new planner joins PLANNERS.

Rows: all open, two kinds of infilling, a prompt, a single mask, one row with padding, and a full one. V = 3, L = 5, a
random table as denoiser, so that rows can be compared bit by bit.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.base import KEEP, UNMASK, Planner, Trace
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.process import Cosine, Linear, SineSquared
from mdmjax.sampling import (
    Ancestral,
    Blocks,
    Confidence,
    DrawnOrder,
    FirstHitting,
    LeftToRight,
    RandomCount,
    Samples,
    TokenDraw,
    sample,
)

V, L = 3, 5
TABLE = random_table(jax.random.key(0), L, V, scale=2.0)
TOKENS = jnp.array(
    [
        [3, 3, 3, 3, 3],
        [3, 0, 3, 2, 3],
        [1, 3, 3, 3, 2],
        [0, 1, 2, 3, 3],
        [0, 1, 3, 2, 1],
        [3, 0, 3, 4, 4],
        [2, 1, 0, 2, 1],
    ]
)
OPEN = (TOKENS == V).sum(1)

PLANNERS = {
    "first-hitting": FirstHitting(Cosine()),
    "left to right": LeftToRight(),
    "drawn order": DrawnOrder((1.5, -2.0, 0.0, 0.5, 0.0), Cosine()),
    "ancestral, few steps": Ancestral(SineSquared(), 3),
    "ancestral, many steps": Ancestral(Linear(), 1000),
    "random count": RandomCount(SineSquared(), 4),
    "confidence": Confidence(Linear(), 3),
    "confidence, many steps": Confidence(Cosine(), 50),
    "blocks": Blocks(Confidence(Linear(), 2), 2),
}


CALLS = []  # one entry for each time that the denoiser ran


def denoiser(tokens, t=None, *, at=None):
    """The table, where padding reads as token 0. Counts its runs."""
    jax.debug.callback(lambda: CALLS.append(1))
    return table_denoiser(TABLE)(jnp.where(tokens > V, 0, tokens), t, at=at)


@functools.partial(jax.jit, static_argnames=("planner", "trace", "draw"))
def run(planner, tokens, key, ids, trace=False, draw=TokenDraw()):  # noqa: B008
    return sample(denoiser, planner, tokens, vocab=V, key=key, ids=ids, trace=trace, draw=draw)


class Case(NamedTuple):
    planner: Planner
    samples: Samples
    trace: Trace


@pytest.fixture(scope="module", params=PLANNERS)
def case(request):
    planner = PLANNERS[request.param]
    samples = run(planner, TOKENS, jax.random.key(1), jnp.arange(len(TOKENS)), trace=True)
    return Case(planner, samples, samples.trace)


def test_no_mask_is_left_and_no_prompt_is_touched(case):
    tokens = np.asarray(case.samples.tokens)
    assert not (tokens == V).any()
    given = np.asarray(TOKENS != V)
    np.testing.assert_array_equal(tokens[given], np.asarray(TOKENS)[given])
    assert ((tokens[~given] >= 0) & (tokens[~given] < V)).all()


def test_calls_are_counted_and_bounded(case):
    rows = np.asarray(case.samples.row_calls)
    assert (rows <= np.minimum(np.asarray(OPEN), case.planner.calls(L))).all()
    assert ((rows == 0) == (np.asarray(OPEN) == 0)).all()
    assert int(case.samples.calls) == rows.max() <= L


def test_the_denoiser_runs_as_often_as_counted(case):
    """Also with a trace, whose scan has a slice for every possible call; and never for a batch of full rows."""
    full, short = jnp.tile(TOKENS[-1:], (len(TOKENS), 1)), TOKENS.at[0].set(TOKENS[4])
    for trace in (False, True):
        for tokens in (TOKENS, short, full):
            jax.effects_barrier()
            CALLS.clear()
            out = run(case.planner, tokens, jax.random.key(1), jnp.arange(len(TOKENS)), trace=trace)
            jax.effects_barrier()
            assert len(CALLS) == int(out.calls) == out.row_calls.max()
            if trace:
                np.testing.assert_array_equal(out.trace.tokens[-1], out.tokens)
        assert int(out.calls) == 0
        np.testing.assert_array_equal(out.tokens, full)
    assert (out.trace.operations == KEEP).all() and (out.trace.steps == -1).all()


def test_the_same_key_gives_the_same_rows_with_and_without_trace(case):
    ids = jnp.arange(len(TOKENS))
    again = run(case.planner, TOKENS, jax.random.key(1), ids)
    np.testing.assert_array_equal(again.tokens, case.samples.tokens)
    np.testing.assert_array_equal(again.row_calls, case.samples.row_calls)
    other = run(case.planner, TOKENS, jax.random.key(2), ids)
    assert (other.tokens != case.samples.tokens).any()


def test_a_row_alone_is_the_row_of_the_batch(case):
    for b in range(len(TOKENS)):
        alone = run(case.planner, TOKENS[b : b + 1], jax.random.key(1), jnp.array([b]))
        np.testing.assert_array_equal(alone.tokens[0], case.samples.tokens[b])
        assert int(alone.calls) == case.samples.row_calls[b]


@functools.cache
def network():
    """A small transformer with parameters away from the initial ones, where all logits are nearly equal."""
    model = transformer(TransformerConfig(vocab=V, length=L, width=16, depth=1, heads=2, pads=True))
    params = jax.jit(model.init)(jax.random.key(2))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    moved = [x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return model.bind(tree.unflatten(moved))


@pytest.mark.parametrize("name", [name for name in PLANNERS if "many" not in name])
def test_a_row_alone_is_the_row_of_the_batch_for_a_network_too(name):
    """Its logits change with the batch size in their last digits, in float32 at the highest precision of matmuls."""

    @jax.jit
    def tokens(denoiser, tokens, ids):
        return sample(denoiser, PLANNERS[name], tokens, vocab=V, key=jax.random.key(1), ids=ids).tokens

    together = tokens(network(), TOKENS, jnp.arange(len(TOKENS)))
    for b in range(len(TOKENS)):
        np.testing.assert_array_equal(tokens(network(), TOKENS[b : b + 1], jnp.array([b]))[0], together[b])


def test_rows_follow_their_ids(case):
    order = jnp.array([3, 0, 6, 1, 5, 2, 4])
    moved = run(case.planner, TOKENS[order], jax.random.key(1), order)
    np.testing.assert_array_equal(moved.tokens, case.samples.tokens[order])
    twins = run(case.planner, jnp.full_like(TOKENS, V), jax.random.key(1), jnp.arange(len(TOKENS)))
    assert len(np.unique(twins.tokens, axis=0)) > 1  # equal rows with other ids differ


def test_trace_tells_what_happened(case):
    trace = jax.tree.map(np.asarray, case.trace)
    np.testing.assert_array_equal(trace.tokens[0], TOKENS)
    np.testing.assert_array_equal(trace.tokens[-1], case.samples.tokens)
    assert len(trace.tokens) == len(trace.operations) + 1 == case.planner.calls(L) + 1
    before, after, written = trace.tokens[:-1], trace.tokens[1:], trace.operations == UNMASK
    assert ((trace.operations == KEEP) | written).all()
    np.testing.assert_array_equal(written, before != after)
    assert (before[written] == V).all()
    np.testing.assert_array_equal(written.any(2).sum(0), case.samples.row_calls)
    served = np.arange(len(written))[:, None] < case.samples.row_calls[None]
    np.testing.assert_array_equal(trace.steps >= 0, served)
    for b in range(len(TOKENS)):
        steps, times = (x[served[:, b], b] for x in (trace.steps, trace.times))
        assert (np.diff(steps) > 0).all() and (np.diff(times) <= 0).all()
        assert ((times > 0) & (times <= 1)).all()


def test_confidence_is_the_probability_of_the_written_token(case):
    trace = jax.tree.map(np.asarray, case.trace)
    for c, written in enumerate(trace.operations == UNMASK):
        p = jax.nn.softmax(denoiser(jnp.asarray(trace.tokens[c])))
        values = np.minimum(trace.tokens[c + 1], V - 1)[..., None]
        expected = np.where(written, np.take_along_axis(np.asarray(p), values, -1)[..., 0], 0)
        np.testing.assert_allclose(trace.confidence[c], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["left to right", "confidence", "ancestral, few steps"])
def test_temperature_zero_writes_the_most_probable_tokens(name):
    planner, greedy, ids = PLANNERS[name], TokenDraw(0.0), jnp.arange(len(TOKENS))
    out = run(planner, TOKENS, jax.random.key(1), ids, trace=True, draw=greedy)
    for c, written in enumerate(np.asarray(out.trace.operations == UNMASK)):
        best = np.asarray(denoiser(out.trace.tokens[c]).argmax(-1))
        np.testing.assert_array_equal(np.asarray(out.trace.tokens[c + 1])[written], best[written])
    if not isinstance(planner, Ancestral):  # no other randomness
        again = run(planner, TOKENS, jax.random.key(9), ids, trace=True, draw=greedy)
        np.testing.assert_array_equal(again.tokens, out.tokens)
