"""The bound over orders: integral, enumeration and recursion agree, and the reference table of three positions."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import order_gradients
from mdmjax.analysis import (
    all_masks,
    all_orders,
    bound_over_orders,
    continuous_bound,
    discrete_multivariate_bound,
    hidden_law,
    masked_losses,
    multivariate_bound,
    order_bound,
    order_entropy,
    order_law,
    order_log_likelihood,
    order_losses,
    random_table,
    table_denoiser,
    true_conditionals,
)
from mdmjax.analysis.orders import unit_nodes
from mdmjax.process import (
    Cosine,
    KumaraswamyInTime,
    Linear,
    PlackettLuce,
    Polynomial,
    PositionPowers,
    SineSquared,
    beta,
    fixed_order,
)

pytestmark = pytest.mark.usefixtures("x64")

# Compiled once for each length; called as they are they would be compiled operation by operation.
bound_of, slope_of, entropy_of = (jax.jit(f) for f in (order_bound, jax.value_and_grad(order_bound, 1), order_entropy))
in_steps = jax.jit(
    lambda losses, v, steps: discrete_multivariate_bound(losses, PositionPowers(v), steps),
    static_argnums=2,
)


def table():
    """Losses of three positions: -log of uniform numbers, for each position by visible sets by size, then order."""
    return jnp.asarray(order_gradients.losses())


def random_losses(length, seed=0):
    values = np.random.default_rng(seed).exponential(size=(2**length, length))
    return jnp.asarray(np.where(all_masks(length), values, 0))


def powers(w, base=None):
    return PositionPowers(jnp.log(jnp.asarray(w, float)), base or Linear())


@dataclasses.dataclass(frozen=True)
class Each:
    """One scalar schedule for each position."""

    parts: tuple

    def _stack(self, name, t):
        return jnp.stack([getattr(s, name)(t) for s in self.parts], -1)

    def alpha(self, t):
        return self._stack("alpha", t)

    def one_minus_alpha(self, t):
        return self._stack("one_minus_alpha", t)

    def weight(self, t):
        return self._stack("weight", t)

    def inverse(self, alpha, one_minus_alpha=None):
        raise NotImplementedError


def test_the_table_is_the_reference_one():
    losses = table()
    assert losses[0b111].tolist() == pytest.approx([0.6720915, 1.1067000, 0.6076407], abs=1e-7)
    assert losses[0b100, 0] == pytest.approx(0.1011643, abs=1e-7)
    assert losses[0b110, 0] == pytest.approx(1.7162236, abs=1e-7)


REFERENCE = [
    (
        (1, 1, 1), 2.294793598740, (0.494990, -0.559720, 0.064730),
        (0.091639, 0.079501, 0.023412, 0.006074, 0.001532), 3.115240630,
    ),
    (
        (1, 2, 4), 1.915324498788, (0.522963, -0.443903, -0.079060),
        (0.471108, 0.117829, 0.027799, 0.006877, 0.001715), 3.008314086,
    ),
    (
        (3, 2, 0.7), 2.303159170745, (0.269849, -0.453747, 0.183899),
        (0.083273, 0.135080, 0.036420, 0.009280, 0.002332), 3.389167940,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "w,bound,gradient,errors,timed", REFERENCE, ids=lambda x: str(x) if isinstance(x, tuple) else ""
)
def test_reference_values(w, bound, gradient, errors, timed):
    losses, log_w = table(), jnp.log(jnp.asarray(w, float))
    value, slope = slope_of(losses, log_w)
    assert value == pytest.approx(bound, abs=1e-12)
    np.testing.assert_allclose(slope, gradient, atol=1e-6)
    found = [float(in_steps(losses, log_w, steps) - value) for steps in (1, 4, 16, 64, 256)]
    assert np.abs(found) == pytest.approx(errors, abs=1e-6)
    assert 3.6 < found[3] / found[4] < 4.4
    dependent = multivariate_bound(lambda t: losses * (1 + t**2), powers(w))
    assert dependent == pytest.approx(timed, abs=1e-8)


def test_the_literal_reading_of_the_paper_is_another_number():
    """Ascending times, as it prints them, condition on tokens that are not revealed yet."""
    losses, law = table(), PlackettLuce(jnp.log(jnp.array([1.0, 2, 4])))
    ascending = bound_over_orders(losses, jnp.exp(law.log_prob(jnp.asarray(all_orders(3)[:, ::-1]))))
    assert ascending == pytest.approx(2.482566, abs=1e-6)


@pytest.mark.parametrize("length", [3, 4])
def test_three_ways_agree(length):
    rng = np.random.default_rng(length)
    losses, log_w = random_losses(length), jnp.asarray(rng.normal(size=length))
    truth = bound_of(losses, log_w)
    enumerated = bound_over_orders(losses, jnp.exp(PlackettLuce(log_w).log_prob(jnp.asarray(all_orders(length)))))
    assert enumerated == pytest.approx(float(truth), abs=1e-12)
    for base in (Linear(), Cosine(), beta(0.9, 0.3)):
        assert multivariate_bound(losses, PositionPowers(log_w, base)) == pytest.approx(float(truth), abs=1e-9)


def test_general_schedules():
    losses = table()
    schedule = Each(tuple(KumaraswamyInTime(a, b) for a, b in [(1.5, 2.0), (0.8, 1.3), (2.0, 1.1)]))
    law = order_law(schedule)
    found = dict(zip(map(tuple, all_orders(3).tolist()), law, strict=True))
    expected = {
        (0, 1, 2): 0.0548994, (0, 2, 1): 0.1586391, (1, 0, 2): 0.0611492,
        (1, 2, 0): 0.1149858, (2, 0, 1): 0.3788347, (2, 1, 0): 0.2314919,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    assert bound_over_orders(losses, jnp.asarray(law)) == pytest.approx(2.4889405363, abs=1e-6)
    assert multivariate_bound(losses, schedule) == pytest.approx(2.4889405363, abs=1e-6)


def test_the_order_law_is_that_of_the_powers_whatever_the_base():
    w = (0.5, 1, 3)
    expected = [0.027778, 0.083333, 0.031746, 0.190476, 0.222222, 0.444444]
    exact = np.exp(PlackettLuce(jnp.log(jnp.asarray(w))).log_prob(jnp.asarray(all_orders(3))))
    np.testing.assert_allclose(exact, expected, atol=1e-6)
    for base in (Linear(), SineSquared(), beta(0.9, 0.3)):
        np.testing.assert_allclose(order_law(powers(w, base)), exact, atol=1e-10)


def test_one_schedule_for_all_gives_the_mean_over_orders():
    losses = random_losses(4, 7)
    mean = float(order_losses(losses).mean())
    for schedule in (Linear(), Polynomial(3.0), Cosine(), SineSquared()):
        assert multivariate_bound(losses, Each((schedule,) * 4)) == pytest.approx(mean, abs=1e-10)
    assert bound_of(losses, jnp.zeros(4)) == pytest.approx(mean, abs=1e-12)


def test_conditionals_of_a_joint_law_cost_the_same_in_every_order():
    p = np.random.default_rng(0).dirichlet(np.ones(27)).reshape(3, 3, 3)
    denoiser = table_denoiser(true_conditionals(p))
    rng = np.random.default_rng(1)
    for x in ([0, 1, 2], [2, 2, 0]):
        losses = masked_losses(denoiser, jnp.array(x), 3)
        for _ in range(3):
            assert bound_of(losses, jnp.asarray(rng.normal(size=3))) == pytest.approx(-math.log(p[tuple(x)]), abs=1e-10)


def test_scale_and_names_change_nothing():
    losses, log_w = random_losses(4, 3), jnp.asarray(np.random.default_rng(5).normal(size=4))
    value, slope = slope_of(losses, log_w)
    assert bound_of(losses, log_w + 2.5) == pytest.approx(float(value), abs=1e-9)
    assert abs(slope.sum()) < 1e-12
    renamed = np.array([2, 0, 3, 1])
    sets = (all_masks(4)[:, np.argsort(renamed)] @ (8 >> np.arange(4))).astype(int)  # where each renamed set was
    other, other_slope = slope_of(losses[sets][:, renamed], log_w[renamed])
    assert other == pytest.approx(float(value), abs=1e-12)
    np.testing.assert_allclose(other_slope, slope[renamed], atol=1e-12)


def test_a_fixed_order_is_a_limit():
    losses = table()
    order = [2, 1, 0]
    alone = order_losses(losses)[all_orders(3).tolist().index(order)]
    assert alone == pytest.approx(0.938303295154, abs=1e-11)
    assert bound_of(losses, jnp.asarray(fixed_order(order))) == pytest.approx(float(alone), abs=1e-8)
    for k, value in [(1, 1.9153245), (3, 1.2637784), (10, 0.9410788), (40, 0.9383033)]:
        assert bound_of(losses, k * jnp.log(jnp.array([1.0, 2, 4]))) == pytest.approx(value, abs=1e-7)


def test_hidden_sets():
    """Levels sum to 1; int w t^(W(H) - 1) prod_{j shown} (1 - t^w_j) dt = R w / W(H), also by inclusion-exclusion."""
    log_w = jnp.asarray(np.random.default_rng(2).normal(size=4))
    w, law = np.exp(np.asarray(log_w)), np.asarray(hidden_law(log_w))
    sizes = all_masks(4).sum(1)
    np.testing.assert_allclose([law[sizes == k].sum() for k in range(5)], np.ones(5), atol=1e-12)
    t, dt = unit_nodes()
    for hidden in all_masks(4)[1:]:
        row, total = int(hidden @ (8 >> np.arange(4))), w[hidden].sum()
        shown = np.prod([1 - t ** w[j] for j in np.flatnonzero(~hidden)], axis=0)
        for i in np.flatnonzero(hidden):
            integral = (dt * w[i] * t ** (total - 1) * shown).sum()
            assert integral == pytest.approx(law[row] * w[i] / total, abs=1e-10)
            inside = np.flatnonzero(~hidden)
            terms = [
                (-1) ** len(a) * w[i] / (total + w[list(a)].sum())
                for k in range(len(inside) + 1)
                for a in itertools.combinations(inside, k)
            ]
            assert sum(terms) == pytest.approx(law[row] * w[i] / total, abs=1e-10)


def test_entropy_of_the_order():
    assert math.exp(entropy_of(jnp.zeros(5))) == pytest.approx(120, rel=1e-12)
    log_w = jnp.asarray(np.random.default_rng(4).normal(size=5))
    p = np.exp(PlackettLuce(log_w).log_prob(jnp.asarray(all_orders(5))))
    assert entropy_of(log_w) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)


def test_the_recursion_reaches_sixteen_positions():
    """On losses that depend on the position and on how many are hidden, whose bound is known."""
    sizes = all_masks(16).sum(1)
    losses = jnp.asarray(all_masks(16) * np.sqrt(sizes)[:, None])
    value = bound_of(losses, jnp.linspace(-1, 1, 16))
    assert value == pytest.approx(np.sqrt(np.arange(1, 17)).sum(), rel=1e-12)
    with pytest.raises(ValueError, match="length 17: .* up to 16"):
        hidden_law(jnp.zeros(17))


def test_equal_weights_are_the_ordinary_bound():
    denoiser = table_denoiser(jax.random.normal(jax.random.key(0), (64, 3, 3)))
    x = jnp.array([0, 2, 1])
    losses = masked_losses(denoiser, x, 3)
    assert bound_of(losses, jnp.zeros(3)) == pytest.approx(float(continuous_bound(denoiser, x, 3)), abs=1e-12)


def test_what_will_not_do():
    with pytest.raises(ValueError, match="lengths 1 to 8"):
        all_orders(9)
    with pytest.raises(ValueError, match="steps=0: must be >= 1"):
        discrete_multivariate_bound(table(), powers((1, 1, 1)), 0)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_weights_of_zero_and_infinity_are_refused(bad):
    v = jnp.asarray(np.array([0, bad, 0]))
    for of in (lambda: order_bound(table(), v), lambda: hidden_law(v), lambda: order_entropy(v)):
        with pytest.raises(ValueError, match="log_weights: .* must be > 0 and finite"):
            of()
    assert np.isnan(bound_of(table(), v))  # under a trace no value is known


def test_forty_positions_are_refused_at_once():
    """Before 2^40 of anything are made."""
    v = jnp.zeros(40)
    rows = np.broadcast_to(np.float32(0), (2**40, 40))
    for of in (lambda: order_bound(rows, v), lambda: hidden_law(v), lambda: order_entropy(v)):
        with pytest.raises(ValueError, match="length 40: .* up to 16"):
            of()


def test_a_denoiser_of_time_by_the_times_of_revealing():
    """E over t* of sum_i CE_{pi_i}(prefix, t*_{pi_i}), the latest first, against the integral."""
    losses, log_w, n = table(), jnp.log(jnp.array([1.0, 2, 4])), 20_000
    t = jnp.exp(jax.vmap(PlackettLuce(log_w).sample_times)(jax.random.split(jax.random.key(0), n)))
    order = np.argsort(-np.asarray(t), 1)
    rank = np.argsort(order, 1)
    hidden = (rank[:, None] >= rank[:, :, None]) @ np.array([4, 2, 1])  # as each position is revealed
    times = np.asarray(t)
    values = (np.asarray(losses)[hidden, np.arange(3)[None]] * (1 + times**2)).sum(1)
    assert abs(values.mean() - 3.008314086) < 4 * values.std() / math.sqrt(n)


def test_the_likelihood_of_samples_in_random_orders():
    """By enumeration of orders; a law over all rows; and the bound is below it."""
    denoiser, v = table_denoiser(random_table(jax.random.key(0), 3, 2)), jnp.log(jnp.array([1.0, 2, 4]))

    @jax.jit
    def both(x):
        losses = masked_losses(denoiser, x, 2)
        orders = jnp.exp(PlackettLuce(v).log_prob(jnp.asarray(all_orders(3)))) @ jnp.exp(-order_losses(losses))
        return order_log_likelihood(losses, v), jnp.log(orders), -order_bound(losses, v)

    total = 0
    for x in itertools.product(range(2), repeat=3):
        likelihood, enumerated, bound = map(float, both(jnp.array(x)))
        assert likelihood == pytest.approx(enumerated, abs=1e-12) and bound < likelihood
        total += math.exp(likelihood)
    assert total == pytest.approx(1, abs=1e-12)


def test_the_bound_in_steps_has_a_gradient():
    losses, v, steps = table(), jnp.log(jnp.array([1.0, 2, 4])), 4
    slope = jax.jit(jax.grad(lambda v: in_steps(losses, v, steps)))(v)
    for i, step in enumerate(1e-5 * np.eye(3)):
        difference = (in_steps(losses, v + step, steps) - in_steps(losses, v - step, steps)) / 2e-5
        assert slope[i] == pytest.approx(float(difference), abs=1e-8)


def test_the_integral_in_float32():
    with jax.enable_x64(False):
        losses = jnp.asarray(np.asarray(table(), np.float32))
        assert multivariate_bound(losses, PositionPowers(jnp.log(jnp.array([1.0, 2, 4])))) == pytest.approx(
            1.915324, abs=1e-5
        )


def test_the_bound_in_steps_where_a_power_leaves_nothing_in_float32():
    v = np.log([1.0, 400, 20])
    exact = float(in_steps(table(), jnp.asarray(v), 4))
    with jax.enable_x64(False):
        losses, v = jnp.asarray(np.asarray(table(), np.float32)), jnp.asarray(v, jnp.float32)
        assert 0 == PositionPowers(v).one_minus_alpha(jnp.float32(0.25))[1]
        assert in_steps(losses, v, 4) == pytest.approx(exact, abs=1e-5)
