"""DreamOn: EXPAND and DELETE as controls of the transition, their labels, and strings whose length is not known."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    IGNORE,
    REASONS,
    DreamOn,
    canvas_of,
    expand_controls,
    expanding_policy,
    generate,
    transition,
)
from mdmjax.anyprocess.dreamon import Merging, most_certain
from mdmjax.process import Continuous, Copies

LAW = Continuous(t_min=0.0)


def test_labels_are_controls():
    """Each label at masks, side by side; at other positions labels are not read."""
    V, M = 3, 3
    canvas = canvas_of([(0, M, M, 1, M, M), (M, 2)], 9, vocab=V)
    labels = jnp.array([[3, 3, 4, 4, 2, IGNORE, 3, 3, 3], [4, 3, 3, 3, 3, 3, 3, 3, 3]])
    made = jax.jit(lambda: transition(canvas, expand_controls(labels, canvas, vocab=V), vocab=V))()
    assert made.tokens[0, : made.lengths[0]].tolist() == [0, M, M, 1, 2, M]
    assert made.tokens[1, : made.lengths[1]].tolist() == [2]
    certainty = jnp.array([[9.0, 1.0, 3.0, 9.0, 2.0, 3.0, 9.0, 9.0, 9.0]] * 2)
    chosen = jax.jit(lambda: most_certain(labels, certainty, canvas, vocab=V, count=2))()
    assert chosen[0].tolist() == [-1, -1, 4, -1, -1, IGNORE, -1, -1, -1] and chosen[1].tolist() == [4] + [-1] * 8


def test_labels_lead_where_they_should():
    """All masks, mergers and up to two surplus masks of rows of three tokens and of two."""
    V, L, N = 4, 3, 6
    rows = []
    for n in (2, 3):
        for masks in itertools.product((False, True), repeat=n):
            may = [i for i in range(1, n) if masks[i] and masks[i - 1]]
            for joined in itertools.chain.from_iterable(itertools.combinations(may, k) for k in range(len(may) + 1)):
                for gaps in itertools.product((IGNORE, *range(n)), repeat=2):
                    rows.append((n, masks, joined, gaps))
    count = len(rows)
    tokens, lengths = np.full((count, L), V + 1, np.int32), np.array([n for n, *_ in rows], np.int32)
    masked, merged = np.zeros((2, count, L), bool)
    surplus = np.full((count, L), IGNORE, np.int32)
    for row, (n, masks, joined, gaps) in enumerate(rows):
        tokens[row, :n], masked[row, :n], surplus[row, :2] = (3, 1, 2)[:n], masks, gaps
        merged[row, list(joined)] = True
    noise = Merging(jnp.ones(count), jnp.asarray(masked), jnp.asarray(merged), jnp.asarray(surplus))

    @jax.jit
    def run():
        canvas, labels = DreamOn(V).corrupt(jnp.asarray(tokens), jnp.asarray(lengths), noise)
        return canvas, labels, transition(canvas, expand_controls(labels, canvas, vocab=V), vocab=V)

    canvas, labels, made = jax.tree.map(np.asarray, run())
    for row, (n, masks, joined, gaps) in enumerate(rows):
        here, after = [], []
        for i in range(n):
            if i not in joined:
                here.append(V if masks[i] else int(tokens[row, i]))
                after += [V, V] if i + 1 in joined else [int(tokens[row, i])]
            here += [V] * gaps.count(i)
        assert canvas.tokens[row].tolist() == here + [V + 1] * (N - len(here)) and canvas.lengths[row] == len(here)
        assert made.tokens[row].tolist() == after + [V + 1] * (N - len(after))
        assert ((labels[row] != IGNORE) == (canvas.tokens[row] == V)).all()
        # in a run of masks the surplus ones are the last
        for _, run_ in itertools.groupby(range(len(here)), lambda i: here[i] == V):
            gone = [bool(labels[row, i] == V + 1) for i in run_]
            assert gone == sorted(gone)
    assert not canvas.overflow.any() and {IGNORE, 1, 2, 3, V, V + 1} == set(labels.reshape(-1).tolist())


def test_the_law_of_the_draws():
    """Shares of merged masks and of surplus ones, each within 4.5 of its standard errors; eligible tokens only."""
    rows, L = 2**13, 4
    eligible = jnp.broadcast_to(jnp.array([False, True, True, True]), (rows, L))
    objective = DreamOn(3, LAW, merge=0.8, surplus=0.3)
    ids, lengths = jnp.arange(rows), jnp.full(rows, L).at[::2].set(3)
    noise = jax.jit(lambda: objective.draw(jax.random.key(0), ids, lengths, eligible, batch=rows))()
    masks, joined, surplus = (np.asarray(x) for x in noise[1:])
    assert not masks[:, 0].any() and not (joined & ~(masks & np.roll(masks, 1, axis=1))).any()
    both = masks[:, 1] & masks[:, 2]
    near = lambda found, p, n: abs(found - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    assert near(joined[both, 2].mean(), 0.4, both.sum())
    three = both & masks[:, 3]
    assert near((joined[three, 2] & joined[three, 3]).mean(), 0.8**2 / 3, three.sum())  # of one rate: not 0.4^2
    for first, n in ((0, 3), (1, 4)):
        of = surplus[first::2]
        assert near((of >= 0).sum() / (len(of) * n), 0.3, len(of) * n) and of.max() == n - 1
        assert near((of[of >= 0] == n - 1).mean(), 1 / n, (of >= 0).sum())


def test_the_objective_is_the_sum_of_its_parts():
    """By hand, from a model that is a table by token; rows that do not fit are left out."""
    V = 2
    batch = dict(
        tokens=jnp.array([[0, 1, 1, 0], [1, 0, 3, 3], [1, 1, 0, 0]] * 4),
        ids=jnp.arange(12),
        lengths=jnp.array([4, 2, 4] * 4),
    )
    table, key = np.random.default_rng(0).normal(size=(V + 2, V + 2)), jax.random.key(5)
    table32 = jnp.asarray(table, jnp.float32)

    @jax.jit
    def run():
        found = []
        for weighted in (True, False):
            objective = DreamOn(V, LAW, surplus=0.6, room=5, weighted=weighted)
            found.append(objective(lambda tokens, lengths: table32[tokens], batch, key, 12))
        eligible = jnp.arange(4)[None] < batch["lengths"][:, None]
        noise = objective.draw(key, batch["ids"], batch["lengths"], eligible, batch=12)
        return noise, objective.corrupt(batch["tokens"], batch["lengths"], noise), found

    noise, (canvas, labels), (weighted, plain) = jax.tree.map(np.asarray, run())
    assert 0 < canvas.overflow.sum() < 12
    for b in range(12):
        wanted = sum(np.logaddexp.reduce(table[V]) - table[V, y] for y in labels[b] if y != IGNORE)
        assert abs(plain.nats[b] - wanted) < 1e-5 * max(1, wanted) and plain.scored[b] == (labels[b] != IGNORE).sum()
        np.testing.assert_allclose(weighted.nats[b], noise.weights[b] * wanted, rtol=1e-5)
        assert plain.tokens[b] == (0 if canvas.overflow[b] else batch["lengths"][b])
        assert not (canvas.overflow[b] and wanted)


# ---- strings of unknown length ---------------------------------------------------------------------------------------

STRINGS = ((), (1,), (0, 1), (1, 1, 0))  # of a name each, which says all
V, N = 7, 8  # two letters, four names, and the end
NAME, END, MASK, PAD = 2, 6, V, V + 1
WIDTH = 4 ** (N - 1)


def state_number(tokens):
    """A canvas of a name, letters, masks and an end as a number."""
    kind = jnp.select([tokens < 2, tokens == MASK], [tokens, 2], 3)[:, 1:]
    return (tokens[:, 0] - NAME) * WIDTH + (kind * 4 ** jnp.arange(N - 1)[None]).sum(1)


# as many masks as a name ever has in training, where at most as many as a row is long are surplus
BEGINS = [(NAME + i, *[MASK] * k, END) for i, s in enumerate(STRINGS) for k in range(1, 3 + len(s))]


def generated(objective):
    """What is made of BEGINS, one mask a step, by a table of how often each label comes with each canvas."""
    rows, L = 2**14, 5
    text = np.full((len(STRINGS), L), PAD, np.int32)
    for name, string in enumerate(STRINGS):
        text[name, : len(string) + 2] = (NAME + name, *string, END)

    @jax.jit
    def run(begin):
        tokens = jnp.asarray(text)[jnp.arange(rows) % len(STRINGS)]
        lengths = (tokens != PAD).sum(1)
        noise = objective.draw(jax.random.key(0), jnp.arange(rows), lengths, tokens < 2, batch=rows)
        canvas, labels = objective.corrupt(tokens, lengths, noise)
        counts = jnp.zeros((len(STRINGS) * WIDTH, N, V + 2))
        at = jnp.where(labels == IGNORE, N, jnp.arange(N)[None])
        counts = counts.at[state_number(canvas.tokens)[:, None], at, jnp.maximum(labels, 0)].add(1.0, mode="drop")
        policy = expanding_policy(lambda tokens, lengths: jnp.log(counts[state_number(tokens)] + 1e-6), vocab=V)
        return generate(policy, begin, vocab=V, key=jax.random.key(0), limit=20)

    return jax.tree.map(np.asarray, run(canvas_of(BEGINS, N, vocab=V)))


def test_a_table_of_labels_finds_strings_of_unknown_length():
    """Whatever the number of masks at the beginning; and the operations add up."""
    found = generated(DreamOn(V, LAW, merge=0.8, surplus=0.15, room=N))
    for row, begin in enumerate(BEGINS):
        string = STRINGS[begin[0] - NAME]
        made = found.canvas.tokens[row, : found.canvas.lengths[row]].tolist()
        assert made == [begin[0], *string, END] and not found.canvas.overflow[row], begin
        unmasked, remasked, inserted, deleted = found.operations[row].tolist()
        assert unmasked == len(string) and inserted - deleted == len(string) - (len(begin) - 2) and remasked == 0
        assert REASONS[found.reason[row]] == "fixed point"
    assert (found.operations[:, 2] > 0).any() and (found.operations[:, 3] > 0).any()


def test_expand_and_delete_may_undo_one_another_without_end():
    """Two masks for two tokens, where "merged, and one too many" is likelier than "one each"."""
    found = generated(DreamOn(V, LAW, merge=1.0, surplus=0.5, room=N))
    endless = [REASONS[reason] == "step limit" for reason in found.reason]
    assert any(endless) and not all(endless)
    assert (found.operations[endless, 2] >= 8).all() and (found.operations[endless, 3] >= 8).all()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DreamOn(3, merge=1.5), r"merge=1.5\): must be in"),
        (lambda: DreamOn(3, surplus=-0.1), r"surplus=-0.1\): must be in"),
        (
            lambda: DreamOn(3, Continuous(ways=Copies(2))).draw(
                jax.random.key(0), jnp.arange(2), jnp.full(2, 3), jnp.ones((2, 3), bool), batch=2
            ),
            "must hide a row in one way",
        ),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
