import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis.tables import all_states, random_table, table_denoiser, true_conditionals


def test_lookup_in_the_order_of_all_states():
    table = random_table(jax.random.key(0), 3, 2)
    denoiser = table_denoiser(table)
    states = jnp.asarray(all_states(3, 2))
    assert states.shape == (27, 3)
    np.testing.assert_array_equal(states[0 * 9 + 2 * 3 + 1], [0, 2, 1])
    np.testing.assert_array_equal(denoiser(states), table)
    at = jnp.tile(jnp.array([[2, 0]]), (27, 1))
    np.testing.assert_array_equal(denoiser(states, at=at), table[:, jnp.array([2, 0])])
    np.testing.assert_array_equal(denoiser.readout(denoiser.features(states)), denoiser(states))


def test_true_conditionals_are_bayes():
    p = np.random.default_rng(0).dirichlet(np.ones(8)).reshape(2, 2, 2)
    table = true_conditionals(p)
    states = all_states(3, 2).tolist()
    for state, i, expected in [
        ([2, 2, 2], 1, p.sum((0, 2))),
        ([1, 2, 2], 2, p[1].sum(0) / p[1].sum()),
        ([0, 2, 1], 1, p[0, :, 1] / p[0, :, 1].sum()),
    ]:
        np.testing.assert_allclose(np.exp(table[states.index(state), i]), expected, rtol=1e-14)


def test_true_conditionals_off_the_support():
    p = np.zeros((2, 2, 2))
    p[0, 0, 0] = p[1, 1, 1] = 0.5
    table = true_conditionals(p)
    states = all_states(3, 2).tolist()
    np.testing.assert_array_equal(np.exp(table[states.index([0, 2, 2]), 1]), [1, 0])
    np.testing.assert_array_equal(table[states.index([0, 1, 2]), 2], [0, 0])


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must be \(V\+1\)\^L = 64"):
        table_denoiser(np.zeros((27, 3, 3)))
