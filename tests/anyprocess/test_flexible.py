"""FlexMDM on a language of strings of up to three letters: everything it claims, by enumeration."""

import functools
import itertools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import FlexMDM, Lives, canvas_of, check_overflow, flexible_losses, generate_flexible
from mdmjax.anyprocess.flexible import flexed, from_policy
from mdmjax.base import UNMASK
from mdmjax.process import Linear, Polynomial

V, LONGEST, N = 3, 3, 6  # two letters, and the token that every row begins with
START, MASK, PAD = 2, V, V + 1
GONE, HIDDEN, SEEN = range(3)
A, B = Linear(), Polynomial(2.0)  # so a token is gone with probability t, masked t - t^2, visible (1 - t)^2
STRINGS = [w for n in range(LONGEST + 1) for w in itertools.product(range(2), repeat=n)]


@functools.cache
def language():
    p = np.random.default_rng(3).gamma(0.4, size=len(STRINGS))
    return dict(zip(STRINGS, p / p.sum(), strict=True))


@functools.cache
def cases():
    """(string, what has become of each letter): the rows of every test by enumeration."""
    return [(w, fate) for w in STRINGS for fate in itertools.product(range(3), repeat=len(w))]


def chance(fate, t):
    return math.prod((t, t - t * t, (1 - t) ** 2)[f] for f in fate)


def canvas(word, fate):
    """(state, tokens at its masks, missing behind each position), the start among them."""
    state, values, missing = [START], [None], [0]
    for x, f in zip(word, fate, strict=True):
        if f == GONE:
            missing[-1] += 1
        else:
            state, values, missing = [*state, MASK if f == HIDDEN else x], [*values, x], [*missing, 0]
    return tuple(state), values, missing


@functools.cache
def posterior(t):
    """{state: (P(token at each position), expected number missing behind it)} at time t, and P(state)."""
    mass, counts, tokens = defaultdict(float), {}, {}
    for word, fate in cases():
        state, values, missing = canvas(word, fate)
        if (m := language()[word] * chance(fate, t)) == 0:
            continue
        mass[state] += m
        counts[state] = counts.get(state, 0) + m * np.array(missing)
        of_values = [[m * (v == x) for v in range(V)] for x in values]
        tokens[state] = tokens.get(state, 0) + np.array(of_values)
    return {s: (tokens[s] / mass[s], counts[s] / mass[s]) for s in mass}, mass


@functools.cache
def rows():
    """The cases as rows [C, N - 1] with lives that make them at any time in (0, 1)."""
    tokens = np.full((len(cases()), LONGEST + 1), PAD, np.int32)
    hides, goes = np.full(tokens.shape, 2.0), np.full(tokens.shape, 2.0)
    for row, (word, fate) in enumerate(cases()):
        tokens[row, : len(word) + 1] = (START, *word)
        hides[row, 1 : len(word) + 1] = [2.0 if f == SEEN else -1.0 for f in fate]
        goes[row, 1 : len(word) + 1] = [-1.0 if f == GONE else 2.0 for f in fate]
    lengths = np.array([len(word) + 1 for word, _ in cases()], np.int32)
    return jnp.asarray(tokens), jnp.asarray(lengths), jnp.asarray(hides), jnp.asarray(goes)


def lives_at(t):
    tokens, _, hides, goes = rows()
    return Lives(jnp.full(len(tokens), t), jnp.ones(len(tokens)), hides, goes)


def says(t):
    """(logits, log of the number missing) of the posterior for the canvas of each case."""
    logits, missing = np.zeros((len(cases()), LONGEST + 1, V)), np.zeros((len(cases()), LONGEST + 1))
    known = posterior(t)[0]
    for row, case in enumerate(cases()):
        state = canvas(*case)[0]
        p, g = known[state]
        with np.errstate(divide="ignore"):
            logits[row, : len(state)] = np.log(np.maximum(p, 1e-30))
            missing[row, : len(state)] = np.log(g)
    return jnp.asarray(logits), jnp.asarray(missing)


ones = lambda x: jnp.ones(len(x), jnp.int32)


def test_a_canvas_is_what_is_left_of_a_row():
    """All cases: the canvas, the tokens at its masks, what is missing in each gap."""
    tokens, lengths, _, _ = rows()
    run = jax.jit(lambda lives: flexed(tokens, lengths, lives, vocab=V, given=ones(tokens)))
    found = jax.tree.map(np.asarray, run(lives_at(0.5)))
    for row, (word, fate) in enumerate(cases()):
        state, values, missing = canvas(word, fate)
        n = len(state)
        assert found.canvas.lengths[row] == n
        assert found.canvas.tokens[row].tolist() == [*state] + [PAD] * (LONGEST + 1 - n)
        wanted = [x if s == MASK else -1 for s, x in zip(state, values, strict=True)]
        assert found.values[row].tolist() == wanted + [-1] * (LONGEST + 1 - n)
        assert found.missing[row].tolist() == missing + [0] * (LONGEST + 1 - n)
        assert found.gaps[row].tolist() == [i < n for i in range(LONGEST + 1)]


