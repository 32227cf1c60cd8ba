"""The bound with a schedule for each token value."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import all_masks
from mdmjax.objectives import (
    LearnedValues,
    ValueScheduled,
    log_softplus,
    surrogate,
    tilted,
    value_rate_bound,
    value_rate_loss,
)
from mdmjax.process import iid

pytestmark = pytest.mark.usefixtures("x64")


def quadrature():
    """(t, dt) on (0, 1) for powers of t."""
    node, width = np.polynomial.legendre.leggauss(40)
    edges = np.concatenate([[0], 2.0 ** np.arange(-3, 8)])
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    u, du = (middle[:, None] + half[:, None] * node).ravel(), (half[:, None] * width).ravel()
    return jnp.asarray(np.exp(-u)), jnp.asarray(du * np.exp(-u))


@pytest.mark.parametrize("q,w", [((0.2, 0.5, 0.3), (0.7, 1.5, 3.0)), ((0.1, 0.1, 0.8), (2.0, 0.3, 1.0))])
def test_one_position_is_exact(q, w):
    """int_0^1 t^w_x loss dt = -log q_x for the true posterior; below t_min it is the cross-entropy there."""
    log_w, prior = jnp.log(jnp.asarray(w)), jnp.log(jnp.asarray(q))
    t, dt = quadrature()
    for x in range(3):
        targets = jnp.full(t.shape, x)
        posterior = tilted(jnp.broadcast_to(prior, (len(t), 3)), t, log_w)
        integrand = t ** w[x] * value_rate_loss(posterior, targets, t, log_w)
        assert (integrand * dt).sum() == pytest.approx(-math.log(q[x]), abs=1e-10)
        low = 0.05
        grid = low + (1 - low) * (np.polynomial.legendre.leggauss(200)[0] + 1) / 2
        weight = np.polynomial.legendre.leggauss(200)[1] * (1 - low) / 2
        again = tilted(jnp.broadcast_to(prior, (200, 3)), jnp.asarray(grid), log_w)
        part = (grid ** w[x] * value_rate_loss(again, jnp.full(200, x), jnp.asarray(grid), log_w) * weight).sum()
        rest = low ** w[x] * -jax.nn.log_softmax(tilted(prior, jnp.asarray(low), log_w))[x]
        assert part + rest == pytest.approx(-math.log(q[x]), abs=1e-10)


def test_equal_weights_are_the_cross_entropy():
    logits, t = jax.random.normal(jax.random.key(0), (5, 4)), jnp.linspace(0.1, 1, 5)
    targets = jnp.array([0, 3, 2, 1, 1])
    ce = -jax.nn.log_softmax(logits)[jnp.arange(5), targets]
    np.testing.assert_allclose(
        value_rate_loss(logits, targets, t, jnp.full(4, math.log(1.7))), 1.7 / t * ce, rtol=1e-12
    )


VOCAB, T_MIN, X = 3, 0.02, (2, 0)
LOG_W = (-0.2, 0.3, 0.7)


def tilted_table(tokens, t, log_w):
    """A denoiser of two positions that depends on time."""
    table = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2, 3)))
    return tilted(table[tokens @ jnp.array([4, 1])], jnp.broadcast_to(t[:, None], tokens.shape), log_w)


def times():
    """Times uniform on [T_MIN, 1], and their probabilities."""
    node, width = np.polynomial.legendre.leggauss(60)
    return jnp.asarray(T_MIN + (1 - T_MIN) * (node + 1) / 2), jnp.asarray(width / 2)


def law(log_w, t):
    """P(masks at t) for all four masks: [times, masks]."""
    rate = jnp.exp(jnp.multiply.outer(jnp.log(t), jnp.exp(log_w)[jnp.array(X)]))
    return jnp.where(all_masks(2)[None], rate[:, None], 1 - rate[:, None]).prod(2)


def exact(log_w, last):
    """The bound above T_MIN by enumeration, and what is still hidden there revealed at once."""
    (t, dt), x = times(), jnp.array(X)
    hidden = jnp.asarray(np.tile(all_masks(2), (len(t), 1)))
    each = jnp.repeat(t, 4)
    logits = tilted_table(jnp.where(hidden, VOCAB, x[None]), each, log_w)
    rates = value_rate_loss(logits, jnp.broadcast_to(x, hidden.shape), each[:, None] + jnp.zeros(hidden.shape), log_w)
    values = (1 - T_MIN) * jnp.where(hidden, rates, 0).sum(1).reshape(len(t), 4)
    bound = (dt[:, None] * law(log_w, t) * values).sum()
    if last:
        end = jnp.full(4, T_MIN)
        logits = tilted_table(jnp.where(all_masks(2), VOCAB, x[None]), end, log_w)
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.broadcast_to(x, (4, 2))[..., None], 2)[..., 0]
        bound += (law(log_w, end[:1])[0] * jnp.where(all_masks(2), nats, 0).sum(1)).sum()
    return bound


exactly = jax.jit(jax.value_and_grad(exact), static_argnums=1)


@pytest.mark.parametrize("last", [False, True])
def test_the_gradient_is_that_of_the_exact_bound(last):
    """All pairs of masks at both times, and quadrature in t; the exact bound is differentiated in the weights."""
    (t, dt), log_w, masks = times(), jnp.array(LOG_W), all_masks(2)
    pairs = np.array(list(itertools.product(range(4), repeat=2)))
    p = np.asarray(law(log_w, t))
    weight = np.asarray(dt)[:, None] * p[:, pairs[:, 0]] * p[:, pairs[:, 1]]
    ends = pairs if last else pairs[:1]
    p_end = np.asarray(law(log_w, jnp.array([T_MIN])))[0][ends].prod(1) if last else np.ones(1)
    weight = jnp.asarray(np.multiply.outer(weight, p_end).ravel())
    shape = (len(t), len(pairs), len(ends))
    each = jnp.asarray(np.broadcast_to(np.asarray(t)[:, None, None], shape).ravel())
    first = jnp.asarray(np.broadcast_to(masks[pairs][None, :, None], (*shape, 2, 2)).reshape(-1, 2, 2))
    second = jnp.asarray(np.broadcast_to(masks[ends][None, None], (*shape, 2, 2)).reshape(-1, 2, 2)) if last else None

    def mean(log_w):
        tokens = jnp.broadcast_to(jnp.array(X), (len(each), 2))
        bound = lambda tokens, t: tilted_table(tokens, t, log_w)
        nats, log_q = value_rate_bound(bound, tokens, each, first, log_w, vocab=VOCAB, t_min=T_MIN, last=second)
        return (surrogate(nats, log_q) * weight).sum()

    value, gradient = jax.jit(jax.value_and_grad(mean))(log_w)
    truth, slope = exactly(log_w, last)
    assert value == pytest.approx(float(truth), abs=1e-10)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)


def test_what_training_draws_has_that_mean():
    """Value and gradient of the objective with its own draws, within four standard errors; what it counts."""
    log_w, n = jnp.array(LOG_W), 20_000
    objective = LearnedValues(VOCAB, t_min=T_MIN, spread=iid)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2, 3)))
    prior = lambda tokens, t, *, at=None: table[tokens @ jnp.array([4, 1])]

    def one(log_w, i):
        batch = {"tokens": jnp.array([X]), "ids": i[None]}
        terms = objective(ValueScheduled(prior, log_w, tilt=True), batch, jax.random.key(1), n)
        return terms.nats[0], terms

    each = jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True), (None, 0)))
    (values, terms), gradients = each(log_w, jnp.arange(n))
    truth, slope = exactly(log_w, True)
    for found, expected in ((values, truth), *zip(gradients.T, slope, strict=True)):
        assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(n)
    assert (terms.tokens == 2).all() and 0 < terms.scored.mean() < 8


def test_a_denoiser_is_told_the_time_or_bent():
    """Without `tilt` the time goes to the denoiser; with it the logits are bent, at the positions asked for."""
    seen = []

    def denoiser(tokens, t, *, at=None):
        seen.append(t)
        return jnp.zeros((*(tokens if at is None else at).shape, 3))

    tokens, t, log_w = jnp.array([[0, 3]]), jnp.array([0.5]), jnp.array(LOG_W)
    assert (ValueScheduled(denoiser, log_w)(tokens, t) == 0).all() and seen[-1] is t
    bent = ValueScheduled(denoiser, log_w, tilt=True)(tokens, t, at=jnp.array([[1]]))
    assert seen[-1] is None
    np.testing.assert_allclose(bent, [[np.exp(LOG_W) * math.log(0.5)]], rtol=1e-12)


def test_weights_that_are_a_softplus():
    x = jnp.array([-800.0, -50.0, -20.0, -19.9, 0.0, 3.0, 700.0])
    middle = np.log(np.log1p(np.exp(np.asarray(x[2:6]))))
    np.testing.assert_allclose(log_softplus(x)[2:6], middle, rtol=1e-9)
    np.testing.assert_allclose(log_softplus(x)[jnp.array([0, 1, 6])], [-800, -50, math.log(700)], rtol=1e-12)
    slope = jax.vmap(jax.grad(lambda x: jnp.exp(log_softplus(x))))(x[1:])
    np.testing.assert_allclose(slope, jax.nn.sigmoid(x[1:]), rtol=1e-8)


@pytest.mark.parametrize("fields, words", [(dict(samples=0), "samples must be >= 1"), (dict(t_min=0.0), "in \\(0, 1")])
def test_values_out_of_range_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        LearnedValues(3, **fields)
