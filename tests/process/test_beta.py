"""Beta and Kumaraswamy schedules against SciPy, against each other, and in their parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from mdmjax.process import BetaCDF, Cosine, EnergyOptimal, Kumaraswamy, Linear, Sine, SineSquared, beta, mirrored

PAIRS = [(0.5, 0.5), (1.0, 1.0), (0.2, 1.3), (1.3, 0.2), (0.9, 0.3), (0.1, 1.0), (3.0, 7.0), (15.0, 12.0)]
each_pair = pytest.mark.parametrize("a,b", PAIRS)
TIMES = np.concatenate([np.geomspace(1e-12, 1e-3, 20), np.linspace(0.003, 0.997, 100)])


@each_pair
def test_the_distribution_function_is_scipys_at_both_ends(a, b, x64):
    t = jnp.asarray(TIMES)
    schedule = BetaCDF(a, b)
    np.testing.assert_allclose(schedule.one_minus_alpha(t), special.betainc(b, a, TIMES), rtol=3e-13)
    np.testing.assert_allclose(schedule.alpha(1 - t), special.betainc(a, b, 1 - (1 - TIMES)), rtol=3e-13)
    np.testing.assert_array_equal(schedule.alpha(jnp.array([0.0, 1.0])), [1, 0])


@each_pair
def test_inverse(a, b, x64):
    """The inverse and gamma's round trip, t in [1e-3, 1 - 1e-3]."""
    t = jnp.linspace(1e-3, 1 - 1e-3, 201)
    for schedule in (BetaCDF(a, b), beta(a, b)):
        alpha, hidden = schedule.alpha(t), schedule.one_minus_alpha(t)
        good = (alpha > 1e-280) & (hidden > 1e-280)  # of high powers there is nothing left
        np.testing.assert_allclose(jnp.where(good, schedule.inverse(alpha, hidden), t), t, rtol=1e-9)
    if max(a, b) <= 1.3:
        np.testing.assert_allclose(beta(a, b).inverse(beta(a, b).alpha(t)), t, atol=1e-9)
    y = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(
        BetaCDF(a, b).inverse(jnp.asarray(1 - y), jnp.asarray(y)), special.betaincinv(b, a, y), rtol=1e-11
    )


def test_named_members(x64):
    t = jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(beta(0.5, 0.5).alpha(t), 1 - t, atol=1e-12)
    np.testing.assert_allclose(beta(1.0, 1.0).alpha(t), jnp.cos(jnp.pi * t / 2) ** 2, atol=1e-12)
    np.testing.assert_allclose(EnergyOptimal(Linear()).alpha(t), SineSquared().alpha(t), atol=1e-14)
    np.testing.assert_allclose(Kumaraswamy(1.0, 2.5).alpha(t), BetaCDF(1.0, 2.5).alpha(t), atol=1e-13)
    np.testing.assert_allclose(Kumaraswamy(2.5, 1.0).alpha(t), BetaCDF(2.5, 1.0).alpha(t), atol=1e-13)
    np.testing.assert_allclose(Sine().alpha(t), jnp.sin(jnp.pi / 2 * (1 - t)), atol=1e-15)


@pytest.mark.parametrize("schedule", [beta(0.9, 0.3), beta(1.0, 1.0), BetaCDF(0.4, 2.0), Cosine(), Sine(), Linear()])
def test_swap_symmetry(schedule, x64):
    t = jnp.linspace(0.01, 0.99, 99)
    other = mirrored(schedule)
    np.testing.assert_allclose(other.alpha(t), 1 - schedule.alpha(1 - t), atol=1e-12)
    speed = lambda s, t: s.weight(t) * s.one_minus_alpha(t)
    np.testing.assert_allclose(speed(other, t), speed(schedule, 1 - t), rtol=1e-11)
    np.testing.assert_allclose(other.inverse(other.alpha(t), other.one_minus_alpha(t)), t, rtol=1e-10)


def test_mirror_of_any_schedule_is_the_one_it_knows(x64):
    t = jnp.linspace(0.01, 0.99, 99)
    from mdmjax.process.beta import Mirrored

    for schedule in (beta(0.9, 0.3), Cosine()):
        for name in ("alpha", "one_minus_alpha", "weight"):
            known, plain = (getattr(s, name)(t) for s in (mirrored(schedule), Mirrored(schedule)))
            np.testing.assert_allclose(known, plain, rtol=1e-10)


