"""Information curves and budgets: brute force, the toys and the reference chain, in float64."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import (
    ancestral_bound,
    ancestral_law,
    concave,
    counts_bound,
    cycle,
    extreme_law,
    information_curve,
    markov_information_curve,
    middle_law,
    optimal_counts,
    random_count_law,
    total_variation,
    true_conditionals,
)
from mdmjax.process import OnGrid, beta

LN2 = math.log(2)


def toy(name):
    """arXiv 2509.13866, appendix E.6: uniform laws on sentences of five letters a or b."""
    return dict(extreme=extreme_law, middle=middle_law)[name]()


def chain_law(transition, stationary, length):
    law = stationary
    for _ in range(length - 1):
        law = law[..., None] * transition
    return law


REFERENCE = cycle(8, 0.1)
CURVE = markov_information_curve(REFERENCE, 32)


def test_curves_of_the_toys():
    np.testing.assert_allclose(information_curve(toy("extreme")), [0] + [LN2] * 5, atol=1e-14)
    expected = [0, 0.693147, 1.366159, 2.006981, 2.579844, 2.995732]
    np.testing.assert_allclose(information_curve(toy("middle")), expected, atol=1e-6)


def test_a_markov_chain_in_closed_form_is_brute_force():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(3), size=3)
    values, vectors = np.linalg.eig(transition.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    brute = information_curve(chain_law(transition, stationary, 5))
    np.testing.assert_allclose(markov_information_curve(transition, 5), brute, atol=1e-13)


def test_the_reference_chain():
    expected = [2.079442, 3.675754, 6.053123, 9.156105, 12.732538, 16.555896]
    np.testing.assert_allclose(CURVE[[1, 2, 4, 8, 16, 32]], expected, atol=1e-6)
    for steps, value in [(1, 49.9862), (2, 21.9364), (4, 9.16155), (8, 3.55322), (16, 1.10248), (32, 0)]:
        assert counts_bound(CURVE, [32 // steps] * steps) == pytest.approx(value, rel=1e-5, abs=1e-12)
    for steps, counts, value in [
        (2, (8, 24), 14.0591),
        (4, (3, 5, 9, 15), 4.98029),
        (8, (1, 2, 2, 3, 4, 5, 6, 9), 1.71677),
    ]:
        found, bound = optimal_counts(CURVE, steps)
        assert bound == pytest.approx(value, rel=1e-5)
        assert counts_bound(CURVE, found) == pytest.approx(bound, rel=1e-12)
        assert counts_bound(CURVE, counts) == pytest.approx(bound, rel=1e-12)  # ties may be broken otherwise
    for steps, value in [(4, 9.77054), (8, 4.39324), (16, 2.05243), (32, 0.988331)]:
        assert ancestral_bound(CURVE, np.linspace(1, 0, steps + 1)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_no_budget_is_cheaper_than_the_optimal_one(steps):
    rng = np.random.default_rng(steps)
    for curve in (
        CURVE,
        information_curve(toy("middle")),
        information_curve(rng.dirichlet(np.ones(64)).reshape((2,) * 6)),
    ):
        assert (np.diff(curve) >= -1e-13).all() and (np.diff(curve, 2) <= 1e-12).all()  # increasing, concave
        n = len(curve) - 1
        found, bound = optimal_counts(curve, steps)
        assert len(found) == steps and found.sum() == n
        for _ in range(50):
            counts = rng.multinomial(n, rng.dirichlet(np.ones(steps)))
            assert bound <= counts_bound(curve, counts) + 1e-12


def test_the_best_of_few_is_that_of_all():
    curve = information_curve(np.random.default_rng(3).dirichlet(np.ones(64)).reshape((2,) * 6))
    all_counts = [(a, b, 6 - a - b) for a in range(7) for b in range(7 - a)]
    assert optimal_counts(curve, 3)[1] == pytest.approx(min(counts_bound(curve, c) for c in all_counts), abs=1e-14)


@pytest.mark.parametrize(
    "target,counts,kl,bound",
    [
        ("extreme", (1, 1, 3), 0, 0),
        ("extreme", (2, 2, 1), LN2, None),
        ("extreme", (3, 1, 1), 2 * LN2, None),
        ("extreme", (5,), 4 * LN2, None),
        ("middle", (3, 1, 1), 0, 0.07246),
        ("middle", (2, 2, 1), 0.03175, 0.08810),
        ("middle", (1, 3, 1), 0.06614, 0.13234),
        ("middle", (1, 1, 3), 0.23889, 0.29289),
        ("middle", (5,), 0.47, 0.47),
    ],
)
def test_the_bound_is_above_the_exact_divergence_on_the_toys(target, counts, kl, bound):
    law = toy(target)
    output = random_count_law(true_conditionals(law), counts)
    support = law > 0
    found = (law[support] * np.log(law[support] / output[support])).sum()
    limit = counts_bound(information_curve(law), counts)
    assert found == pytest.approx(kl, abs=1e-5)
    assert limit >= found - 1e-12
    if bound is not None:
        assert limit == pytest.approx(bound, abs=1e-5)


def test_budgets_and_ancestral_bounds_of_the_toys():
    extreme, middle = information_curve(toy("extreme")), information_curve(toy("middle"))
    assert optimal_counts(extreme, 3)[1] == pytest.approx(0, abs=1e-12)
    for steps, counts, value in [(2, (4, 1), 0.192745), (3, (3, 1, 1), 0.072460), (4, (2, 1, 1, 1), 0.020136)]:
        found, bound = optimal_counts(middle, steps)
        assert tuple(found) == counts and bound == pytest.approx(value, abs=1e-6)
    hidden = {"linear": np.linspace(1, 0, 4), "sin^2": np.sin(np.pi / 2 * np.linspace(1, 0, 4)) ** 2}
    for name, value, actual in [("linear", 0.70456, 0.5193), ("sin^2", 0.72496, 0.4913)]:
        assert ancestral_bound(extreme, hidden[name]) == pytest.approx(value, abs=1e-5)
        output = ancestral_law(true_conditionals(toy("extreme")), hidden[name])
        kl = -math.log(2 * output[0, 0, 0, 0, 0])
        assert kl == pytest.approx(actual, abs=1e-4) and kl <= value


def test_steps_after_the_last_token_cost_nothing():
    """Where the grid reaches hidden = 0 before its end."""
    law = toy("middle")
    short, padded = ((OnGrid.budget(counts).hidden[::-1]) for counts in ((2, 3), (2, 3, 0, 0)))
    assert (padded == 0).sum() == 3
    curve, table = information_curve(law), true_conditionals(law)
    assert ancestral_bound(curve, padded) == pytest.approx(ancestral_bound(curve, short), rel=1e-12)
    np.testing.assert_allclose(ancestral_law(table, padded), ancestral_law(table, short), atol=1e-15)


def test_measured_curves_are_made_concave():
    curve = np.array([0, 1.0, 1.5, 2.2, 2.4])  # increments 1, .5, .7, .2
    fitted, change = concave(curve)
    np.testing.assert_allclose(np.diff(fitted), [1, 0.6, 0.6, 0.2], atol=1e-12)
    assert change == pytest.approx(0.1)
    same, nothing = concave(CURVE)
    np.testing.assert_allclose(same, CURVE, atol=1e-12)
    assert nothing < 1e-12


def test_what_will_not_do():
    with pytest.raises(ValueError, match="sum to the length 32"):
        counts_bound(CURVE, [16, 15])
    with pytest.raises(ValueError, match="steps=0: must be >= 1"):
        optimal_counts(CURVE, 0)
    with pytest.raises(ValueError, match="sum to 1"):
        markov_information_curve(np.ones((2, 2)), 4)


@pytest.mark.parametrize("a, b", [(0.5, 0.5), (0.9, 0.3), (0.3, 0.9)])
@pytest.mark.parametrize("name", ["extreme", "middle"])
def test_the_ancestral_sampler_tends_to_the_data(name, a, b, x64):
    """Total variation, with true conditionals, whatever the schedule."""
    law, table = toy(name), true_conditionals(toy(name))
    hidden = lambda steps: np.asarray(beta(a, b).one_minus_alpha(jnp.arange(steps, -1, -1) / steps))
    apart = [total_variation(law, ancestral_law(table, hidden(steps))) for steps in (3, 12, 48)]
    assert apart[0] > apart[1] > apart[2] > 0 and apart[2] < 0.3 * apart[0]
