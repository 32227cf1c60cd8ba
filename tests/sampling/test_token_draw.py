"""The token draw: its law, rare tokens at V = 50,257 in float32, temperature and nucleus.

Statistical tests compare counts with exact probabilities by chi-square or by the binomial law, with fixed keys, and ask
for p > 1e-4.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mdmjax.sampling.tokens import TokenDraw, categorical, nucleus

V = 50_257
P_MIN = 1e-4


@functools.partial(jax.jit, static_argnames=("draw", "n"))
def draws(logits, key, n, draw=TokenDraw()):  # noqa: B008
    return jax.vmap(draw, (0, None))(jax.random.split(key, n), logits)


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max())
    return p / p.sum()


def p_value(counts, p):
    """Of the chi-square test, cells of p = 0 apart, which must be empty."""
    assert counts[p == 0].sum() == 0
    return stats.chisquare(counts[p > 0], p[p > 0] * counts.sum()).pvalue


@pytest.mark.parametrize("vocab", [1, 2, 3, 9, 10, 35])
def test_law_at_small_vocabularies(vocab):
    logits = 2 * jax.random.normal(jax.random.key(vocab), (vocab,))
    tokens, probability = draws(logits, jax.random.key(1), 20_000)
    counts = np.bincount(tokens, minlength=vocab)
    assert len(counts) == vocab
    assert vocab == 1 or p_value(counts, softmax(logits)) > P_MIN
    np.testing.assert_allclose(probability, softmax(logits)[np.asarray(tokens)], rtol=1e-5)


def test_law_at_a_large_vocabulary():
    """Zipf's law over 50,257 tokens in a random order: 40 frequent tokens and 40 groups of rarer ones."""
    p = 1 / np.arange(1, V + 1)
    p /= p.sum()
    cell = np.minimum(np.arange(V), 40 + 40 * np.arange(V) // V)[np.random.default_rng(0).permutation(V)]
    order = np.random.default_rng(0).permutation(V)
    tokens, _ = draws(jnp.asarray(np.log(p[order]), jnp.float32), jax.random.key(0), 40_000)
    counts = np.bincount(cell[np.asarray(tokens)], minlength=81)
    assert p_value(counts, np.bincount(cell, p[order], minlength=81)) > P_MIN


TAIL = 3e-3  # mass of 50,256 equally rare tokens, 6e-8 each; one token has the rest


def naive_tail_mass(tail):
    """P(a rare token wins) for the usual float32 draw, argmax_v log p_v - log(-log u_v) with u_v in multiples of 2^-23.

    Exact but for the rounding of the logarithms: E_v = -log u_v takes 2^23 values, and a rare token must beat the top
    one in E_v / p_v, which asks for an E of at most E_top * (its p / p of the top).
    """
    top = (np.arange(2**23) + 0.5) / 2**23  # E of the top token may be averaged as a continuous variable
    threshold = -np.log(top) * (tail / (V - 1)) / (1 - tail)
    below = np.floor(-np.expm1(-threshold) * 2**23) / 2**23  # P(E_v < threshold) on the grid of u_v
    return -np.expm1((V - 1) * np.log1p(-below)).mean()


def test_rare_tokens_in_float32():
    """The total mass of tokens with p = 6e-8 is right. The usual float32 Gumbel draw gives them a third of it."""
    logits = np.full(V, math.log(TAIL / (V - 1)))
    logits[12_345] = math.log(1 - TAIL)
    logits = jnp.asarray(logits, jnp.float32)
    n = 25_000
    ours = int((draws(logits, jax.random.key(3), n)[0] != 12_345).sum())
    assert stats.binomtest(ours, n, TAIL).pvalue > P_MIN

    few = 1000
    one = jax.jit(lambda key: jax.lax.map(lambda k: jax.random.categorical(k, logits, mode="low"), key))
    naive = int((one(jax.random.split(jax.random.key(4), few)) != 12_345).sum())
    biased = naive_tail_mass(TAIL)
    assert biased < TAIL / 3
    assert stats.binomtest(naive, few, biased).pvalue > P_MIN
    assert stats.binomtest(round(n * biased), n, TAIL).pvalue < 1e-9  # so a biased draw would not have passed


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_temperature(temperature):
    logits = jax.random.normal(jax.random.key(7), (6,))
    tokens, probability = draws(logits, jax.random.key(8), 20_000, TokenDraw(temperature))
    assert p_value(np.bincount(tokens, minlength=6), softmax(logits / temperature)) > P_MIN
    np.testing.assert_allclose(probability, softmax(logits)[np.asarray(tokens)], rtol=1e-5)  # at temperature 1


def test_temperature_zero_is_the_argmax():
    logits = jnp.array([0.0, 3.0, -1.0, 3.0])
    tokens, probability = draws(logits, jax.random.key(0), 50, TokenDraw(0.0))
    assert set(tokens.tolist()) == {1}
    np.testing.assert_allclose(probability, softmax(logits)[1], rtol=1e-6)


def nucleus_by_sorting(p, top_p):
    order = np.argsort(-p, kind="stable")
    size = int(np.searchsorted(np.cumsum(p[order]), top_p * (1 - 1e-7))) + 1
    return p >= p[order[size - 1]]


@pytest.mark.parametrize("vocab", [1, 7, 2000])
def test_nucleus_is_that_of_sorting(vocab):
    logits, shares = 3 * jax.random.normal(jax.random.key(vocab), (vocab,)), (1e-6, 0.1, 0.5, 0.9, 0.999)
    found = jax.jit(lambda x: [nucleus(x, top_p) for top_p in shares])(logits)
    for top_p, kept in zip(shares, found, strict=True):
        np.testing.assert_array_equal(kept, nucleus_by_sorting(softmax(logits), top_p))


def test_nucleus_keeps_ties_and_drops_the_impossible():
    logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2, 0.0]))
    few, all_ = jax.jit(lambda x: (nucleus(x, 0.39), nucleus(x, 0.5)))(logits)
    np.testing.assert_array_equal(few, [True, False, False, False, False])
    np.testing.assert_array_equal(all_, [True, True, True, True, False])


