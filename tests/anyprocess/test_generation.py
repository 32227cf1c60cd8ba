"""Generation by a policy: what it makes, when each row finishes and why, whatever the other rows do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    REASONS,
    Decoding,
    Halting,
    WindowParity,
    canvas_of,
    check_overflow,
    generate,
    parity_state,
    trajectory,
)
from mdmjax.base import DELETE, KEEP, REMASK

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
    return tuple(np.asarray(canvas.tokens[row, : canvas.lengths[row]]).tolist())


SHORT = Halting(stop=lambda tokens, length: length < 3)


def test_a_policy_does_what_its_teacher_does():
    """All strings of up to six bits at once: states of each step, number of steps, operations, answers."""
    strings = [np.array([n >> i & 1 for i in range(k)]) for k in range(1, 7) for n in range(2**k)]
    states = [parity_state(bits.tolist()) for bits in strings]
    found = run(window, states, halting=SHORT, trace=True)
    check_overflow(found)
    for row, (bits, state) in enumerate(zip(strings, states, strict=True)):
        steps, last = trajectory(PARITY, state, 30)
        assert found.steps[row] == len(steps) and tokens_of(found.canvas, row) == last
        assert PARITY.answer(last) == bits.sum() % 2 and REASONS[found.reason[row]] == "stopped"
        for call, (before, _) in enumerate(steps):
            assert tokens_of(jax.tree.map(lambda x, c=call: x[c], found.states), row) == before
        removed = len(state) - len(last)
        assert found.operations[row].tolist() == [0, removed, 0, removed]
    assert found.states.tokens.shape == (31, len(states), N)


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


def constant(remask=-BIG, insert=-BIG, delete=-BIG, token=1):
    """A policy that decides the same everywhere."""
    decide = jnp.array([remask, insert, delete])
    return lambda tokens, lengths: (
        jnp.broadcast_to(BIG * (jnp.arange(V) == token), (*tokens.shape, V)),
        jnp.broadcast_to(decide, (*tokens.shape, 3)),
    )


@pytest.mark.parametrize(
    "policy, states, halting, reason, steps",
    [
        (constant(), [(0, 3)], Halting(), "fixed point", 2),  # the second step changes nothing
        (constant(), [(0, 3)], Halting(fixed=False), "step limit", 4),
        (constant(token=2), [(0, 3)], Halting(end=2), "end token", 1),
        (constant(), [(0, 2)], Halting(end=2), "end token", 0),
        (constant(insert=BIG), [(0, 1)], Halting(), "overflow", 3),  # 2, 4, 8, 16 of 12
        (constant(remask=BIG), [(0, 1)], Halting(fixed=False), "step limit", 4),
        (constant(insert=BIG), [(0, 1)], Halting(end=1, fixed=False), "end token", 0),
        (constant(token=2), [(0, 3)], Halting(end=2, stop=lambda tokens, length: tokens[1] == 2), "end token", 1),
    ],
)
def test_why_a_row_finishes(policy, states, halting, reason, steps):
    found = run(policy, states, limit=4, halting=halting)
    assert (REASONS[found.reason[0]], int(found.steps[0])) == (reason, steps)


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
    assert (KEEP, REMASK, DELETE) == (0, 2, 4)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Decoding((0.5, 1.5, 0.5)), r"thresholds=.*\[0, 1\]"),
        (lambda: run(constant(), [(0,)], limit=0), "limit=0: at least one"),
        (lambda: canvas_of([(0,), ()], 4, vocab=V), "row 1 is empty"),
        (lambda: canvas_of([(0, 1, 2)], 2, vocab=V), "row 0 needs 3 positions, and there are 2"),
        (lambda: canvas_of([(0, 4)], 2, vocab=V), "row 0 has 4"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
