"""Generation by a policy: what it makes, when each row finishes and why, whatever the other rows do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    REASONS,
    Decoding,
    Halting,
    Window,
    WindowParity,
    canvas_of,
    check_overflow,
    generate,
    generate_all,
    parity_state,
    trajectory,
)
from mdmjax.base import DELETE, REMASK, UNMASK
from mdmjax.reports import trace_html

PARITY = WindowParity()
V, N, BIG = 3, 12, 8.0


def window(tokens, lengths):
    """The policy of `WindowParity`, as a table of what stands at positions 1 and 2."""
    table = np.full((V + 2, V + 2, 2, 3), -BIG)
    for state in ((1, 2), (3, 2), (2, 1), (2, 3), (1, 1), (2, 2), (3, 3)):
        move = PARITY((0, *state))
        for i in (1, 2):
            table[*state, i - 1] = [BIG if on else -BIG for on in (move.remask[i], move.insert[i], move.delete[i])]
    controls = jnp.full((*tokens.shape, 3), -BIG).at[:, 1:3].set(jnp.asarray(table)[tokens[:, 1], tokens[:, 2]])
    return jnp.zeros((*tokens.shape, V)), controls


def run(policy, states, *, size=N, limit=30, **choices):
    made = lambda canvas: generate(policy, canvas, vocab=V, key=jax.random.key(0), limit=limit, **choices)
    return jax.jit(made)(canvas_of(states, size, vocab=V))


def tokens_of(canvas, row):
    return tuple(np.asarray(canvas.tokens)[row, : int(canvas.lengths[row])].tolist())


SHORT = Halting(stop=lambda tokens, length: length < 3)


def test_a_policy_does_what_its_teacher_does():
    """All strings of up to six bits at once: states of each step, number of steps, operations, answers."""
    strings = [np.array([n >> i & 1 for i in range(k)]) for k in range(1, 7) for n in range(2**k)]
    states = [parity_state(bits.tolist()) for bits in strings]
    found = run(window, states, halting=SHORT, trace=True)
    check_overflow(found)
    tokens, lengths = np.asarray(found.trace.tokens), np.asarray(found.trace.lengths)
    for row, (bits, state) in enumerate(zip(strings, states, strict=True)):
        steps, last = trajectory(PARITY, state, 30)
        assert found.steps[row] == len(steps) and tokens_of(found.canvas, row) == last
        assert PARITY.answer(last) == bits.sum() % 2 and REASONS[found.reason[row]] == "stopped"
        for call, (before, _) in enumerate(steps):
            assert tuple(tokens[call, row, : lengths[call, row]].tolist()) == before
        removed = len(state) - len(last)
        assert found.operations[row].tolist() == [0, removed, 0, removed]
    assert found.trace.tokens.shape == (31, len(states), N)
    steps = np.where(np.arange(30)[:, None] < np.asarray(found.steps), np.arange(30)[:, None], -1)
    assert (np.asarray(found.trace.steps) == steps).all()
    assert "Sampler trace" in trace_html(found.trace, PARITY.names)


def test_a_row_alone_is_the_row_of_the_batch():
    """With random decisions too: its key is that of its id."""
    of_token = jnp.asarray(np.random.default_rng(0).normal(size=(V + 2, V + 3)))
    policy = lambda tokens, lengths: (of_token[tokens, :V], of_token[tokens, V:] - 1)
    states = [(0, 3, 1), (0, 2), (1, 3, 3, 3)]
    how = dict(decoding=Decoding(draw=True), limit=5, size=64)
    together = run(policy, states, **how)
    assert len({tuple(row) for row in np.asarray(together.canvas.tokens)[:, :6].tolist()}) == 3
    for row, state in enumerate(states):
        alone = run(policy, [state], ids=jnp.array([row]), **how)
        assert tokens_of(alone.canvas, 0) == tokens_of(together.canvas, row)
        assert REASONS[alone.reason[0]] == "step limit" and alone.steps[0] == 5


def test_in_pieces_and_through_few_slots_it_is_the_same():
    """With random decisions: states, reasons, steps and operations of every row, whatever slot it was in."""
    of_token = jnp.asarray(np.random.default_rng(1).normal(size=(V + 2, V + 3)))
    policy = lambda tokens, lengths: (of_token[tokens, :V], of_token[tokens, V:] - 1)
    states = [(0, *[n >> i & 1 for i in range(3)], 3) for n in range(7)]
    how = dict(
        decoding=Decoding(draw=True), limit=9, halting=Halting(stop=lambda tokens, n: (n < 3) | (tokens[n - 1] == 2))
    )
    whole = run(policy, states, size=300, **how)
    piece = jax.jit(
        lambda canvas, steps, ids: generate(
            policy, canvas, vocab=V, key=jax.random.key(0), begin=steps, ids=ids, calls=2, **how
        )
    )
    traced = run(policy, states, size=300, trace=True, **how)
    counted = run(policy, states, size=300, counts=True, **how)
    counts, trace = counted.counts, traced.trace
    assert counted.trace is None and (counted.canvas.tokens == whole.canvas.tokens).all()
    assert (counts.lengths == trace.lengths[1:]).all() and (counts.steps == trace.steps).all()
    inserted, of = trace.inserted.sum(2), lambda operation: (trace.operations == operation).sum(2)
    assert (counts.operations == jnp.stack([of(UNMASK), of(REMASK), inserted, of(DELETE)], 2)).all()
    assert (counts.operations.sum(0) == whole.operations).all() and (counts.operations > 0).any((0, 1)).all()
    with pytest.raises(ValueError, match="trace=True and counts=True"):
        run(policy, states, trace=True, counts=True, **how)
    told = []
    found = generate_all(piece, states, length=300, slots=3, vocab=V, progress=told.append)

    def check(found, whole):
        assert found.states == [tokens_of(whole.canvas, row) for row in range(len(found.states))]
        assert found.reason.tolist() == whole.reason.tolist() and found.steps.tolist() == whole.steps.tolist()
        assert (found.operations == np.asarray(whole.operations)).all() and len(set(found.steps.tolist())) > 2

    check(found, whole)
    assert told[-1] == 7 and found.steps.sum() / 3 <= found.calls < found.steps.sum()
    many, sizes = (states * 3)[:20], []  # through 17 slots: the last four rows share four
    counted = lambda canvas, *rest: sizes.append(len(canvas.tokens)) or piece(canvas, *rest)
    check(generate_all(counted, many, length=300, slots=17, vocab=V), run(policy, many, size=300, **how))
    assert set(sizes) == {17, 4} and sizes == sorted(sizes, reverse=True)
    with pytest.raises(ValueError, match="row 5: step 2 needs 4 positions and the canvas has 3"):
        stop = Halting(stop=lambda tokens, length: tokens[0] == 2)
        grow = jax.jit(
            lambda canvas, steps, ids: generate(
                constant(insert=BIG),
                canvas,
                vocab=V,
                key=jax.random.key(0),
                limit=9,
                begin=steps,
                calls=1,
                halting=stop,
            )
        )
        generate_all(grow, [(2,)] * 5 + [(0,)] + [(2,)] * 2, length=3, slots=2, vocab=V)
    with pytest.raises(ValueError, match="0 slots for 1 rows"):
        generate_all(piece, states[:1], length=9, slots=0, vocab=V)


def test_a_row_that_has_finished_takes_no_more_steps():
    """Though its slot is served again, where no other row waits for it: masks are filled, and then nothing changes."""
    fill = lambda tokens, lengths: (jnp.zeros((*tokens.shape, V)), jnp.full((*tokens.shape, 3), -BIG))
    states = [(0, 1), (0, V), (2,) * 3]
    piece = jax.jit(
        lambda canvas, steps, ids: generate(
            fill, canvas, vocab=V, key=jax.random.key(0), limit=9, begin=steps, ids=ids, calls=1
        )
    )
    found = generate_all(piece, states, length=4, slots=3, vocab=V)
    assert found.steps.tolist() == [1, 2, 1] and {REASONS[r] for r in found.reason} == {"fixed point"}


def test_a_window_sees_what_it_should():
    """The same as the policy where that looks no further, and nothing beyond."""
    calls = []
    policy = lambda tokens, lengths: calls.append(tokens.shape) or window(tokens, lengths)
    tokens, lengths = jnp.array([[0, 1, 2, 2, 1, 4], [0, 2, 4, 4, 4, 4]]), jnp.array([5, 2])
    (logits, controls), (_, whole) = Window(policy, 3)(tokens, lengths), window(tokens, lengths)
    assert calls == [(2, 3)] and logits.shape == (2, 6, V)
    assert (controls[:, :3] == whole[:, :3]).all() and (controls[:, 3:] == -jnp.inf).all()
    assert Window(policy, 9)(tokens, lengths)[1].shape == whole.shape


def test_decisions_that_are_drawn_have_their_laws():
    """`least` cuts what is rarer; `single` inserts at one place at most, with the law of one that fired alone."""
    p = jnp.array([0.3, 0.02, 0.6, 0.99])
    controls = jnp.stack([jnp.log(p / (1 - p))] * 3, 1)
    logits = jnp.log(jnp.array([[0.9, 0.095, 0.005]] * 4))
    draw = lambda decoding: jax.jit(lambda keys: jax.vmap(lambda k: decoding(k, logits, controls))(keys))(
        jax.random.split(jax.random.key(0), 4000)
    )
    plain, cut = draw(Decoding(draw=True)), draw(Decoding(draw=True, least=0.05))
    assert (plain.values == 2).any() and not (cut.values == 2).any()
    rates = np.asarray(cut.remask.mean(0))
    assert rates[1] == 0 and rates[3] == 1 and abs(rates[0] - 0.3) < 0.03  # four standard errors
    assert 0 < plain.remask[:, 1].mean() < 0.04
    assert abs((cut.values == 1).mean() - 0.095 / 0.995) < 0.01
    single = draw(Decoding(draw=True, single=True)).insert
    odds = np.append(np.asarray(p / (1 - p)), 1)
    counts = np.append(np.asarray(single.mean(0)), 1 - single.sum(1).mean())
    assert set(single.sum(1).tolist()) == {0, 1}
    error = np.sqrt(odds / odds.sum() * (1 - odds / odds.sum()) / 4000)
    assert (np.abs(counts - odds / odds.sum()) < 4 * error).all()
    best = Decoding(single=True)(jax.random.key(0), logits, controls)
    assert best.insert.tolist() == [0, 0, 0, 1] and best.remask.tolist() == [False, False, True, True]
    assert Decoding(single=True)(jax.random.key(0), logits, controls - 9).insert.tolist() == [0, 0, 0, 0]
    at_it = Decoding(single=True)(jax.random.key(0), logits, jnp.full_like(controls, -1.0).at[2].set(0.0))
    assert at_it.insert.tolist() == [0, 0, 0, 0]  # at the threshold, not above


def test_the_likeliest_token_may_always_be_drawn():
    """Where every token is rarer than `least`, it is the only one."""
    logits, none = jnp.log(jnp.array([[0.3, 0.4, 0.3], [0.1, 0.44, 0.46]])), jnp.full((2, 3), -jnp.inf)
    keys = jax.random.split(jax.random.key(0), 50)
    draw = jax.jit(jax.vmap(lambda key: Decoding(draw=True, least=0.45)(key, logits, none).values))
    assert (draw(keys) == jnp.array([[1, 2]])).all()


def constant(remask=-BIG, insert=-BIG, delete=-BIG, token=1):
    """A policy that decides the same everywhere."""
    decide = jnp.array([remask, insert, delete])
    return lambda tokens, lengths: (
        jnp.broadcast_to(BIG * (jnp.arange(V) == token), (*tokens.shape, V)),
        jnp.broadcast_to(decide, (*tokens.shape, 3)),
    )


def each(**rows):
    """The same as `constant` with numbers of its own for each row, so that rows of several policies are one batch."""
    count = len(next(iter(rows.values())))
    told = {name: jnp.asarray(rows.get(name, [-BIG] * count)) for name in ("remask", "insert", "delete")}
    decide, token = jnp.stack(list(told.values()), 1)[:, None], jnp.asarray(rows.get("token", [1] * count))[:, None]
    return lambda tokens, lengths: (
        jnp.broadcast_to((BIG * (jnp.arange(V)[None, None] == token[..., None])), (*tokens.shape, V)),
        jnp.broadcast_to(decide, (*tokens.shape, 3)),
    )


@pytest.mark.parametrize(
    "policy, states, halting, expected",
    [
        (
            each(insert=[-BIG, BIG]),
            [(0, 3), (0, 1)],
            Halting(),
            [("fixed point", 2), ("overflow", 3)],  # the second step changes nothing; 2, 4, 8, 16 of 12
        ),
        (
            each(remask=[-BIG, BIG]),
            [(0, 3), (0, 1)],
            Halting(fixed=False),
            [("step limit", 4), ("step limit", 4)],
        ),
        (each(token=[2, 1]), [(0, 3), (0, 2)], Halting(end=2), [("end token", 1), ("end token", 0)]),
        (each(insert=[BIG]), [(0, 1)], Halting(end=1, fixed=False), [("end token", 0)]),
        (
            each(token=[2]),
            [(0, 3)],
            Halting(end=2, stop=lambda tokens, length: tokens[1] == 2),
            [("end token", 1)],
        ),
    ],
)
def test_why_a_row_finishes(policy, states, halting, expected):
    found = run(policy, states, limit=4, halting=halting)
    assert [(REASONS[x], int(n)) for x, n in zip(found.reason, found.steps, strict=True)] == expected


def test_finished_rows_stand_still():
    """One has its end token after a step, another goes on to the limit."""
    found = run(constant(insert=BIG, token=2), [(0, 3), (0, 1)], size=40, limit=3, halting=Halting(end=2))
    assert tokens_of(found.canvas, 0) == (0, 3, 2, 3) and found.steps.tolist()[0] == 1
    assert found.needed.tolist()[0] == 4


def test_a_canvas_that_is_too_short_is_an_error_with_its_size():
    found = run(constant(insert=BIG), [(0,), (0, 1)], limit=3)
    with pytest.raises(ValueError, match="row 1: step 3 needs 16 positions and the canvas has 12"):
        check_overflow(found)


def test_a_protected_prefix_stays():
    """Its tokens are neither remasked nor deleted, and what is inserted comes behind it."""
    found = run(constant(remask=BIG), [(0, 1, 2, 1)], limit=1, protected=jnp.array([2]))
    assert tokens_of(found.canvas, 0) == (0, 1, 3, 3)
    found = run(constant(insert=BIG), [(0, 1)], limit=1, protected=jnp.array([2]))
    assert tokens_of(found.canvas, 0) == (0, 1, 3)


def test_thresholds():
    """An operation happens above its threshold: never at 1, always at 0."""
    logits, controls = jnp.zeros((1, V)), jnp.array([[0.4, 0.4, 0.4]])  # probability 0.6
    decide = lambda *thresholds: [int(x[0]) for x in Decoding(thresholds)(jax.random.key(0), logits, controls)[1:]]
    assert decide(0.5, 0.59, 0.61) == [1, 1, 0] and decide(0.0, 1.0, 0.0) == [1, 0, 1]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Decoding((0.5, 1.5, 0.5)), r"thresholds=.*\[0, 1\]"),
        (lambda: Decoding(0.5), r"thresholds=0.5\): three numbers"),
        (lambda: run(constant(), [(0,)], limit=0), "limit=0, calls=0: at least one"),
        (lambda: canvas_of([(0,), ()], 4, vocab=V), "row 1 is empty"),
        (lambda: canvas_of([(0, 1, 2)], 2, vocab=V), "row 0 needs 3 positions, and there are 2"),
        (lambda: canvas_of([(0, 4)], 2, vocab=V), "row 0 has 4"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
