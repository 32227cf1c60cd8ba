"""The exact laws against other ways to compute them, and against numbers derived elsewhere."""

import itertools
import math

import jax
import numpy as np
import pytest

from mdmjax.analysis.sampler_laws import (
    ancestral_law,
    confidence_law,
    first_hitting_law,
    left_to_right_law,
    random_count_law,
    total_variation,
)
from mdmjax.analysis.tables import all_states, random_table, true_conditionals

V = L = 3
TABLE = np.asarray(random_table(jax.random.key(0), L, V), np.float64)
P = np.exp(TABLE) / np.exp(TABLE).sum(-1, keepdims=True)
INDEX = {tuple(state): s for s, state in enumerate(all_states(L, V).tolist())}


def chain(steps: tuple[int, ...], start=(V,) * L) -> np.ndarray:
    """Law of the output given the step at which each position is revealed, token by token from the definition."""
    law = np.zeros((V,) * L)
    for x in itertools.product(range(V), repeat=L):
        if any(s != V and s != v for s, v in zip(start, x, strict=True)):
            continue
        p = 1.0
        for k in range(max(steps) + 1):
            state = tuple(v if s < k or b != V else V for v, s, b in zip(x, steps, start, strict=True))
            p *= math.prod(P[INDEX[state], i, x[i]] for i in range(L) if steps[i] == k and start[i] == V)
        law[x] = p
    return law


def hidden(steps: int) -> dict[str, np.ndarray]:
    """1 - alpha at t = 1, 1 - 1/T, ..., 0."""
    t = np.arange(steps, -1, -1) / steps
    return {
        "linear": t,
        "sine": 1 - np.sin(np.pi / 2 * (1 - t)),
        "sine squared": np.sin(np.pi / 2 * t) ** 2,
        "MaskGIT cosine": np.sin(np.pi / 2 * t),
    }


@pytest.mark.parametrize("start", [(V, V, V), (V, 1, V)])
def test_first_hitting_is_the_average_over_orders(start):
    expected = np.mean([chain(order, start) for order in itertools.permutations(range(L))], axis=0)
    np.testing.assert_allclose(first_hitting_law(TABLE, start), expected, atol=1e-15)
    np.testing.assert_allclose(random_count_law(TABLE, [1] * start.count(V), start), expected, atol=1e-15)


def test_left_to_right_is_one_order():
    np.testing.assert_allclose(left_to_right_law(TABLE), chain((0, 1, 2)), atol=1e-15)


@pytest.mark.parametrize("start", [(V, V, V), (2, V, V)])
def test_ancestral_hazards_are_clocks(start):
    """The chain of independent hazards is the mixture over reveal steps drawn once, with P(step k) = A_{k+1} - A_k."""
    for grid in hidden(3).values():
        visible = -np.diff(grid)
        plans = itertools.product(range(3), repeat=L)
        expected = sum(visible[list(plan)].prod() * chain(plan, start) for plan in plans)
        np.testing.assert_allclose(ancestral_law(TABLE, grid, start), expected, atol=1e-14)


def test_random_counts_is_the_average_over_orders():
    plans = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    np.testing.assert_allclose(random_count_law(TABLE, [2, 1]), np.mean([chain(p) for p in plans], 0), atol=1e-15)


def test_confidence_at_two_positions():
    """V = 2, L = 2, one token a step, by hand: the more probable drawn token stays, the other is drawn anew."""
    table = np.asarray(random_table(jax.random.key(1), 2, 2), np.float64)
    p = np.exp(table) / np.exp(table).sum(-1, keepdims=True)
    start, expected = p[8], np.zeros((2, 2))
    for a, b in itertools.product(range(2), repeat=2):
        if start[0, a] >= start[1, b]:
            expected[a] += start[0, a] * start[1, b] * p[3 * a + 2, 1]
        else:
            expected[:, b] += start[0, a] * start[1, b] * p[3 * 2 + b, 0]
    np.testing.assert_allclose(confidence_law(table, [1, 1], tie=0), expected, atol=1e-15)
    np.testing.assert_allclose(confidence_law(table, [2], tie=0), np.outer(start[0], start[1]), atol=1e-15)


def test_confidence_breaks_ties_to_the_left():
    """Where all tokens are equally probable at first, but for rounding, the first position is revealed first."""
    table = TABLE.copy()
    table[-1] = 1e-6 * np.random.default_rng(0).standard_normal((L, V))  # the state of all masks is the last
    expected = np.mean([confidence_law(TABLE, [1, 1], (v, V, V), tie=0) for v in range(V)], axis=0)
    np.testing.assert_allclose(confidence_law(table, [1, 1, 1], tie=2.0**-14), expected, atol=1e-6)
    assert total_variation(confidence_law(table, [1, 1, 1], tie=0), expected) > 0.01


@pytest.mark.parametrize("schedule", ["linear", "sine squared", "MaskGIT cosine"])
def test_ancestral_tends_to_first_hitting(schedule):
    """Total variation falls as 1/T: times 4 in T divides it by 4 in the limit."""
    limit = first_hitting_law(TABLE)
    tv = np.array([total_variation(ancestral_law(TABLE, hidden(4**i)[schedule]), limit) for i in range(6)])
    assert np.all(np.diff(tv) < 0)
    np.testing.assert_allclose(tv[4] / tv[5], 4, rtol=0.02)
    assert tv[5] < 1 / 1024


def test_the_true_conditionals_give_the_law_back():
    p = np.random.default_rng(0).dirichlet(np.full(V**L, 0.5)).reshape((V,) * L)
    table = true_conditionals(p)
    np.testing.assert_allclose(first_hitting_law(table), p, atol=1e-12)
    np.testing.assert_allclose(left_to_right_law(table), p, atol=1e-12)
    prompted = p[:, 1] / p[:, 1].sum()
    np.testing.assert_allclose(first_hitting_law(table, (V, 1, V))[:, 1], prompted, atol=1e-12)


def toy(kind: str) -> np.ndarray:
    """Five letters a, b. "extreme": aaaaa or bbbbb. "middle": the 20 words with two or three a's."""
    ones = np.indices((2,) * 5).sum(0)
    support = np.isin(ones, [0, 5] if kind == "extreme" else [2, 3])
    return support / support.sum()


def test_toy_of_the_energy_paper():
    """The setting of arXiv 2509.13866, figure 4, with the true conditionals; values from an independent programme."""
    extreme, middle = toy("extreme"), toy("middle")
    tables = {"extreme": true_conditionals(extreme), "middle": true_conditionals(middle)}
    values = {"linear": 0.4051, "sine": 0.5816, "sine squared": 0.3882, "MaskGIT cosine": 0.3235}
    for name, grid in hidden(3).items():
        tv = total_variation(ancestral_law(tables["extreme"], grid), extreme)
        np.testing.assert_allclose(tv, values[name], atol=5e-5)
    for counts, tv in {(1, 2, 2): 0, (2, 2, 1): 0.5, (3, 1, 1): 0.75, (5,): 0.9375}.items():
        np.testing.assert_allclose(
            total_variation(random_count_law(tables["extreme"], counts), extreme), tv, atol=1e-12
        )
    for counts, tv in {(3, 1, 1): 0, (2, 2, 1): 0.03125, (1, 3, 1): 0.0640, (1, 1, 3): 0.2125, (5,): 0.375}.items():
        np.testing.assert_allclose(total_variation(random_count_law(tables["middle"], counts), middle), tv, atol=1e-4)


def test_bad_start_is_refused():
    with pytest.raises(ValueError, match="3 tokens in 0..3"):
        first_hitting_law(TABLE, (0, 1, 4))