def test_the_draws_have_the_law_of_the_two_schedules():
    """Shares of gone, masked and visible tokens at t, of 2^17 tokens each; hides <= goes; a row's own key."""
    objective, ids = FlexMDM(V, A, B, t_min=0.0), jnp.arange(2**12)
    lives = jax.jit(lambda: objective.draw(jax.random.key(0), ids, 32, batch=2**12))()
    hides, goes = np.asarray(lives.hides), np.asarray(lives.goes)
    assert (hides <= goes + 1e-6).all()
    for t in (0.1, 0.5, 0.9):
        for share, p in ((t >= goes, t), ((t < goes) & (t >= hides), t - t * t), (t < hides, (1 - t) ** 2)):
            assert abs(share.mean() - p) < 4.5 * math.sqrt(p * (1 - p) / share.size)
    assert abs(float(lives.t.mean()) - 0.5) < 1e-3
    alone = jax.jit(lambda: objective.draw(jax.random.key(0), ids[7:8], 32, batch=2**12))()
    assert np.array_equal(alone.goes[0], goes[7]) and alone.t[0] == lives.t[7]


def test_the_loss_is_stationary_and_least_at_the_posterior(x64):
    """By canvas: the gradient of the expected loss vanishes there, and any other table loses more."""
    t = 0.37
    tokens, lengths, _, _ = rows()
    mass = jnp.asarray([language()[w] * chance(fate, t) for w, fate in cases()])
    states = sorted({canvas(*case)[0] for case in cases()})
    number = jnp.asarray([states.index(canvas(*case)[0]) for case in cases()])
    first = np.array([int(np.flatnonzero(np.asarray(number) == s)[0]) for s in range(len(states))])
    best = jax.tree.map(lambda x: jnp.where(jnp.isneginf(x), -40.0, x)[first], says(t))

    def expected(table):
        objective = FlexMDM(V, A, B, t_min=0.0)
        model = lambda *_: jax.tree.map(lambda x: x[number], table)
        return mass @ objective.terms(model, tokens, lengths, ones(tokens), lives_at(t)).nats

    run = jax.jit(jax.value_and_grad(expected))
    value, gradient = run(best)
    assert max(float(jnp.abs(g).max()) for g in gradient) < 1e-12
    noise = np.random.default_rng(0)
    for _ in range(5):
        other = jax.tree.map(lambda x: x + 0.3 * jnp.asarray(noise.normal(size=x.shape)), best)
        assert run(other)[0] > value + 1e-4


def test_at_the_posterior_the_bound_is_the_entropy(x64):
    """The mean over time of the expected loss, by quadrature, against -sum p log p: length and letters."""
    tokens, lengths, _, _ = rows()
    objective = FlexMDM(V, A, B, t_min=0.0)
    nats = jax.jit(lambda t, said: objective.terms(lambda *_: said, tokens, lengths, ones(tokens), lives_at(t)).nats)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    u = (nodes + 1) / 2
    total = 0.0
    for x, w in zip(u, weights / 2, strict=True):
        t = x**3 * (10 - 15 * x + 6 * x * x)  # both ends have logarithms: nodes crowd there
        slope = 30 * (x * (1 - x)) ** 2
        mass = np.array([language()[word] * chance(fate, t) for word, fate in cases()])
        total += w * slope * mass @ np.asarray(nats(t, says(t)))
    p = np.array(list(language().values()))
    assert abs(total + p @ np.log(p)) < 1e-6


def test_what_never_misses_costs_nothing():
    """An expectation of 0 where none is missing: 0, with a gradient of 0 and no NaN; and infinite where one is."""

    @jax.jit
    def run(t, given):
        lives = Lives(t, jnp.ones(3), jnp.ones((3, 3)), jnp.ones((3, 3)))
        found = flexed(jnp.array([[START, 0, 1]] * 3), jnp.full(3, 3), lives, vocab=V, given=given)
        loss = lambda missing: flexible_losses(jnp.zeros((3, 3, V)), missing, found).insert
        never = jnp.full((3, 3), -jnp.inf)
        return found, loss(never), jax.grad(lambda missing: loss(missing)[0])(never)

    found, losses, gradient = run(jnp.array([0.0, 1.0, 1.0]), jnp.array([1, 1, 2]))
    assert losses.tolist() == [0, np.inf, np.inf] and (gradient[0] == 0).all()
    # a prompt is always there, and gaps before its last token are closed
    assert found.canvas.tokens[2].tolist() == [START, 0, PAD] and found.missing[2].tolist() == [0, 1, 0]
    assert found.gaps[2].tolist() == [False, True, False]


