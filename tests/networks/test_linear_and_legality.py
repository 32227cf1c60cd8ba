"""The linear denoiser, and values that a position cannot have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import random_table, table_denoiser
from mdmjax.networks import Legal, LinearConfig, TransformerConfig, linear, parameter_count, transformer
from mdmjax.sampling import FirstHitting, sample

V, L = 4, 3
ALLOWED = np.array([[True, True, False, False], [False, True, True, True], [False, False, False, True]])
TABLE = table_denoiser(random_table(jax.random.key(0), L, V, 2.0))


def test_linear_is_a_bias_and_a_row_of_the_kernel_for_each_visible_token():
    model = linear(LinearConfig(V, L))
    params = model.init(jax.random.key(0))
    assert parameter_count(params) == (L * V + 1) * L * V
    kernel, bias = np.asarray(params["layer"]["kernel"]), np.asarray(params["layer"]["bias"]) + 0.5
    denoiser = model.bind({"layer": {"kernel": params["layer"]["kernel"], "bias": jnp.asarray(bias)}})
    tokens = jnp.array([[V, V, V], [1, V, 3]])
    logits = denoiser(tokens)
    np.testing.assert_allclose(logits[0].ravel(), bias, rtol=1e-6)
    np.testing.assert_allclose(logits[1].ravel(), bias + kernel[1] + kernel[2 * V + 3], rtol=1e-5)
    at = jnp.array([[2, 0], [1, 1]])
    np.testing.assert_array_equal(denoiser(tokens, at=at)[1, 0], logits[1, 1])
    with pytest.raises(ValueError, match="length=3"):
        denoiser(jnp.zeros((1, 4), int))
    with pytest.raises(ValueError, match="vocab=0"):
        LinearConfig(0, 3)


def test_illegal_values_have_no_probability_and_the_others_their_own():
    legal, tokens = Legal(TABLE, ALLOWED), jnp.array([[V, V, V], [1, V, 3]])
    p, q = jax.nn.softmax(legal(tokens)), jax.nn.softmax(TABLE(tokens))
    assert (np.asarray(p)[:, ~ALLOWED] == 0).all()
    kept = np.where(ALLOWED, q, 0)
    np.testing.assert_allclose(p, kept / kept.sum(-1, keepdims=True), rtol=1e-5)
    at = jnp.array([[2, 0], [1, 1]])
    some = legal(tokens, at=at)
    np.testing.assert_array_equal(some[0], legal(tokens)[0, at[0]])
    np.testing.assert_array_equal(some[1], legal(tokens)[1, at[1]])
    with pytest.raises(ValueError, match="position 1 has no value"):
        Legal(TABLE, ALLOWED & np.array([[True], [False], [True]]))


def test_illegal_values_are_never_sampled():
    canvas = jnp.full((20_000, L), V)
    legal = Legal(TABLE, ALLOWED)
    drawn = np.asarray(
        jax.jit(lambda c: sample(legal, FirstHitting(), c, vocab=V, key=jax.random.key(0)).tokens)(canvas)
    )
    for column, allowed in enumerate(ALLOWED):
        counts = np.bincount(drawn[:, column], minlength=V)
        assert counts[~allowed].sum() == 0 and (counts[allowed] > 0).all()


def test_learned_places_tell_the_masks_of_an_empty_canvas_apart():
    """Rotary angles alone do not: there all positions see the same."""
    canvas = jnp.full((1, 5), 3)
    for places in (False, True):
        model = transformer(TransformerConfig(3, 5, width=16, depth=1, heads=2, places=places))
        logits = model.bind(model.init(jax.random.key(0)))(canvas)[0]
        assert (np.abs(logits - logits[:1]).max() > 1e-4) == places