@pytest.mark.parametrize("a,b", [(0.2, 0.2), (0.5, 0.5), (0.9, 0.3), (0.3, 0.9), (1.3, 1.3)])
def test_weight_is_the_log_derivative(a, b, x64):
    schedule = beta(a, b)
    t = jnp.concatenate([jnp.geomspace(1e-4, 0.1, 30), jnp.linspace(0.1, 1 - 1e-4, 100)])
    derivative = jax.vmap(jax.grad(lambda u: jnp.log(schedule.one_minus_alpha(u))))(t)
    np.testing.assert_allclose(schedule.weight(t), derivative, rtol=1e-6)
    # t weight -> 2 b, with a relative error O(t^(2b)) and, where a != 1, O(t)
    near = jnp.array([1e-7, 1e-5])
    error = jnp.abs(near * schedule.weight(near) / (2 * b) - 1)
    assert (error <= 3 * near ** min(2 * b, 1)).all()


@pytest.mark.parametrize("family", [BetaCDF, Kumaraswamy, beta])
def test_derivatives_in_the_parameters(family, x64):
    """Of alpha, the weight and the inverse, against differences."""
    t, step = jnp.array([1e-3, 0.2, 0.5, 0.9, 0.999]), 1e-5

    def of_alpha(ab):
        s = family(*ab)
        return dict(alpha=s.alpha(t), inverse=s.inverse(t, 1 - t))

    def of_all(ab):
        s = family(*ab)
        return of_alpha(ab) | dict(one_minus_alpha=s.one_minus_alpha(t), weight=s.weight(t))

    at = np.array([0.7, 1.2])
    forward, reverse = jax.jit(jax.jacfwd(of_all))(at), jax.jit(jax.jacrev(of_alpha))(at)
    values = jax.jit(of_all)
    for i, direction in enumerate(np.eye(2) * step):
        up, down = (values(at + sign * direction) for sign in (1, -1))
        for name in up:
            difference = (np.asarray(up[name]) - np.asarray(down[name])) / (2 * step)
            np.testing.assert_allclose(forward[name][:, i], difference, rtol=2e-6, atol=1e-9)
        for name in reverse:
            np.testing.assert_allclose(reverse[name][:, i], forward[name][:, i], rtol=1e-9)


def test_a_grid_of_schedules_is_one_program(x64):
    a, b = (x.ravel() for x in jnp.meshgrid(jnp.array([0.3, 1.0]), jnp.array([0.5, 0.9])))
    t = jnp.linspace(0.1, 0.9, 5)
    rows = jax.jit(jax.vmap(lambda a, b: beta(a, b).alpha(t)))(a, b)
    one = jax.jit(jax.vmap(lambda s: s.alpha(t)))(beta(a, b))
    for row, same, x, y in zip(rows, one, a, b, strict=True):
        np.testing.assert_allclose(row, beta(float(x), float(y)).alpha(t), rtol=1e-13)
        np.testing.assert_allclose(same, row, rtol=1e-13)


def test_float32_is_good_enough():
    t = jnp.linspace(0, 1, 401)
    for a, b in PAIRS:
        schedule = beta(a, b)
        assert schedule.alpha(t).dtype == jnp.float32
        np.testing.assert_allclose(schedule.alpha(t) + schedule.one_minus_alpha(t), 1, atol=5e-6)
        np.testing.assert_allclose(schedule.alpha(t), 1 - beta(b, a).alpha(1 - t), atol=5e-6)
    np.testing.assert_allclose(beta(0.5, 0.5).alpha(t), 1 - t, atol=5e-6)
    np.testing.assert_allclose(beta(1.0, 1.0).alpha(t), jnp.cos(jnp.pi * t / 2) ** 2, atol=5e-6)


def test_bad_parameters_are_refused():
    for family in (BetaCDF, Kumaraswamy, beta):
        for a, b, word in [(0.0, 1.0, "a must be > 0"), (1.0, -2, "b must be > 0"), (float("inf"), 1.0, "a must be")]:
            with pytest.raises(ValueError, match=word):
                family(a, b)


@pytest.mark.parametrize(
    "schedule", [beta(0.5, 0.5), beta(1.0, 1.0), beta(0.3, 0.9), BetaCDF(0.4, 0.8), Kumaraswamy(0.6, 2.0)], ids=str
)
def test_the_weight_is_finite_at_the_end(schedule):
    """t = 1 is drawn once in a while, and one infinite loss ruins a run."""
    for on in (False, True):
        with jax.enable_x64(on):
            assert np.isfinite(schedule.weight(jnp.ones(1))).all()
            assert beta(0.5, 0.5).weight(jnp.ones(1)) == pytest.approx(1, abs=1e-3)


def test_bad_parameters_in_arrays_are_refused():
    for value in (np.float32(0), np.array([0.5, -1.0]), jnp.array([0.5, 0.0]), float("inf")):
        with pytest.raises(ValueError, match="a must be > 0 and finite"):
            beta(value, 0.5)
    assert jax.jit(lambda a: beta(a, 0.5).alpha(jnp.array([0.5])))(0.5)[0] == pytest.approx(0.5, abs=1e-6)
