"""Corruptions of clean text: labels by hand on every small case; the laws of the noise."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corrupted_rows import KINDS, corrupt, draw, made

from mdmjax.analysis.bounds import continuous_bound
from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.anyprocess import (
    IGNORE,
    Controls,
    Corruption,
    Noise,
    SelfSupervised,
    Targets,
    corruptions,
    policy_losses,
    transition,
)
from mdmjax.anyprocess.corruptions import delete, insert, mixed, permute, remask, unmask
from mdmjax.process import Copies, ExactCount, iid

losses_of = jax.jit(policy_losses)
each_kind = pytest.mark.parametrize("kind", KINDS)


# ---- labels ----------------------------------------------------------------------------------------------------------

V = 3
MASK, PAD = V, V + 1
CLEAN = (2, 0, 1)


@functools.cache
def every_small_case():
    """All noise on three clean tokens: masks, one wrong value, dropped tokens, up to two surplus masks."""
    cases = itertools.product(
        itertools.product((False, True), repeat=3),
        itertools.product((IGNORE, 1), repeat=3),
        itertools.product((False,), (False, True), (False, True)),
        [(a, b, IGNORE) for a in (IGNORE, 0, 1, 2) for b in (IGNORE, 0, 1, 2)],
    )
    cases = list(cases)
    masks, wrong, dropped, surplus = (jnp.asarray(np.array(x)) for x in zip(*cases, strict=True))
    rows = len(cases)
    assert rows == 8 * 8 * 4 * 16
    noise = Noise(jnp.ones(rows), jnp.ones(rows), masks, wrong, dropped, surplus, None)
    tokens, lengths = jnp.tile(jnp.array(CLEAN), (rows, 1)), jnp.full(rows, 3)
    return cases, tokens, lengths, noise


def by_hand(masks, wrong, dropped, surplus):
    """(canvas, values, remask, insert, delete, the row that the labels lead to), as lists."""
    pieces = []  # (token, clean position or None)
    for i, x in enumerate(CLEAN):
        if not dropped[i]:
            pieces.append((MASK if masks[i] else x if wrong[i] == IGNORE else wrong[i], i))
        pieces.extend([(MASK, None)] * surplus.count(i))
    out = []
    for masked, run in itertools.groupby(pieces, lambda piece: piece[0] == MASK):
        run = list(run)
        if masked:  # the last ones are surplus
            origins = [i for _, i in run if i is not None]
            run = [(MASK, i) for i in origins] + [(MASK, None)] * (len(run) - len(origins))
        out += run
    canvas = [x for x, _ in out]
    values = [CLEAN[i] if x == MASK and i is not None else IGNORE for x, i in out]
    wrongs = [x != MASK and x != CLEAN[i] for x, i in out]
    gone = [i is not None and i < 2 and dropped[i + 1] for _, i in out]
    goal = []
    for i, x in enumerate(CLEAN):
        if not dropped[i]:
            goal.append(MASK if not masks[i] and wrong[i] not in (IGNORE, x) else x)
        elif not dropped[i - 1]:
            goal.append(MASK)
    return canvas, values, wrongs, gone, [i is None for _, i in out], goal


def test_labels_of_every_small_case():
    """The canvas, its labels, and where the transition by them leads, against lists."""
    cases, tokens, lengths, noise = every_small_case()
    canvas, targets = corrupt(mixed(), tokens, lengths, noise, V)
    controls = Controls(targets.values, *(jnp.moveaxis(targets.controls, -1, 0)))
    move = jax.jit(lambda canvas, controls: transition(canvas, controls, vocab=V))
    after = move(canvas, controls._replace(insert=controls.insert.astype(jnp.int32)))
    size = canvas.tokens.shape[1]
    pad = lambda x, fill: [*x, *[fill] * (size - len(x))]
    expected = [by_hand(*case) for case in cases]
    for found, column, fill in [
        (canvas.tokens, 0, PAD),
        (targets.values, 1, IGNORE),
        (targets.controls[..., 0], 2, False),
        (targets.controls[..., 1], 3, False),
        (targets.controls[..., 2], 4, False),
        (after.tokens, 5, PAD),
    ]:
        np.testing.assert_array_equal(found, [pad(row[column], fill) for row in expected])
    inside = np.asarray(canvas.tokens) != PAD
    masked = np.asarray(canvas.tokens) == MASK
    np.testing.assert_array_equal(targets.scored, np.stack([inside & ~masked, inside, masked], -1))
    np.testing.assert_array_equal(canvas.lengths, inside.sum(1))
    assert not canvas.overflow.any()


def test_a_row_that_does_not_fit_is_marked_and_left_out():
    cases, tokens, lengths, noise = every_small_case()
    canvas, targets = corrupt(mixed(), tokens, lengths, noise, V, size=3)
    needed = np.array([3 - sum(case[2]) + sum(x >= 0 for x in case[3]) for case in cases])
    np.testing.assert_array_equal(canvas.overflow, needed > 3)
    np.testing.assert_array_equal(canvas.lengths, np.minimum(needed, 3))
    assert not targets.scored[needed > 3].any() and (targets.values[needed > 3] == IGNORE).all()
    assert targets.scored[needed <= 3].any((1, 2)).all()


@each_kind
def test_each_corruption_teaches_its_own_loss(kind):
    """The others have no terms; what is beyond a row's length is PAD, and never learnt."""
    lengths = jnp.arange(200) % 9
    inside = jnp.arange(8)[None] < lengths[:, None]
    tokens = jnp.where(inside, jax.random.randint(jax.random.key(1), (200, 8), 0, 4), 5)
    _, (canvas, targets) = jax.tree.map(np.asarray, made(KINDS[kind], tokens, 4, lengths=lengths))
    zeros = lambda n: jnp.zeros((*canvas.tokens.shape, n))
    losses = jax.tree.map(np.asarray, losses_of(zeros(4), zeros(3), targets))
    found = [losses.unmask.sum() > 0, *(losses.controls.sum(0) > 0)]
    names = ["unmask", "remask", "insert", "delete"]
    wanted = names if kind == "mixed" else ["delete"] if kind == "released" else [kind]
    assert [name for name, there in zip(names, found, strict=True) if there] == wanted
    outside = np.arange(canvas.tokens.shape[1]) >= np.asarray(canvas.lengths)[:, None]
    np.testing.assert_array_equal(canvas.tokens == 5, outside)
    assert not targets.scored[outside].any() and (targets.values[outside] == IGNORE).all()
    full = canvas.lengths[lengths > 0]
    assert (full > 0).all() and (canvas.lengths[lengths == 0] == 0).all()


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixed", "released"])  # all that is ever drawn
def test_a_row_does_not_depend_on_its_neighbours(kind):
    """Rows of a batch of 8, two by two beside others; nor does its noise depend on what its tokens are."""
    tokens, lengths = np.random.default_rng(1).integers(0, 5, (8, 6)), np.array([6, 5, 4, 6, 0, 1, 2, 3])
    of = lambda ids, x, n: draw(KINDS[kind], jax.random.key(2), ids, x, n, 5, 8)
    ids = np.arange(16, 24)
    whole = of(ids, tokens, lengths)
    jax.tree.map(np.testing.assert_array_equal, whole, of(ids, (tokens + 1) % 5, lengths))
    for a in range(0, 8, 2):
        mine = np.arange(8) // 2 == a // 2
        found = of(np.where(mine, ids, ids + 8), np.where(mine[:, None], tokens, 0), np.where(mine, lengths, 6))
        jax.tree.map(lambda x, y, mine=mine: np.testing.assert_array_equal(x[mine], y[mine]), whole, found)


