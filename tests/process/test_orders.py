"""The order law of power schedules: Plackett-Luce."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mdmjax.process import (
    Cosine,
    Linear,
    PlackettLuce,
    PositionPowers,
    ValuePowers,
    beta,
    centred,
    fixed_order,
    hazard,
)

W = np.array([0.5, 1.0, 2.0, 3.5])
ORDERS = np.array(list(itertools.permutations(range(4))))


def probabilities(w, orders=ORDERS):
    """The product of the docstring, word for word."""
    return np.array([math.prod(w[o[i]] / sum(w[j] for j in o[i:]) for i in range(len(o))) for o in orders.tolist()])


def test_probabilities_and_marginals(x64):
    law = PlackettLuce(jnp.log(jnp.asarray(W)))
    p = np.exp(law.log_prob(jnp.asarray(ORDERS)))
    np.testing.assert_allclose(p, probabilities(W), rtol=1e-12)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    rank = np.argsort(ORDERS, axis=1)  # of each position
    before = np.where(rank[:, :, None] == rank[:, None, :], 0.5, rank[:, :, None] < rank[:, None, :])
    np.testing.assert_allclose(law.precedence(), np.einsum("p,pab->ab", p, before), rtol=1e-12)
    np.testing.assert_allclose(law.first(), p @ (rank == 0), rtol=1e-12)
    np.testing.assert_allclose(law.expected_rank(), p @ rank, rtol=1e-12)
    marginals = np.stack([p @ (rank == r) for r in range(4)], axis=1)
    np.testing.assert_allclose(law.rank_marginals(), marginals, rtol=1e-12)


def test_rank_marginals_of_unequal_weights_at_a_size_that_cannot_be_enumerated(x64):
    law = PlackettLuce(jnp.linspace(-6, 6, 24))
    marginals = law.rank_marginals()
    np.testing.assert_allclose(marginals.sum(0), 1, atol=1e-9)
    np.testing.assert_allclose(marginals.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(marginals[:, 0], law.first(), rtol=1e-8)
    np.testing.assert_allclose(marginals @ np.arange(24), law.expected_rank(), rtol=1e-8)


def test_scale_changes_nothing_and_names_follow_positions(x64):
    log_w = jnp.log(jnp.asarray(W))
    p = PlackettLuce(log_w).log_prob(jnp.asarray(ORDERS))
    np.testing.assert_allclose(PlackettLuce(log_w + 5).log_prob(jnp.asarray(ORDERS)), p, atol=1e-12)
    np.testing.assert_allclose(PlackettLuce(centred(log_w)).log_prob(jnp.asarray(ORDERS)), p, atol=1e-12)
    renamed = np.array([2, 0, 3, 1])
    same = PlackettLuce(log_w[renamed]).log_prob(jnp.asarray(np.argsort(renamed)[ORDERS]))
    np.testing.assert_allclose(same, p, atol=1e-12)


@pytest.mark.parametrize("how", ["sample", "sample_times"])
def test_both_samplers_have_the_law(how):
    law = PlackettLuce(jnp.log(jnp.asarray(W)))
    draw = law.sample if how == "sample" else lambda key: jnp.argsort(-law.sample_times(key))
    orders = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 24_000)))
    place = 4 ** np.arange(4)
    counts = (orders @ place == (ORDERS @ place)[:, None]).sum(1)
    assert counts.sum() == 24_000
    assert stats.chisquare(counts, 24_000 * probabilities(W)).pvalue > 1e-3


def test_the_largest_weight_is_revealed_first(x64):
    law = PlackettLuce(jnp.log(jnp.array([100.0, 1, 1])))
    np.testing.assert_allclose(law.first()[0], 100 / 102, rtol=1e-12)
    orders = jax.vmap(law.sample)(jax.random.split(jax.random.key(1), 10_000))
    p = 100 / 102
    assert abs((orders[:, 0] == 0).mean() - p) < 4 * math.sqrt(p * (1 - p) / 10_000)


def test_a_fixed_order_is_a_limit(x64):
    order = np.array([2, 0, 3, 1])
    weights = fixed_order(order)
    assert abs(weights.mean()) < 1e-12
    assert math.exp(PlackettLuce(jnp.asarray(weights)).log_prob(jnp.asarray(order))) > 1 - 1e-15
    keys = jax.random.split(jax.random.key(0), 100)
    assert (jax.vmap(PlackettLuce(jnp.asarray(weights)).sample)(keys) == order[None]).all()


# ---- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Linear(), Cosine(), beta(0.9, 0.3)], ids=["linear", "cosine", "beta"])
def test_power_schedules_are_powers_of_their_base(base, x64):
    schedule = PositionPowers(jnp.log(jnp.asarray(W)), base)
    t = jnp.concatenate([jnp.array([1e-9, 1e-4]), jnp.linspace(0.01, 0.99, 50), jnp.array([1 - 1e-9])])
    np.testing.assert_allclose(
        schedule.one_minus_alpha(t), np.asarray(base.one_minus_alpha(t))[:, None] ** W, rtol=1e-11
    )
    np.testing.assert_allclose(schedule.alpha(t) + schedule.one_minus_alpha(t), 1, atol=1e-14)
    np.testing.assert_allclose(schedule.alpha(t)[-1], W * float(base.alpha(t)[-1]), rtol=1e-6)  # not lost near t = 1
    np.testing.assert_allclose(schedule.weight(t), np.asarray(base.weight(t))[:, None] * W, rtol=1e-14)
    inside = t[2:-1]
    back = schedule.inverse(schedule.alpha(inside), schedule.one_minus_alpha(inside))
    np.testing.assert_allclose(back, jnp.broadcast_to(inside[:, None], back.shape), rtol=1e-9)
    # steps multiply out: prod (1 - hazard) = m(t_end) / m(t_start)
    grid = jnp.linspace(0.3, 0.9, 20)
    stay = 1 - hazard(schedule, grid[1:], grid[:-1])
    hidden = schedule.one_minus_alpha(jnp.array([0.3, 0.9]))
    np.testing.assert_allclose(stay.prod(0), hidden[0] / hidden[1], rtol=1e-10)


def test_large_powers_do_not_underflow():
    schedule = PositionPowers(jnp.log(jnp.array([1e-4, 500.0])))
    assert np.isfinite(np.asarray(schedule.log_hidden(jnp.array(0.1)))).all()
    assert schedule.log_hidden(jnp.array(0.1))[1] == pytest.approx(500 * math.log(0.1), rel=1e-6)


def test_value_powers(x64):
    t = jnp.linspace(0.01, 1, 50)
    schedule = ValuePowers(jnp.log(jnp.asarray(W)), eps=1e-4)
    np.testing.assert_allclose(schedule.alpha(t), 1 - (1 - 1e-4) * np.asarray(t)[:, None] ** W, rtol=1e-9)
    np.testing.assert_allclose(schedule.alpha(t) + schedule.one_minus_alpha(t), 1, atol=1e-14)
    log_slope = jax.vmap(jax.jacfwd(lambda u: jnp.log(schedule.one_minus_alpha(u))))(t)
    np.testing.assert_allclose(schedule.weight(t), log_slope, rtol=1e-12)
    back = schedule.inverse(schedule.alpha(t), schedule.one_minus_alpha(t))
    np.testing.assert_allclose(back, jnp.broadcast_to(t[:, None], back.shape), rtol=1e-12)


def test_what_will_not_do():
    for make in (PlackettLuce, PositionPowers, ValuePowers):
        for weights in (np.array([0.0, -np.inf]), np.array([0.0, np.inf])):
            with pytest.raises(ValueError, match="weights must be > 0 and finite"):
                make(weights)
    with pytest.raises(ValueError, match="eps must be"):
        ValuePowers(np.zeros(2), 1.0)
    for order in ([0, 1, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match="must be a permutation of 0"):
            fixed_order(order)


def test_known_arrays_are_checked_too():
    for bad in (jnp.array([0.0, jnp.inf]), np.array([-np.inf, 0.0])):
        for make in (PlackettLuce, PositionPowers, ValuePowers):
            with pytest.raises(ValueError, match="log_weights: the weights must be > 0 and finite"):
                make(bad)
    with pytest.raises(ValueError, match="permutations of 0..2"):
        PlackettLuce(jnp.zeros(3)).log_prob(jnp.array([[0, 1, 2], [0, 0, 2]]))
