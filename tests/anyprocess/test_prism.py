"""PRISM: what its head learns, by enumeration of all masks, choices and fillings of a small language."""

import functools
import itertools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import Decoding, Prism, canvas_of, generate, with_quality
from mdmjax.anyprocess.prism import Filled, fill, quality, quality_loss, remask_logit
from mdmjax.process import Continuous, Copies

V, L = 2, 3
MASK, PAD = V, V + 1
WORDS = list(itertools.product(range(V), repeat=L))
LAW = Continuous(t_min=0.0)


@functools.cache
def language():
    """p of each word, far from independent, and a model that is wrong: P(value) at each position of each canvas."""
    draw = np.random.default_rng(2)
    p = draw.gamma(0.4, size=(V,) * L)
    return p / p.sum(), draw.dirichlet(np.ones(V), size=((V + 1,) * L + (L,)))


@functools.cache
def cases(count):
    """(word, masked, filled, y, P of all that): masks at a uniform rate, a uniform set of them, the model's values."""
    p, model = language()
    found = []
    for word, masks in itertools.product(WORDS, itertools.product((False, True), repeat=L)):
        where = [i for i in range(L) if masks[i]]
        z = tuple(MASK if m else x for x, m in zip(word, masks, strict=True))
        of_masks = p[word] / ((L + 1) * math.comb(L, len(where)))
        sets = list(itertools.combinations(where, min(count, len(where))))
        for chosen in sets:
            for values in itertools.product(range(V), repeat=len(chosen)):
                y = list(z)
                for i, v in zip(chosen, values, strict=True):
                    y[i] = v
                mass = of_masks / len(sets) * math.prod(model[z][i, v] for i, v in zip(chosen, values, strict=True))
                found.append((word, masks, chosen, tuple(y), mass))
    return found


def optimum(count):
    """{(y, i): P(x_i = y_i | y, i filled)}, and the same of what is known without y_i."""
    mass, right = defaultdict(float), defaultdict(float)
    without, clean = defaultdict(float), defaultdict(float)
    for word, _, chosen, y, m in cases(count):
        for i in chosen:
            mass[y, i] += m
            right[y, i] += m * (word[i] == y[i])
            rest = (*y[:i], MASK, *y[i + 1 :])
            without[rest, i] += m
            clean[rest, i, word[i]] += m
    best = {k: right[k] / mass[k] for k in mass}
    return best, {(y, i): clean[r, i, y[i]] / without[r, i] for y, i in mass for r in [(*y[:i], MASK, *y[i + 1 :])]}


def posterior(y, i):
    """P(x_i = y_i | the other visible tokens of y) under the data."""
    p, _ = language()
    agree = lambda w: all(a == b or b == MASK for j, (a, b) in enumerate(zip(w, y, strict=True)) if j != i)
    return sum(p[w] for w in WORDS if agree(w) and w[i] == y[i]) / sum(p[w] for w in WORDS if agree(w))


def test_one_filled_mask_teaches_the_posterior_of_the_data():
    """Whatever the model. With more, the best head is another than any that does not see the token itself."""
    best, without = optimum(1)
    assert len(best) > 40
    assert max(abs(q - posterior(y, i)) for (y, i), q in best.items()) < 1e-12
    assert max(abs(q - without[k]) for k, q in best.items()) < 1e-12
    best, without = optimum(2)
    assert max(abs(q - posterior(y, i)) for (y, i), q in best.items()) > 0.05
    assert max(abs(q - without[k]) for k, q in best.items()) > 0.02


