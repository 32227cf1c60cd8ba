"""What every planner must do, in one suite: a new planner joins CASES of `planner_cases`.

Rows: all open, two kinds of infilling, a prompt, a single mask, one row with padding, and a full one. V = 3, L = 4, a
random table as denoiser, so that rows can be compared bit by bit. And their laws: a chi-square of N rows against the
exact ones by enumeration, with fixed keys; p > 1e-4 is asked for.

What takes time is compilation. So there is one program for each planner, of so many rows that it serves the laws too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planner_cases import ALL, CASES, PROMPTED, TABLE, Case, L, V
from scipy import stats

from mdmjax.analysis.tables import table_denoiser
from mdmjax.base import KEEP, REMASK, UNMASK, Trace
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.sampling import Ancestral, MaskOne, Samples, TokenDraw, sample

TOKENS = jnp.array([[3, 3, 3, 3], [3, 0, 3, 2], [1, 3, 3, 2], [0, 1, 3, 3], [0, 3, 2, 1], [3, 0, 4, 4], [2, 1, 0, 2]])
OPEN = (TOKENS == V).sum(1)
KEY, IDS = jax.random.key(1), np.arange(len(TOKENS))
ROWS, RUNS, P_MIN = 256, 64, 1e-4  # of the program of a planner; N = ROWS * RUNS

# Planners that differ in what they ask of the engine, and in what they compare: each is compiled anew for rows by
# themselves and without a trace, and its programs know a network too.
COMPARED = [
    "first-hitting", "left to right", "drawn order", "ancestral, few steps", "random count", "confidence", "blocks",
    "margin", "threshold", "path planning", "predictor, corrector",
]  # fmt: skip
GREEDY = ["left to right", "confidence", "ancestral, few steps"]  # whose programs can do without chance


CALLS = []  # one entry for each time that the denoiser ran: the times that it was told


def denoiser(tokens, t=None, *, at=None):
    """The table, where padding reads as token 0. Tells of its runs."""
    return table_denoiser(TABLE)(jnp.where(tokens > V, 0, tokens), t, at=at)


@functools.cache
def network():
    """A small transformer with parameters away from the initial ones, where all logits are nearly equal."""
    model = transformer(TransformerConfig(vocab=V, length=L, width=16, depth=1, heads=2, pads=True))

    @jax.jit
    def params():
        leaves, tree = jax.tree.flatten(model.init(jax.random.key(2)))
        keys = jax.random.split(jax.random.key(3), len(leaves))
        return tree.unflatten([x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])

    return model.bind(params())


@functools.partial(jax.jit, static_argnames=("name", "trace"))
def compiled(name, tokens, ids, key, network, by_network, greedy, trace):
    def model(tokens, t=None, *, at=None):
        jax.debug.callback(CALLS.append, t)
        if name not in COMPARED:
            return denoiser(tokens, t, at=at)
        both = (lambda: network(tokens, t, at=at)), (lambda: denoiser(tokens, t, at=at))
        return jax.lax.cond(by_network, *both)

    def draw(key, logits):
        pairs = [TokenDraw(temperature)(key, logits) for temperature in (0.0, 1.0)]
        return jax.tree.map(lambda best, drawn: jnp.where(greedy, best, drawn), *pairs)

    model = MaskOne(model, V) if CASES[name].mask_one else model
    how = dict(draw=draw) if name in GREEDY else {}
    return sample(model, CASES[name].planner, tokens, vocab=V, key=key, ids=ids, trace=trace, **how)


def result(name, tokens, ids, key=KEY, by_network=False, greedy=False, trace=True):
    """Of the program of a planner."""
    return compiled(name, tokens, ids, key, network() if name in COMPARED else None, by_network, greedy, trace)


def run(name, tokens=TOKENS, key=KEY, ids=IDS, by_network=False, greedy=False):
    """What becomes of a few rows beside as many full ones, which ask for nothing, as make up the batch."""
    count, all_ = len(tokens), np.tile(TOKENS[-1:], (ROWS, 1))
    all_[:count] = tokens
    out = result(name, all_, np.append(ids, np.arange(count, ROWS)), key, by_network, greedy)
    out = jax.tree.map(np.asarray, out)
    assert (out.tokens[count:] == all_[count:]).all() and not out.row_calls[count:].any() and out.finished.all()
    trace = jax.tree.map(lambda x: x[:, :count], out.trace)
    return out._replace(tokens=out.tokens[:count], row_calls=out.row_calls[:count], trace=trace)


def alone(name, b, by_network=False):
    """The same of one row, in a batch of one and without a trace."""
    return result(name, np.asarray(TOKENS[b : b + 1]), np.array([b]), by_network=by_network, trace=False)


def counted(run, *arguments):
    """(what it gives, the times that each call of the denoiser was told)."""
    jax.effects_barrier()
    CALLS.clear()
    out = jax.block_until_ready(run(*arguments))
    jax.effects_barrier()
    return out, [np.asarray(t) for t in CALLS]


def probabilities(tokens, mask_one):
    """[B, L, V] in float64: softmax of the table, or of its logits where each position by itself is masked."""
    states = np.where(tokens > V, 0, tokens)[:, None].repeat(L, 1)
    if mask_one:
        states[:, range(L), range(L)] = V
    logits = np.asarray(TABLE, np.float64)[states @ (V + 1) ** np.arange(L)[::-1], np.arange(L)]
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


class Ran(NamedTuple):
    name: str
    of: Case
    samples: Samples
    trace: Trace
    told: list  # times, of each call


@pytest.fixture(scope="module", params=CASES)
def case(request):
    samples, told = counted(run, request.param)
    return Ran(request.param, CASES[request.param], samples, samples.trace, told)


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
    judged = getattr(case.of.planner, "judge", None) is not None
    assert int(case.samples.passes) == int(case.samples.calls) * (asked if case.of.mask_one else 1 + judged)


def test_the_denoiser_runs_as_often_as_counted(case):
    """With a trace, whose scan has a slice for every possible call; and never for a batch of full rows."""
    full, short = np.tile(TOKENS[-1:], (len(TOKENS), 1)), TOKENS.at[0].set(TOKENS[4])
    for tokens in (TOKENS, short, full):
        out, told = counted(run, case.name, tokens)
        assert len(told) == int(out.calls) == out.row_calls.max()
        np.testing.assert_array_equal(out.trace.tokens[-1], out.tokens)
    assert int(out.calls) == 0
    np.testing.assert_array_equal(out.tokens, full)
    assert (out.trace.operations == KEEP).all() and (out.trace.steps == -1).all()


def test_the_same_key_gives_the_same_rows(case):
    again = run(case.name)
    np.testing.assert_array_equal(again.tokens, case.samples.tokens)
    np.testing.assert_array_equal(again.row_calls, case.samples.row_calls)
    other = run(case.name, key=jax.random.key(2))
    assert (other.tokens != case.samples.tokens).any()


def test_a_row_alone_is_the_row_of_the_batch(case):
    """Beside rows that are full, and so ask for nothing; and in a batch of one without a trace."""
    for b in range(len(TOKENS)):
        beside = np.where(np.arange(len(TOKENS))[:, None] == b, TOKENS, TOKENS[-1:])
        found = run(case.name, beside)
        np.testing.assert_array_equal(found.tokens[b], case.samples.tokens[b])
        assert int(found.calls) == case.samples.row_calls[b]
        if case.name in COMPARED:
            one, told = counted(alone, case.name, b)
            np.testing.assert_array_equal(one.tokens[0], case.samples.tokens[b])
            assert len(told) == int(one.calls) == one.row_calls[0] == case.samples.row_calls[b]


@pytest.mark.parametrize("name", COMPARED)
def test_a_row_alone_is_the_row_of_the_batch_for_a_network_too(name):
    """Its logits change with the batch size in their last digits, in float32 at the highest precision of matmuls."""
    together = run(name, by_network=True).tokens
    for b in range(len(TOKENS)):
        np.testing.assert_array_equal(alone(name, b, by_network=True).tokens[0], together[b])


def test_rows_follow_their_ids(case):
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    moved = run(case.name, TOKENS[order], ids=order)
    np.testing.assert_array_equal(moved.tokens, case.samples.tokens[order])
    twins = run(case.name, np.full_like(TOKENS, V))
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


def test_the_denoiser_is_told_the_time_of_the_call(case):
    """That of the trace, which is the planner's."""
    trace = case.trace
    assert len(case.told) == case.samples.calls
    for c, told in enumerate(case.told):
        mine, rows = trace.steps[c] >= 0, told.reshape(ROWS, -1)[: len(TOKENS)]
        np.testing.assert_array_equal(rows[mine], np.broadcast_to(trace.times[c][mine, None], rows[mine].shape))
    if case.of.time is not None:
        served = trace.steps >= 0
        expected = case.of.time(trace.steps, np.broadcast_to(OPEN, trace.steps.shape))
        np.testing.assert_allclose(trace.times[served], expected[served], atol=1e-6)


