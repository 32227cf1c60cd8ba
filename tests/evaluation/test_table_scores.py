"""Shape and Trend of sampled tables, and the bound under an order law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import masked_losses, order_bound, random_table, table_denoiser
from mdmjax.evaluation import OrderScorer, column_shapes, pair_trends, shape, trend
from mdmjax.objectives import Ordered

NUMERIC = [True, True, False, False]


def rows(n, seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, n)
    return np.stack([a, 10 + (a + rng.integers(0, 3, n)) % 6, 20 + a % 2, 30 + rng.integers(0, 4, n)], axis=1)


def test_equal_tables_score_one():
    table = rows(50, 0)
    assert shape(table, table[::-1], NUMERIC) == pytest.approx(1)
    assert trend(table, np.tile(table, (3, 1)), NUMERIC) == pytest.approx(1)


def test_shapes_by_hand():
    real = np.array([[0, 5], [0, 5], [1, 6], [3, 7]])
    sampled = np.array([[0, 5], [1, 7], [3, 7], [3, 8]])
    # F = .5, .75, .75, 1 and G = .25, .5, .5, 1; |p - q| of 5..8 = .25, .25, .25, .25
    np.testing.assert_allclose(column_shapes(real, sampled, [True, False]), [0.75, 0.5])
    np.testing.assert_allclose(column_shapes(real, sampled, [True, True])[1], 1 - 0.5)
    np.testing.assert_allclose(column_shapes(real, real + 10, [False, True]), [0, 0])


def test_trends_by_hand():
    x = np.arange(4)
    up, down = np.stack([x, x + 7], axis=1), np.stack([x, 10 - x], axis=1)
    assert pair_trends(up, down, [True, True])[0, 1] == pytest.approx(0)  # rho = 1 and -1
    assert pair_trends(up, down, [True, False])[0, 1] == pytest.approx(0)  # no pair in common
    half = np.concatenate([up[:2], down[2:]])
    assert pair_trends(up, half, [False, False])[0, 1] == pytest.approx(0.5)
    constant = np.stack([x, 0 * x], axis=1)
    assert pair_trends(up, constant, [True, True])[0, 1] == pytest.approx(0.5)  # rho = 1 and 0


def test_scores_do_not_depend_on_the_ids_of_a_column_and_fall_with_distance():
    real, near, far = rows(400, 0), rows(400, 1), np.random.default_rng(2).permuted(rows(400, 1), axis=0)
    offsets = np.array([3, 0, 50, 1])
    assert trend(real, near, NUMERIC) == pytest.approx(trend(real + offsets, near + offsets, NUMERIC))
    assert trend(real, far, NUMERIC) < trend(real, near, NUMERIC) - 0.1  # the columns are independent now
    assert shape(real, far, NUMERIC) == pytest.approx(shape(real, near, NUMERIC))
    matrix = pair_trends(real, near, NUMERIC)
    np.testing.assert_array_equal(matrix, matrix.T)
    with pytest.raises(ValueError, match="3 columns"):
        shape(real, near, NUMERIC[:3])
    with pytest.raises(ValueError, match="sampled"):
        trend(real, near[:0], NUMERIC)


def test_the_order_scorer_estimates_the_bound_of_its_law():
    """Against the recursion, within four standard errors, and the same whatever the batch."""
    table = table_denoiser(random_table(jax.random.key(0), 3, 4, 2.0))
    x, n = jnp.array([3, 0, 2]), 1500
    batch = {"tokens": jnp.tile(x[None], (n, 1)), "ids": jnp.arange(n)}
    score = jax.jit(lambda w, batch: OrderScorer(4, 3, 2)(Ordered(table, w), batch, jax.random.key(1)))
    for w in (jnp.zeros(3), jnp.array([2.0, -1.0, 0.0])):
        nats = np.asarray(score(w, batch))
        assert nats.shape == (n, 2)
        truth = order_bound(masked_losses(table, x, 4), w)
        assert abs(nats.mean() - truth) < 4 * nats.std() / np.sqrt(nats.size)
    part = OrderScorer(4, 3, 2)(Ordered(table, w), jax.tree.map(lambda v: v[5:9], batch), jax.random.key(1))
    np.testing.assert_allclose(part, nats[5:9], rtol=1e-5)
    with pytest.raises(ValueError, match="groups >= 2"):
        OrderScorer(4, groups=1)
