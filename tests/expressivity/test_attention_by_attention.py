"""Unmasked attention by causal and causal by unmasked: states, and runs of T steps with their steps and symbols."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.expressivity import Layers, accounting, causal_by_unmasked, transform, unmasked_by_causal
from mdmjax.expressivity.simulations import copies, earlier, everyone, grid

KEY = jax.random.key(0)
S, D, DEPTH = 6, 5, 3
transform_once = jax.jit(transform)


def problem():
    make = jax.jit(lambda key: (Layers.random(key, DEPTH, D, 7), jax.random.normal(jax.random.fold_in(key, 1), (S, D))))
    return make(KEY)


@pytest.mark.usefixtures("x64")
def test_unmasked_by_causal():
    """To 1e-12 in float64; all see earlier positions only; with one copy less it fails."""
    layers, x = problem()
    exact = transform_once(layers, x, everyone(S))
    np.testing.assert_allclose(jax.jit(unmasked_by_causal)(layers, x), exact, atol=1e-12)
    source, sees = copies(S, DEPTH)
    assert not np.triu(sees, 1).any()
    for steps in (1, 4):
        cost = accounting.mdm_to_parallel_chain(steps, S - 2, 2, DEPTH)
        assert cost == (steps, steps * (len(source) - S))
    source, sees = copies(S, DEPTH - 1)
    assert np.abs(transform_once(layers, x[source], sees)[-S:] - exact).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_causal_by_unmasked():
    """To 1e-12 in float64. Every row of the grid agrees about a position, and what is blank does not matter."""
    layers, x = problem()
    exact = transform_once(layers, x, earlier(S))
    np.testing.assert_allclose(jax.jit(causal_by_unmasked)(layers, x), exact, atol=1e-12)
    assert np.abs(transform_once(layers, x, everyone(S)) - exact).max() > 1e-3
    column, blank, sees = grid(S)
    cells = jnp.where(jnp.asarray(blank)[:, None], 99.0, x[column])
    states = transform_once(layers, cells, sees)
    np.testing.assert_allclose(states[~blank], exact[column[~blank]], atol=1e-12)
    for symbols in (1, 4):
        length = S - symbols
        assert accounting.parallel_chain_to_mdm(2, symbols, length) == (2, symbols + len(column))


def test_sizes_below_one_are_refused():
    for sizes, name in (((-1, 3, 4), "layers=-1"), ((1, 0, 4), "width=0"), ((1, 3, 0), "hidden=0")):
        with pytest.raises(ValueError, match=f"{name}: must be at least 1"):
            Layers.random(KEY, *sizes)


# ---- runs of T steps

N, P, T, V = 2, 4, 2, 4  # the input, what is written, in so many steps, tokens without the mask


def vectors(words=20):
    """(layers, vectors of tokens and of places, readout and planner's score, words)."""
    keys = jax.random.split(KEY, 5)
    normal = lambda k, *shape: jax.random.normal(keys[k], shape)
    tokens = jax.random.randint(keys[4], (words, N), 0, V)
    parts = 2 * normal(1, V + 1, D), normal(2, N + P, D), normal(3, D, V + 1)
    return Layers.random(keys[0], DEPTH, D, 7), *parts, jnp.pad(tokens, ((0, 0), (0, P)), constant_values=V)


def run(states_of, choose):
    """Canvases [B, T + 1, N + P] of T steps: `choose(s, tokens, score)` says which cells get their argmax."""
    layers, embedding, places, readout, canvas = vectors()

    def of_one(tokens):
        seen = [tokens]
        for s in range(T):
            found = states_of(s, layers, embedding[seen[-1]] + places) @ readout
            written = choose(s, seen[-1], found[:, V]) & (jnp.arange(N + P) >= N)
            seen.append(jnp.where(written, found[:, :V].argmax(-1), seen[-1]))
        return jnp.stack(seen)

    return np.asarray(jax.jit(jax.vmap(of_one))(canvas))


@pytest.mark.usefixtures("x64")
def test_an_mdm_is_a_parallel_chain():
    """Each step writes the canvas behind all that stands there, and L copies of it, and reads the last; all is causal.

    The planner is a head of the network and writes tokens anew, so that all is computed afresh. What is written beyond
    the canvases themselves is what theorem 3.4 counts.
    """
    source, sees = copies(N + P, DEPTH)
    chain = []  # the vectors of all that is written, for a word

    def causal(s, layers, x):
        chain[s:] = [x[source]]
        blocks = np.kron(np.eye(s + 1, dtype=bool), sees)
        assert not np.triu(blocks, 1).any()
        return transform(layers, jnp.concatenate(chain), blocks)[-(N + P) :]

    unmasked = lambda s, layers, x: transform(layers, x, everyone(N + P))
    choose = lambda s, tokens, score: score > 0
    direct = run(unmasked, choose)
    np.testing.assert_array_equal(run(causal, choose), direct)
    cost = accounting.mdm_to_parallel_chain(T, P, N, DEPTH)
    assert cost == (len(chain), sum(map(len, chain)) - T * (N + P))
    again = (direct[:, 1:] != direct[:, :-1]) & (direct[:, :-1] != V)
    assert again.any((1, 2)).mean() > 0.3 and len(np.unique(direct[:, -1], axis=0)) > 5


@pytest.mark.usefixtures("x64")
def test_a_parallel_chain_is_an_mdm():
    """P symbols from left to right, P / T at each step; the MDM has the grid of causal views beside its P outputs."""
    causal = lambda s, layers, x: transform(layers, x, earlier(N + P))
    cells = []

    def unmasked(s, layers, x):
        cells.append(P + len(grid(N + P)[0]))
        return causal_by_unmasked(layers, x)

    place = jnp.arange(N + P) - N
    choose = lambda s, tokens, score: (place // (P // T) == s) & (tokens == V)
    chain, mdm = run(causal, choose), run(unmasked, choose)
    np.testing.assert_array_equal(chain, mdm)
    written = chain[:, 1:] != chain[:, :-1]
    assert (written.sum(2) == P // T).all() and (chain[:, -1] < V).all() and len(np.unique(chain[:, -1], axis=0)) > 5
    assert {accounting.parallel_chain_to_mdm(T, P, N)} == {(len(cells), n) for n in cells}
    plain = lambda s, layers, x: transform(layers, x, everyone(N + P))
    assert (run(plain, choose) != chain).any()
