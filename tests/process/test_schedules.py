"""Schedules against their definitions in float64, at the ends, and their promises in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.process import (
    Cosine,
    Geometric,
    Kumaraswamy,
    Linear,
    OnGrid,
    Polynomial,
    Sine,
    SineSquared,
    Tabulated,
    beta,
)
from mdmjax.sampling import visible_counts
from mdmjax.sampling.planners import draw_clocks, reveal_steps

SCHEDULES = [
    Linear(),
    Cosine(),
    Sine(),
    SineSquared(),
    Polynomial(0.5),
    Polynomial(3.0),
    Geometric(),
    Geometric(0.1, 5.0),
    Tabulated((0.0, 0.1, 0.3, 0.35, 0.8, 1.0)),
    beta(0.9, 0.3),
    beta(0.4, 1.2),
    Kumaraswamy(0.7, 1.3),
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


@each_schedule
def test_on_a_grid_it_is_the_schedule(schedule):
    """Also to the samplers: the same moments of revealing, the same counts."""
    steps = 12
    grid = OnGrid.sampled(schedule, steps)
    t = jnp.arange(steps + 1) / steps
    np.testing.assert_allclose(grid.alpha(t), schedule.alpha(t), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(grid.one_minus_alpha(t), schedule.one_minus_alpha(t), rtol=1e-5, atol=1e-12)
    clocks = draw_clocks(jax.random.key(0), 500)
    np.testing.assert_array_equal(reveal_steps(grid, steps, clocks), reveal_steps(schedule, steps, clocks))
    np.testing.assert_array_equal(visible_counts(grid, steps, 97), visible_counts(schedule, steps, 97))


def test_a_grid_in_between():
    grid = OnGrid.sampled(SineSquared(), 4)
    same = Tabulated(tuple(np.asarray(grid.hidden).tolist()))
    t = jnp.asarray(np.linspace(0.013, 0.987, 50))
    for name in ("alpha", "one_minus_alpha", "weight"):
        np.testing.assert_allclose(getattr(grid, name)(t), getattr(same, name)(t), rtol=1e-5)
    np.testing.assert_allclose(grid.inverse(grid.alpha(t), grid.one_minus_alpha(t)), t, rtol=1e-5)


@pytest.mark.parametrize("counts", [(1, 2, 2, 3), (0, 0, 5, 0), (8,), (3, 0, 3)])
def test_a_budget_is_what_a_sampler_reveals(counts):
    np.testing.assert_array_equal(np.diff(visible_counts(OnGrid.budget(counts), len(counts), sum(counts))), counts)


def test_bad_budgets_are_refused():
    for counts in ((), (1, -1, 2), (0, 0)):
        with pytest.raises(ValueError, match="must be at least 0, and not all 0"):
            OnGrid.budget(counts)
    with pytest.raises(ValueError, match="steps=0: must be >= 1"):
        OnGrid.sampled(Linear(), 0)
