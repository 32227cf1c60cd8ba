"""Edit Flows between two small sets of strings: everything it claims, by enumeration."""

import functools
import itertools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    EditFlow,
    Edits,
    Expected,
    aligned,
    canvas_of,
    edit_losses,
    edited,
    generate_edits,
)
from mdmjax.anyprocess.alignment import GAP, align
from mdmjax.anyprocess.edit_flows import between
from mdmjax.base import DELETE, UNMASK
from mdmjax.process import Polynomial

V, N = 3, 5  # two letters, and the token that every row begins with; columns and positions
START, MASK, PAD = 2, V, V + 1
EMPTY = {(): 1.0}
SOURCES = {(): 0.3, (0,): 0.3, (1, 0): 0.4}
TARGETS = [w for n in range(3) for w in itertools.product(range(2), repeat=n)]
STATES = [(START, *w) for n in range(N) for w in itertools.product(range(2), repeat=n)]


@functools.cache
def language():
    p = np.random.default_rng(5).gamma(0.5, size=len(TARGETS))
    return dict(zip(TARGETS, p / p.sum(), strict=True))


# ---- strings and their edits, in plain Python ------------------------------------------------------------------------


def by_list(state, insert, substitute, delete):
    """What edits make of a state."""
    out = []
    for x, new, other, gone in zip(state, insert, substitute, delete, strict=True):
        out += [] if gone else [x if other < 0 else other]
        out += [] if new < 0 else [new]
    return tuple(out)


