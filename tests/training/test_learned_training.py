"""The objective of a learned order and the optimiser of its phases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.analysis import Star, all_orders, expected_losses, order_bound, random_table, table_denoiser
from mdmjax.networks import LinearConfig, linear
from mdmjax.objectives import LearnedOrder, Ordered, OrderSpace, TimeSpace, dense
from mdmjax.process import PlackettLuce
from mdmjax.training import NEVER, adamw, with_order

STAR = Star(vocab=3, children=2)
MODEL = linear(LinearConfig(3, 3))
LOG_W = jnp.array([0.5, -0.7, 0.2])


@pytest.fixture(scope="module")
def params():
    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(MODEL.init(jax.random.key(0)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return tree.unflatten([jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def exact(params, log_weights):
    """bound + 0.3 |v|^2, by the recursion over the whole law."""
    losses = expected_losses(MODEL.bind(params), STAR.rows(), STAR.probabilities(), 3)
    centred = log_weights - log_weights.mean()
    return order_bound(losses, log_weights) + 0.3 * (centred**2).sum()


class Given:
    """A law whose draws are given: every step of these orders [B, K, L]."""

    def __init__(self, orders):
        self.orders = jnp.asarray(orders)

    def draw(self, log_weights, key, ids, samples, batch):
        revealed = jnp.broadcast_to(jnp.arange(3), (len(ids), 3))
        return OrderSpace(every_step=True).given(log_weights, self.orders, revealed)


def test_the_gradient_is_that_of_the_recursion(x64, params):
    """On the linear denoiser of a Bayes network, by all pairs of orders in place of drawn ones: no Monte Carlo error.

    Every row of the law meets every pair (K = 2) once; a row's terms are weighted by its probability and that of its
    pair. The price of the weights is in the gradient and not in the value.
    """
    log_w, orders, rows = jnp.array([0.5, -0.7, 0.2]), all_orders(3), STAR.rows()
    pairs = np.stack(np.meshgrid(np.arange(6), np.arange(6), indexing="ij"), -1).reshape(-1, 2)
    p_order = np.exp(np.asarray(PlackettLuce(log_w).log_prob(jnp.asarray(orders))))
    p = jnp.asarray(np.outer(STAR.probabilities(), p_order[pairs].prod(1)).ravel())
    batch = {"tokens": jnp.asarray(np.repeat(rows, len(pairs), axis=0)), "ids": jnp.arange(len(p))}
    objective = LearnedOrder(3, Given(np.tile(orders[pairs], (len(rows), 1, 1))), l2=0.3)

    def mean(params, log_weights):
        terms = objective(Ordered(MODEL.bind(params), log_weights), batch, jax.random.key(0), len(p))
        return (terms.nats * p).sum()

    value, found = jax.jit(jax.value_and_grad(mean, (0, 1)))(params, log_w)
    truth, expected = jax.jit(jax.value_and_grad(exact, (0, 1)))(params, log_w)
    price = 0.3 * jnp.square(log_w - log_w.mean()).sum()
    assert float(value) == pytest.approx(float(truth - price), abs=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, expected)


@pytest.mark.parametrize("law", [OrderSpace(), TimeSpace()], ids=["order", "time"])
def test_equal_weights_are_plain_masked_diffusion(law):
    """A fixed equal order costs K denoiser rows of a draw, and its loss is the bound of masked diffusion."""
    table = table_denoiser(random_table(jax.random.key(0), 3, 3))
    objective = LearnedOrder(3, law, samples=4)
    tokens = jnp.asarray(np.tile(STAR.rows(), (40, 1)))
    batch = {"tokens": tokens, "ids": jnp.arange(len(tokens))}
    terms = jax.jit(lambda w: objective(Ordered(table, w), batch, jax.random.key(0), len(tokens)))(jnp.zeros(3))
    uniform = np.full(27, 1 / 27)
    truth = order_bound(expected_losses(table, STAR.rows(), uniform, 3), jnp.zeros(3))
    assert abs(terms.nats.mean() - truth) < 4 * terms.nats.std() / np.sqrt(len(tokens)) + 0.01  # of t < t_min
    assert (terms.tokens == 3).all()


def test_a_control_changes_the_gradient_and_not_the_loss():
    table = table_denoiser(random_table(jax.random.key(0), 3, 3))
    batch = {"tokens": jnp.asarray(STAR.rows()), "ids": jnp.arange(27)}
    law = Given(np.tile(np.arange(3), (27, 2, 1)))

    def mean(log_weights, objective):
        return objective(Ordered(table, log_weights), batch, jax.random.key(0), 27).nats.mean()

    plain, price = LearnedOrder(3, law), LearnedOrder(3, law, l2=0.5, control=lambda v: (v * jnp.arange(3)).sum())
    both = jax.jit(lambda w: [jax.value_and_grad(mean)(w, o) for o in (plain, price)])
    (a, slope), (b, priced) = both(LOG_W)
    v = LOG_W - LOG_W.mean()
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    np.testing.assert_allclose(priced - slope, v + jnp.arange(3) - 1, atol=1e-6)


def test_what_will_not_do():
    table = table_denoiser(random_table(jax.random.key(0), 3, 3))
    batch = {"tokens": jnp.zeros((1, 3), int), "ids": jnp.arange(1), "eligible": jnp.ones((1, 3), bool)}
    with pytest.raises(ValueError, match="samples=0.*must be >= 1"):
        LearnedOrder(3, samples=0)
    with pytest.raises(ValueError, match="l2=-1.*must be >= 0"):
        LearnedOrder(3, l2=-1)
    with pytest.raises(ValueError, match="eligible"):
        LearnedOrder(3)(Ordered(table, LOG_W), batch, jax.random.key(0), 1)
    with pytest.raises(ValueError, match="learning_rate=0"):
        with_order(optax.sgd(0.1), learning_rate=0.0, start=0)
    with pytest.raises(ValueError, match="start=-1"):
        with_order(optax.sgd(0.1), learning_rate=0.1, start=-1)


def test_the_halves_of_a_split_denoiser_pass_through():
    bound = Ordered(MODEL.bind(MODEL.init(jax.random.key(0))), LOG_W)
    tokens = jnp.asarray(STAR.rows())
    np.testing.assert_array_equal(bound.readout(bound.features(tokens)), bound(tokens))
    assert dense(bound, tokens, None, tokens, tokens == 0).shape == tokens.shape
    leaves = jax.tree.leaves(bound)
    assert any(leaf is bound.log_weights for leaf in leaves)


# ---- the optimiser's phases ------------------------------------------------------------------------------------------

PARAMS = {"network": {"kernel": jnp.ones((2, 2))}, "order": jnp.array([1.0, 0.0, -1.0])}
GRADIENTS = {"network": {"kernel": jnp.full((2, 2), 1e3)}, "order": jnp.array([3.0, -1.0, 0.5])}


def follow(start, steps=6, kick=None, before=1.0):
    """The order weights after each step, and the network at the end; `before` multiplies the gradient until `start`."""
    network, _ = adamw(learning_rate=0.1, steps=10, weight_decay=0.5)
    optimizer = with_order(network, learning_rate=0.2, start=start, kick=kick)
    params, state, seen = PARAMS, optimizer.init(PARAMS), []
    update = jax.jit(optimizer.update)
    for number in range(steps):
        gradients = GRADIENTS | {"order": GRADIENTS["order"] * (before if number < start else 1)}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["order"]))
    return np.array(seen), params["network"]


def test_the_order_waits_and_then_learns_as_adam_does_by_itself():
    seen, _ = follow(3, before=-2.0)  # which moments gathered before would remember
    np.testing.assert_array_equal(seen[:3], np.tile(PARAMS["order"], (3, 1)))
    adam, order = optax.adam(0.2), PARAMS["order"]
    state = adam.init(order)
    for later in seen[3:]:
        updates, state = adam.update(GRADIENTS["order"], state, order)
        order = order + updates
        order = order - order.mean()
        np.testing.assert_allclose(later, order, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.mean(1), 0, atol=1e-6)
    assert (np.abs(seen[5] - seen[3]) > 0.1).any()


def test_the_order_neither_decays_nor_is_clipped_nor_changes_the_network():
    still, alone = follow(NEVER)
    np.testing.assert_array_equal(still, np.tile(PARAMS["order"], (6, 1)))
    _, beside = follow(0)
    np.testing.assert_array_equal(alone["kernel"], beside["kernel"])
    network, _ = adamw(learning_rate=0.1, steps=10, weight_decay=0.5)
    params, state = PARAMS["network"], network.init(PARAMS["network"])
    for _ in range(6):
        updates, state = network.update(GRADIENTS["network"], state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(alone["kernel"], params["kernel"], rtol=1e-6)


def test_a_kick_comes_once():
    kick = jnp.array([2.0, -1.0, -1.0])
    plain, kicked = follow(2)[0], follow(2, kick=kick)[0]
    np.testing.assert_array_equal(plain[:2], kicked[:2])
    np.testing.assert_allclose(kicked[2:] - plain[2:], np.tile(kick, (4, 1)), atol=1e-6)
