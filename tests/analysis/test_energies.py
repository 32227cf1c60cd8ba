"""Energies of schedules: the identities of arXiv 2509.13866 and what holds beyond it, in float64."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betainc

from mdmjax.analysis import (
    beta_energy,
    chord_optimum,
    conditional_energy,
    discrete_energy,
    energy,
    geodesic_energy,
    kinetic_constant,
    kinetic_energy,
)
from mdmjax.process import (
    BetaCDF,
    Cosine,
    EnergyOptimal,
    Kumaraswamy,
    Linear,
    OnGrid,
    Sine,
    SineSquared,
    Tabulated,
    beta,
    mirrored,
)

PI2 = math.pi**2


class Curve:
    """A schedule whose inverse nobody asks for."""

    def inverse(self, alpha, one_minus_alpha=None):
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Composed(Curve):
    """schedule(phi(t)), phi an increasing map of [0, 1] onto itself with phi' = `slope`."""

    of: object
    phi: object
    slope: object

    def alpha(self, t):
        return self.of.alpha(self.phi(t))

    def one_minus_alpha(self, t):
        return self.of.one_minus_alpha(self.phi(t))

    def weight(self, t):
        return self.of.weight(self.phi(t)) * self.slope(t)

    def mirrored(self):
        return Composed(mirrored(self.of), lambda t: 1 - self.phi(1 - t), lambda t: self.slope(1 - t))


@dataclasses.dataclass(frozen=True)
class Wavy(Curve):
    """beta = gamma + eps sin(pi k gamma) / pi for gamma = 1 - t: a valid schedule where |eps k| < 1."""

    eps: float
    k: int

    def alpha(self, t):
        return 1 - t + self.eps * jnp.sin(jnp.pi * self.k * (1 - t)) / jnp.pi

    def one_minus_alpha(self, t):
        sign = -1.0 if self.k % 2 == 0 else 1.0
        return t - sign * self.eps * jnp.sin(jnp.pi * self.k * t) / jnp.pi

    def weight(self, t):
        return (1 + self.eps * self.k * jnp.cos(jnp.pi * self.k * (1 - t))) / self.one_minus_alpha(t)


def random_curve(seed):
    """A random smooth increasing curve: a mixture of integer Beta distribution functions, exact at both ends."""
    rng = np.random.default_rng(seed)
    parts = [
        (BetaCDF(float(a), float(b)), p)
        for (a, b), p in zip(rng.integers(1, 5, (3, 2)), rng.dirichlet(np.ones(3)), strict=True)
    ]

    @dataclasses.dataclass(frozen=True)
    class Mixture(Curve):
        flip: bool = False

        def _sum(self, name, t):
            chosen = [
                (mirrored(s) if self.flip else s, p) for s, p in [(Linear(), 0.3), *((s, 0.7 * p) for s, p in parts)]
            ]
            if name == "speed":
                return sum(p * s.weight(t) * s.one_minus_alpha(t) for s, p in chosen)
            return sum(p * getattr(s, name)(t) for s, p in chosen)

        def alpha(self, t):
            return self._sum("alpha", t)

        def one_minus_alpha(self, t):
            return self._sum("one_minus_alpha", t)

        def weight(self, t):
            return self._sum("speed", t) / self.one_minus_alpha(t)

        def mirrored(self):
            return Mixture(not self.flip)

    return Mixture()


CURVES = [Linear(), BetaCDF(0.7, 0.8), BetaCDF(0.9, 0.3), BetaCDF(0.2, 1.3), Kumaraswamy(1.3, 0.8), random_curve(0)]


