"""What every planner must do, in one suite: a new planner joins CASES of `planner_cases`.

Rows: all open, two kinds of infilling, a prompt, a single mask, one row with padding, and a full one. V = 3, L = 4, a
random table as denoiser, so that rows can be compared bit by bit. Laws are in `test_sampling_laws`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planner_cases import CASES, Case, L, V

from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.base import KEEP, REMASK, UNMASK, Trace
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.sampling import Ancestral, MaskOne, Samples, TokenDraw, sample

TABLE = random_table(jax.random.key(0), L, V, scale=2.0)
TOKENS = jnp.array([[3, 3, 3, 3], [3, 0, 3, 2], [1, 3, 3, 2], [0, 1, 3, 3], [0, 3, 2, 1], [3, 0, 4, 4], [2, 1, 0, 2]])
OPEN = (TOKENS == V).sum(1)

# Planners that differ in what they ask of the engine, and in what they compare: each is compiled anew for a run
# without a trace, for rows by themselves, and for a network.
COMPARED = [
    "first-hitting", "left to right", "drawn order", "ancestral, few steps", "random count", "confidence", "blocks",
    "margin", "threshold", "path planning", "predictor, corrector",
]  # fmt: skip


CALLS = []  # one entry for each time that the denoiser ran


def denoiser(tokens, t=None, *, at=None):
    """The table, where padding reads as token 0. Counts its runs."""
    jax.debug.callback(lambda: CALLS.append(1))
    return table_denoiser(TABLE)(jnp.where(tokens > V, 0, tokens), t, at=at)


@functools.partial(jax.jit, static_argnames=("name", "trace", "draw"))
def run(name, tokens, key, ids, trace=True, draw=TokenDraw()):  # noqa: B008
    of = CASES[name]
    model = MaskOne(denoiser, V) if of.mask_one else denoiser
    return sample(model, of.planner, tokens, vocab=V, key=key, ids=ids, trace=trace, draw=draw)


class Ran(NamedTuple):
    name: str
    of: Case
    samples: Samples
    trace: Trace


@pytest.fixture(scope="module", params=CASES)
def case(request):
    samples = run(request.param, TOKENS, jax.random.key(1), jnp.arange(len(TOKENS)))
    return Ran(request.param, CASES[request.param], samples, samples.trace)


def test_no_mask_is_left_and_no_prompt_is_touched(case):
    tokens = np.asarray(case.samples.tokens)
    assert not (tokens == V).any()
    given = np.asarray(TOKENS != V)
    np.testing.assert_array_equal(tokens[given], np.asarray(TOKENS)[given])
    assert ((tokens[~given] >= 0) & (tokens[~given] < V)).all()


def test_calls_are_counted_and_bounded(case):
    rows, most = np.asarray(case.samples.row_calls), case.of.planner.calls(L)
    assert (rows <= (most if case.of.takes_back else np.minimum(np.asarray(OPEN), most))).all()
    assert ((rows == 0) == (np.asarray(OPEN) == 0)).all()
    assert int(case.samples.calls) == rows.max() <= most
    assert case.samples.finished.all()
    asked = case.of.planner.width(L)  # positions of a row, each a forward pass where they are masked one at a time
    assert int(case.samples.passes) == int(case.samples.calls) * (asked if case.of.mask_one else 1)


def test_the_denoiser_runs_as_often_as_counted(case):
    """Also with a trace, whose scan has a slice for every possible call; and never for a batch of full rows."""
    full, short = jnp.tile(TOKENS[-1:], (len(TOKENS), 1)), TOKENS.at[0].set(TOKENS[4])
    for trace in (False, True) if case.name in COMPARED else (True,):
        for tokens in (TOKENS, short, full):
            jax.effects_barrier()
            CALLS.clear()
            out = run(case.name, tokens, jax.random.key(1), jnp.arange(len(TOKENS)), trace=trace)
            jax.effects_barrier()
            assert len(CALLS) == int(out.calls) == out.row_calls.max()
            if trace:
                np.testing.assert_array_equal(out.trace.tokens[-1], out.tokens)
        assert int(out.calls) == 0
        np.testing.assert_array_equal(out.tokens, full)
    assert (out.trace.operations == KEEP).all() and (out.trace.steps == -1).all()


def test_the_same_key_gives_the_same_rows_with_and_without_trace(case):
    ids = jnp.arange(len(TOKENS))
    again = run(case.name, TOKENS, jax.random.key(1), ids, trace=case.name not in COMPARED)
    np.testing.assert_array_equal(again.tokens, case.samples.tokens)
    np.testing.assert_array_equal(again.row_calls, case.samples.row_calls)
    other = run(case.name, TOKENS, jax.random.key(2), ids)
    assert (other.tokens != case.samples.tokens).any()


def test_a_row_alone_is_the_row_of_the_batch(case):
    """Beside rows that are full, and so ask for nothing; rows in a batch of one are in the next test."""
    for b in range(len(TOKENS)):
        beside = jnp.where(jnp.arange(len(TOKENS))[:, None] == b, TOKENS, TOKENS[-1:])
        alone = run(case.name, beside, jax.random.key(1), jnp.arange(len(TOKENS)))
        np.testing.assert_array_equal(alone.tokens[b], case.samples.tokens[b])
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


@pytest.mark.parametrize("name", COMPARED)
def test_a_row_alone_is_the_row_of_the_batch_for_a_network_too(name):
    """Its logits change with the batch size in their last digits, in float32 at the highest precision of matmuls."""

    @jax.jit
    def tokens(denoiser, tokens, ids):
        return sample(denoiser, CASES[name].planner, tokens, vocab=V, key=jax.random.key(1), ids=ids).tokens

    together = tokens(network(), TOKENS, jnp.arange(len(TOKENS)))
    for b in range(len(TOKENS)):
        np.testing.assert_array_equal(tokens(network(), TOKENS[b : b + 1], jnp.array([b]))[0], together[b])


def test_rows_follow_their_ids(case):
    order = jnp.array([3, 0, 6, 1, 5, 2, 4])
    moved = run(case.name, TOKENS[order], jax.random.key(1), order)
    np.testing.assert_array_equal(moved.tokens, case.samples.tokens[order])
    twins = run(case.name, jnp.full_like(TOKENS, V), jax.random.key(1), jnp.arange(len(TOKENS)))
    assert len(np.unique(twins.tokens, axis=0)) > 1  # equal rows with other ids differ


def test_trace_tells_what_happened(case):
    trace = jax.tree.map(np.asarray, case.trace)
    np.testing.assert_array_equal(trace.tokens[0], TOKENS)
    np.testing.assert_array_equal(trace.tokens[-1], case.samples.tokens)
    assert len(trace.tokens) == len(trace.operations) + 1 == case.of.planner.calls(L) + 1
    before, after, written = trace.tokens[:-1], trace.tokens[1:], trace.operations == UNMASK
    taken = trace.operations == REMASK
    assert ((trace.operations == KEEP) | written | taken).all()
    np.testing.assert_array_equal((before != after) & ~written, taken)
    assert (after[written] < V).all() and (before[taken] < V).all() and (after[taken] == V).all()
    served = np.arange(len(written))[:, None] < case.samples.row_calls[None]
    np.testing.assert_array_equal(trace.steps >= 0, served)
    assert not (trace.operations != KEEP)[~served].any()
    if not case.of.takes_back:
        assert (before[written] == V).all() and not taken.any()
        np.testing.assert_array_equal(written.any(2), served)
    for b in range(len(TOKENS)):
        steps, times = (x[served[:, b], b] for x in (trace.steps, trace.times))
        assert (np.diff(steps) >= (not case.of.takes_back)).all() and (np.diff(times) <= 0).all()
        assert ((times > 0) | case.of.mask_one).all() and ((times >= 0) & (times <= 1)).all()


def test_confidence_is_the_probability_of_the_written_token(case):
    trace = jax.tree.map(np.asarray, case.trace)
    model = jax.jit(MaskOne(denoiser, V) if case.of.mask_one else denoiser)
    for c, written in enumerate(trace.operations == UNMASK):
        p = jax.nn.softmax(model(jnp.asarray(trace.tokens[c])))
        values = np.minimum(trace.tokens[c + 1], V - 1)[..., None]
        expected = np.where(written, np.take_along_axis(np.asarray(p), values, -1)[..., 0], 0)
        np.testing.assert_allclose(trace.confidence[c], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["left to right", "confidence", "ancestral, few steps"])
def test_temperature_zero_writes_the_most_probable_tokens(name):
    greedy, ids = TokenDraw(0.0), jnp.arange(len(TOKENS))
    out = run(name, TOKENS, jax.random.key(1), ids, draw=greedy)
    for c, written in enumerate(np.asarray(out.trace.operations == UNMASK)):
        best = np.asarray(denoiser(out.trace.tokens[c]).argmax(-1))
        np.testing.assert_array_equal(np.asarray(out.trace.tokens[c + 1])[written], best[written])
    if not isinstance(CASES[name].planner, Ancestral):  # no other randomness
        again = run(name, TOKENS, jax.random.key(9), ids, draw=greedy)
        np.testing.assert_array_equal(again.tokens, out.tokens)
