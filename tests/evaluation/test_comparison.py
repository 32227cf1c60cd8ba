"""Exact bounds of short answers, and comparisons with error bars of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import continuous_bound, random_table, table_denoiser
from mdmjax.evaluation import EnumeratedScorer, Scorer, choose, paired, summarise
from mdmjax.process import ExactCount, iid

V, L = 3, 4


def denoiser(seed):
    return table_denoiser(random_table(jax.random.key(seed), L, V, 1.5))


def rows(count, prompt=0, seed=0):
    tokens = jnp.asarray(np.random.default_rng(seed).integers(0, V, (count, L)))
    scored = jnp.broadcast_to(jnp.arange(L) >= prompt, tokens.shape)
    return dict(tokens=tokens, scored=scored, ids=jnp.arange(count))


def test_all_masks_are_the_bound(x64):
    """Of whole rows by the enumeration of `analysis`; of an answer by that of the conditional law; rows that are too
    long say so, and rows without anything scored cost nothing."""
    model, batch = denoiser(0), rows(5)
    found = jax.jit(lambda b: EnumeratedScorer(V)(model, b, None))(batch)
    expected = jnp.stack([continuous_bound(model, row, V) for row in batch["tokens"]])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)
    answer = rows(5, prompt=2)
    half = jax.jit(lambda b: EnumeratedScorer(V, most=2)(model, b, None))(answer)
    many = jax.jit(lambda b: Scorer(V, 2, 4000)(model, b, jax.random.key(1)))(answer)
    error = np.asarray(many).std(1) / np.sqrt(4000)
    assert (np.abs(half[:, 0] - many.mean(1)) < 4 * error).all() and (error > 0).all()
    short = jax.jit(lambda b: EnumeratedScorer(V, most=3)(model, b, None))(
        batch | {"scored": batch["scored"].at[0].set(False)}
    )
    assert short[0, 0] == 0 and np.isnan(short[1:]).all()


def test_the_error_bar_covers_the_truth():
    """500 evaluations of one row with 16 groups: the exact bound is within two standard errors in 90 to 98 %."""
    model, one = denoiser(0), rows(1)
    exact = float(EnumeratedScorer(V)(model, one, None)[0, 0])
    many = jax.tree.map(lambda x: jnp.repeat(x, 500, 0), one) | {"ids": jnp.arange(500)}
    found = np.asarray(jax.jit(lambda b: Scorer(V, 3, 16)(model, b, jax.random.key(2)))(many), np.float64)
    error = found.std(1, ddof=1) / np.sqrt(16)
    assert 0.9 <= (np.abs(found.mean(1) - exact) <= 2 * error).mean() <= 0.98


def test_models_are_compared_under_the_same_draws():
    """The difference is right, and its part of the error that comes from draws is far less than that of either."""
    batch = rows(400)
    table = random_table(jax.random.key(0), L, V, 1.5)
    near = table + 0.1 * jax.random.normal(jax.random.key(1), table.shape)
    score = jax.jit(lambda t: Scorer(V, 1, 8, ExactCount(iid))(table_denoiser(t), batch, jax.random.key(3)))
    exact = jax.jit(lambda t: EnumeratedScorer(V)(table_denoiser(t), batch, None))
    one, other = (np.asarray(score(t)) for t in (table, near))
    counts = np.full(400, L)
    found, alone = paired(one, other, counts, "negative ELBO"), summarise(one, counts, "negative ELBO")
    truth = float((exact(table) - exact(near)).mean()) / L
    assert abs(found.per_token.mean - truth) < 4 * found.monte_carlo
    assert found.monte_carlo < alone.monte_carlo / 4 and found.per_token.estimator.startswith("paired")
    with pytest.raises(ValueError, match="must be of the same rows and groups"):
        paired(one, other[:, :2], counts, "")


def test_multiple_choice():
    """The likeliest answer, how far ahead of the next it is, and how sure that is; by token it may be another one."""
    nats = np.array([[[3.0, 3.2], [2.0, 2.2], [9.0, 9.0]], [[1.0, 5.0], [2.9, 3.3], [9.0, 9.0]]])
    found = choose(nats)
    assert found.answer.tolist() == [1, 0] and np.allclose(found.margin, [1.0, 0.1])
    assert np.allclose(found.error, [np.sqrt(2 * 0.01), np.sqrt(4 + 0.04)]) and found.sure.tolist() == [True, False]
    assert choose(nats, np.array([[10, 1, 1], [1, 1, 1]])).answer.tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least two answers"):
        choose(nats[:, :1])


@pytest.mark.parametrize("most", [0, 11])
def test_too_many_masks_are_refused(most):
    with pytest.raises(ValueError, match=f"most={most}"):
        EnumeratedScorer(V, most)
