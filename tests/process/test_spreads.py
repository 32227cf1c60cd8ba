"""How counts are spread over the draws of a row, by enumeration of what chance decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.process.spreads import Spread, stratified, systematic


def counts(strata, size, place, monkeypatch):
    """Those of draws in all strata whose place is the given one: 0..size-1."""
    monkeypatch.setattr(jax.random, "randint", lambda key, shape, low, high: jnp.asarray(place))
    keys = jax.random.split(jax.random.key(0), strata)
    spread = Spread(jnp.arange(strata), strata, keys, jnp.zeros(strata, jnp.int32))
    return np.asarray(spread.integers(jnp.full(strata, size)))


@pytest.mark.parametrize("size, draws", [(24, 16), (3, 2), (17, 16), (8, 16), (7, 7)])
def test_systematic_counts_are_uniform_and_even(size, draws, monkeypatch):
    """Over all places each count comes equally often; in one set of draws each comes floor(b / L) or ceil(b / L) times,
    and each once where b = L."""
    sets = np.stack([counts(draws, size, place, monkeypatch) for place in range(size)])
    assert (np.bincount(sets.ravel(), minlength=size) == draws).all()
    for one in sets:
        times = np.bincount(one, minlength=size)
        assert times.max() - times.min() <= 1 and set(times) <= {draws // size, -(-draws // size)}
    if size == draws:
        assert (np.sort(sets, 1) == np.arange(size)).all()


@pytest.mark.parametrize("spread", [systematic, stratified])
def test_each_draw_goes_through_all_strata(spread):
    """By the shift of its set, each as often as the others: so a single draw is uniform."""
    batch, sets = 6, 6000
    found = spread(jax.random.key(1), jnp.arange(batch * sets), batch)
    strata = np.asarray(found.stratum).reshape(sets, batch)
    assert (np.sort(strata, 1) == np.arange(batch)).all()
    share = np.stack([np.bincount(x, minlength=batch) for x in strata.T]) / sets
    assert np.abs(share - 1 / batch).max() < 5 * np.sqrt(1 / batch / sets)
    assert (np.diff(np.asarray(found.groups).reshape(sets, batch)) == 0).all()
