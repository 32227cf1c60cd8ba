"""Densities of the mask rate: normalisation, exact sampling, mixtures, and fits against known moments."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mdmjax.process import EPR, Bins, Density, PowerRate, Uniform, fit_bins, fit_epr, log_edges, mix, tabulated
from mdmjax.process.epr import START, _fit

EPS = 1e-3
SHAPE = EPR(a=0.7, b=0.3, scale=0.4, q1=1.6, q2=2.5, k=1.1, m=1.4)


def uneven(k=12, eps=EPS):
    """Bins with masses that differ, in float64."""
    mass = np.random.default_rng(k).uniform(0.2, 2, k)
    return Bins(log_edges(eps, k), mass / mass.sum())


def families():
    return {
        "uniform": Uniform(EPS),
        "power0": PowerRate(EPS, 0.0),
        "power.5": PowerRate(EPS, 0.5),
        "power.95": PowerRate(EPS, 0.95),
        "power1": PowerRate(EPS, 1.0),
        "power2": PowerRate(EPS, 2.0),
        "bins": uneven(),
        "one bin": uneven(1),
        "mixed": mix(uneven(), 0.1),
        "tabulated": tabulated(PowerRate(EPS, 0.5).density, log_edges(EPS, 512)),
        "epr": tabulated(SHAPE, log_edges(EPS, 512)),
    }


each_family = pytest.mark.parametrize("name", families())
density_at = jax.jit(lambda p, r: p.density(r))
cdf_at = jax.jit(lambda p, r: p.cdf(r))
rate_at = jax.jit(lambda p, u: p.from_cdf(u))
jitted_mix = jax.jit(mix)


def quadrature(edges, nodes=40):
    """(rates, weights) of a Gauss rule between edges in log r, for integrals over U[eps, 1]."""
    at, weight = np.polynomial.legendre.leggauss(nodes)
    x = np.log(np.asarray(edges, np.float64))
    middle, half = (x[1:] + x[:-1]) / 2, (x[1:] - x[:-1]) / 2
    r = np.exp(middle[:, None] + half[:, None] * at)
    return jnp.asarray(r.ravel()), (half[:, None] * weight * r).ravel() / (1 - EPS)


def rule(p):
    """A rule that is exact between the edges where p jumps."""
    return quadrature(p.edges, 12) if isinstance(p, Bins) else quadrature(log_edges(EPS, 8))


@functools.partial(jax.jit, static_argnums=1)
def uniform(seed, n):
    """[n] in (0, 1]."""
    return 1 - jax.random.uniform(jax.random.key(seed), (n,))


def draw(p, n, seed=0):
    return rate_at(p, uniform(seed, n))


# ---- every family ----------------------------------------------------------------------------------------------------


@each_family
def test_densities_are_normalised_and_weights_have_mean_one(name, x64):
    """int p = 1 and E_p[1 / p] = int du / p(r(u)) = 1 in quadrature; 1 / p of draws within 4 standard errors of it."""
    p = families()[name]
    assert isinstance(p, Density) and np.allclose(p.eps, EPS, rtol=1e-15)
    r, weight = rule(p)
    values = np.asarray(density_at(p, r))
    assert values.dtype == np.float64 and (values > 0).all()
    np.testing.assert_allclose(weight @ values, 1, rtol=1e-10)
    edges = jnp.asarray(p.edges if isinstance(p, Bins) else log_edges(EPS, 8))
    at, part = np.polynomial.legendre.leggauss(16)
    u = np.asarray(cdf_at(p, edges))
    middle, half = (u[1:] + u[:-1]) / 2, (u[1:] - u[:-1]) / 2
    drawn = density_at(p, rate_at(p, jnp.asarray((middle[:, None] + half[:, None] * at).ravel())))
    np.testing.assert_allclose((half[:, None] * part).ravel() @ (1 / np.asarray(drawn)), 1, rtol=1e-10)
    rates = draw(p, 100_000)
    inverse = 1 / np.asarray(density_at(p, rates))
    assert abs(inverse.mean() - 1) <= 4 * inverse.std() / math.sqrt(len(inverse)) + 1e-12
    z = np.asarray(rates) ** -0.25 * inverse  # an estimate that is not constant, E_base r^(-1/4)
    expected = (1 - EPS**0.75) / 0.75 / (1 - EPS)
    assert abs(z.mean() - expected) <= 4 * z.std() / math.sqrt(len(z)) + 1e-12


@each_family
def test_the_distribution_function_is_the_integral_of_the_density(name, x64):
    p = families()[name]
    np.testing.assert_allclose(cdf_at(p, jnp.array([EPS, 1.0])), [0, 1], atol=1e-13)
    edges = p.edges if isinstance(p, Bins) else log_edges(EPS, 8)
    r, weight = rule(p)
    pieces = (weight * np.asarray(density_at(p, r))).reshape(len(edges) - 1, -1).sum(1)
    np.testing.assert_allclose(cdf_at(p, jnp.asarray(edges))[1:], np.cumsum(pieces), rtol=1e-10)


@each_family
def test_the_inverse(name, x64):
    p = families()[name]
    r = jnp.asarray(np.geomspace(EPS, 1, 999).reshape(3, 333))
    np.testing.assert_allclose(rate_at(p, cdf_at(p, r)), r, rtol=1e-10)
    u = jnp.asarray(np.linspace(0, 1, 1001))
    np.testing.assert_allclose(cdf_at(p, rate_at(p, u)), u, atol=1e-12)
    assert cdf_at(p, jnp.float64(0.5)).shape == ()


@each_family
def test_draws_follow_the_distribution_function(name):
    """Kolmogorov-Smirnov of 1e5 float32 draws, against the cdf and, where it is another formula, the density."""
    p = families()[name]
    rates = np.asarray(draw(p, 100_000, seed=3))
    assert stats.kstest(np.asarray(cdf_at(p, rates)), "uniform").pvalue > 1e-3
    edges = np.quantile(rates, np.linspace(0, 1, 21)[1:-1])
    with jax.enable_x64(True):
        r, weight = quadrature(np.union1d(np.r_[EPS, edges, 1], p.edges if isinstance(p, Bins) else []), 12)
        mass = np.histogram(r, np.r_[EPS, edges, 1], weights=weight * np.asarray(density_at(p, r)))[0]
    counts = np.histogram(rates, np.r_[0, edges, 2])[0]
    # edges are quantiles of the same draws, so counts are exact and the masses vary instead
    np.testing.assert_allclose(mass, counts / len(rates), atol=5 * math.sqrt(0.05 * 0.95 / len(rates)))


@each_family
@pytest.mark.parametrize("eps", [1e-3, 1e-6, 0.3])
def test_float32_draws_stay_inside(name, eps):
    if name in ("uniform",) or name.startswith("power"):
        p = Uniform(eps) if name == "uniform" else PowerRate(eps, float(name.removeprefix("power")))
    else:
        p = {"bins": uneven(12, eps), "one bin": uneven(1, eps), "mixed": mix(uneven(12, eps), 0.1)}.get(name)
        p = p or tabulated(SHAPE if name == "epr" else PowerRate(eps, 0.5).density, log_edges(eps, 512))
    ends = np.array([1e-45, 1e-38, 1e-20, 2**-24, 2**-23, 1 - 2**-23, 1 - 2**-24, 1], np.float32)
    u = jnp.asarray(np.r_[ends, np.linspace(0, 1, 4001, dtype=np.float32)])
    r = np.asarray(rate_at(p, u))
    assert r.dtype == jnp.float32
    assert (r >= np.float32(eps)).all() and (r <= 1).all()
    np.testing.assert_allclose([r[0], r[7]], [eps, 1], rtol=3e-6)
    values = np.asarray(density_at(p, r))
    assert values.dtype == jnp.float32 and (values > 0).all() and np.isfinite(1 / values).all()
    np.testing.assert_allclose(cdf_at(p, r), u, atol=3e-6)
    with jax.enable_x64(True):
        exact = np.asarray(rate_at(p, jnp.asarray(u, jnp.float64)))
        slope = 1 / np.asarray(density_at(p, jnp.asarray(exact)))
    np.testing.assert_array_less(np.abs(r - exact), 4e-6 * (exact + slope))


# ---- power laws ------------------------------------------------------------------------------------------------------


def test_power_laws_have_their_names(x64):
    r, u = jnp.asarray(np.geomspace(EPS, 1, 50)), jnp.asarray(np.linspace(0, 1, 50))
    flat, log_uniform = PowerRate(EPS, 0.0), PowerRate(EPS, 1.0)
    np.testing.assert_allclose(density_at(flat, r), 1, rtol=1e-14)
    np.testing.assert_allclose(rate_at(flat, u), rate_at(Uniform(EPS), u), rtol=1e-13)
    np.testing.assert_allclose(density_at(log_uniform, r), (1 - EPS) / (np.asarray(r) * math.log(1 / EPS)), rtol=1e-13)
    np.testing.assert_allclose(rate_at(log_uniform, u), EPS ** (1 - np.asarray(u)), rtol=1e-13)
    half = PowerRate(EPS, 0.5)
    np.testing.assert_allclose(
        rate_at(half, u), (np.asarray(u) + (1 - np.asarray(u)) * math.sqrt(EPS)) ** 2, rtol=1e-13
    )
    for other in (1 - 1e-9, 1 + 1e-9):  # no jump at 1
        np.testing.assert_allclose(rate_at(PowerRate(EPS, other), u), rate_at(log_uniform, u), rtol=1e-7)
        np.testing.assert_allclose(density_at(PowerRate(EPS, other), r), density_at(log_uniform, r), rtol=1e-7)


def test_a_grid_of_power_laws_is_one_program(x64):
    powers, r = jnp.array([0.0, 0.5, 1.0]), jnp.geomspace(EPS, 1, 7)
    law = PowerRate(jnp.full(3, EPS), powers)
    rows = jax.jit(jax.vmap(lambda p: p.density(r)))(law)
    for row, power in zip(rows, powers, strict=True):
        np.testing.assert_allclose(row, PowerRate(EPS, float(power)).density(r), rtol=1e-13)


# ---- bins ------------------------------------------------------------------------------------------------------------


def test_bins_are_constant_between_their_edges():
    p = Bins(np.array([0.2, 0.4, 1.0]), np.array([0.75, 0.25]))
    r = jnp.array([0.2, 0.3, 0.4, 0.41, 1.0])  # the upper edge belongs to the bin
    np.testing.assert_allclose(density_at(p, r), [3, 3, 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(cdf_at(p, r), [0, 0.375, 0.75, 0.75 + 0.25 / 60, 1], atol=1e-6)
    np.testing.assert_allclose(rate_at(p, jnp.array([0.375, 0.75, 0.875])), [0.3, 0.4, 0.7], rtol=1e-6)


def test_log_edges():
    edges = log_edges(EPS, 12)
    assert edges[0] == EPS and edges[-1] == 1 and len(edges) == 13
    np.testing.assert_allclose(edges[1:] / edges[:-1], EPS ** (-1 / 12), rtol=1e-12)
    np.testing.assert_array_equal(log_edges(0.1, 1), [0.1, 1])


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_mixture_is_at_least_the_share(share, x64):
    p = uneven()
    mixed, r = jitted_mix(p, share), jnp.asarray(np.geomspace(EPS, 1, 400))
    at, plain = np.asarray(density_at(mixed, r)), np.asarray(density_at(p, r))
    np.testing.assert_allclose(at, (1 - share) * plain + share, rtol=1e-12)
    cdf, plain, flat = (np.asarray(cdf_at(law, r)) for law in (mixed, p, Uniform(EPS)))
    np.testing.assert_allclose(cdf, (1 - share) * plain + share * flat, atol=1e-12)
    assert (at >= share * (1 - 1e-12)).all()


def test_fitted_bins_of_known_moments(x64):
    """E2(r) = c / r, so I_b = c log(e_{b+1} / e_b) / d_b: the more bins, the nearer to r^(-1/2)."""
    limit, r = PowerRate(EPS, 0.5), jnp.asarray(np.geomspace(EPS, 1, 500))

    @jax.jit
    def fit(moments, edges, floor):
        p = fit_bins(moments, edges, floor)
        return p.mass, p.density(r), limit.density(r), p.cdf(edges), limit.cdf(edges)

    errors = []
    for k in (12, 48, 192):
        edges = log_edges(EPS, k)
        moments = 3.7 * np.log(edges[1:] / edges[:-1]) / np.diff(edges)
        mass, density, of_limit, cdf, cdf_of_limit = (np.asarray(x) for x in fit(moments, edges, 0.0))
        np.testing.assert_allclose(mass.sum(), 1, rtol=1e-13)
        errors.append(np.abs(np.log(density / of_limit)).max())
        np.testing.assert_allclose(cdf, cdf_of_limit, atol=0.1 / k)
    assert errors[0] < 0.33 and errors[1] < errors[0] / 3.5 and errors[2] < errors[1] / 3.5


def test_fitted_bins_have_the_least_variance_of_their_bins(x64):
    """sum_b d_b I_b / p_b is least at the fit, and there it is (sum_b d_b sqrt(I_b))^2."""
    edges, rng = log_edges(EPS, 12), np.random.default_rng(1)
    share, moments = np.diff(edges) / (1 - EPS), rng.uniform(0.1, 9, 12)
    second = lambda mass: (share**2 * moments / mass).sum(-1)
    best = np.asarray(fit_bins(moments, edges, 1e-12).mass)
    np.testing.assert_allclose(second(best), (share * np.sqrt(moments)).sum() ** 2, rtol=1e-10)
    others = best * np.exp(0.3 * rng.normal(size=(1000, 12)))
    assert (second(others / others.sum(1, keepdims=True)) > second(best)).all()


def test_bins_of_no_signal_are_uniform():
    p = jax.jit(fit_bins)(jnp.zeros(6), log_edges(EPS, 6))
    np.testing.assert_allclose(density_at(p, jnp.asarray(np.geomspace(EPS, 1, 20))), 1, rtol=1e-5)


def test_tabulated_masses_are_integrals(x64):
    """Few and wide bins, a polynomial that four nodes integrate exactly, and a factor that does not matter."""
    edges = log_edges(EPS, 6)
    table = jax.jit(lambda factor: tabulated(lambda r: factor * (0.1 + r**7), edges))(7.0)
    expected = np.diff(0.1 * edges + edges**8 / 8)
    np.testing.assert_allclose(table.mass, expected / expected.sum(), rtol=1e-12)


def test_many_bins_lose_no_variance(x64):
    """512 bins of r^(-1/2) against the law itself, at E2 = 1 / r: int E2 / p."""
    limit, table = PowerRate(EPS, 0.5), families()["tabulated"]
    r, weight = quadrature(table.edges, 12)
    loss = weight @ np.asarray(1 / (r * table.density(r))) / (weight @ np.asarray(1 / (r * limit.density(r)))) - 1
    assert 0 < loss < 1e-5


def test_bins_travel_through_jit_grad_and_vmap():
    """Gradients of draws and densities against differences, a stack of bins in one program, and no check on the way."""
    with jax.enable_x64(True):
        r, u = jnp.asarray(np.geomspace(2e-3, 0.9, 9)), jnp.asarray(np.linspace(0.05, 0.95, 9))
        loss = jax.jit(lambda p: jnp.log(p.density(r)).sum() + p.from_cdf(u).sum())
        stack = jax.tree.map(lambda *x: np.stack(x), uneven(), mix(uneven(), 0.5))
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(stack)
        assert isinstance(gradients, Bins) and (gradients.mass < 0).any()  # no density, and not refused
        assert gradients.mass.shape == (2, 12) and gradients.edges.shape == (2, 13)
        for i in range(2):
            p = jax.tree.map(lambda x: x[i], stack)
            np.testing.assert_allclose(values[i], loss(p), rtol=1e-12)
            for b in (0, 5, 11):
                step = 1e-7 * np.eye(12)[b]
                up, down = (loss(dataclasses.replace(p, mass=p.mass + s * step)) for s in (1, -1))
                np.testing.assert_allclose(gradients.mass[i, b], (up - down) / 2e-7, rtol=1e-5)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(uneven())]
    assert paths == [".edges", ".mass"]


# ---- EPR -------------------------------------------------------------------------------------------------------------


shape_at = jax.jit(lambda p, r: jnp.exp(p.log(r)))


def divergence(r, w, shape):
    """KL(w || p) by trapezoids, both normalised, in float64."""
    r, w, p = (np.asarray(x, np.float64) for x in (r, w, shape_at(shape, r)))
    w, p = w / np.trapezoid(w, r), p / np.trapezoid(p, r)
    return np.trapezoid(w * np.log(w / p), r)


def test_the_shape_of_epr(x64):
    r = np.linspace(0.01, 1, 50)
    g, v = 0.4 * np.exp(1.1 * r**1.4), 0.7 * r**1.6 + 0.3 * (1 - r) ** 2.5
    np.testing.assert_allclose(SHAPE(jnp.asarray(r)), np.sqrt(v + g**2), rtol=1e-13)


def test_epr_is_recovered_from_its_values():
    """In float32; a factor changes nothing."""
    r = jnp.linspace(1e-3, 1, 60)
    w = 5.0 * SHAPE(r)
    found = fit_epr(r, w, jax.random.key(0))
    assert found.a.dtype == jnp.float32
    assert divergence(r, w, found) < 1e-6
    unseen = fit_epr(r, w.at[0].set(0), jax.random.key(0))  # rates at which nothing was hidden
    assert divergence(r[1:], w[1:], unseen) < 1e-3  # its grid has lost a 120th of the mass


def test_epr_keeps_the_best_of_its_starts(x64):
    """Of what the family does not hold, r^(-1/2) on the authors' grid of 30, where starts end in different minima."""
    r = jnp.arange(1, 30) / 30
    w = r**-0.5
    starts = START + 0.6 * np.random.default_rng(0).normal(size=(6, 7))
    groups = np.concatenate([np.repeat(starts[:, None], 6, axis=1), starts[None]])  # each alone, and all
    found = jax.vmap(lambda group: _fit(r, w, group))(jnp.asarray(groups))
    *each, best = [divergence(r, w, jax.tree.map(lambda x: x[i], found)) for i in range(7)]
    np.testing.assert_allclose(best, min(each), rtol=1e-3)
    assert best < 0.01 and max(each) > 1.5 * best


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_arguments_out_of_range_are_refused():
    edges, half, r = np.array([0.1, 0.4, 1.0]), np.array([0.5, 0.5]), jnp.linspace(0.1, 1, 5)
    nan, fit = float("nan"), lambda rates, weights, **options: fit_epr(rates, weights, jax.random.key(0), **options)
    cases = {
        r"eps=.*must be in \(0, 1\)": [lambda e=e: f(e) for e in (0.0, 1.0, -1, nan) for f in (Uniform, power, logs)],
        r"power=.*must be in \[0, 2\]": [lambda: PowerRate(0.1, -0.1), lambda: PowerRate(0.1, jnp.array([1.0, 3.0]))],
        r"bins=0: must be >= 1": [lambda: log_edges(0.1, 0)],
        r"mass=.*must be > 0": [
            lambda q=q: Bins(edges, np.array(q)) for q in ([1.0, 0.0], [1.5, -0.5], [nan, 1.0], [float("inf"), 1])
        ],
        r"mass=.*must sum to 1": [lambda: Bins(edges, half * 1.01)],
        r"mass: K=3, must be one less": [lambda: Bins(edges, np.ones(3) / 3)],
        r"edges=.*must increase strictly from eps > 0 to 1": [
            *(lambda e=e: Bins(np.array(e), half) for e in ([0.1, 0.1, 1], [0, 0.5, 1], [0.1, 0.5, 0.9])),
            lambda: Bins(np.array([0.1, nan, 1]), half),
            lambda: Bins(np.array([1.0]), np.array([])),
            lambda: fit_bins(np.ones(2), np.array([0.1, 0.5, 0.9])),
            lambda: jax.jit(lambda i: fit_bins(i, np.array([0.1, 0.5, 0.9])))(np.ones(2)),
            lambda: tabulated(jnp.ones_like, np.array([0.5, 0.2, 1])),
        ],
        r"edges: 3 for 3 bins": [lambda: fit_bins(np.ones(3), edges)],
        r"second_moments=.*must be >= 0": [lambda: fit_bins(np.array([1.0, -1.0]), edges)],
        r"floor=.*must be > 0": [lambda: fit_bins(half, edges, floor=0.0)],
        r"share=.*must be in \[0, 1\]": [lambda s=s: mix(Bins(edges, half), s) for s in (-0.1, 1.1, nan)],
        r"mass=": [lambda: tabulated(jnp.zeros_like, edges)],
        r"scale=.*must be > 0": [lambda: EPR(1, 1, 0.0, 1, 1, 0, 1)],
        r"q2=.*must be >= 1": [lambda: EPR(1, 1, 1, 1, 0.5, 0, 1)],
        r"k=.*must be >= 0": [lambda: EPR(1, 1, 1, 1, 1, -1.0, 1)],
        r"rates=.*must increase strictly in \(0, 1\]": [lambda: fit(r[::-1], r), lambda: fit(2 * r, r)],
        r"weights=.*must be >= 0 and finite, and not all 0": [lambda: fit(r, -r), lambda: fit(r, 0 * r)],
        r"starts=0: must be >= 1": [lambda: fit(r, r, starts=0)],
    }  # fmt: skip
    for message, calls in cases.items():
        for call in calls:
            with pytest.raises(ValueError, match=message):
                call()


def power(eps):
    return PowerRate(eps, 0.5)


def logs(eps):
    return log_edges(eps, 4)
