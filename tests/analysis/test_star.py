"""The cause and its effects: what a plainly trained linear denoiser says of the order, on the exact loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.analysis import Star, all_masks, all_states, expected_losses, order_bound
from mdmjax.networks import LinearConfig, linear

STAR = Star()
V, L = STAR.vocab, STAR.length


def shares():
    """[S, L, V]: the uniform-order bound of a denoiser is the sum of these times -log p(v at l | state)."""
    masks = all_masks(L)[1:]
    size = masks.sum(1)
    share = np.array([1 / (n * math.comb(L, n)) for n in size])
    table = np.zeros(((V + 1) ** L, L, V))
    for x, p in zip(STAR.rows(), STAR.probabilities(), strict=True):
        state = np.where(masks, V, x[None]) @ (V + 1) ** np.arange(L)[::-1]
        row, place = np.nonzero(masks)
        table[state[row], place, x[place]] += p * share[row]  # no state twice
    return table


def test_the_gradient_at_equal_weights_favours_the_root():
    """Reference values of arXiv 2511.19152's setting, where the gap of uniform orders is about .16 nats."""
    assert STAR.entropy() == pytest.approx(4.776722, abs=1e-6)
    model = linear(LinearConfig(V, L))
    states, table = jnp.asarray(all_states(L, V)), jnp.asarray(shares(), jnp.float32)
    optimiser = optax.lbfgs()

    def loss(params):
        return -(table * jax.nn.log_softmax(model.bind(params)(states))).sum()

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, slope = optax.value_and_grad_from_state(loss)(params, state=state)
            updates, state = optimiser.update(slope, state, params, value=value, grad=slope, value_fn=loss)
            return (optax.apply_updates(params, updates), state), value

        (params, _), values = jax.lax.scan(step, (params, optimiser.init(params)), length=150)
        return params, values

    @jax.jit
    def exactly(params):
        losses = expected_losses(model.bind(params), STAR.rows(), STAR.probabilities(), V)
        return jax.value_and_grad(order_bound, 1)(losses, jnp.zeros(L))

    params, values = train(model.init(jax.random.key(0)))
    bound, slope = exactly(params)
    assert bound == pytest.approx(float(values[-1]), abs=1e-4)  # the trained loss is the bound
    assert bound - STAR.entropy() == pytest.approx(0.16, abs=0.01)
    assert slope[0] == pytest.approx(-0.017, abs=0.003)
    np.testing.assert_allclose(slope[1:], 0.003, atol=0.001)
    assert slope.sum() == pytest.approx(0, abs=1e-5)
