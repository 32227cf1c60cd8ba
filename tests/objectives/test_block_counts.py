"""Draws by blocks: the bound that they estimate, enumerated block by block."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import random_table, table_denoiser
from mdmjax.objectives import Against, negative_elbo
from mdmjax.objectives.policy_gradient import SPG, PolicyGradient
from mdmjax.process import Allocation, BlockCounts, ExactCount

V, L = 3, 6
ROW = jnp.array([2, 0, 2, 1, 1, 0])
ELIGIBLE = np.array([False, True, True, True, True, True])  # the first is a prompt
ROWS = 20_000


@pytest.fixture(scope="module")
def denoiser():
    return table_denoiser(random_table(jax.random.key(0), L, V, 1.5))


def enumerated(denoiser, block):
    """sum_b sum_l (1 / l) mean over subsets of l tokens of block b of the summed cross-entropy, all behind hidden."""
    places = np.flatnonzero(ELIGIBLE)
    total = 0.0
    for start in range(0, len(places), block):
        inside, behind = places[start : start + block], places[start + block :]
        for count in range(1, len(inside) + 1):
            subsets = list(itertools.combinations(inside, count))
            for subset in subsets:
                canvas = ROW.at[jnp.array([*subset, *behind])].set(V)
                log_p = jax.nn.log_softmax(denoiser(canvas[None])[0])
                total -= float(log_p[jnp.array(subset), ROW[jnp.array(subset)]].sum()) / count / len(subsets)
    return total


def drawn(denoiser, law, count=ROWS):
    tokens, eligible = jnp.tile(ROW[None], (count, 1)), jnp.tile(jnp.asarray(ELIGIBLE)[None], (count, 1))
    draws = law.draw(jax.random.key(3), jnp.arange(count), eligible, batch=1)
    return draws, negative_elbo(denoiser, tokens, draws, vocab=V, eligible=eligible)


@pytest.mark.parametrize("block", [1, 2, 3, 9])
def test_the_mean_is_the_bound_by_blocks(denoiser, block):
    _, terms = drawn(denoiser, BlockCounts(block))
    nats = np.asarray(terms.nats, np.float64)
    assert abs(nats.mean() - enumerated(denoiser, block)) < 4 * nats.std() / np.sqrt(ROWS)


def test_what_is_hidden(denoiser):
    """Before the block nothing, in it what is scored, behind it all; the prompt never."""
    draws, _ = drawn(denoiser, BlockCounts(2), 500)
    masks, scored = np.asarray(draws.masks), np.asarray(draws.weights) > 0
    assert not masks[:, 0].any() and (masks | ~scored).all()
    blocks = (np.arange(L) - 1) // 2
    for mask, some in zip(masks, scored, strict=True):
        (chosen,) = set(blocks[some])
        assert mask[blocks > chosen].all() and not mask[1:][blocks[1:] < chosen].any()
        assert (mask == some)[blocks == chosen].all()
    assert {tuple(m) for m in scored[:, 1:3]} == {(a, b) for a in (False, True) for b in (False, True)}


def test_a_block_as_long_as_the_row_is_an_exact_count(denoiser):
    """The same law of the number and of the mask."""
    one, other = (drawn(denoiser, law, 5) for law in (BlockCounts(9), ExactCount()))
    assert (one[0].masks == other[0].masks).all()
    np.testing.assert_allclose(one[1].nats, other[1].nats, rtol=1e-6)


def test_a_policy_gradient_by_blocks(denoiser):
    """SPG's surrogate of what is to become likelier is the bound by blocks, on average."""
    count = 4000
    batch = dict(tokens=jnp.tile(ROW[None], (count, 1)), eligible=jnp.tile(jnp.asarray(ELIGIBLE)[None], (count, 1)))
    batch |= dict(ids=jnp.arange(count), advantages=jnp.ones(count))
    objective = PolicyGradient(V, SPG(allocation=Allocation(2), law=BlockCounts(2)))
    found = -np.asarray(objective(Against(denoiser), batch, jax.random.key(0), count).nats, np.float64)
    assert abs(found.mean() + enumerated(denoiser, 2)) < 4 * found.std() / np.sqrt(count)


def test_mistakes():
    with pytest.raises(ValueError, match=r"BlockCounts\(block=0\): must be at least 1"):
        BlockCounts(0)