@pytest.mark.parametrize("count", [1, 2])
def test_the_loss_is_stationary_and_least_there(count, x64):
    best, found = optimum(count)[0], cases(count)
    states = sorted({y for _, _, _, y, _ in found})
    number = jnp.array([states.index(y) for _, _, _, y, _ in found])
    filled = np.array([[i in chosen for i in range(L)] for _, _, chosen, _, _ in found])
    tokens, words = (np.array([case[k] for case in found]) for k in (3, 0))
    mass = jnp.array([m for *_, m in found])
    rows = Filled(jnp.asarray(tokens), jnp.asarray(filled), jnp.asarray(filled & (tokens == words)))
    q = np.array([[best.get((y, i), 0.5) for i in range(L)] for y in states])
    table = remask_logit(jnp.asarray(np.clip(q, 1e-12, 1 - 1e-12)))

    def expected(table):
        return mass @ quality_loss(jnp.zeros((len(found), L, 3)).at[..., 0].set(table[number]), rows)

    run = jax.jit(jax.value_and_grad(expected))
    value, gradient = run(table)
    assert float(jnp.abs(gradient).max()) < 1e-10
    noise = np.random.default_rng(0)
    assert all(run(table + jnp.asarray(noise.normal(size=table.shape)))[0] > value + 1e-3 for _ in range(5))
    controls = jnp.zeros((*q.shape, 3)).at[..., 0].set(table)
    np.testing.assert_allclose(quality(controls), np.clip(q, 1e-12, 1 - 1e-12), atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_draws_have_the_law_of_the_cases(count):
    """2^15 rows: how often each y comes with each set of filled positions."""
    rows = 2**15
    p, model = language()
    table, ids = jnp.log(jnp.asarray(model, jnp.float32)), jnp.arange(rows)

    @jax.jit
    def run(key):
        words = jax.random.categorical(key, jnp.log(jnp.asarray(p.reshape(-1), jnp.float32)), shape=(rows,))
        tokens = jnp.stack(jnp.unravel_index(words, (V,) * L), 1).astype(jnp.int32)
        masks = LAW.draw(key, ids, jnp.ones(tokens.shape, bool), batch=rows).masks
        z = jnp.where(masks, MASK, tokens)
        return tokens, fill(key, ids, table[z[:, 0], z[:, 1], z[:, 2]], tokens, masks, vocab=V, count=count)

    tokens, found = jax.tree.map(np.asarray, run(jax.random.key(1)))
    assert np.array_equal(found.right, found.filled & (found.tokens == tokens))
    law, seen = defaultdict(float), defaultdict(int)
    for word, _, chosen, y, m in cases(count):
        law[word, tuple(i in chosen for i in range(L)), y] += m
    for word, filled, y in zip(tokens.tolist(), found.filled.tolist(), found.tokens.tolist(), strict=True):
        seen[tuple(word), tuple(filled), tuple(y)] += 1
    assert set(seen) <= {k for k, m in law.items() if m > 0}
    off = max(abs(seen[k] - rows * m) / (math.sqrt(rows * m * (1 - m)) + 1) for k, m in law.items())
    assert off < 4.5


def test_the_objective_is_the_sum_of_its_parts():
    """By hand, from a policy that is a table by token; no gradient by way of the filled tokens."""
    batch = dict(tokens=jnp.array([[0, 1, 1], [1, 0, 3], [1, 1, 0]]), ids=jnp.arange(3), lengths=jnp.array([3, 2, 3]))
    table, key = np.random.default_rng(0).normal(size=(V + 2, V + 3)), jax.random.key(5)

    def nats(table, unmask):
        policy = lambda tokens, lengths: (table[tokens, :V], table[tokens, V:])
        return Prism(V, 2, LAW, unmask=unmask)(policy, batch, key, 3)

    @jax.jit
    def run(table):
        draws = LAW.draw(key, batch["ids"], batch["tokens"] != PAD, batch=3)
        logits = table[jnp.where(draws.masks, MASK, batch["tokens"]), :V]
        found = fill(key, batch["ids"], logits, batch["tokens"], draws.masks, vocab=V, count=2)
        return draws, found, nats(table, 0.5), jax.grad(lambda table: nats(table, 0.0).nats.sum())(table)

    draws, found, terms, gradient = jax.tree.map(np.asarray, run(jnp.asarray(table, jnp.float32)))
    for b in range(3):
        wanted = 0.0
        for i in range(3):
            x, y = int(batch["tokens"][b, i]), int(found.tokens[b, i])
            if draws.masks[b, i]:
                wanted -= 0.5 * draws.weights[b] * (table[MASK, x] - np.logaddexp.reduce(table[MASK, :V]))
            if found.filled[b, i]:
                wanted += math.log1p(math.exp(table[y, V] if y == x else -table[y, V]))
        assert abs(terms.nats[b] - wanted) < 1e-4 * max(1, abs(wanted))
        assert terms.scored[b] == min(2, draws.masks[b].sum())
    assert terms.tokens.tolist() == [3, 2, 3]
    assert (gradient[:, :V] == 0).all() and (gradient[:, V + 1 :] == 0).all() and (gradient[:, V] != 0).any()


def test_the_head_drives_the_remask_slot():
    """By a threshold on q, or the lowest so many; masks keep what the policy says of them."""
    values = jnp.array([0.0, 9.0])
    waits = jnp.array([-9.0, -9.0, -9.0])
    policy = lambda tokens, lengths: (
        jnp.broadcast_to(values, (*tokens.shape, V)),
        jnp.broadcast_to(waits, (*tokens.shape, 3)).at[:, 4, 0].set(9.0),
    )
    q = jnp.array([0.9, 0.2, 0.6, 0.05, 0.5, 0.01, 0.01])  # the last of padding, the two before of masks
    head = lambda tokens, lengths: jnp.broadcast_to(-remask_logit(q), tokens.shape)
    begin = canvas_of([(0, 0, 0, 0, MASK, MASK)], 7, vocab=V)

    def after(threshold=0.5, count=None):
        joined = with_quality(policy, head, vocab=V, count=count)
        made = lambda: generate(
            joined, begin, vocab=V, key=jax.random.key(0), limit=1, decoding=Decoding((threshold, 0.5, 0.5))
        )
        return jax.jit(made)().canvas.tokens[0, :6].tolist()

    assert after() == [0, MASK, 0, MASK, MASK, 1]  # q < 0.5
    assert after(0.3) == [0, MASK, MASK, MASK, MASK, 1]  # q < 0.7
    assert after(count=1) == [0, 0, 0, MASK, MASK, 1] and after(count=3) == [0, MASK, MASK, MASK, MASK, 1]


def test_what_will_not_do():
    with pytest.raises(ValueError, match=r"count=0\): at least one"):
        Prism(V, 0)
    batch = dict(tokens=jnp.zeros((2, L), int), ids=jnp.arange(2))
    policy = lambda tokens, lengths: (jnp.zeros((*tokens.shape, V)), jnp.zeros((*tokens.shape, 3)))
    with pytest.raises(ValueError, match="must hide a row in one way"):
        Prism(V, law=Continuous(ways=Copies(2)))(policy, batch, jax.random.key(0), 2)
