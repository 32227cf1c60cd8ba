"""What Edit Flows learn, by enumeration of the states between two small sets of strings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edit_cases import (
    PAD,
    SCHEDULE,
    START,
    N,
    V,
    alpha,
    cases,
    chance,
    language,
    of_cases,
    remaining,
    rows,
    says,
)

from mdmjax.anyprocess import EditFlow, Expected, align, aligned, edit_losses
from mdmjax.anyprocess.edit_flows import between


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


def test_what_will_not_do():
    with pytest.raises(ValueError, match="t_min=-0.1"):
        EditFlow(V, t_min=-0.1)
