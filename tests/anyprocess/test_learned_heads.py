"""What the decisions learn on a language small enough to enumerate: the posteriors, found by gradient descent."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.anyprocess import CONTROLS, SelfSupervised
from mdmjax.anyprocess.corruptions import delete, insert, remask
from mdmjax.training import Step, init_state

V, L, ROWS, STEPS = 3, 3, 256, 200
MASK, PAD = V, V + 1


@functools.cache
def language():
    """p [V, V, V], far from independent."""
    p = np.random.default_rng(1).gamma(0.25, size=(V,) * L)
    return p / p.sum()


def state_number(tokens):
    """A canvas, of any size, as a number."""
    return (tokens * (V + 2) ** jnp.arange(tokens.shape[1])[None]).sum(1)


def learnt(corruption):
    """A table of the decisions' logits [(V + 2)^N, N, 3], learnt from text, on the one training loop."""
    size = corruption.room(L)

    def bind(table):
        return lambda tokens, lengths: (jnp.zeros((*tokens.shape, V)), table[state_number(tokens)])

    optimizer = optax.adam(optax.cosine_decay_schedule(0.3, STEPS))
    init = lambda key: jnp.zeros(((V + 2) ** size, size, 3))
    step = Step(bind, SelfSupervised(V, (corruption,)), optimizer, lambda step: 0.0, ROWS)
    law = jnp.log(jnp.asarray(language().reshape(-1), jnp.float32))

    def body(state, number):
        words = jax.random.categorical(jax.random.fold_in(jax.random.key(5), number), law, shape=(ROWS,))
        tokens = jnp.stack(jnp.unravel_index(words, (V,) * L), 1)
        return step(state, dict(tokens=tokens, ids=number * ROWS + jnp.arange(ROWS)))

    run = jax.jit(lambda: jax.lax.scan(body, init_state(init, optimizer, jax.random.key(0)), jnp.arange(STEPS)))
    return np.asarray(run()[0].params, np.float64)


def add(joint, canvas, labels, mass):
    """Adds the mass of a corruption to P(canvas) and to P(canvas, label at each position)."""
    total, ones = joint.setdefault(canvas, [0.0, np.zeros(len(canvas))])
    joint[canvas] = [total + mass, ones + mass * np.array(labels)]


def words():
    return ((word, language()[word]) for word in itertools.product(range(V), repeat=L))


def at_a_uniform_rate(k, n):
    """P(k given positions of n are hit, the others not) where the rate is uniform: the integral of r^k (1-r)^(n-k)."""
    return 1 / ((n + 1) * math.comb(n, k))


def remask_joint():
    """Each token hit is any of V."""
    joint = {}
    for (word, p), canvas in itertools.product(words(), itertools.product(range(V), repeat=L)):
        differs = [a != b for a, b in zip(word, canvas, strict=True)]
        for hit in itertools.product((False, True), repeat=L):
            if all(h or not d for h, d in zip(hit, differs, strict=True)):
                add(joint, canvas, differs, p * at_a_uniform_rate(sum(hit), L) / V ** sum(hit))
    return joint


def insert_joint():
    """The first token stays."""
    joint = {}
    for (word, p), dropped in itertools.product(words(), itertools.product((False, True), repeat=L - 1)):
        kept = [i for i in range(L) if i == 0 or not dropped[i - 1]]
        labels = [i < L - 1 and dropped[i] for i in kept]
        add(joint, tuple(word[i] for i in kept), labels, p * at_a_uniform_rate(sum(dropped), L - 1))
    return joint


def delete_joint(surplus=0.3):
    """The last masks of a run are surplus. A surplus mask stands behind each of L positions alike."""
    joint = {}
    gaps = [(k, g) for k in range(L + 1) for g in itertools.product(range(L), repeat=k)]
    for (word, p), masks, (k, places) in itertools.product(words(), itertools.product((False, True), repeat=L), gaps):
        row, true = [], []
        for i in range(L):
            row += [MASK if masks[i] else word[i]] + [MASK] * places.count(i)
            true += [True] + [False] * places.count(i)
        labels = []
        for masked, run in itertools.groupby(zip(row, true, strict=True), lambda piece: piece[0] == MASK):
            found = [t for _, t in run]
            labels += sorted(not t for t in found) if masked else [False] * len(found)
        mass = p * at_a_uniform_rate(sum(masks), L) * math.comb(L, k) * surplus**k * (1 - surplus) ** (L - k) / L**k
        add(joint, tuple(row), labels, mass)
    return joint


def points(joint, table, control, where=lambda token: True):
    """(weight, posterior, learnt probability) of each position of each canvas."""
    size, out = table.shape[1], []
    padded = jnp.array([[*canvas, *[PAD] * (size - len(canvas))] for canvas in joint])
    for (canvas, (mass, ones)), place in zip(joint.items(), np.asarray(jax.jit(state_number)(padded)), strict=True):
        logits = table[place, :, control]
        out += [(mass, ones[i] / mass, 1 / (1 + math.exp(-logits[i]))) for i, x in enumerate(canvas) if where(x)]
    return np.array(out).T


def auc(weight, posterior, score):
    """P(a position that is to be changed scores above one that is not), ties half."""
    positive, negative = weight * posterior, weight * (1 - posterior)
    above = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    return positive @ above @ negative / (positive.sum() * negative.sum())


CASES = dict(
    remask=(remask(), remask_joint, lambda x: True),
    insert=(insert(), insert_joint, lambda x: True),
    delete=(delete(), delete_joint, lambda x: x == MASK),
)


@pytest.mark.parametrize("kind", CASES)
def test_decisions_learn_the_posterior(kind):
    """Calibrated, and as good at telling positions apart as the posterior itself."""
    corruption, joint, where = CASES[kind]
    joint = joint()
    assert abs(sum(mass for mass, _ in joint.values()) - 1) < 1e-9
    weight, posterior, found = points(joint, learnt(corruption), CONTROLS.index(kind), where)
    weight /= weight.sum()
    error = weight @ np.abs(found - posterior)
    best, reached = auc(weight, posterior, posterior), auc(weight, posterior, found)
    print(f"{kind}: mean error of the probability {error:.4f}, AUC {reached:.4f}, of the posterior {best:.4f}")
    assert error < 0.025
    assert reached > best - 0.01 and best > 0.6


def test_the_released_labels_of_delete_teach_nothing():
    """A table that has learnt them says about 0.3 at each mask, and deletes none of those that are surplus."""
    corruption, joint, where = CASES["delete"]
    joint = joint()
    table = learnt(delete(labels="iid"))
    # canvases of at most L positions are all that it has seen
    seen = {canvas: x for canvas, x in joint.items() if len(canvas) <= L}
    weight, posterior, found = points(seen, table, CONTROLS.index("delete"), where)
    weight /= weight.sum()
    assert weight @ np.abs(found - 0.3) < 0.05
    assert weight[found > 0.5].sum() < 0.01
