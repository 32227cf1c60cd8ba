"""Factors, bounds and predictors against exact solutions: the theorems, as laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.crossbar import (
    Wires,
    condition,
    factors,
    iterations_for,
    mac_error,
    manhattan_score,
    mean_field,
    power_bounds,
    predicted_nf,
    quadratic_form,
    slope_of_law,
    solve,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("x64")


def tiles(seed, count, rows=12, columns=10, low=0.05, high=0.6):
    rng = np.random.default_rng(seed)
    return rng.random((count, rows, columns)) < rng.uniform(low, high, (count, 1, 1))


def solved(g, v, wires):
    n = iterations_for(1e-13, condition(1.0, *g.shape[-2:], wires))
    return jax.jit(lambda g, v: solve(g, v, wires, iterations=n))(jnp.asarray(g), jnp.asarray(v))


@pytest.mark.parametrize("on_off", [15, np.inf])
@pytest.mark.parametrize("rho", [1e-5, 1e-3, 1e-2])
def test_the_bounds_on_power_hold(on_off, rho):
    """E1 - E2 <= E0 - E <= E0 eta / (1 + eta) <= E1 on 100 tiles, V random, r_b = 2 r_w; 0 <= nf_tot < 1."""
    cells = tiles(0, 100)
    g = np.where(cells, 1.0, 1 / on_off)
    v, wires = np.random.default_rng(1).random((100, 12)), Wires(rho, 2 * rho)
    found = solved(g, v, wires)
    lost = np.asarray((g * v[..., None] * (v[..., None] - found.voltages)).sum((1, 2)))
    bounds = power_bounds(jnp.asarray(g), jnp.asarray(v), wires)
    slack = 1e-9 * np.asarray(bounds.ideal)
    assert (bounds.lower <= lost + slack).all() and (lost <= bounds.upper + slack).all()
    assert (bounds.upper <= bounds.first_order).all()
    nf = factors(jnp.asarray((g * v[..., None]).sum(1)), found.currents)
    assert (nf.total >= 0).all() and (nf.total < 1).all() and (nf.column >= 0).all()


def test_the_predictor_never_underestimates():
    """And is within 6 % of nf_tot where the first order is several times too large."""
    g, wires = jnp.asarray(tiles(2, 20, 64, 64, 0.05, 0.5), jnp.float64), Wires(5e-3, 5e-3)
    ones = jnp.ones(g.shape[:2])
    nf = factors(g.sum(1), solved(g, ones, wires).currents).total
    predicted = predicted_nf(g, wires)
    bounds = power_bounds(g, ones, wires)
    assert (predicted >= nf).all() and (predicted / nf).max() < 1.06
    assert (bounds.first_order / bounds.ideal / nf).max() > 3


def test_first_order():
    """nf_abs = rho Q + O(rho^2): halving the resistance halves the relative error."""
    cells = tiles(3, 6)
    g, ones = jnp.asarray(cells, jnp.float64), jnp.ones((6, 12))

    def error(rho):
        nf = factors(g.sum(1), solved(g, ones, Wires(rho, rho)).currents)
        return np.asarray(nf.absolute / (rho * quadratic_form(cells))) - 1

    ratio = error(2e-4) / error(1e-4)
    assert (ratio > 1.9).all() and (ratio < 2.1).all()


def test_one_moving_cell_follows_the_law():
    """NF = rho d / (1 + rho d) exactly; anti-diagonals are alike."""
    rho, places = 1e-3, [(0, 0), (3, 2), (2, 3), (9, 7)]
    cells = np.zeros((4, 12, 10), bool)
    for t, at in enumerate(places):
        cells[t][at] = True
    g, ones = jnp.asarray(cells, jnp.float64), jnp.ones((4, 12))
    nf = factors(g.sum(1), solved(g, ones, Wires(rho, rho)).currents).total
    d = manhattan_score(cells)
    np.testing.assert_allclose(nf, rho * d / (1 + rho * d), rtol=1e-10)


def test_mean_field():
    """E[Q] over 4,000 tiles within four standard errors; the slopes of the law of the specification."""
    q = quadratic_form(np.random.default_rng(4).random((4000, 9, 7)) < 0.3)
    assert abs(q.mean() - mean_field(0.3, 9, 7)) < 4 * q.std() / np.sqrt(4000)
    for size, expected in (((64, 64), 0.010498), ((32, 64), 0.017488), ((128, 128), 0.0052287)):
        assert slope_of_law(*size) == pytest.approx(expected, rel=1e-4)


def test_factors_by_hand():
    """Three columns, of which one draws nothing and one gains; the error of the weighted sums."""
    ideal, real = jnp.array([4.0, 0.0, 2.0]), jnp.array([3.0, 0.1, 2.5])
    found = factors(ideal, real, amplitude=0.5)
    assert found.total == pytest.approx((1 - 0.1 - 0.5) / 6) and found.absolute == pytest.approx(0.8)
    assert found.column == pytest.approx((0.25 + 0.25) / 2) and found.gains == 0.5
    outputs, levels = np.array([0, 0, 1]), np.array([1, 2, 1])
    error = (abs(0.5 * 1 - 0.25 * 0.1) + abs(0.5 * -0.5)) / (0.5 * 4 + 0.5 * 2)
    assert mac_error(ideal, real, outputs, levels) == pytest.approx(error)
    signed = mac_error(ideal, real, np.array([0, 0, 0]), levels, np.array([1, 1, -1]))
    assert signed == pytest.approx(abs(0.5 - 0.025 + 0.25) / (2 - 1))
    assert mac_error(ideal, real, np.array([-1, -1, -1]), levels) == 0
    nothing = factors(jnp.zeros(3), jnp.zeros(3))
    assert nothing.total == nothing.column == 0
