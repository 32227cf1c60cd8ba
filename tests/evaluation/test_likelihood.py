"""The bound of a held-out set: the same number however it is computed, with an error bar that covers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis.bounds import continuous_bound
from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.evaluation import ExactScorer, Scorer, evaluate, padded_batches, summarise
from mdmjax.process import Copies, ExactCount, single, systematic
from mdmjax.training import MeshLayout, PmapLayout, make_mesh

VOCAB, LENGTH, ROWS = 3, 4, 21


@pytest.fixture(scope="module")
def table():
    return table_denoiser(random_table(jax.random.key(0), LENGTH, VOCAB, scale=1.5))


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH))


@pytest.fixture(scope="module")
def scored():
    where = np.ones((ROWS, LENGTH), bool)
    where[-1, :2] = False  # context, as in the last window of a text
    return where


def scorer(table, draws=2, groups=2, key=0):
    score, key = Scorer(VOCAB, draws, groups), jax.random.key(key)
    return jax.jit(lambda batch: score(table, batch, key))


def per_row(score, tokens, scored, size):
    """Estimates [N, G], batch by batch."""
    nats = [np.asarray(score(batch)) for batch in padded_batches(tokens, scored, size)]
    return np.concatenate(nats)[: len(tokens)]


def test_a_row_scores_the_same_in_any_batch(table, tokens, scored):
    score = scorer(table)
    whole = per_row(score, tokens, scored, ROWS)
    assert np.ptp(whole[:, 0]) > 0.5 and not np.allclose(whole[:, 0], whole[:, 1])
    for size in (1, 4, 32):
        np.testing.assert_allclose(per_row(score, tokens, scored, size), whole, rtol=1e-5)


@pytest.mark.parametrize("layout", [lambda: MeshLayout(make_mesh(4, 2)), PmapLayout], ids=["mesh", "pmap"])
def test_a_row_scores_the_same_on_eight_devices(table, tokens, scored, layout):
    expected = evaluate(scorer(table), tokens, scored, size=5, estimator="here")
    layout, key, score = layout(), jax.random.key(0), Scorer(VOCAB, 2, 2)
    placed = layout.init(lambda: table)
    mapped = layout.map(lambda table, batch: score(table, batch, key))
    done = []
    bound = evaluate(
        functools.partial(mapped, placed),
        tokens, scored, size=16, estimator="here", put=layout.put, progress=done.append,
    )  # fmt: skip
    assert bound.per_token.mean == pytest.approx(expected.per_token.mean, rel=1e-6)
    assert bound.per_token.standard_error == pytest.approx(expected.per_token.standard_error, rel=1e-5)
    assert bound.monte_carlo == pytest.approx(expected.monte_carlo, rel=1e-5)
    assert (bound.rows, bound.tokens, done) == (ROWS, ROWS * LENGTH - 2, [16, ROWS])


def test_what_fills_up_the_last_batch_is_not_scored(tokens, scored):
    batches = list(padded_batches(tokens, scored, 8))
    assert [b["tokens"].shape for b in batches] == [(8, LENGTH)] * 3
    assert sum(b["scored"].sum() for b in batches) == scored.sum()
    assert not batches[-1]["scored"][ROWS % 8 :].any()
    shares = [list(padded_batches(tokens, scored, 8, rank, 2)) for rank in range(2)]
    for k, batch in enumerate(batches):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([share[k][name] for share in shares]))


def test_what_cannot_be_shared_out_or_is_not_there_is_refused(tokens, scored):
    for size in (0, 9):
        with pytest.raises(ValueError, match=f"size={size}: must be a multiple of 2"):
            next(padded_batches(tokens, scored, size, 0, 2))
    with pytest.raises(ValueError, match="no rows to score"):
        evaluate(lambda batch: batch, tokens[:0], scored[:0], size=4, estimator="")


def test_filling_up_adds_nothing(table, tokens, scored):
    batch = list(padded_batches(tokens, scored, 8))[-1]
    assert (np.asarray(scorer(table)(batch))[ROWS % 8 :] == 0).all()


def test_the_ratio_and_its_errors_by_hand():
    nats = np.array([[3.0, 5.0], [1.0, 1.0], [6.0, 2.0]])
    bound = summarise(nats, np.array([4, 2, 2]), "by hand")
    ratio = (4 + 1 + 4) / 8
    residuals = [4 - 4 * ratio, 1 - 2 * ratio, 4 - 2 * ratio]
    assert bound.per_token.mean == pytest.approx(ratio)
    assert bound.per_token.standard_error == pytest.approx(math.sqrt(3 / 2 * sum(r * r for r in residuals)) / 8)
    assert bound.monte_carlo == pytest.approx(math.sqrt(2 / 2 + 0 / 2 + 8 / 2) / 8)
    assert (bound.per_token.unit, bound.per_token.draws) == ("nats/token", 3)
    assert bound.per_token.estimator == "by hand, error over 3 blocks"
    assert (bound.rows, bound.tokens) == (3, 8)


def test_units():
    bound = summarise(np.array([[4.0], [2.0]]), np.array([2, 2]), "")
    report = bound.report(characters_per_token=4.0)
    assert report["nats_per_token"].mean == pytest.approx(1.5)
    assert report["bits_per_token"].mean == pytest.approx(1.5 / math.log(2))
    assert report["bits_per_char"].mean == pytest.approx(1.5 / math.log(2) / 4)
    assert report["bits_per_char"].standard_error == pytest.approx(0.5 / math.log(2) / 4)
    assert "bits_per_char" not in bound.report()


def test_an_error_bar_needs_two_rows_and_two_groups():
    with pytest.raises(ValueError, match="1 row: an error bar needs at least 2 rows"):
        summarise(np.ones((1, 2)), np.array([3]), "")
    with pytest.raises(ValueError, match="needs draws >= 1 and groups >= 2"):
        Scorer(VOCAB, draws=4, groups=1)
    with pytest.raises(ValueError, match="needs draws >= 1 and groups >= 2"):
        Scorer(VOCAB, draws=0)


@pytest.mark.parametrize("draws, ways", [(1, single), (3, single), (2, Copies(2))])
def test_the_monte_carlo_error_covers_the_exact_bound(table, tokens, draws, ways):
    """200 repetitions; with 21 rows of 2 groups the normal interval of nominal 95 % covers about 93 %."""
    exact = jax.jit(jax.vmap(lambda row: continuous_bound(table, row, VOCAB)))(tokens).sum() / tokens.size
    everywhere, score = np.ones(tokens.shape, bool), Scorer(VOCAB, draws, 2, ExactCount(systematic, ways=ways))
    batch = jax.tree.map(jnp.asarray, next(padded_batches(tokens, everywhere, ROWS)))
    keys = jax.random.split(jax.random.key(1), 200)
    nats = np.asarray(jax.jit(lambda keys: jax.lax.map(lambda key: score(table, batch, key), keys))(keys))
    bounds = [summarise(estimate, everywhere.sum(1), "") for estimate in nats]
    misses = np.array([(b.per_token.mean - exact) / b.monte_carlo for b in bounds])
    assert abs(misses[0]) < 4
    assert 0.88 <= (np.abs(misses) < 1.96).mean() <= 0.99
    means = np.array([b.per_token.mean for b in bounds])
    assert abs(means.mean() - exact) < 4 * means.std() / math.sqrt(200)  # unbiased
    claimed = math.sqrt(np.mean([b.monte_carlo**2 for b in bounds]))
    assert claimed == pytest.approx(means.std(), rel=0.2)


def test_the_total_error_holds_the_choice_of_rows(table):
    """Of independent rows: the bar covers the mean of the source they come from; the Monte Carlo error does not."""
    rng = np.random.default_rng(2)
    source = np.stack(np.unravel_index(np.arange(VOCAB**LENGTH), (VOCAB,) * LENGTH), 1)
    nats = np.asarray(jax.jit(jax.vmap(lambda row: continuous_bound(table, row, VOCAB)))(source), np.float64)
    chosen = rng.integers(0, len(source), (300, 40))
    bounds = [summarise(nats[c][:, None], np.full(40, LENGTH), "") for c in chosen]
    misses = [(b.per_token.mean - nats.mean() / LENGTH) / b.per_token.standard_error for b in bounds]
    assert 0.9 <= (np.abs(misses) < 1.96).mean() <= 0.985
    assert all(b.monte_carlo == 0 for b in bounds)


def test_exact_scores_are_the_chain_rule(tokens, scored):
    logits = jax.random.normal(jax.random.key(4), (LENGTH, VOCAB))
    denoiser = lambda tokens, t=None, *, at=None: jnp.broadcast_to(logits[None], (*tokens.shape, VOCAB))
    score = jax.jit(lambda batch: ExactScorer()(denoiser, batch, jax.random.key(0)))
    log_p = np.asarray(jax.nn.log_softmax(logits))[np.arange(LENGTH), tokens]
    np.testing.assert_allclose(per_row(score, tokens, scored, 8)[:, 0], -(log_p * scored).sum(1), rtol=1e-5)
    bound = evaluate(score, tokens, scored, size=8, estimator="exact")
    assert bound.per_token.mean == pytest.approx(-(log_p * scored).sum() / scored.sum(), rel=1e-5)
    assert bound.monte_carlo == 0 and bound.per_token.standard_error > 0
