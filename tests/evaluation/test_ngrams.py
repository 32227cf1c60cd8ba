"""N-gram baselines against a dictionary twin, and as probabilities."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.evaluation import ngrams


def twin(train, text, vocab, order):
    """The recursion of the docstring, word for word."""
    following = defaultdict(Counter)
    for i in range(len(train)):
        for k in range(min(i, order) + 1):
            following[tuple(train[i - k : i])][train[i]] += 1

    def p(w, h):
        if h is None:
            return 1 / vocab
        counts = following.get(h, Counter())
        below = p(w, h[1:] if h else None)
        c, t = counts.total(), len(counts)
        return (counts[w] + t * below) / (c + t) if c else below

    return [p(text[i], tuple(text[max(0, i - order) : i])) for i in range(len(text))]


texts = st.integers(1, 5).flatmap(
    lambda v: st.tuples(
        st.just(v),
        st.lists(st.integers(0, v - 1), min_size=1, max_size=40),
        st.lists(st.integers(0, v - 1), min_size=1, max_size=20),
    )
)


@given(texts)
def test_equals_the_dictionary_twin(case):
    vocab, train, text = case
    got = ngrams.fit(np.array(train), vocab).probabilities(np.array(text))
    for order in range(5):
        np.testing.assert_allclose(got[order], twin(train, text, vocab, order), rtol=1e-12)


@given(texts)
def test_probabilities_sum_to_one(case):
    vocab, train, text = case
    model = ngrams.fit(np.array(train, np.uint8), vocab)
    total = sum(model.probabilities(np.array([*text, w]))[:, -1] for w in range(vocab))
    np.testing.assert_allclose(total, np.ones(5), rtol=1e-12)


def test_order_zero_is_the_smoothed_unigram():
    rng = np.random.default_rng(0)
    train, text = rng.integers(0, 7, 1000), rng.integers(0, 9, 500)
    counts = np.bincount(train, minlength=9)
    p = (counts + 7 / 9) / (1000 + 7)
    (estimate, *_) = ngrams.baselines(train, text, 9)
    assert estimate.mean == pytest.approx(-np.log(p[text]).mean(), rel=1e-12)
    assert estimate.unit == "nats/token" and "order-0" in estimate.estimator


def test_recovers_a_markov_chain():
    """On a chain of order 1 with known transitions, order 1 reaches the entropy rate, within its own error bar."""
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.ones(6), size=6)
    cumulative, uniform = transition.cumsum(axis=1), rng.random(220_000)
    chain = np.zeros(len(uniform), np.int64)
    for i in range(1, len(chain)):
        chain[i] = np.searchsorted(cumulative[chain[i - 1]], uniform[i])
    values, vectors = np.linalg.eig(transition.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    rate = -(stationary[:, None] * transition * np.log(transition)).sum()
    zero, one, *_ = ngrams.baselines(chain[:200_000], chain[200_000:], 6)
    assert abs(one.mean - rate) < 3.5 * one.standard_error < 0.03
    assert zero.mean > rate + 10 * zero.standard_error


def test_error_bars_know_that_neighbours_are_alike():
    """A chain that stays where it is for 100 tokens on average, which is nothing like the length of a block."""
    rng = np.random.default_rng(2)
    train = rng.choice(2, 10_000, p=[0.8, 0.2])
    misses, naive = [], []
    for _ in range(200):
        runs = rng.geometric(0.01, 400)
        text = np.repeat(rng.choice(2, 400, p=[0.8, 0.2]), runs)[:20_000]
        (estimate,) = ngrams.baselines(train, text, 2, max_order=0)
        assert estimate.draws == 32 and "error over 32 blocks" in estimate.estimator
        nats = -np.log(ngrams.fit(train, 2, 0).probabilities(np.arange(2))[0])
        misses.append((estimate.mean - nats @ [0.8, 0.2]) / estimate.standard_error)
        naive.append((estimate.mean - nats @ [0.8, 0.2]) / (nats[text].std() / math.sqrt(len(text))))
    assert 0.88 <= (np.abs(misses) < 1.96).mean() <= 0.99
    assert (np.abs(naive) < 1.96).mean() < 0.3


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_text_is_scored_in_parts_of_any_length(chunk):
    rng = np.random.default_rng(4)
    train, text = rng.integers(0, 3, 2000), rng.integers(0, 3, 3333)
    whole = -np.log(ngrams.fit(train, 3).probabilities(text)).mean(1)
    estimates = ngrams.baselines(train, text, 3, chunk=chunk)
    np.testing.assert_allclose([e.mean for e in estimates], whole, rtol=1e-12)
    same_blocks = ngrams.baselines(train, text, 3)
    np.testing.assert_allclose(*[[e.standard_error for e in x] for x in (estimates, same_blocks)], rtol=1e-9)


def test_one_token_has_no_error_bar_and_long_texts_are_cut():
    x = np.random.default_rng(5).integers(0, 5, 200)
    estimates = ngrams.baselines(x, x[:1], 5, max_train=100)
    assert all(math.isnan(e.standard_error) and "first 100 training tokens" in e.estimator for e in estimates)
    longer, cut = ngrams.baselines(x, x, 5, max_train=100)[1], ngrams.baselines(x[:100], x, 5)[1]
    assert longer.mean == pytest.approx(cut.mean, rel=1e-12)
    longer, cut = ngrams.baselines(x, x, 5, max_held_out=100)[1], ngrams.baselines(x, x[:100], 5)[1]
    assert (longer.mean, longer.standard_error) == (cut.mean, cut.standard_error)
    assert "first 100 held-out tokens" in longer.estimator and "first" not in cut.estimator


def test_large_vocabularies_and_texts():
    """50,000 ids, where 50000^5 is beyond 64 bits, on a million tokens; the twin checks a sample."""
    rng = np.random.default_rng(3)
    x = rng.zipf(1.3, 1_000_000) % 50_000
    x[500_000:] = x[:500_000]  # so that long contexts recur
    model = ngrams.fit(x, 50_000)
    got = model.probabilities(x[:50_000])

    small = x[:3000]
    np.testing.assert_allclose(
        ngrams.fit(small, 50_000).probabilities(x[2000:4000])[4], twin(small.tolist(), x[2000:4000].tolist(), 50_000, 4)
    )
    assert (got[4] > 0.05).mean() > 0.9


def test_bad_texts():
    good = np.arange(5)
    for train, text, words in [
        (good, good + 1, r"ids 1\.\.5 where 0\.\.4 are expected"),
        (good - 1, good, r"ids -1\.\.3"),
        (good[:0], good, "training text of the n-grams is empty"),
        (good, good[:0], "held-out text is empty"),
    ]:
        with pytest.raises(ValueError, match=words):
            ngrams.baselines(train, text, 5)


def test_on_the_documentation_of_python(tmp_path):
    from mdmjax.data import python_docs

    corpus = python_docs(cache_dir=tmp_path)
    estimates = ngrams.baselines(corpus.splits["train"], corpus.splits["validation"], corpus.vocabulary.size)
    bits = [e.scaled(1 / math.log(2), "bits/char").mean for e in estimates]
    assert 4.4 < bits[0] < 5.0 and 3.0 < bits[1] < 3.7 and 2.3 < bits[2] < 2.9
    assert bits == sorted(bits, reverse=True)
