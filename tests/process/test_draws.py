"""Draws: marginals by law, spread over the batch, prompts, and independence of how a batch is cut."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.process import (
    Continuous,
    Cosine,
    Discrete,
    ExactCount,
    Linear,
    example_keys,
    hazard,
    iid,
    stratified,
    systematic,
    use_key,
)

LAWS = [
    ExactCount(iid),
    ExactCount(stratified),
    ExactCount(systematic, Cosine()),
    Continuous(Cosine(), systematic),
    Continuous(Linear(), iid),
    Discrete(7, Cosine(), stratified),
]
each_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{type(law).__name__}-{law.spread.__name__}")


def many(law, repeats, batch, length, eligible=None):
    """Draws of `repeats` batches: fields [repeats, batch, ...]."""
    eligible = jnp.ones((batch, length), bool) if eligible is None else eligible
    ids = jnp.arange(batch)
    draw = lambda step: law.draw(use_key(jax.random.key(1), step, 0), ids, eligible, batch=batch)
    return jax.jit(jax.vmap(draw))(jnp.arange(repeats))


@functools.cache
def jitted(law, batch):
    """`law.draw(key, ids, eligible)` of this batch."""
    return jax.jit(functools.partial(law.draw, batch=batch))


@each_law
def test_a_row_does_not_depend_on_its_neighbours(law):
    """The draws of a batch of 8 are those of its parts: micro-batches and devices change nothing."""
    key, eligible = jax.random.key(0), np.ones((8, 12), bool)
    draw = jitted(law, 8)
    whole = draw(key, np.arange(16, 24), eligible)
    parts = [draw(key, np.arange(a, a + 2), eligible[:2]) for a in range(16, 24, 2)]
    joined = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    jax.tree.map(np.testing.assert_array_equal, whole, joined)


@each_law
def test_prompts_and_padding_are_never_hidden(law):
    eligible = jnp.array([[False] * 3 + [True] * 5, [True] * 8, [False] * 8, [True] * 2 + [False] * 6])
    draws = many(law, 200, 4, 8, eligible)
    assert not (draws.masks & ~eligible[None]).any()
    assert jnp.isfinite(draws.weights).all()
    assert draws.masks[:, 0, 3:].any(0).all()


@pytest.mark.parametrize("spread", [iid, stratified, systematic])
def test_exact_count_law(spread):
    """Counts uniform on 1..L, subsets uniform given the count, weight L / l, each row by itself."""
    length, repeats = 5, 20000
    draws = many(ExactCount(spread), repeats, 3, length)
    counts = np.asarray(draws.masks.sum(-1))
    np.testing.assert_allclose(draws.weights, length / counts, rtol=1e-6)
    for row in range(3):
        share = np.bincount(counts[:, row], minlength=6)[1:] / repeats
        np.testing.assert_allclose(share, 0.2, atol=5 * math.sqrt(0.16 / repeats))
    codes = np.asarray(draws.masks[:, 0] @ (1 << jnp.arange(length)))
    for count in (2, 3):
        observed = np.bincount(codes[counts[:, 0] == count], minlength=32)
        observed = observed[[i.bit_count() == count for i in range(32)]]
        expected = observed.sum() / 10
        assert ((observed - expected) ** 2 / expected).sum() < 27.9  # chi-square with 9 degrees of freedom, p = 1e-3


def test_exact_count_rate_has_its_law_given_the_count():
    """t = r ~ Beta(l, L - l + 1) under the linear schedule: mean l / (L + 1)."""
    draws = many(ExactCount(iid), 30000, 1, 4)
    counts, rates = np.asarray(draws.masks.sum(-1))[:, 0], np.asarray(draws.t)[:, 0]
    for count in range(1, 5):
        sample = rates[counts == count]
        variance = count * (5 - count) / (25 * 6)
        np.testing.assert_allclose(sample.mean(), count / 5, atol=5 * math.sqrt(variance / len(sample)))
        np.testing.assert_allclose(sample.var(), variance, rtol=0.1)


@pytest.mark.parametrize("spread", [stratified, systematic])
def test_batches_drawn_together_are_independent(spread):
    """Ids of two batches in one call: each has a shift and an offset of its own, those of a call by itself."""
    law, ids, ones = Continuous(Linear(), spread), jnp.arange(16), jnp.ones((16, 1), bool)
    draw = lambda step: law.draw(jax.random.fold_in(jax.random.key(4), step), ids, ones, batch=8).t.reshape(2, 8)
    t = np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(2000)))
    np.testing.assert_allclose(t.mean(-1), 0.5, atol=1 / 8)
    assert abs(np.corrcoef(t[:, 0, 0], t[:, 1, 0])[0, 1]) < 4.5 / math.sqrt(2000)
    offsets = np.mod(t[:, :, 0] * 8, 1)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 4.5 / math.sqrt(2000)
    together = jitted(law, 8)(jax.random.key(4), ids, ones)
    apart = [jitted(law, 8)(jax.random.key(4), ids[i : i + 8], ones[:8]) for i in (0, 8)]
    np.testing.assert_array_equal(together.t, np.concatenate([d.t for d in apart]))
    np.testing.assert_array_equal(together.groups, ids // 8)


def test_independent_rows_are_groups_of_their_own():
    draws = jitted(Continuous(Linear(), iid), 4)(jax.random.key(0), np.arange(3, 9), np.ones((6, 2), bool))
    np.testing.assert_array_equal(draws.groups, jnp.arange(3, 9))


def test_systematic_counts_meet_every_count_once():
    draws = many(ExactCount(systematic), 50, 6, 6)
    np.testing.assert_array_equal(np.sort(draws.masks.sum(-1), axis=1), np.broadcast_to(np.arange(1, 7), (50, 6)))


@pytest.mark.parametrize("batch", [5, 8, 12])
def test_strata_hold_one_rate_each(batch):
    for spread in (stratified, systematic):
        draws = many(Continuous(Linear(), spread), 100, batch, 1)
        strata = np.sort(np.ceil(np.asarray(draws.t) * batch - 1e-4).astype(int), axis=1)
        np.testing.assert_array_equal(strata, np.broadcast_to(np.arange(1, batch + 1), strata.shape))
    gaps = np.diff(np.sort(draws.t, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / batch, rtol=1e-4)


def test_consecutive_rows_are_spread_evenly_by_themselves():
    """Every quarter of a systematic batch hides about half of its tokens, so devices share the work."""
    draws = many(ExactCount(systematic), 100, 16, 64)
    quarters = np.asarray(draws.masks.sum(-1)).reshape(100, 4, 4).sum(-1) / (4 * 64)
    assert quarters.max() <= 0.5 + 0.5 / 4 + 1 / 64


@each_law
def test_expected_weight_of_a_position(law):
    """E[weight * mask_i] = int weight(t) (1 - alpha(t)) dt = 1, for every law and schedule, the T-step law too."""
    draws = many(law, 20000, 2, 3)
    value = np.asarray(draws.weights[..., None] * draws.masks)
    mean, error = value.mean(0), value.std(0) / math.sqrt(len(value))
    # int weight(t) (1 - alpha(t)) dt = alpha(0) - alpha(1) = 1 for every schedule, and so in each of its forms
    assert (np.abs(mean - 1) < 4.5 * error + 1e-6).all()


def test_the_weight_of_a_step_is_its_hazard(x64):
    """T times (alpha(s) - alpha(t)) / (1 - alpha(t)) at the t that was drawn; the hazards of s = 0 are 1."""
    for schedule in (Linear(), Cosine()):
        draws = jitted(Discrete(5, schedule), 10)(jax.random.key(0), np.arange(10), np.ones((10, 3), bool))
        t = np.round(np.asarray(draws.t, np.float64) * 5) / 5
        np.testing.assert_allclose(draws.t, t, rtol=1e-6)
        assert len(np.unique(t)) == 5
        alpha_t, alpha_s = (np.asarray(schedule.alpha(jnp.asarray(x))) for x in (t, t - 1 / 5))
        np.testing.assert_allclose(draws.weights, 5 * (alpha_s - alpha_t) / (1 - alpha_t), rtol=1e-6)
        assert np.max(draws.weights) == pytest.approx(5, rel=1e-6)


def test_hazard_in_float32_over_thousands_of_steps():
    t = np.arange(1, 4097) / 4096
    for schedule in (Linear(), Cosine()):
        of_step = jax.jit(functools.partial(hazard, schedule))
        with jax.enable_x64(True):
            exact = np.asarray(of_step(jnp.asarray(t), jnp.asarray(t - 1 / 4096)))
        computed = of_step(np.float32(t), np.float32(t - 1 / 4096))
        np.testing.assert_allclose(computed, exact, rtol=1.5e-3)
        # what matters: the survival over all steps up to t is the mask rate again
        survival = np.exp(np.cumsum(np.log1p(-np.asarray(computed[1:], np.float64))[::-1]))[::-1]
        np.testing.assert_allclose(survival, np.asarray(schedule.one_minus_alpha(jnp.asarray(t[:-1]))), rtol=2e-4)


def test_keys_differ_by_step_use_and_example():
    key = jax.random.key(0)
    data = jax.jit(lambda step: jnp.stack([jax.random.key_data(use_key(key, step, use)) for use in range(5)]))
    words = {tuple(word) for step in range(5) for word in np.asarray(data(step))}
    assert len(words) == 25
    keys = jax.jit(lambda ids: jax.random.key_data(example_keys(key, ids)))(np.arange(100))
    assert len(np.unique(keys, axis=0)) == 100


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps"):
        Discrete(0)


def test_laws_are_values():
    assert dataclasses.replace(ExactCount(), spread=iid) == ExactCount(iid)
    assert hash(ExactCount()) == hash(ExactCount())