def test_the_objective_is_the_sum_of_its_parts():
    """A batch of its own draws: terms by hand, and the same rows in two halves."""
    objective, key = FlexMDM(V, A, B), jax.random.key(4)
    batch = dict(
        tokens=jnp.array([[2, 0, 1, 1], [2, 1, 4, 4], [2, 0, 0, 4], [2, 1, 1, 0]]),
        ids=jnp.arange(4),
        lengths=jnp.array([4, 2, 3, 4]),
    )
    table = jnp.asarray(np.random.default_rng(0).normal(size=(V + 2, V + 3)))
    policy = lambda tokens, lengths: (table[tokens, :V], table[tokens, V:])
    run = jax.jit(lambda batch: objective(from_policy(policy), batch, key, 4))
    terms = run(batch)

    def parts():
        lives = objective.draw(key, batch["ids"], 4, batch=4)
        return lives, flexed(batch["tokens"], batch["lengths"], lives, vocab=V, given=ones(batch["ids"]))

    lives, found = jax.tree.map(np.asarray, jax.jit(parts)())
    said_of = np.asarray(table, np.float64)
    for b in range(4):
        n, t, nats = int(found.canvas.lengths[b]), float(lives.t[b]), 0.0
        for x, y, c in zip(found.canvas.tokens[b, :n], found.values[b, :n], found.missing[b, :n], strict=True):
            said = said_of[x]
            g = math.exp(said[V + 1])
            nats += (g - c - c * said[V + 1]) / t
            nats -= 2 / t * (said[y] - np.log(np.exp(said[:V]).sum())) if x == MASK else 0
        assert abs(terms.nats[b] - (1 - 1e-3) * nats) < 1e-4 * max(1, abs(nats))
    assert terms.tokens.tolist() == [3, 1, 2, 3]
    halves = [run(jax.tree.map(lambda x, h=h: x[h], batch)).nats for h in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(np.concatenate(halves), terms.nats, rtol=1e-5)


# ---- generation ------------------------------------------------------------------------------------------------------


def table_at(t):
    """(token probabilities, numbers missing) of every canvas, those that the process never meets among them."""
    known, _ = posterior(t)
    return lambda state: known.get(state, (np.tile([0.5, 0.5, 0], (len(state), 1)), np.zeros(len(state))))


def steps_of(steps):
    """(time, share of masks written, share of missing tokens inserted) of each call."""
    b, calls = lambda t: 1 - t * t, []
    for k in range(steps, 0, -1):
        t, s = k / steps, (k - 1) / steps
        calls.append((t, (b(s) - b(t)) / (t * t), (t - s) / t))
    return [*calls, (1 / steps, 1.0, 0.0)]


@functools.cache
def chain(steps):
    """The law of what is generated in that many steps, by enumeration of every canvas; None for an overflow."""
    law = {(START,): 1.0}
    for t, write, insert in steps_of(steps):
        look, after = table_at(t), defaultdict(float)
        for state, mass in law.items():
            if state is None or mass < 1e-8:
                after[state] += mass
                continue
            p, g = look(state)
            partial = {(): 1.0}
            for i, x in enumerate(state):
                ends = (
                    [((v,), write * p[i, v]) for v in range(V)] + [((MASK,), 1 - write)] if x == MASK else [((x,), 1)]
                )
                mean = g[i] * insert
                poisson = [math.exp(-mean) * mean**q / math.factorial(q) for q in range(N)]
                grown = defaultdict(float)
                for (head, m), (end, a), (q, c) in itertools.product(partial.items(), ends, enumerate(poisson)):
                    if a * c > 0 and len(new := head + end + (MASK,) * q) <= N:
                        grown[new] += m * a * c
                partial = grown
            for new, m in partial.items():
                after[new] += mass * m
            after[None] += mass * (1 - sum(partial.values()))
        law = after
    return law


def distance(law):
    truth = {(START, *w): p for w, p in language().items()}
    return 0.5 * sum(abs(law.get(s, 0) - truth.get(s, 0)) for s in {*law, *truth})


def test_the_law_of_the_chain_tends_to_the_language():
    """As 1 / steps: a distance nearly halves where they double, and most of it goes by extrapolation from two."""
    found = {steps: distance(chain(steps)) for steps in (4, 8, 16, 32)}
    more, less = chain(32), chain(16)
    beyond = distance({s: 2 * more.get(s, 0) - less.get(s, 0) for s in {*more, *less}})
    print("total variation of the chain of T steps:", found, "extrapolated:", beyond)
    ratios = [found[n] / found[2 * n] for n in (4, 8, 16)]
    assert ratios == sorted(ratios) and 1.7 < ratios[-1] < 2.2
    assert beyond < found[32] / 3


def drawn(steps, count, **choices):
    """Rows generated from the posterior."""
    states = [s for n in range(N) for s in itertools.product(range(V + 1), repeat=n)]
    size = (V + 2) ** N
    number = lambda tokens: (tokens * (V + 2) ** jnp.arange(N)[None]).sum(1)
    padded = jnp.array([[START, *s] + [PAD] * (N - 1 - len(s)) for s in states if START not in s])
    places = np.asarray(jax.jit(number)(padded))
    logits, missing = np.zeros((steps, size, N, V), np.float32), np.full((steps, size, N), -np.inf, np.float32)
    for k in range(1, steps + 1):
        look = table_at(k / steps)
        for place, s in zip(places, (s for s in states if START not in s), strict=True):
            p, g = look((START, *s))
            with np.errstate(divide="ignore"):
                logits[k - 1, place, : len(g)], missing[k - 1, place, : len(g)] = np.log(p), np.log(g)

    @jax.jit
    def run(logits, missing):
        def model(tokens, lengths, t):
            at = (jnp.round(t * steps).astype(int) - 1, number(tokens))
            return logits[at], missing[at]

        begin = canvas_of([(START,)] * count, N, vocab=V)
        how = dict(insertion=A, unmasking=B, key=jax.random.key(1))
        return generate_flexible(model, begin, vocab=V, steps=steps, **how, **choices)

    return run(jnp.asarray(logits), jnp.asarray(missing))


def test_what_is_drawn_has_the_law_of_the_chain():
    """2^13 rows in four steps, each outcome within 4.5 of its standard errors; and a trace that tells how."""
    count = 2**13
    found = drawn(4, count, trace=True)
    canvas, trace = found.canvas, found.trace
    tokens, lengths = np.asarray(canvas.tokens), np.asarray(canvas.lengths)
    law, seen = chain(4), defaultdict(int)
    for row, n, over in zip(tokens.tolist(), lengths.tolist(), np.asarray(canvas.overflow), strict=True):
        seen[None if over else tuple(row[:n])] += 1
    assert set(seen) <= {s for s, m in law.items() if m > 0}
    for state, p in law.items():
        assert abs(seen[state] - count * p) <= 4.5 * math.sqrt(count * p * (1 - p)) + 2, state
    # the trace: lengths grow by what is inserted, masks are written once, nothing else happens
    fits = ~np.asarray(canvas.overflow)
    grown = np.diff(np.asarray(trace.lengths), axis=0)[:, fits]
    assert np.array_equal(grown, np.asarray(trace.inserted).sum(2)[:, fits])
    written = (np.asarray(trace.operations) == UNMASK)[:, fits]
    assert np.array_equal(written.sum((0, 2)), lengths[fits] - 1)
    assert ((np.asarray(trace.confidence)[:, fits] > 0) == written).all()
    assert np.array_equal(trace.tokens[-1], tokens) and trace.tokens.shape == (6, count, N)
    # what a row that is too long has wanted is what its last step says
    row = int(np.argmin(fits))
    last = int((np.asarray(trace.steps)[:, row] >= 0).sum()) - 1
    wanted = int(trace.lengths[last, row] + trace.inserted[last, row].sum())
    more = rf"row {row} \(and {(~fits).sum() - 1} more rows\)"
    with pytest.raises(ValueError, match=f"{more}: step {last + 1} needs {wanted} positions and the canvas has {N}"):
        check_overflow(found)


def test_a_prompt_stays_and_errors_say_what_is_wrong():
    """Nothing is inserted before the last given token."""
    model = lambda tokens, lengths, t: (jnp.zeros((*tokens.shape, V)), jnp.zeros(tokens.shape))
    begin = canvas_of([(START, 0, 1)] * 50, 40, vocab=V)
    run = lambda: generate_flexible(model, begin, vocab=V, steps=3, key=jax.random.key(0), given=jnp.full(50, 3))
    canvas = jax.jit(run)().canvas
    assert (np.asarray(canvas.tokens)[:, :3] == [START, 0, 1]).all() and np.ptp(np.asarray(canvas.lengths)) > 3
    assert not (np.asarray(canvas.tokens) == MASK)[~np.asarray(canvas.overflow)].any()
    with pytest.raises(ValueError, match="steps=0: at least one"):
        generate_flexible(model, begin, vocab=V, steps=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="t_min=1.0"):
        FlexMDM(V, t_min=1.0)
