"""Targets with known answers: a Markov chain against its enumeration."""

import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import (
    MarkovChain,
    all_states,
    cycle,
    extreme_law,
    information_curve,
    middle_law,
    true_conditionals,
)
from mdmjax.base import Denoiser

P = np.random.default_rng(0).dirichlet(np.ones(3), size=3)
LENGTH = 4


def joint(chain):
    law = chain.stationary
    for _ in range(chain.length - 1):
        law = law[..., None] * chain.transition
    return law


@pytest.fixture(scope="module")
def chain():
    return MarkovChain(P, LENGTH)


def test_the_conditionals_are_those_of_the_enumerated_law(chain, x64):
    states = all_states(LENGTH, 3)
    expected = true_conditionals(joint(chain))
    denoiser = chain.denoiser()
    assert isinstance(denoiser, Denoiser)
    logits = np.asarray(denoiser(jnp.asarray(states)))
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    hidden = states == 3
    np.testing.assert_allclose(logits[hidden], expected[hidden], atol=1e-12)
    at = jnp.asarray(np.tile([2, 0], (len(states), 1)))
    some = np.asarray(denoiser(jnp.asarray(states), at=at))
    some = some - np.log(np.exp(some).sum(-1, keepdims=True))
    np.testing.assert_allclose(some[hidden[:, [2, 0]]], expected[:, [2, 0]][hidden[:, [2, 0]]], atol=1e-12)


def test_probabilities_and_entropy(chain):
    rows = all_states(LENGTH, 2)  # tokens 0..2, for the mask of two values is the third
    law = joint(chain)
    np.testing.assert_allclose(np.exp(chain.log_prob(rows)), law.ravel(), rtol=1e-12)
    assert chain.entropy == pytest.approx(-(law * np.log(law)).sum(), rel=1e-12)
    np.testing.assert_allclose(chain.information_curve(), information_curve(law), atol=1e-12)
    np.testing.assert_allclose(chain.pairs(), law.sum((2, 3)), rtol=1e-12)


def test_toys():
    for law, support in ((extreme_law(), 2), (middle_law(), 20)):
        assert law.shape == (2,) * 5 and law.sum() == pytest.approx(1) and (law > 0).sum() == support
    np.testing.assert_allclose(cycle(8, 0.1).sum(1), 1, rtol=1e-12)
    assert cycle(8, 0.1)[7, 0] == pytest.approx(0.9 + 0.1 / 8)
    with pytest.raises(ValueError, match="each probability must be > 0"):
        MarkovChain(np.eye(3), 4)
    with pytest.raises(ValueError, match="sum to 1"):
        MarkovChain(np.full((2, 2), 0.4), 4)