def test_nucleus_in_float64(x64):
    logits = 3 * jax.random.normal(jax.random.key(0), (50,))
    assert logits.dtype == jnp.float64
    kept, (_, probability) = jax.jit(lambda x: (nucleus(x, 0.7), TokenDraw()(jax.random.key(0), x)))(logits)
    np.testing.assert_array_equal(kept, nucleus_by_sorting(softmax(logits), 0.7))
    assert probability.dtype == jnp.float64


def test_top_p_after_temperature():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    flat = softmax(np.asarray(logits) / 2)
    kept = flat * nucleus_by_sorting(flat, 0.7)
    tokens, _ = draws(logits, jax.random.key(9), 20_000, TokenDraw(2.0, 0.7))
    assert p_value(np.bincount(tokens, minlength=4), kept / kept.sum()) > P_MIN


def test_bfloat16_logits_are_drawn_in_float32():
    token, probability = draws(jnp.zeros(300, jnp.bfloat16), jax.random.key(0), 1)
    assert (token.dtype, probability.dtype) == (jnp.int32, jnp.float32)
    np.testing.assert_allclose(probability, [1 / 300], rtol=1e-6)


def test_no_second_array_of_the_logits_size():
    """Nothing of size [B, L, V] twice: the draw needs a small part of the memory of its input."""
    shape = jax.ShapeDtypeStruct((64, V), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 64))
    temporary = jax.jit(jax.vmap(TokenDraw())).lower(keys, shape).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 0.2 * 64 * V * 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((-0.1,), r"temperature=-0.1: must be finite and >= 0"),
        ((float("nan"),), r"temperature=nan"),
        ((float("inf"),), r"temperature=inf"),
        ((1.0, 0.0), r"top_p=0.0: must be in \(0, 1\]"),
        ((1.0, 1.5), r"top_p=1.5"),
        ((1.0, float("nan")), r"top_p=nan"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenDraw(*arguments)


def test_categorical_never_leaves_the_vocabulary():
    """Blocks are padded where V is no multiple of their width; with one certain token the draw is certain."""
    for vocab in (5, 10, 50):
        logits = jnp.where(jnp.arange(vocab) == vocab - 1, 0.0, -jnp.inf)
        tokens, _ = jax.jit(jax.vmap(categorical, (0, None)))(jax.random.split(jax.random.key(0), 20), logits)
        assert set(tokens.tolist()) == {vocab - 1}
