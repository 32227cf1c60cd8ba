"""Positions of a prompt that are eligible now and then, and tokens that are hidden more often, by their ids."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import all_masks, random_table, table_denoiser
from mdmjax.base import Draws
from mdmjax.objectives import MaskedDiffusion
from mdmjax.process import Delimiters, ExactCount, also_eligible, iid

pytestmark = pytest.mark.usefixtures("x64")

V, L, N, SHARE = 3, 4, 4000, 0.3
ROW = jnp.array([2, 0, 1, 1])
ELIGIBLE, EXTRA = jnp.array([False, False, True, True]), jnp.array([True, True, False, False])


@dataclasses.dataclass(frozen=True)
class EveryMask:
    """All masks as the ways of a row, each with its share of the bound: r^(k-1) (1-r)^(n-k) over r, times the ways."""

    ways: Callable = all_masks

    def draw(self, key, ids, eligible, *, batch):
        masks = jnp.broadcast_to(jnp.asarray(self.ways(L)), (len(ids), 2**L, L))
        n, size = np.arange(L + 1)[:, None], np.arange(L + 1)[None]
        beta = np.vectorize(lambda n, k: 1 / (k * math.comb(n, k)) if 1 <= k <= n else 0.0)
        fits = (masks <= eligible[:, None]).all(2)
        weights = jnp.where(fits, 2**L * jnp.asarray(beta(n, size))[eligible.sum(1)[:, None], masks.sum(2)], 0)
        again = jnp.repeat(ids, 2**L)
        return Draws(again, jnp.zeros(len(again)), masks.reshape(-1, L), weights.reshape(-1), again)


def denoiser():
    return table_denoiser(random_table(jax.random.key(0), L, V, 2.0))


def bound(eligible):
    """-log p in nats, one token after the other: the mean over all orders of the eligible positions."""
    places = np.flatnonzero(eligible)
    total = 0
    for order in itertools.permutations(places):
        for step, i in enumerate(order):
            hidden = jnp.isin(jnp.arange(L), jnp.array(order[step:]))
            logits = denoiser()(jnp.where(hidden, V, ROW)[None], None)[0, i]
            total -= jax.nn.log_softmax(logits)[ROW[i]]
    return float(total) / math.factorial(len(places))


def terms(objective, **fields):
    batch = {"tokens": jnp.broadcast_to(ROW, (N, L)), "ids": jnp.arange(N)}
    batch |= {name: jnp.broadcast_to(where, (N, L)) for name, where in fields.items()}
    return jax.tree.map(np.asarray, jax.jit(lambda b: objective(denoiser(), b, jax.random.key(1), N))(batch))


def test_the_mean_is_that_over_sets_of_positions():
    """Each row has the bound of its own set, to rounding, and the sets have the probabilities that they should."""
    found = terms(MaskedDiffusion(V, EveryMask(), extra=SHARE), eligible=ELIGIBLE, extra=EXTRA)
    sets = [ELIGIBLE | jnp.array([*some, False, False]) for some in itertools.product([False, True], repeat=2)]
    truth = np.array([bound(np.asarray(eligible)) for eligible in sets])
    assert np.diff(np.sort(truth)).min() > 1e-3  # told apart
    which = np.abs(found.nats[:, None] - truth).argmin(1)
    np.testing.assert_allclose(found.nats, truth[which], rtol=1e-12)
    np.testing.assert_array_equal(found.tokens, np.array([int(eligible.sum()) for eligible in sets])[which])
    p = np.array([SHARE ** int(s.sum() - 2) * (1 - SHARE) ** int(4 - s.sum()) for s in sets])
    assert np.abs(np.bincount(which) / N - p).max() < 4 * 0.5 / math.sqrt(N)
    assert abs(found.nats.mean() - p @ truth) < 4 * found.nats.std() / math.sqrt(N)
    # under a law that draws, too
    drawn = terms(MaskedDiffusion(V, ExactCount(iid), extra=SHARE), eligible=ELIGIBLE, extra=EXTRA)
    assert abs(drawn.nats.mean() - p @ truth) < 4 * drawn.nats.std() / math.sqrt(N)
    np.testing.assert_array_equal(drawn.tokens, found.tokens)  # the sets do not depend on the law


def test_no_extra_is_the_plain_objective():
    plain = terms(MaskedDiffusion(V), eligible=ELIGIBLE)
    jax.tree.map(np.testing.assert_array_equal, terms(MaskedDiffusion(V), eligible=ELIGIBLE, extra=EXTRA), plain)
    jax.tree.map(
        np.testing.assert_array_equal,
        terms(MaskedDiffusion(V, extra=1.0), eligible=ELIGIBLE, extra=EXTRA),
        terms(MaskedDiffusion(V)),
    )


def test_sets_belong_to_the_example():
    key, among = jax.random.key(0), jnp.ones((8, 50), bool)
    whole = also_eligible(key, jnp.arange(8), among, 0.5)
    np.testing.assert_array_equal(also_eligible(key, jnp.arange(3, 5), among[:2], 0.5), whole[3:5])
    assert not np.array_equal(whole[0], whole[1])
    # and not to the numbers that hide tokens
    masks = ExactCount().draw(key, jnp.arange(8), among, batch=8).masks
    assert abs(np.corrcoef(whole.ravel(), masks.ravel())[0, 1]) < 4 / math.sqrt(400)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: MaskedDiffusion(V, extra=1.5), r"extra=1.5.*\[0, 1\]"),
        (lambda: terms(MaskedDiffusion(V, extra=0.5), eligible=ELIGIBLE), "the batch has no `extra`"),
        (lambda: terms(MaskedDiffusion(V, Delimiters())), r"often=\(\).*give the ids"),
    ],
)
def test_what_is_missing_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_tokens_of_some_ids_are_hidden_more_often():
    """The same draws as with a batch that says where they are, which comes first."""
    by_place = terms(MaskedDiffusion(V, Delimiters()), often=ROW != 1)
    jax.tree.map(np.testing.assert_array_equal, terms(MaskedDiffusion(V, Delimiters(often=(0, 2)))), by_place)
    batch_first = terms(MaskedDiffusion(V, Delimiters(often=(1,))), often=ROW != 1)
    jax.tree.map(np.testing.assert_array_equal, batch_first, by_place)
    assert not np.array_equal(terms(MaskedDiffusion(V, Delimiters(often=(1,)))).nats, by_place.nats)
