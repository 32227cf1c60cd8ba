"""Losses of a policy against their definition, where they do not look, and what the training loop makes of them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.anyprocess import (
    IGNORE,
    Supervised,
    WindowParity,
    balance_of,
    check_bits,
    decisions,
    make_move,
    padded,
    parity_state,
    policy_losses,
    process_targets,
    supervised_loss,
    trajectory,
)
from mdmjax.training import Step, init_state

V, N = 5, 7
MASK, PAD = V, V + 1
WEIGHTS, POSITIVE = (0.5, 2.0, 3.0), (1.0, 4.0, 0.25)


def make_tuples():
    """Rows of all lengths up to N, the second without a mask, and one of length 0."""
    rng = np.random.default_rng(0)
    tuples = []
    for length in (7, 4, 5, 0, 6, 1):
        state = rng.integers(0, V if length == 4 else V + 2, length).clip(max=MASK).tolist()
        masks = [i for i, x in enumerate(state) if x == MASK]
        fate = rng.permutation(masks).tolist()
        cut = len(fate) // 4
        bits = lambda length=length: np.flatnonzero(rng.random(length) < 0.3).tolist()
        move = make_move(
            tuple(state),
            MASK,
            values={i: int(rng.integers(V)) for i in fate[2 * cut :]},
            remask=fate[:cut] + [i for i in bits() if i not in masks],
            insert=dict.fromkeys(bits(), 1),
            delete=fate[cut : 2 * cut],
        )
        tuples.append((tuple(state), move))
    return tuples


TUPLES = make_tuples()
BATCH = {name: jnp.asarray(x) for name, x in padded(TUPLES, N, MASK).items()}
INSIDE = np.arange(N) < np.asarray(BATCH["lengths"])[:, None]
U = INSIDE & (np.asarray(BATCH["tokens"]) == MASK) & (np.asarray(BATCH["values"]) >= 0)


def outputs(seed=0):
    """Random logits, of tokens and of controls."""
    one, two = jax.random.split(jax.random.key(seed))
    return jax.random.normal(one, (len(TUPLES), N, V)), jax.random.normal(two, (len(TUPLES), N, 3))


@functools.partial(jax.jit, static_argnames="reduction")
def loss(logits, controls, batch=BATCH, reduction="global"):
    losses = policy_losses(logits, controls, process_targets(batch, V), pos_weight=POSITIVE)
    return supervised_loss(losses, weights=WEIGHTS, reduction=reduction)


def by_hand(logits, controls):
    """(sum of -log p, sums of the binary cross-entropies, |U|, n) of each row, term by term."""
    rows = []
    for row, (state, move) in enumerate(TUPLES):
        nats, binary, count = 0.0, np.zeros(3), 0
        for i, x in enumerate(state):
            if x == MASK and move.values[i] != IGNORE:
                p = np.exp(np.float64(logits[row, i]))
                nats -= math.log(p[move.values[i]] / p.sum())
                count += 1
            for op, label in enumerate((move.remask[i], move.insert[i], move.delete[i])):
                p = 1 / (1 + math.exp(-controls[row, i, op]))
                binary[op] -= POSITIVE[op] * math.log(p) if label else math.log(1 - p)
        rows.append((nats, binary, count, len(state)))
    return rows


def test_the_loss_is_its_definition():
    """One division over the batch, or one for each row; rows without a value or without a token say 0."""
    logits, controls = outputs()
    rows = by_hand(np.asarray(logits), np.asarray(controls))
    nats, binary, count, size = (np.array(x) for x in zip(*rows, strict=True))
    assert 0 in count and 0 in size and count.sum() == U.sum()
    together = nats.sum() / count.sum() + binary.sum(0) @ WEIGHTS / size.sum()
    alone = nats / np.maximum(count, 1) + binary @ WEIGHTS / np.maximum(size, 1)
    np.testing.assert_allclose(loss(logits, controls), together, rtol=1e-5)
    np.testing.assert_allclose(loss(logits, controls, reduction="per_sequence"), alone.mean(), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["global", "per_sequence"])
def test_gradients_stay_where_something_is_learnt(reduction):
    """Zero outside U for the tokens and in the padding for the controls, whatever stands there; elsewhere not zero."""
    logits, controls = outputs()
    logits = jnp.where(U[..., None], logits, jnp.nan)
    controls = jnp.where(INSIDE[..., None], controls, jnp.nan)
    slopes = jax.jit(jax.grad(functools.partial(loss, reduction=reduction), (0, 1)))
    to_logits, to_controls = slopes(logits, controls)
    np.testing.assert_array_equal((to_logits != 0).any(-1), U)
    np.testing.assert_array_equal((to_controls != 0).all(-1), INSIDE)
    np.testing.assert_array_equal((to_controls != 0).any(-1), INSIDE)


def test_padding_says_nothing():
    """The terms are the same, bit for bit, whatever the padding holds, for a policy that looks at all it is given."""

    def nosy(tokens, lengths):
        seen = tokens.sum(1)[:, None, None].astype(jnp.float32)
        return jnp.sin(seen + jnp.arange(N * V).reshape(1, N, V)), jnp.sin(seen * jnp.arange(N * 3).reshape(1, N, 3))

    garbage = dict(tokens=MASK, values=2, remask=True, insert=2, delete=True)
    other = BATCH | {name: jnp.where(INSIDE, BATCH[name], x) for name, x in garbage.items()}
    other["values"] = jnp.where(other["tokens"] == MASK, other["values"], 3)  # nor do values beside the masks
    assert (other["tokens"] != BATCH["tokens"]).any() and other["delete"][~INSIDE].all()
    run = jax.jit(lambda batch: Supervised(V)(nosy, batch, jax.random.key(0), len(TUPLES)))
    jax.tree.map(np.testing.assert_array_equal, run(BATCH), run(other))
    longer = {name: jnp.pad(x, ((0, 0), (0, 3))) if x.ndim == 2 else x for name, x in BATCH.items()}
    wide = [jnp.pad(x, ((0, 0), (0, 3), (0, 0))) for x in outputs()]
    np.testing.assert_allclose(loss(*wide, batch=longer), loss(*outputs()), rtol=1e-6)


def test_loss_of_a_policy_that_knows_nothing():
    """Zero logits cost log V at each mask and log 2 for each decision."""
    zeros = jnp.zeros((len(TUPLES), N, V)), jnp.zeros((len(TUPLES), N, 3))
    losses = jax.jit(lambda *x: policy_losses(*x, process_targets(BATCH, V)))(*zeros)
    np.testing.assert_allclose(losses.unmask.sum() / losses.unmasked.sum(), math.log(V), rtol=1e-6)
    np.testing.assert_allclose(losses.controls.sum(0) / losses.scored.sum(0), math.log(2), rtol=1e-6)


def test_sums_of_bfloat16_are_float32():
    """The same as of the same numbers in float32."""
    low = [x.astype(jnp.bfloat16) for x in outputs()]
    run = jax.jit(lambda *x: policy_losses(*x, process_targets(BATCH, V)))
    found, expected = (run(*x) for x in (low, [x.astype(jnp.float32) for x in low]))
    assert found.unmask.dtype == found.controls.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# ---- as the training loop takes it -----------------------------------------------------------------------------------

SIZE = len(TUPLES)


def bind(params):
    """A policy that is linear in what it sees, and in the number of the position."""

    def policy(tokens, lengths):
        seen = jnp.concatenate([jax.nn.one_hot(tokens, V + 2), jax.nn.one_hot(jnp.arange(N)[None] + 0 * tokens, N)], -1)
        out = seen @ params["kernel"]
        return out[..., :V], out[..., V:]

    return policy


def one_step(objective, micro=1, rows=BATCH):
    """(loss, parameters after a step of size 1 down the gradient)."""
    optimizer = optax.sgd(1.0)
    init = lambda key: {"kernel": 0.1 * jax.random.normal(key, (2 * N, V + 3))}
    state = init_state(init, optimizer, jax.random.key(3))
    step = Step(bind, objective, optimizer, lambda step: 1.0, SIZE, micro=micro)
    after, metrics = jax.jit(step)(state, rows)
    return state.params, metrics["loss"], after.params["kernel"]


def meant(params, reduction="global"):
    """(loss, parameters after that step), of `supervised_loss` itself."""
    compute = lambda params: loss(*bind(params)(BATCH["tokens"], BATCH["lengths"]), reduction=reduction)
    value, gradient = jax.jit(jax.value_and_grad(compute))(params)
    return value, params["kernel"] - gradient["kernel"]


PLAIN = Supervised(V, WEIGHTS, POSITIVE)
RATIO = balance_of(padded(TUPLES, N, MASK), MASK)


def test_the_loop_divides_by_the_right_number():
    """Its loss and its gradient are those of `supervised_loss`: in parts too, where the ratio of counts is given."""
    params, *found = one_step(PLAIN)
    for after in (found, one_step(dataclasses.replace(PLAIN, balance=RATIO), micro=3)[1:]):
        for a, b in zip(after, meant(params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_loop_divides_by_rows():
    """Per sequence, over the rows that are not empty."""
    params, value, after = one_step(dataclasses.replace(PLAIN, reduction="per_sequence"), micro=3)
    expected, moved = meant(params, "per_sequence")
    full = SIZE / (np.asarray(BATCH["lengths"]) > 0).sum()
    np.testing.assert_allclose(value, full * expected, rtol=1e-5)
    np.testing.assert_allclose(after - params["kernel"], full * (moved - params["kernel"]), rtol=1e-4, atol=1e-6)


def test_a_policy_learns_a_program():
    """The seven cases of parity, each of whose controls is a function of three tokens."""
    moves = {pair: trajectory(WindowParity(), parity_state(pair), 9)[0] for pair in np.ndindex(2, 2)}
    tuples = dict.fromkeys(pair for steps in moves.values() for pair in steps)
    assert len(tuples) == 7
    rows = {name: jnp.asarray(x) for name, x in padded(tuples, 3, 3).items()}

    def table(params):
        return lambda tokens, lengths: (jnp.zeros((7, 3, 3)), params[tokens @ jnp.array([25, 5, 1])])

    optimizer = optax.adam(0.3)
    state = init_state(lambda key: jnp.zeros((125, 3, 3)), optimizer, jax.random.key(0))
    step = Step(table, Supervised(3), optimizer, lambda step: 0.3, 7)
    state, losses = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, rows), s, length=100))(state)
    counts = jax.jit(lambda p: decisions(table(p)(rows["tokens"], rows["lengths"])[1], process_targets(rows, 3)))
    total = counts(state.params).total()
    assert losses["loss"][-1] < 0.01 < losses["loss"][0]
    assert total.wanted.tolist() == total.hits.tolist() == total.decided.tolist() == [6, 0, 4]


# ---- decisions, and what is refused ----------------------------------------------------------------------------------


def test_decisions_are_counted():
    """Against sets of places; nothing decided or wanted has no precision or recall."""
    controls = outputs(5)[1].at[..., 1].set(-9.0)
    thresholds = (0.3, 0.5, 0.7)
    counts = jax.jit(lambda c: decisions(c, process_targets(BATCH, V), thresholds))(controls)
    labels = np.stack([BATCH["remask"], BATCH["insert"] > 0, BATCH["delete"]], -1)
    for row in range(SIZE):
        for op, threshold in enumerate(thresholds):
            wanted = {i for i in range(N) if INSIDE[row, i] and labels[row, i, op]}
            decided = {i for i in range(N) if INSIDE[row, i] and 1 / (1 + np.exp(-controls[row, i, op])) > threshold}
            found = tuple(int(x[row, op]) for x in counts)
            assert found == (len(wanted & decided), len(decided), len(wanted))
    total = counts.total()
    assert np.isnan(total.precision()[1]) and total.recall()[1] == 0 and total.decided[1] == 0
    np.testing.assert_allclose(total.precision()[0], total.hits[0] / total.decided[0])
    np.testing.assert_allclose(total.recall()[0], total.hits[0] / total.wanted[0])
    assert np.isnan(counts.recall()[3]).all()


def test_what_is_refused():
    two = padded([((0,), make_move((0,), MASK)), ((0, 1), make_move((0, 1), MASK, insert={1: 2}))], N, MASK)
    for call, message in {
        lambda: check_bits(two): "row 1 inserts 2 masks at once",
        lambda: balance_of(two, V): "row 1 inserts 2",
        lambda: Supervised(V, reduction="mean"): "reduction='mean': must be one of global, per_sequence",
        lambda: loss(*outputs(), reduction="sum"): "reduction='sum': must be one of",
        lambda: Supervised(V, balance=0.0): r"balance=0.0\): a number above 0",
        lambda: Supervised(V, reduction="per_sequence", balance=2.0): "for reduction='global' only",
        lambda: one_step(PLAIN, micro=3): "2 rows of a batch of 6: give `balance`",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert balance_of(padded([((0,), make_move((0,), MASK))], N, MASK), V) == 1