@pytest.mark.parametrize("gamma", CURVES, ids=lambda s: str(s)[:24])
def test_the_minimum_is_pi_squared_whatever_gamma_is(gamma):
    assert energy(EnergyOptimal(gamma), gamma) == pytest.approx(PI2, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_schedule_is_below_and_the_excess_is_a_chi_square(seed):
    """E = pi^2 (1 + chi2(beta' || gamma')) for a = sin^2(pi beta / 2)."""
    gamma, other = random_curve(seed), random_curve(seed + 10)
    node, width = np.polynomial.legendre.leggauss(200)
    with jax.enable_x64(True):
        t = jnp.asarray((node + 1) / 2)
        speed = lambda s: np.asarray(s.weight(t) * s.one_minus_alpha(t))
        chi2 = float((width / 2 * speed(other) ** 2 / speed(gamma)).sum()) - 1
    found = energy(EnergyOptimal(other), gamma)
    assert found > PI2
    assert found == pytest.approx(PI2 * (1 + chi2), rel=1e-8)


@pytest.mark.parametrize("eps,k", [(0.3, 1), (0.2, 2), (-0.15, 3), (0.24, 4)])
def test_perturbation(eps, k):
    assert energy(EnergyOptimal(Wavy(eps, k)), Linear()) == pytest.approx(PI2 * (1 + eps**2 * k**2 / 2), rel=1e-8)


@pytest.mark.parametrize(
    "schedule,gamma,value",
    [
        ((0.7, 0.8), (0.9, 0.6), 12.189573589937),
        ((1.0, 1.0), (0.5, 0.5), 12.176136379250),
        ((0.55, 0.9), (0.4, 0.8), 10.429005646586),
        ((0.5, 0.5), (1.0, 1.0), math.inf),
    ],
)
def test_beta_against_beta(schedule, gamma, value):
    assert beta_energy(schedule, gamma) == pytest.approx(value, rel=1e-12)
    assert energy(beta(*schedule), BetaCDF(*gamma)) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("end", ["a", "b"])
def test_the_two_edges_of_the_infinite_region(end):
    for margin in (-0.1, 0.0, 0.05, 0.3):
        first, second = 0.4 + margin / 2, 0.7
        schedule, gamma = ((first, second), (0.8, 0.9)) if end == "a" else ((second, first), (0.9, 0.8))
        closed = beta_energy(schedule, gamma)
        assert math.isinf(closed) == (margin <= 0)
        assert energy(beta(*schedule), BetaCDF(*gamma)) == pytest.approx(closed, rel=1e-8)


def test_the_schedules_of_others_diverge_for_a_linear_gamma():
    for schedule in (Linear(), Sine(), Cosine()):
        assert energy(schedule, Linear()) == math.inf
    assert energy(SineSquared(), Linear()) == pytest.approx(PI2, rel=1e-10)


@pytest.mark.parametrize(
    "schedule,values",
    [
        (Linear(), [9.1902, 18.4205, 27.6310]),
        (Sine(), [10.0066, 17.3137, 24.5482]),
        (Cosine(), [10.0066, 17.3137, 24.5482]),
        (SineSquared(), [9.6722, 9.8676, 9.8696]),
    ],
)
def test_how_fast_they_diverge(schedule, values, x64):
    """The same integrand on [eps, 1 - eps], from the schedule's own functions."""

    node, width = np.polynomial.legendre.leggauss(300)
    for eps, value in zip((1e-2, 1e-4, 1e-6), values, strict=True):
        end = math.log(eps / (1 - eps))  # t = 1 / (1 + e^-u)
        t = jnp.asarray(1 / (1 + np.exp(end * node)))
        hidden, visible = schedule.one_minus_alpha(t), schedule.alpha(t)
        integrand = (schedule.weight(t) * hidden) ** 2 / (visible * hidden)
        assert (-end * width * integrand * t * (1 - t)).sum() == pytest.approx(value, abs=1e-4)


def test_reparametrisation():
    """By t^2 and by random increasing maps, sums of powers."""
    shares = [np.array([0.0, 1, 0, 0]), *np.random.default_rng(0).dirichlet(np.ones(4), 5)]
    for schedule, gamma in [(beta(0.7, 0.8), BetaCDF(0.9, 0.6)), (SineSquared(), random_curve(3))]:
        truth = energy(schedule, gamma)
        for p in shares:
            phi = lambda t, p=p: sum(p[k] * t ** (k + 1) for k in range(4))
            slope = lambda t, p=p: sum((k + 1) * p[k] * t**k for k in range(4))
            assert energy(Composed(schedule, phi, slope), Composed(gamma, phi, slope)) == pytest.approx(truth, rel=1e-8)


def laws():
    rng = np.random.default_rng(0)
    yield rng.dirichlet(np.ones(9)).reshape(3, 3)
    yield rng.dirichlet(np.ones(8)).reshape(2, 2, 2)
    sparse = rng.dirichlet(np.ones(27)) * (rng.random(27) < 0.4)
    yield (sparse / sparse.sum()).reshape(3, 3, 3)
    extreme = np.zeros((2, 2, 2))
    extreme[0, 0, 0], extreme[1, 1, 1] = 0.3, 0.7
    yield extreme


def test_three_energies_are_one_up_to_constants():
    constants = []
    for law in laws():
        n = law.ndim
        for schedule, gamma in [(beta(0.7, 0.8), BetaCDF(0.9, 0.6)), (SineSquared(), Linear())]:
            value = energy(schedule, gamma)
            assert kinetic_energy(schedule, gamma, law) == pytest.approx(kinetic_constant(law) * value, rel=1e-10)
            assert conditional_energy(schedule, gamma, n) == pytest.approx(n * 2 ** (n - 1) * value, rel=1e-10)
            assert geodesic_energy(schedule, gamma, n) == pytest.approx(n * value, rel=1e-10)
        constants.append(kinetic_constant(law))
    assert constants[0] == 2 * 4 and constants[1] == 3 * 9  # n (d + 1)^(n - 1)
    assert constants[2] < 3 * 16 and constants[3] == 21


def test_length_and_speed_of_the_optimal_path(x64):
    """y = (sqrt(1 - a), sqrt(a)) has Fisher-Rao length 2 int |y'| = pi, and speed pi gamma' at the optimum."""
    gamma = BetaCDF(1.5, 2.0)
    schedule = EnergyOptimal(gamma)

    node, width = np.polynomial.legendre.leggauss(200)
    root = (node + 1) / 2
    t = jnp.asarray(root**2 * (3 - 2 * root))  # smooth at both ends, where gamma' is a root
    visible, hidden = schedule.alpha(t), schedule.one_minus_alpha(t)
    speed = schedule.weight(t) * hidden / jnp.sqrt(visible * hidden)
    assert (speed * width / 2 * 6 * root * (1 - root)).sum() == pytest.approx(math.pi, rel=1e-8)
    np.testing.assert_allclose(speed, math.pi * gamma.weight(t) * gamma.one_minus_alpha(t), rtol=1e-10)


# ---- on a grid -------------------------------------------------------------------------------------------------------


def geodesic(gamma):
    points = np.sin(np.pi / 2 * np.asarray(gamma)) ** 2
    points[-1] = 1
    return points


@pytest.mark.parametrize(
    "steps,value", [(1, 8), (2, 9.372583), (3, 9.646171), (4, 9.743420), (8, 9.837936), (64, 9.869109)]
)
def test_chord_energy_of_equal_steps(steps, value):
    gamma = np.linspace(0, 1, steps + 1)
    found = discrete_energy(geodesic(gamma), gamma, "chord")
    assert found == pytest.approx(8 * steps**2 * (1 - math.cos(math.pi / (2 * steps))), rel=1e-10)
    assert found == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(chord_optimum(gamma), geodesic(gamma), atol=1e-10)


def test_the_geodesic_minimises_the_arc_form_only():
    gamma = betainc(0.7, 0.8, np.linspace(0, 1, 6))
    at_geodesic, optimum = geodesic(gamma), chord_optimum(gamma)
    assert discrete_energy(at_geodesic, gamma, "arc") == pytest.approx(PI2, rel=1e-10)
    assert discrete_energy(at_geodesic, gamma, "chord") == pytest.approx(9.777812344, abs=1e-9)
    assert discrete_energy(optimum, gamma, "chord") == pytest.approx(9.777114682, abs=1e-9)
    np.testing.assert_allclose(optimum[1:], [0.18148106, 0.43930164, 0.69340508, 0.89704250, 1], atol=1e-8)
    theta = np.diff(np.arcsin(np.sqrt(optimum)))
    np.testing.assert_allclose(np.sin(theta) / np.diff(gamma), np.sin(theta[0]) / np.diff(gamma)[0], rtol=1e-10)


def test_nothing_random_is_below_the_optima():
    rng = np.random.default_rng(1)
    for _ in range(20):
        gamma, a = (np.concatenate([[0], np.sort(rng.random(5)), [1]]) for _ in range(2))
        arc, chord = (discrete_energy(a, gamma, kind) for kind in ("arc", "chord"))
        assert chord <= arc and arc >= PI2
        assert (
            discrete_energy(chord_optimum(gamma), gamma, "chord")
            <= min(chord, discrete_energy(geodesic(gamma), gamma, "chord")) + 1e-12
        )


def test_bad_grids_are_refused():
    good = [0, 0.5, 1]
    for a, gamma, kind, words in [
        ([0, 0.5], good, "arc", "a: needs at least two values"),
        (good, [0, 0.7, 0.6, 1], "arc", "gamma: needs"),
        (good, [0, 1], "arc", "as many"),
        (good, good, "circle", "choose arc or chord"),
    ]:
        with pytest.raises(ValueError, match=words):
            discrete_energy(a, gamma, kind)
    with pytest.raises(ValueError, match="must be > 0"):
        beta_energy((0.0, 1.0), (1.0, 1.0))


@pytest.mark.parametrize("a, b", [(0.1, 0.5), (0.2, 0.8), (1.3, 0.8)])
def test_the_minimum_is_exact_for_curves_that_rise_steeply(a, b):
    assert energy(EnergyOptimal(Kumaraswamy(a, b)), Kumaraswamy(a, b)) == pytest.approx(math.pi**2, rel=1e-10)


def test_what_has_no_energy_here():
    law = np.full((2, 2), 0.25)
    for grid in (Tabulated((0.0, 0.2, 1.0)), OnGrid.budget([2, 1, 3])):
        for pair in ((grid, Linear()), (Linear(), grid)):
            for of, *rest in ((energy,), (geodesic_energy, 2), (conditional_energy, 2), (kinetic_energy, law)):
                with pytest.raises(ValueError, match="use discrete_energy"):
                    of(*pair, *rest)
    for shape in ((2, 3), (2, 4), (3, 2)):
        with pytest.raises(ValueError, match="must have the same size"):
            kinetic_constant(np.ones(shape))
