"""Edits of a canvas, and generation by them: the laws by enumeration of every state."""

import functools
import itertools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edit_cases import (
    PAD,
    SCHEDULE,
    SOURCES,
    START,
    STATES,
    N,
    V,
    alpha,
    cases,
    chance,
    language,
    posterior,
    remaining,
    says,
    switched,
)

from mdmjax.anyprocess import Edits, Expected, canvas_of, check_overflow, edited, generate_edits
from mdmjax.base import DELETE, UNMASK


def by_list(state, insert, substitute, delete):
    """What edits make of a state."""
    out = []
    for x, new, other, gone in zip(state, insert, substitute, delete, strict=True):
        out += [] if gone else [x if other < 0 else other]
        out += [] if new < 0 else [new]
    return tuple(out)


def test_edits_at_once():
    """All states of up to two tokens with all edits, others at random and too long for the canvas."""
    one = list(itertools.product((-1, 0, 1), (-1, 0, 1), (False, True)))
    cases = [
        (s, e) for n in (1, 2) for s in itertools.product(range(2), repeat=n) for e in itertools.product(one, repeat=n)
    ]
    draw = np.random.default_rng(0)
    for n in draw.integers(1, N + 1, size=500):
        cases.append((tuple(draw.integers(0, 2, n).tolist()), tuple(one[i] for i in draw.integers(0, len(one), n))))
    canvas = canvas_of([s for s, _ in cases], N, vocab=V)
    fields = np.zeros((3, len(cases), N), np.int32)  # what is beyond a row's length would insert and write 0
    for row, (state, edits) in enumerate(cases):
        fields[:, row, : len(state)] = np.array(edits).T
    edits = Edits(jnp.asarray(fields[0]), jnp.asarray(fields[1]), jnp.asarray(fields[2] > 0))
    found = jax.tree.map(np.asarray, jax.jit(lambda canvas, edits: edited(canvas, edits, vocab=V))(canvas, edits))
    for row, (state, edits) in enumerate(cases):
        wanted = by_list(state, *zip(*edits, strict=True))
        kept = wanted[:N]
        assert found.tokens[row].tolist() == [*kept] + [PAD] * (N - len(kept))
        assert (found.lengths[row], found.overflow[row]) == (len(kept), len(wanted) > N)
    assert found.overflow.sum() > 50


def edits_of(kind, kappa, state):
    """(expected number, what it makes) of every single edit of a state that may remain."""
    known = posterior(kind, kappa)[0][state]
    for (i, v), c in np.ndenumerate(known["insert"]):
        if c:
            yield c, "insert", i, v
    for (i, v), c in np.ndenumerate(known["substitute"]):
        if c:
            yield c, "substitute", i, v
    for (i,), c in np.ndenumerate(known["delete"]):
        if c:
            yield c, "delete", i, 0


def test_the_forward_equation():
    """dp/dkappa = p Q / (1 - kappa) at every state; the edits are made by `edited`."""
    kappa = 0.35
    _, mass = posterior("some", kappa)
    jumps = [(state, *edit) for state in mass for edit in edits_of("some", kappa, state)]
    fields = {k: np.full((len(jumps), N), -1, np.int32) for k in Edits._fields}
    fields["delete"] = np.zeros((len(jumps), N), bool)
    for row, (_, _, kind, i, v) in enumerate(jumps):
        fields[kind][row, i] = True if kind == "delete" else v
    canvas = canvas_of([state for state, *_ in jumps], N, vocab=V)
    run = jax.jit(lambda canvas, edits: edited(canvas, edits, vocab=V))
    made = run(canvas, Edits(*(jnp.asarray(fields[k]) for k in Edits._fields)))
    flow = defaultdict(float)
    for row, (state, c, *_) in enumerate(jumps):
        rate = mass[state] * c / (1 - kappa)
        flow[state] -= rate
        flow[tuple(made.tokens[row, : made.lengths[row]].tolist())] += rate
    slope = defaultdict(float)
    for p, columns, shows, _ in cases("some"):
        on, off = switched(columns, shows)
        slope[remaining(columns, shows)[0]] += chance(kappa, p, columns, shows) * (on / kappa - off / (1 - kappa))
    assert set(flow) <= set(slope) and max(abs(flow[s] - slope[s]) for s in slope) < 1e-12
    assert max(map(abs, flow.values())) > 0.1


@functools.cache
def chain(steps):
    """The law of what is made of the sources in that many steps, by enumeration; None for an overflow."""
    law = defaultdict(float, {(START, *a): p for a, p in SOURCES.items()})
    for k in range(steps, 0, -1):
        t, s = k / steps, (k - 1) / steps
        share, (known, _) = (alpha(s) - alpha(t)) / (1 - alpha(t)), posterior("some", alpha(t))
        after = defaultdict(float)
        for state, mass in law.items():
            if state not in known:
                after[state] += mass
                continue
            partial = {(): 1.0}
            for i, x in enumerate(state):
                counts = {name: count[i] for name, count in known[state].items()}
                moves = [((v,), c) for v, c in enumerate(counts["substitute"])] + [((), counts["delete"])]
                news = [((v,), c) for v, c in enumerate(counts["insert"])]
                ends = chosen(moves, share, (x,))
                tails = chosen(news, share, ())
                grown = defaultdict(float)
                for (head, m), (end, a), (tail, b) in itertools.product(partial.items(), ends, tails):
                    grown[head + end + tail] += m * a * b
                partial = grown
            for new, m in partial.items():
                after[new if len(new) <= N else None] += mass * m
        law = after
    return law