@functools.cache
def distance(a, b):
    """Levenshtein's, by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[:-1], b[:-1]) + (a[-1] != b[-1]), distance(a[:-1], b) + 1, distance(a, b[:-1]) + 1)


def test_alignments_have_the_fewest_edits():
    """All pairs of strings of up to four letters of two."""
    words = [w for n in range(5) for w in itertools.product(range(2), repeat=n)]
    for a, b in itertools.product(words, words):
        columns = align(a, b)
        assert sum(x != y for x, y in columns) == distance(a, b) and (GAP, GAP) not in columns
        assert all(tuple(c[k] for c in columns if c[k] != GAP) == (a, b)[k] for k in (0, 1))


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


# ---- what remains, by enumeration ------------------------------------------------------------------------------------


@functools.cache
def cases(kind):
    """(P(pair), columns, which of them show the target) for each source, target and choice of differing columns."""
    found = []
    for (a, p), (b, q) in itertools.product((EMPTY if kind == "empty" else SOURCES).items(), language().items()):
        columns = align((START, *a), (START, *b))
        differ = [i for i, (x, y) in enumerate(columns) if x != y]
        for chosen in itertools.product((False, True), repeat=len(differ)):
            shows = {i: c for i, c in zip(differ, chosen, strict=True)}
            found.append((p * q, columns, tuple(shows.get(i, True) for i in range(len(columns))), b))
    return found


def switched(columns, shows):
    """(how many columns have switched, how many remain), of those that differ."""
    on = [s for (x, y), s in zip(columns, shows, strict=True) if x != y]
    return sum(on), len(on) - sum(on)


def chance(kappa, p, columns, shows):
    on, off = switched(columns, shows)
    return p * kappa**on * (1 - kappa) ** off


def remaining(columns, shows):
    """(state, [(kind, position, token)] of the edits that remain)."""
    state, edits = [], []
    for (x, y), shown in zip(columns, shows, strict=True):
        z = y if shown else x
        state += [] if z == GAP else [z]
        if x != y and not shown:
            edits.append(("insert" if x == GAP else "delete" if y == GAP else "substitute", len(state) - 1, y))
    return tuple(state), edits


@functools.cache
def posterior(kind, kappa):
    """{state: expected number of each edit} where a column shows the target with probability kappa, and P(state)."""
    mass, table = defaultdict(float), {}
    for p, columns, shows, _ in cases(kind):
        state, edits = remaining(columns, shows)
        m = chance(kappa, p, columns, shows)
        if m == 0:
            continue
        mass[state] += m
        counts = table.setdefault(state, dict(insert=np.zeros((N, V)), substitute=np.zeros((N, V)), delete=np.zeros(N)))
        for name, i, y in edits:
            counts[name][i if name == "delete" else (i, y)] += m
    return {s: {k: x / mass[s] for k, x in counts.items()} for s, counts in table.items()}, mass


def rows(kind):
    """source, target, shows [C, N] of the cases."""
    source = np.full((len(cases(kind)), N), GAP, np.int32)
    target, shows = source.copy(), np.zeros(source.shape, bool)
    for row, (_, columns, shown, _) in enumerate(cases(kind)):
        source[row, : len(columns)], target[row, : len(columns)] = np.array(columns).T
        shows[row, : len(columns)] = shown
    return jnp.asarray(source), jnp.asarray(target), jnp.asarray(shows)


def says(kind, kappa, states):
    """The logarithms that the posterior says of the states, [S, N, ...]."""
    known, _ = posterior(kind, kappa)
    none = dict(insert=np.zeros((N, V)), substitute=np.zeros((N, V)), delete=np.zeros(N))
    with np.errstate(divide="ignore"):
        return [np.log(np.stack([known.get(s, none)[k] for s in states])) for k in Expected._fields]


def of_cases(kind):
    return [remaining(columns, shows)[0] for _, columns, shows, _ in cases(kind)]


@pytest.fixture(scope="module")
def losses():
    """The losses of the cases, given what is said of the state of each."""

    def run(expected, source, target, shows):
        found = between(source, target, shows, vocab=V)
        return edit_losses(Expected(*expected), source, target, found, jnp.ones(len(source), jnp.int32)), found

    return jax.jit(run)


def test_states_and_what_remains(losses):
    """All cases: the canvas, and the edits as columns with their positions."""
    source, target, shows = rows("some")
    found = jax.tree.map(
        np.asarray, losses([jnp.zeros((*source.shape, V))] * 2 + [jnp.zeros(source.shape)], source, target, shows)[1]
    )
    for row, (_, columns, shown, _) in enumerate(cases("some")):
        state, edits = remaining(columns, shown)
        assert found.canvas.tokens[row].tolist() == [*state] + [PAD] * (N - len(state))
        assert found.canvas.lengths[row] == len(state)
        left = np.flatnonzero(found.left[row])
        assert [found.places[row, c] for c in left] == [i for _, i, _ in edits]


def test_the_loss_is_stationary_and_least_at_the_posterior(losses, x64):
    """By state: the gradient of the expected loss vanishes at the true numbers, and other tables lose more."""
    kappa, arrays = 0.6, rows("some")
    mass = jnp.asarray([chance(kappa, p, columns, shows) for p, columns, shows, _ in cases("some")])
    states = sorted(set(of_cases("some")))
    number = jnp.asarray([states.index(s) for s in of_cases("some")])
    best = [jnp.maximum(jnp.asarray(x), -40.0) for x in says("some", kappa, states)]
    expected = lambda table: mass @ losses([x[number] for x in table], *arrays)[0]
    run = jax.jit(jax.value_and_grad(expected))
    value, gradient = run(best)
    assert max(float(jnp.abs(g).max()) for g in gradient) < 1e-12
    noise = np.random.default_rng(0)
    for _ in range(5):
        assert run([x + 0.3 * jnp.asarray(noise.normal(size=x.shape)) for x in best])[0] > value + 1e-4


def bound(kind, losses):
    """The mean over kappa, with weight 1 / (1 - kappa) d kappa, of the expected loss at the posterior."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    sum_, arrays, states = 0.0, rows(kind), of_cases(kind)
    for x, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        kappa, slope = 1 - x**3 * (10 - 15 * x + 6 * x * x), 30 * (x * (1 - x)) ** 2
        mass = np.array([chance(kappa, p, columns, shows) for p, columns, shows, _ in cases(kind)])
        said = [jnp.asarray(x) for x in says(kind, kappa, states)]
        sum_ += w * slope / (1 - kappa) * mass @ np.asarray(losses(said, *arrays)[0])
    return sum_