def test_permuted_tokens_are_those_of_the_batch():
    """As many of each, at the chosen places, and no other changes; every place can get any of them."""
    tokens, where = jnp.arange(24).reshape(4, 6), jax.random.bernoulli(jax.random.key(0), 0.4, (4, 6))
    run = jax.jit(jax.vmap(lambda key: permute(key, jnp.arange(4), tokens, where, 24)))
    found = np.asarray(run(jax.random.split(jax.random.key(1), 4000)))
    np.testing.assert_array_equal(np.sort(found.reshape(4000, -1)), np.tile(np.arange(24), (4000, 1)))
    np.testing.assert_array_equal(found[:, ~where], np.tile(tokens[~where], (4000, 1)))
    chosen = np.asarray(tokens[where])
    share = (found[:, where][..., None] == chosen).mean(0)
    n = len(chosen)
    np.testing.assert_allclose(share, 1 / n, atol=5 * math.sqrt(1 / n / 4000))


def test_noise_has_its_law():
    """Rates uniform by row; k binomial; gaps uniform over the row; wrong tokens uniform over V; released marks."""
    rows, length, vocab = 20_000, 5, 4
    tokens = jnp.zeros((rows, 7), jnp.int32)
    lengths = jnp.full(rows, length)
    drawn = lambda corruption: draw(corruption, jax.random.key(0), jnp.arange(rows), tokens, lengths, vocab, rows)
    noise = drawn(mixed(surplus=0.3))
    error = lambda p: 5 * math.sqrt(p * (1 - p) / rows)
    wrong = np.asarray(noise.wrong) != IGNORE
    for hit, first in ((wrong, 0), (np.asarray(noise.dropped), 1)):
        share = np.full(length - first, 0.5)
        np.testing.assert_allclose(hit[:, first:length].mean(0), share, atol=error(0.5))
        np.testing.assert_allclose((hit[:, 1] & hit[:, 2]).mean(), 1 / 3, atol=error(1 / 3))
        assert not hit[:, length:].any() and not hit[:, :first].any()
    np.testing.assert_allclose(np.bincount(noise.wrong[wrong]) / wrong.sum(), 1 / vocab, atol=error(0.25))
    k = (np.asarray(noise.surplus) != IGNORE).sum(1)
    law = np.array([math.comb(length, i) * 0.3**i * 0.7 ** (length - i) for i in range(length + 1)])
    np.testing.assert_allclose(np.bincount(k, minlength=6) / rows, law, atol=error(0.4))
    gaps = np.asarray(noise.surplus)[np.asarray(noise.surplus) != IGNORE]
    np.testing.assert_allclose(np.bincount(gaps, minlength=7) / len(gaps), [0.2] * 5 + [0, 0], atol=error(0.2))
    np.testing.assert_allclose(noise.masks[:, :length].mean(0), 0.5, atol=error(0.5))
    np.testing.assert_allclose(noise.weights * noise.t, 1 - 1e-3, rtol=1e-5)
    halved = drawn(Corruption((True,) * 4, wrong=0.5, drop=0.2))
    np.testing.assert_allclose((halved.wrong[:, 0] != IGNORE).mean(), 0.25, atol=error(0.25))
    np.testing.assert_allclose(halved.dropped[:, 1].mean(), 0.1, atol=error(0.1))


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [ExactCount(iid), corruptions.BOUND], ids=["exact count", "1/t"])
def test_unmasking_estimates_the_bound(law):
    """The mean of its nats is the continuous-time bound of the row; the bound below t_min is left out."""
    denoiser = table_denoiser(random_table(jax.random.key(0), 4, 2))
    policy = lambda tokens, lengths: (denoiser(tokens), jnp.zeros((*tokens.shape, 3)))
    rows = 40_000
    tokens = jnp.tile(jnp.array([[1, 0, 0, 1]]), (rows, 1))
    objective = SelfSupervised(2, (unmask(law),))
    terms = jax.jit(lambda: objective(policy, dict(tokens=tokens, ids=jnp.arange(rows)), jax.random.key(1), rows))()
    nats = np.asarray(terms.nats)
    bound = float(continuous_bound(denoiser, tokens[0], 2))
    error = nats.std() / math.sqrt(rows)
    assert error < 0.03 * bound
    np.testing.assert_allclose(nats.mean(), bound, atol=4 * error)
    assert (terms.tokens == 4).all() and terms.scored.sum() > rows


