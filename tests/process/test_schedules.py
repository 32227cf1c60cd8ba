"""Schedules against their definitions in float64, at the ends, and their promises in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.process import Cosine, Geometric, Linear, Polynomial, SineSquared, Tabulated

SCHEDULES = [
    Linear(),
    Cosine(),
    SineSquared(),
    Polynomial(0.5),
    Polynomial(3.0),
    Geometric(),
    Geometric(0.1, 5.0),
    Tabulated((0.0, 0.1, 0.3, 0.35, 0.8, 1.0)),
]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: str(s)[:30])
INTERIOR = np.linspace(0.003, 0.997, 331)


@each_schedule
def test_ends_are_exact(schedule):
    ends = jnp.array([0.0, 1.0])
    np.testing.assert_array_equal(schedule.one_minus_alpha(ends), [0, 1])
    np.testing.assert_allclose(schedule.alpha(ends), [1, 0], atol=0, rtol=2e-7)
    np.testing.assert_array_equal(schedule.alpha(ends)[1], 0)


@each_schedule
def test_alpha_decreases_and_complements(schedule, x64):
    t = jnp.asarray(INTERIOR)
    assert (jnp.diff(schedule.alpha(t)) < 0).all()
    np.testing.assert_allclose(schedule.alpha(t) + schedule.one_minus_alpha(t), 1, rtol=1e-14)


@each_schedule
def test_weight_is_the_log_derivative_of_the_mask_rate(schedule, x64):
    t = jnp.asarray(INTERIOR)
    derivative = jax.vmap(jax.grad(lambda u: jnp.log(schedule.one_minus_alpha(u))))(t)
    np.testing.assert_allclose(schedule.weight(t), derivative, rtol=1e-10, atol=1e-12)


@each_schedule
def test_inverse(schedule, x64):
    t = jnp.asarray(INTERIOR)
    np.testing.assert_allclose(schedule.inverse(schedule.alpha(t)), t, rtol=1e-9)
    np.testing.assert_allclose(schedule.inverse(schedule.alpha(t), schedule.one_minus_alpha(t)), t, rtol=1e-11)


@each_schedule
def test_float32_keeps_relative_precision_at_both_ends(schedule):
    """Computed as a complement, survival or mask rate would lose all digits here, and weight and inverse with it."""
    small = np.geomspace(1e-6, 1e-2, 50).astype(np.float32)
    late = np.float32(1) - small
    with jax.enable_x64(True):
        early64, late64 = (jnp.asarray(t, jnp.float64) for t in (small, late))
        hidden = np.asarray(schedule.one_minus_alpha(early64))
        alpha, near_one = (np.asarray(f(late64)) for f in (schedule.alpha, schedule.one_minus_alpha))
        weights = [np.asarray(schedule.weight(t)) for t in (early64, late64)]
    np.testing.assert_allclose(schedule.one_minus_alpha(jnp.asarray(small)), hidden, rtol=1e-5)
    np.testing.assert_allclose(schedule.alpha(jnp.asarray(late)), alpha, rtol=1e-5)
    for t, weight in zip((small, late), weights, strict=True):
        # Geometric's weight falls as e^(-200 t) near 1: of a float32 t it has these digits.
        np.testing.assert_allclose(schedule.weight(jnp.asarray(t)), weight, rtol=3e-5)
    back = schedule.inverse(jnp.asarray(1 - hidden, jnp.float32), jnp.asarray(hidden, jnp.float32))
    np.testing.assert_allclose(back, small, rtol=1e-5)
    back = schedule.inverse(jnp.asarray(alpha, jnp.float32), jnp.asarray(near_one, jnp.float32))
    np.testing.assert_allclose(back, late, rtol=3e-7)


def test_the_two_cosines_are_not_the_same():
    half = jnp.array(0.5)
    np.testing.assert_allclose(Cosine().one_minus_alpha(half), np.sin(np.pi / 4), rtol=1e-6)
    np.testing.assert_allclose(SineSquared().one_minus_alpha(half), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Polynomial(0.0),
        lambda: Geometric(2.0, 1.0),
        lambda: Tabulated((0.0, 0.5)),
        lambda: Tabulated((0.0, 0.5, 0.5, 1.0)),
    ],
)
def test_bad_parameters_are_refused(make):
    with pytest.raises(ValueError):
        make()