def test_the_bound_at_the_posterior(losses, x64):
    """From nothing it is the entropy of the targets; from texts, independent of them, not less."""
    p = np.array(list(language().values()))
    entropy = -p @ np.log(p)
    assert abs(bound("empty", losses) - entropy) < 1e-6
    some = bound("some", losses)
    print(f"entropy {entropy:.4f}, bound from texts {some:.4f}")
    assert entropy < some < entropy + 0.5


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


# ---- generation ------------------------------------------------------------------------------------------------------

SCHEDULE = Polynomial(2.0)
alpha = lambda t: 1 - t * t


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

    canvas, trace = run([jnp.asarray(x) for x in tables], canvas_of(sources, N, vocab=V))
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


# ---- the objective ---------------------------------------------------------------------------------------------------


def test_the_objective_is_the_sum_of_its_parts():
    """By hand from its draws; halves of a batch; columns show the target as often as they should."""
    pairs = [((), (0, 1)), ((1, 0), (1,)), ((0,), (1,)), ((1, 1), (0, 0))]
    batch = {
        **{
            k: jnp.asarray(x) for k, x in aligned(*zip(*[((2, *a), (2, *b)) for a, b in pairs], strict=True), N).items()
        },
        "ids": jnp.arange(4),
    }
    objective, key = EditFlow(V, SCHEDULE), jax.random.key(3)
    table = np.random.default_rng(0).normal(size=(V + 2, 2 * V + 1))
    table32 = jnp.asarray(table, jnp.float32)

    def model(tokens, lengths, t):
        said = table32[tokens]
        return Expected(said[..., :V], said[..., V : 2 * V], said[..., 2 * V])

    run = jax.jit(lambda batch: objective(model, batch, key, 4))
    terms = run(batch)
    t, shows = jax.tree.map(np.asarray, jax.jit(lambda: objective.draw(key, batch["ids"], N, batch=4))())
    for row, (a, b) in enumerate(pairs):
        columns = align((START, *a), (START, *b))
        state, edits = remaining(columns, shows[row, : len(columns)])
        nats = sum(math.exp(z) for x in state for z in table[x, :V])
        for x in state[1:]:
            nats += sum(math.exp(table[x, V + v]) for v in range(V) if v != x) + math.exp(table[x, 2 * V])
        for kind, i, y in edits:
            nats -= 1 + table[state[i], dict(insert=y, substitute=V + y, delete=2 * V)[kind]]
        nats *= (1 - 1e-3) * 2 / t[row]
        assert abs(terms.nats[row] - nats) < 1e-4 * max(1, abs(nats)) and terms.scored[row] == len(edits)
    assert terms.tokens.tolist() == [2, 1, 1, 2]
    halves = [run(jax.tree.map(lambda x, h=h: x[h], batch)).nats for h in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(np.concatenate(halves), terms.nats, rtol=1e-5)
    t, shows = jax.jit(lambda: objective.draw(key, jnp.arange(2**10), 64, batch=2**10))()
    off = np.asarray(shows).mean(1) - alpha(np.asarray(t, np.float64))
    assert abs(off.mean()) < 4.5 / math.sqrt(6 * 64 * 2**10) and abs(off).max() < 4.5 * 0.5 / 8


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: aligned([(2, 0)], [(2, 1, 1)], 2), "row 0 needs 3 columns, there are 2"),
        (lambda: aligned([(0,)], [(1,)], 2), "row 0 begins with .*the same token"),
        (lambda: aligned([(2, 0)], [(2,)], 2, align=lambda a, b: [(2, 2)]), "row 0: the alignment .* is not one of"),
        (lambda: EditFlow(V, t_min=-0.1), "t_min=-0.1"),
        (
            lambda: generate_edits(
                lambda *_: None, canvas_of([(2,)], 2, vocab=V), vocab=V, steps=0, key=jax.random.key(0)
            ),
            "steps=0: at least one",
        ),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
