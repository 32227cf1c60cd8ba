"""The bound with a schedule for each token value."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import all_masks
from mdmjax.objectives import surrogate, tilted, value_rate_bound, value_rate_loss

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


def test_the_gradient_is_that_of_the_exact_bound():
    """Two positions, all pairs of masks, quadrature in t; differences of the exact bound in the weights."""
    vocab, t_min = 3, 0.02
    table = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2, 3)))
    x = jnp.array([2, 0])

    def denoiser(tokens, t, log_w):
        return tilted(table[tokens @ jnp.array([4, 1])], jnp.broadcast_to(t[:, None], tokens.shape), log_w)

    node, width = np.polynomial.legendre.leggauss(60)
    t, dt = t_min + (1 - t_min) * (node + 1) / 2, width / 2  # t uniform on [t_min, 1]
    masks = all_masks(2)
    pairs = np.array(list(itertools.product(range(4), repeat=2)))

    def law(log_w):
        rate = jnp.exp(jnp.multiply.outer(jnp.log(t), jnp.exp(log_w)[x]))
        return jnp.where(masks[None], rate[:, None], 1 - rate[:, None]).prod(2)  # [times, masks]

    def exact(log_w):
        times, hidden = jnp.repeat(jnp.asarray(t), 4), jnp.asarray(np.tile(masks, (len(t), 1)))
        logits = denoiser(jnp.where(hidden, vocab, x[None]), times, log_w)
        rates = value_rate_loss(
            logits, jnp.broadcast_to(x, hidden.shape), times[:, None] + jnp.zeros(hidden.shape), log_w
        )
        values = (1 - t_min) * jnp.where(hidden, rates, 0).sum(1).reshape(len(t), 4)
        return (dt[:, None] * law(log_w) * values).sum()

    log_w = jnp.log(jnp.array([0.8, 1.3, 2.0]))
    p = np.asarray(jax.jit(law)(log_w))
    weight = (dt[:, None] * p[:, pairs[:, 0]] * p[:, pairs[:, 1]]).ravel()

    def mean(log_w):
        times = jnp.repeat(jnp.asarray(t), len(pairs))
        tokens = jnp.broadcast_to(x, (len(times), 2))
        drawn = jnp.asarray(np.tile(masks[pairs], (len(t), 1, 1)))
        bound = lambda tokens, t: denoiser(tokens, t, log_w)
        nats, log_q = value_rate_bound(bound, tokens, times, drawn, log_w, vocab=vocab, t_min=t_min)
        return (surrogate(nats, log_q) * weight).sum()

    value, gradient = jax.jit(jax.value_and_grad(mean))(log_w)
    truth, slope = jax.jit(jax.value_and_grad(exact))(log_w)
    assert value == pytest.approx(float(truth), abs=1e-10)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)
