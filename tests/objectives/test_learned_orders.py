"""Estimates of the bound with a learned order: means and gradients by enumeration of every draw, in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import all_masks, all_orders, masked_losses, order_bound, random_table, table_denoiser
from mdmjax.objectives import OrderSpace, TimeSpace, learned_order_bound, surrogate
from mdmjax.process import ExactCount, iid

pytestmark = pytest.mark.usefixtures("x64")

LOSSES = np.where(all_masks(3), np.random.default_rng(1).exponential(size=(8, 3)), 0)
W = np.array([1.0, 2, 4])


def log_w():
    """In float64, which a module is not imported with."""
    return jnp.log(jnp.asarray(W))


exactly = jax.jit(jax.value_and_grad(order_bound, 1))


def rows(masks):
    return masks @ np.array([4, 2, 1])


def nats(draws, losses=LOSSES):
    return (draws.weights * jnp.asarray(losses)[rows(draws.masks)]).sum((2, 3))


def moments(values, p):
    """(mean, standard deviation) of the rows of `values` under probabilities p."""
    mean = p @ values
    return mean, np.sqrt(p @ (values - mean) ** 2)


def order_pairs(every_step):
    """Every pair of orders with every step, and the probability of each, as inputs of `given`."""
    orders = all_orders(3)
    p = np.exp([_log_prob(o) for o in orders])
    pairs = np.array(list(itertools.product(range(6), repeat=2)))
    steps = [np.arange(3)] if every_step else [np.array([i]) for i in range(3)]
    order = jnp.asarray(np.concatenate([orders[pairs]] * len(steps)))
    revealed = jnp.asarray(np.repeat(steps, len(pairs), axis=0))
    return order, revealed, np.tile(p[pairs].prod(1), len(steps)) / len(steps)


def _log_prob(order):
    return sum(math.log(W[order[i]] / W[order[i:]].sum()) for i in range(3))


def time_pairs(law):
    """Quadrature in t with every pair of masks."""
    edges = np.concatenate([[0], 2.0 ** np.arange(-3, 5)])
    node, width = np.polynomial.legendre.leggauss(12)
    u = ((edges[1:] + edges[:-1]) / 2)[:, None] + ((edges[1:] - edges[:-1]) / 2)[:, None] * node
    du = ((edges[1:] - edges[:-1]) / 2)[:, None] * width
    u, du = u.ravel(), du.ravel()
    t, dt = np.exp(-u), du * np.exp(-u)
    keep = t > law.t_min
    t, dt = t[keep], dt[keep]
    w = np.asarray(law.weights(log_w()))
    p = np.where(all_masks(3), t[:, None, None] ** w, 1 - t[:, None, None] ** w).prod(2)
    pairs = np.array(list(itertools.product(range(8), repeat=2)))
    probability = (dt[:, None] * p[:, pairs[:, 0]] * p[:, pairs[:, 1]] / (1 - law.t_min)).ravel()
    masks = jnp.asarray(np.tile(all_masks(3)[pairs], (len(t), 1, 1)))
    return jnp.asarray(np.repeat(t, len(pairs))), masks, probability


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("every_step", [True, False])
def test_order_space_is_unbiased(every_step, baseline):
    law = OrderSpace(every_step)
    order, revealed, p = order_pairs(every_step)

    def mean(v):
        draws = law.given(v, order, revealed)
        return (surrogate(nats(draws), draws.log_q, baseline) * p).sum()

    value, gradient = jax.jit(jax.value_and_grad(mean))(log_w())
    truth, slope = exactly(jnp.asarray(LOSSES), log_w())
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert value == pytest.approx(float(truth), abs=1e-10)
    np.testing.assert_allclose(gradient, slope, atol=1e-10)


@pytest.mark.parametrize("baseline", [True, False])
def test_time_space_is_unbiased(baseline):
    law = TimeSpace(t_min=1e-7)
    t, masks, p = time_pairs(law)

    def mean(v):
        draws = law.given(v, t, masks)
        return (surrogate(nats(draws), draws.log_q, baseline) * p).sum()

    value, gradient = jax.jit(jax.value_and_grad(mean))(log_w())
    truth, slope = exactly(jnp.asarray(LOSSES), log_w())
    assert value == pytest.approx(float(truth), abs=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_the_network_sees_the_plain_gradient():
    """The score part adds nothing to the gradient of the losses."""
    law = TimeSpace(t_min=1e-7)
    t, masks, p = time_pairs(law)
    draws = law.given(log_w(), t, masks)
    with_score = jax.grad(lambda x: (surrogate(nats(draws, x), draws.log_q) * p).sum())(jnp.asarray(LOSSES))
    plain = jax.grad(lambda x: (nats(draws, x).mean(1) * p).sum())(jnp.asarray(LOSSES))
    np.testing.assert_allclose(with_score, plain, atol=1e-12)
    np.testing.assert_allclose(plain, jax.grad(order_bound)(jnp.asarray(LOSSES), log_w()), atol=1e-6)


def test_what_the_objective_says_is_the_mean_over_its_draws():
    """Through a denoiser and the drawn keys, within four standard errors; and what it counts."""
    table = table_denoiser(random_table(jax.random.key(0), 3, 4, 2.0))
    x = jnp.array([3, 0, 2])
    truth, slope = exactly(masked_losses(table, x, 4), log_w())
    n, samples = 6000, 3
    tokens, ids = jnp.broadcast_to(x, (n, 3)), jnp.arange(n)
    for law in (OrderSpace(spread=iid), OrderSpace(True, spread=iid), TimeSpace(spread=iid)):

        def one(log_w, i, law=law):
            draws = law.draw(log_w, jax.random.key(1), ids[i][None], samples, n)
            terms = learned_order_bound(table, tokens[i][None], draws, vocab=4)
            return terms.nats[0], terms

        (values, terms), gradients = jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True), (None, 0)))(log_w(), ids)
        for found, expected in ((values, truth), *zip(gradients.T, slope, strict=True)):
            assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(n)
        assert (terms.tokens == 3).all() and (terms.scored <= samples * 3 * law.calls(3)).all()


def test_order_space_varies_less_than_time_space():
    """Standard deviation of the gradient in log w of one draw (K = 2), exactly; also for one denoiser call each."""
    deviations = {}
    for name, law in dict(time=TimeSpace(t_min=1e-3, least=0), every=OrderSpace(True), one=OrderSpace()).items():
        if isinstance(law, TimeSpace):
            t, masks, p = time_pairs(law)
            make = lambda log_w, t=t, masks=masks, law=law: law.given(log_w, t, masks)
        else:
            order, revealed, p = order_pairs(law.every_step)
            make = lambda log_w, order=order, revealed=revealed, law=law: law.given(log_w, order, revealed)

        def each(log_w, make=make):
            draws = make(log_w)
            return surrogate(nats(draws), draws.log_q)

        deviations[name] = moments(np.asarray(jax.jit(jax.jacfwd(each))(log_w())), p)[1]
    assert (deviations["every"] * 2 < deviations["time"]).all()
    assert (deviations["one"] < deviations["time"]).all()


def test_equal_weights_are_the_exact_count():
    """The same hidden sets with the same factors: L / l for each of l hidden."""
    draws = OrderSpace().draw(jnp.zeros(5), jax.random.key(0), jnp.arange(40), 1, 40)
    size = draws.masks.sum(-1, keepdims=True)
    np.testing.assert_allclose(draws.weights, np.where(draws.masks, 5 / size, 0), rtol=1e-12)
    counts = np.bincount(np.asarray(size).ravel(), minlength=6)
    exact = ExactCount().draw(jax.random.key(0), jnp.arange(40), jnp.ones((40, 5), bool), batch=40)
    np.testing.assert_array_equal(counts, np.bincount(np.asarray(exact.masks.sum(1)), minlength=6))


def test_weights_are_raised_until_nothing_visible_is_left_out():
    """The bias of leaving out t < t_min at the reference table's size of weights, with and without."""
    law = TimeSpace(t_min=1e-3)
    np.testing.assert_allclose(law.weights(jnp.log(jnp.array([0.5, 1, 2]))), [2, 4, 8], rtol=1e-12)
    np.testing.assert_allclose(law.weights(jnp.log(jnp.array([3.0, 5, 9]))), [3, 5, 9], rtol=1e-12)
    np.testing.assert_allclose(TimeSpace(least=0).weights(jnp.log(jnp.array([0.5, 1, 2]))), [0.5, 1, 2], rtol=1e-12)