def chosen(ways, share, stay):
    """[(what is there then, probability)]: one of the ways at min(1, share times their sum), or none."""
    sum_ = sum(c for _, c in ways)
    p = min(1, share * sum_)
    return [(stay, 1 - p)] + [(way, p * c / sum_) for way, c in ways if c > 0]


def away(law):
    truth = {(START, *w): p for w, p in language().items()}
    return 0.5 * sum(abs(law.get(s, 0) - truth.get(s, 0)) for s in {*law, *truth})


def test_the_law_of_the_chain_tends_to_the_targets():
    """As 1 / steps."""
    found = {steps: away(chain(steps)) for steps in (4, 16, 64, 128)}
    print("total variation of the chain of T steps:", found)
    assert 3 < found[16] / found[64] < 5 and 1.8 < found[64] / found[128] < 2.2
    assert found[128] < 0.02


def test_what_is_drawn_has_the_law_of_the_chain():
    """2^14 rows in three steps, each outcome within 4.5 of its standard errors; and a trace that tells how."""
    count, steps = 2**14, 3
    number = lambda tokens: (tokens * (V + 2) ** jnp.arange(N)[None]).sum(1)
    padded = jnp.array([[*s] + [PAD] * (N - len(s)) for s in STATES])
    places = np.asarray(number(padded))
    tables = [np.full((steps, (V + 2) ** N, *shape), -np.inf, np.float32) for shape in ((N, V), (N, V), (N,))]
    for k in range(1, steps + 1):
        for table, said in zip(tables, says("some", alpha(k / steps), STATES), strict=True):
            table[k - 1, places] = said
    begin = np.random.default_rng(0).choice(len(SOURCES), size=count, p=list(SOURCES.values()))
    sources = [(START, *list(SOURCES)[i]) for i in begin]

    @jax.jit
    def run(tables, canvas):
        def model(tokens, lengths, t):
            at = (jnp.round(t * steps).astype(int) - 1, number(tokens))
            return Expected(*(table[at] for table in tables))

        return generate_edits(model, canvas, vocab=V, steps=steps, key=jax.random.key(2), schedule=SCHEDULE, trace=True)

    found = run([jnp.asarray(x) for x in tables], canvas_of(sources, N, vocab=V))
    canvas, trace = found.canvas, found.trace
    law, seen = chain(steps), defaultdict(int)
    tokens, lengths, over = (np.asarray(x) for x in (canvas.tokens, canvas.lengths, canvas.overflow))
    for row, n, lost in zip(tokens.tolist(), lengths.tolist(), over, strict=True):
        seen[None if lost else tuple(row[:n])] += 1
    assert set(seen) <= {s for s, m in law.items() if m > 0}
    for state, p in law.items():
        assert abs(seen[state] - count * p) <= 4.5 * math.sqrt(count * p * (1 - p)) + 2, state
    # the trace tells each step: what it says makes the next canvas of one canvas
    states, operations, grown = (np.asarray(x)[:, ~over] for x in (trace.tokens, trace.operations, trace.inserted))
    change = np.diff(np.asarray(trace.lengths), axis=0)[:, ~over]
    assert np.array_equal(change, grown.sum(2) - (operations == DELETE).sum(2))
    for name in (UNMASK, DELETE):
        assert (operations == name).any() and not (operations == name)[:, :, 0].any()
    calm = (operations == 0).all(2) & (grown == 0).all(2)
    assert np.array_equal(states[1:][calm], states[:-1][calm])
    assert ((np.asarray(trace.confidence)[:, ~over] > 0) == (operations == UNMASK)).all()


@pytest.mark.parametrize(
    "deletes, size, words",
    [
        (False, 6, r"row 7 \(and 1 more rows\): step 3 needs 8 positions and the canvas has 6"),
        (False, 15, "row 9: step 3 needs 16 positions and the canvas has 15"),
        (True, 4, "row 9: step 3 needs 5 positions and the canvas has 4"),
        (True, 5, None),
    ],
)
def test_a_canvas_that_is_too_short_is_an_error_with_its_size(deletes, size, words):
    """A token is put behind each at every step, so that rows double; or grow by one, where all but the first go."""
    sure = lambda where, *shape: jnp.broadcast_to(jnp.where(where, 9.0, -jnp.inf), shape)

    def model(tokens, lengths, t):
        of_token = (*tokens.shape, V)
        return Expected(sure(jnp.arange(V) == 1, *of_token), sure(False, *of_token), sure(deletes, *tokens.shape))

    run = lambda canvas: generate_edits(model, canvas, vocab=V, steps=3, key=jax.random.key(0))
    found = jax.jit(run)(canvas_of([(START,), (START, 1)], size, vocab=V))
    if words is None:
        check_overflow(found)
        assert found.needed.tolist() == [4, 5] and found.steps.tolist() == [3, 3]
    else:
        with pytest.raises(ValueError, match=words):
            check_overflow(found, np.array([7, 9]))


def test_at_least_one_step():
    begin = canvas_of([(START,)], 2, vocab=V)
    with pytest.raises(ValueError, match="steps=0: at least one"):
        generate_edits(lambda *_: None, begin, vocab=V, steps=0, key=jax.random.key(0))
