"""Estimates of the bound with a learned order: means and gradients by enumeration of every draw, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.order_gradients import losses, order_pairs, time_pairs
from mdmjax.analysis import all_masks, masked_losses, order_bound, random_table, table_denoiser
from mdmjax.objectives import OrderSpace, TimeSpace, learned_order_bound, surrogate
from mdmjax.process import ExactCount, iid

pytestmark = pytest.mark.usefixtures("x64")

LOSSES = losses()
W = np.array([1.0, 2, 4])


def log_w():
    """In float64, which a module is not imported with."""
    return jnp.log(jnp.asarray(W))


exactly = jax.jit(jax.value_and_grad(order_bound, 1))


def rows(masks):
    return masks @ np.array([4, 2, 1])


def nats(draws, table=LOSSES):
    return (draws.weights * jnp.asarray(table)[rows(draws.masks)]).sum((2, 3))


def moments(values, p):
    """(mean, standard deviation) of the rows of `values` under probabilities p."""
    mean = p @ values
    return mean, np.sqrt(p @ (values - mean) ** 2)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("every_step", [True, False])
def test_order_space_is_unbiased(every_step, baseline):
    law = OrderSpace(every_step)
    (order, revealed), p = order_pairs(law, log_w())

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
    (t, masks), p = time_pairs(law, log_w())

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
    (t, masks), p = time_pairs(law, log_w())
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
    laws = OrderSpace(spread=iid), OrderSpace(True, spread=iid), TimeSpace(spread=iid)
    for law in (*laws, TimeSpace(reconstruct=True, spread=iid)):

        def one(log_w, i, law=law):
            draws = law.draw(log_w, jax.random.key(1), ids[i][None], samples, n)
            terms = learned_order_bound(table, tokens[i][None], draws, vocab=4)
            return terms.nats[0], terms

        (values, terms), gradients = jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True), (None, 0)))(log_w(), ids)
        for found, expected in ((values, truth), *zip(gradients.T, slope, strict=True)):
            assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(n)
        assert (terms.tokens == 3).all()
        if isinstance(law, OrderSpace):  # two of three positions are hidden on average
            assert terms.scored.mean() == pytest.approx(samples * law.calls(3) * 2, rel=0.03)


def test_equal_weights_are_the_exact_count():
    """The same hidden sets with the same factors: L / l for each of l hidden."""
    draws = OrderSpace().draw(jnp.zeros(5), jax.random.key(0), jnp.arange(40), 1, 40)
    size = draws.masks.sum(-1, keepdims=True)
    np.testing.assert_allclose(draws.weights, np.where(draws.masks, 5 / size, 0), rtol=1e-12)
    counts = np.bincount(np.asarray(size).ravel(), minlength=6)
    exact = ExactCount().draw(jax.random.key(0), jnp.arange(40), jnp.ones((40, 5), bool), batch=40)
    np.testing.assert_array_equal(counts, np.bincount(np.asarray(exact.masks.sum(1)), minlength=6))


@pytest.mark.parametrize(
    "w, t_min, bound, gradient, total",
    [
        ((0.5, 1, 2), 1e-4, 1.914226, (0.527622, -0.443099, -0.079060), 0.00546),
        ((0.5, 1, 2), 1e-3, 1.911250, (0.534008, -0.437842, -0.079051), 0.01711),
        ((0.5, 1, 2), 1e-2, 1.896320, (0.546003, -0.402749, -0.078494), 0.06476),
        ((2, 4, 8), 1e-3, 1.915324, (0.522964, -0.443903, -0.079060), 1.4e-6),
    ],
)
def test_what_leaving_out_small_times_costs(w, t_min, bound, gradient, total):
    """Reference values; raising the weights first, which changes no order, leaves nothing of it to be seen."""
    v = jnp.log(jnp.asarray(w, float))
    for least in (0.0, 2.0):
        law = TimeSpace(t_min=t_min, least=least)
        (t, masks), p = time_pairs(law, v)

        def mean(v, law=law, t=t, masks=masks, p=p):
            draws = law.given(v, t, masks)
            return (surrogate(nats(draws), draws.log_q) * p).sum()

        value, slope = jax.jit(jax.value_and_grad(mean))(v)
        if least:
            bound, gradient, total, t_min = 1.915324, (0.522963, -0.443903, -0.079060), 0, max(t_min, 1e-3)
        near = 1e-6 if not least else 20 * t_min**2
        assert value == pytest.approx(bound, abs=near)
        assert np.asarray(slope) == pytest.approx(gradient, abs=2 * near)
        assert slope.sum() == pytest.approx(total, abs=max(1e-5, 4 * near))


def test_times_drawn_as_powers_are_uniform_times_for_larger_weights():
    """t = u^3 by its density, from u = t_min on, is what `power` = 3 draws and weighs: masks, factors, scores."""
    law, v = TimeSpace(t_min=0.1, least=0, power=3), log_w()
    u, masks = jnp.array([0.1, 0.4, 1.0]), jnp.asarray(np.random.default_rng(0).random((3, 2, 1, 3)) < 0.5)
    masks = masks.at[2].set(True)
    draws = law.given(v, u, masks)
    t = np.asarray(u) ** 3
    density = 1 / (3 * np.asarray(u) ** 2) / (1 - 0.1)  # of t
    np.testing.assert_allclose(
        draws.weights, np.where(masks, (W / (t * density)[:, None])[:, None, None], 0), rtol=1e-12
    )
    hidden = np.exp(np.log(t)[:, None] * W)[:, None, None]
    np.testing.assert_allclose(draws.log_q, np.log(np.where(masks, hidden, 1 - hidden)).sum((2, 3)), rtol=1e-9)


@pytest.mark.parametrize("w", [(0.5, 1, 2), (3, 0.4, 1)])
def test_what_is_left_out_is_reconstructed(w):
    """Value and gradient: the bound above t_min, and the losses of what is hidden at t_min; by all pairs of draws."""
    v, t_min = jnp.log(jnp.asarray(w, float)), 1e-2
    law = TimeSpace(t_min=t_min, least=0, reconstruct=True)
    part = TimeSpace(t_min=t_min, least=0)
    masks = np.asarray(all_masks(3))

    def at_t_min(v):
        hidden = jnp.exp(math.log(t_min) * jnp.exp(v))
        return (jnp.where(masks, hidden, 1 - hidden).prod(1) * (masks * jnp.asarray(LOSSES)[rows(masks)]).sum(1)).sum()

    def above(v):
        draws = part.given(v, t, first)
        return (surrogate(nats(draws), draws.log_q) * p).sum()

    def both(v):
        draws = law.given(v, jnp.repeat(t, 64), both_masks)
        return (surrogate(nats(draws), draws.log_q) * (p[:, None] * last_p).ravel()).sum()

    (t, first), p = time_pairs(part, v)
    pairs = masks[np.indices((8, 8)).reshape(2, -1).T]  # of the two draws of an example, at t_min
    hidden = t_min ** np.asarray(w)
    last_p = np.where(pairs, hidden, 1 - hidden).prod((1, 2))
    shape = (len(t), 64, 2, 3)
    both_masks = jnp.stack(
        [jnp.broadcast_to(first[:, None, :, 0], shape), jnp.broadcast_to(pairs, shape)], axis=-2
    ).reshape(-1, 2, 2, 3)
    value, gradient = jax.jit(jax.value_and_grad(both))(v)
    expected, slope = jax.value_and_grad(lambda v: above(v) + at_t_min(v))(v)
    truth = float(exactly(jnp.asarray(LOSSES), v)[0])
    assert value == pytest.approx(float(expected), abs=1e-9)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)
    assert abs(value - truth) < 0.05 * abs(above(v) - truth)


@pytest.mark.parametrize("power", [0, -1.0, math.nan])
def test_powers_that_are_not_positive_are_refused(power):
    with pytest.raises(ValueError, match=r"TimeSpace\(power=.*\): power must be > 0"):
        TimeSpace(power=power)


@pytest.mark.parametrize("t_min", [0, -0.1, 1.0, math.nan])
def test_times_outside_the_range_are_refused(t_min):
    with pytest.raises(ValueError, match=r"TimeSpace\(t_min=.*\): t_min must be in \(0, 1\)"):
        TimeSpace(t_min=t_min)


def test_weights_are_raised_until_nothing_visible_is_left_out():
    law = TimeSpace(t_min=1e-3)
    np.testing.assert_allclose(law.weights(jnp.log(jnp.array([0.5, 1, 2]))), [2, 4, 8], rtol=1e-12)
    np.testing.assert_allclose(law.weights(jnp.log(jnp.array([3.0, 5, 9]))), [3, 5, 9], rtol=1e-12)
    np.testing.assert_allclose(TimeSpace(least=0).weights(jnp.log(jnp.array([0.5, 1, 2]))), [0.5, 1, 2], rtol=1e-12)