def test_confidence_is_the_probability_of_the_written_token(case):
    trace = case.trace
    for c, written in enumerate(trace.operations == UNMASK):
        values = np.minimum(trace.tokens[c + 1], V - 1)[..., None]
        p = np.take_along_axis(probabilities(trace.tokens[c], case.of.mask_one), values, -1)[..., 0]
        np.testing.assert_allclose(trace.confidence[c], np.where(written, p, 0), rtol=1e-5)


@pytest.mark.parametrize("name", GREEDY)
def test_temperature_zero_writes_the_most_probable_tokens(name):
    out = run(name, greedy=True)
    for c, written in enumerate(out.trace.operations == UNMASK):
        best = probabilities(out.trace.tokens[c], False).argmax(-1)
        np.testing.assert_array_equal(out.trace.tokens[c + 1][written], best[written])
    if not isinstance(CASES[name].planner, Ancestral):  # no other randomness
        again = run(name, key=jax.random.key(9), greedy=True)
        np.testing.assert_array_equal(again.tokens, out.tokens)


# ---- laws


def frequencies(name):
    """[2, V^L]: how often each sequence comes out of all masks, and of what a prompt leaves open."""
    tokens, counts = np.repeat([ALL, PROMPTED], ROWS // 2, axis=0).astype(np.int32), 0
    for k in range(RUNS):
        out = result(name, tokens, k * ROWS + np.arange(ROWS), jax.random.key(0)).tokens
        cells = (np.asarray(out) @ V ** np.arange(L)[::-1]).reshape(2, -1)
        counts = counts + np.stack([np.bincount(x, minlength=V**L) for x in cells])
    return counts


@functools.cache
def law_of(name):
    return [np.asarray(CASES[name].law(start)).ravel() for start in (ALL, PROMPTED)]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.law])
def test_law(name):
    """From all masks, and of what a prompt leaves open."""
    for observed, law in zip(frequencies(name), law_of(name), strict=True):
        assert observed[law == 0].sum() == 0
        assert stats.chisquare(observed[law > 0], law[law > 0] * ROWS * RUNS / 2).pvalue > P_MIN