def test_the_loop_may_cut_a_batch():
    """The terms of a batch are those of its parts."""
    tokens = jax.random.randint(jax.random.key(1), (8, 6), 0, 5)

    def policy(tokens, lengths):
        seen = tokens[..., None].astype(jnp.float32)
        return jnp.sin(seen + jnp.arange(5.0)[None, None]), jnp.cos(seen + jnp.arange(3.0)[None, None])

    objective = SelfSupervised(5, (mixed(), insert()), weights=(1.0, 2.0, 3.0))
    whole = dict(tokens=tokens, ids=jnp.arange(16, 24), lengths=jnp.array([6, 5, 4, 6, 3, 1, 2, 3]))
    run = jax.jit(lambda batch: objective(policy, batch, jax.random.key(2), 8)[:3])
    parts = [run(jax.tree.map(lambda x, a=a: x[a : a + 2], whole)) for a in range(0, 8, 2)]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), run(whole), joined)
    np.testing.assert_array_equal(joined[1], whole["lengths"])


def test_passes_have_noise_of_their_own():
    """Two alike are not one twice. A row without room in any of them is neither scored nor counted."""
    tokens = jnp.zeros((8, 6), jnp.int32)
    batch = dict(tokens=tokens, ids=jnp.arange(8), lengths=jnp.array([6, 5, 4, 6, 3, 1, 2, 3]))
    policy = lambda tokens, lengths: (jnp.zeros((*tokens.shape, 5)), jnp.ones((*tokens.shape, 3)))
    run = lambda *passes, room=None: jax.jit(
        lambda: SelfSupervised(5, passes, room=room)(policy, batch, jax.random.key(2), 8)
    )()
    assert not np.allclose(run(insert(), insert()).nats, 2 * run(insert()).nats)
    found = run(Corruption((False, False, False, True), surplus=1.0), room=8)
    fits = 2 * batch["lengths"] <= 8
    np.testing.assert_array_equal(found.tokens, jnp.where(fits, batch["lengths"], 0))
    np.testing.assert_array_equal(found.nats > 0, fits)


def test_what_is_refused():
    tokens = jnp.zeros((2, 3), jnp.int32)
    for call, message in {
        lambda: delete(labels="x"): "labels='x'",
        lambda: insert(1.5): r"Corruption\(drop=1.5\): must be in \[0, 1\]",
        lambda: made(unmask(ExactCount(ways=Copies(2))), tokens, 3): "must hide a row in one way",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert isinstance(made(remask(), tokens, 3)[1].targets, Targets)
