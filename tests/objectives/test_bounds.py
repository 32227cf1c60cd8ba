"""The forms of the bound against brute force at V = 3, L = 3, in float64, for random denoiser tables."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis.bounds import all_masks, chain_bound, continuous_bound, discrete_bound, masked_losses
from mdmjax.analysis.tables import random_table, table_denoiser, true_conditionals
from mdmjax.base import Draws
from mdmjax.objectives import autoregressive, negative_elbo
from mdmjax.process import Continuous, Cosine, Discrete, ExactCount, Geometric, Linear, OnGrid, SineSquared, hazard, iid

V, L = 3, 3
SEQUENCES = np.array(list(itertools.product(range(V), repeat=L)))
MASKS = all_masks(L)


def estimates(denoiser, x, weights, t=None):
    """The objective at every mask, each with its weight: what an estimator says of each of its draws."""
    n = len(MASKS)
    draws = Draws(
        jnp.arange(n), jnp.zeros(n) if t is None else t, jnp.asarray(MASKS), jnp.asarray(weights), jnp.arange(n)
    )
    return np.asarray(negative_elbo(denoiser, jnp.broadcast_to(x, MASKS.shape), draws, vocab=V).nats)


@pytest.mark.parametrize("seed", range(3))
def test_three_forms_agree_with_brute_force(seed, x64):
    """Continuous, T-step and exact-count, each as the exact mean of its estimator over all draws."""
    denoiser = table_denoiser(random_table(jax.random.key(seed), L, V, 2.0))
    sizes = MASKS.sum(1)
    for x in SEQUENCES[seed::9]:
        truth = float(continuous_bound(denoiser, jnp.asarray(x), V))

        # exact count: P(mask) = 1 / (L C(L, l)), weight L / l
        p = np.array([0 if n == 0 else 1 / (L * math.comb(L, n)) for n in sizes])
        count = (p * estimates(denoiser, x, [L / n if n else 0.0 for n in sizes])).sum()
        np.testing.assert_allclose(count, truth, atol=1e-12)

        # continuous time: Gauss-Legendre in t of the mean over masks, for each schedule
        nodes, widths = np.polynomial.legendre.leggauss(400)
        t = jnp.asarray((nodes + 1) / 2)
        for schedule in (Linear(), Cosine(), SineSquared(), Geometric(0.1, 5.0)):
            hidden, visible, weight = (
                np.asarray(f(t))[:, None] for f in (schedule.one_minus_alpha, schedule.alpha, schedule.weight)
            )
            p = hidden**sizes * visible ** (L - sizes)
            values = estimates(denoiser, x, np.ones(len(MASKS)))
            np.testing.assert_allclose((widths / 2) @ (weight * p) @ values, truth, atol=1e-6)

        # T steps: P(k) = 1 / T, weight T * hazard; the truth is the negative ELBO of the chain, from its definition
        for steps in (1, 2, 5):
            brute = float(chain_bound(denoiser, jnp.asarray(x), V, Cosine(), steps))
            np.testing.assert_allclose(discrete_bound(denoiser, jnp.asarray(x), V, Cosine(), steps), brute, atol=1e-10)
            t = jnp.arange(1, steps + 1) / steps
            weight = steps * hazard(Cosine(), t, t - 1 / steps)
            hidden, visible = (np.asarray(f(t))[:, None] for f in (Cosine().one_minus_alpha, Cosine().alpha))
            p = hidden**sizes * visible ** (L - sizes) / steps
            values = [estimates(denoiser, x, np.full(len(MASKS), w)) for w in weight]
            np.testing.assert_allclose((p * values).sum(), brute, atol=1e-10)
        many = float(discrete_bound(denoiser, jnp.asarray(x), V, Linear(), 2**20))
        np.testing.assert_allclose(many, truth, atol=2e-5)
        half = float(discrete_bound(denoiser, jnp.asarray(x), V, Linear(), 2**19))
        np.testing.assert_allclose(2 * many - half, truth, atol=1e-6)  # the 1/T term taken out


@pytest.mark.parametrize("law", [ExactCount(), ExactCount(iid, Cosine()), Continuous(Cosine()), Discrete(3, Cosine())])
def test_draws_are_unbiased_for_their_bound(law):
    """200,000 draws of the law itself, within 4.5 standard errors of enumeration."""
    denoiser = table_denoiser(random_table(jax.random.key(3), L, V, 2.0))
    x, batch, repeats = jnp.array([2, 0, 1]), 8, 25000

    def batch_mean(step):
        eligible = jnp.ones((batch, L), bool)
        draws = law.draw(jax.random.fold_in(jax.random.key(5), step), jnp.arange(batch), eligible, batch=batch)
        return negative_elbo(denoiser, jnp.broadcast_to(x, (batch, L)), draws, vocab=V).nats.mean()

    means = np.asarray(jax.jit(jax.vmap(batch_mean))(jnp.arange(repeats)))
    truth = continuous_bound(denoiser, x, V)
    if isinstance(law, Discrete):
        truth = discrete_bound(denoiser, x, V, Cosine(), 3)
    assert abs(means.mean() - truth) < 4.5 * means.std() / math.sqrt(repeats)


@pytest.mark.parametrize(
    "law", [ExactCount(), ExactCount(schedule=Cosine()), Continuous(Cosine()), Discrete(3, Cosine())]
)
def test_time_conditioned_denoisers_are_scored_without_bias(law, x64):
    """Logits that depend strongly on t: every law hands over a t with the right law given what is hidden."""
    base, tilt = (table_denoiser(random_table(jax.random.key(seed), L, V, 2.0)) for seed in (0, 1))

    def denoiser(tokens, t, *, at=None):
        return base(tokens) + 2 * t[:, None, None] * tilt(tokens)

    x, batch, repeats = jnp.array([0, 1, 1]), 4, 40000

    def batch_mean(step):
        draws = law.draw(
            jax.random.fold_in(jax.random.key(2), step), jnp.arange(batch), jnp.ones((batch, L), bool), batch=batch
        )
        return negative_elbo(denoiser, jnp.broadcast_to(x, (batch, L)), draws, vocab=V).nats.mean()

    means = np.asarray(jax.jit(jax.vmap(batch_mean))(jnp.arange(repeats)))
    if isinstance(law, Discrete):
        t = jnp.arange(1, 4) / 3
        shares = hazard(law.schedule, t, t - 1 / 3)
    else:
        nodes, widths = np.polynomial.legendre.leggauss(60)
        t = jnp.asarray((nodes + 1) / 2)
        shares = law.schedule.weight(t) * widths / 2
    losses = np.stack([masked_losses(lambda z, t=t: denoiser(z, jnp.full(len(z), t)), x, V).sum(1) for t in t])
    hidden, visible = (np.asarray(f(t))[:, None] for f in (law.schedule.one_minus_alpha, law.schedule.alpha))
    sizes = MASKS.sum(1)
    truth = (np.asarray(shares)[:, None] * hidden**sizes * visible ** (L - sizes) * losses).sum()
    assert abs(means.mean() - truth) < 4.5 * means.std() / math.sqrt(repeats)


def test_with_the_true_conditionals_the_bound_is_the_likelihood(x64):
    p = np.random.default_rng(0).gamma(0.5, size=(V,) * L)
    p /= p.sum()
    denoiser = table_denoiser(true_conditionals(p))
    for x in SEQUENCES:
        bound = float(continuous_bound(denoiser, jnp.asarray(x), V))
        np.testing.assert_allclose(bound, -math.log(p[tuple(x)]), rtol=1e-10)
    # two steps generate several tokens at once, independently: on average a looser bound
    mean = sum(p[tuple(x)] * float(discrete_bound(denoiser, jnp.asarray(x), V, Linear(), 2)) for x in SEQUENCES)
    entropy = -(p * np.log(p)).sum()
    assert mean > entropy + 1e-3


def test_prompt_is_context_and_never_scored(x64):
    """The bound of the rest given a visible prompt equals the conditional likelihood under true conditionals."""
    p = np.random.default_rng(1).gamma(1.0, size=(V,) * L)
    p /= p.sum()
    denoiser = table_denoiser(true_conditionals(p))
    x = jnp.array([1, 2, 0])
    eligible = jnp.array([False, True, True])
    law = ExactCount(iid)
    rows = 4000
    draws = law.draw(jax.random.key(0), jnp.arange(rows), jnp.broadcast_to(eligible, (rows, L)), batch=rows)
    terms = negative_elbo(
        denoiser, jnp.broadcast_to(x, (rows, L)), draws, vocab=V, eligible=jnp.broadcast_to(eligible, (rows, L))
    )
    assert (terms.tokens == 2).all() and not draws.masks[:, 0].any()
    truth = -math.log(p[1, 2, 0] / p[1].sum())
    # two masked orders, each exact: the mean over draws is exact up to the luck of the draw
    assert abs(terms.nats.mean() - truth) < 4.5 * terms.nats.std() / math.sqrt(rows)
    # what lies at a position that is never hidden or scored does not count
    np.testing.assert_array_equal(terms.scored, draws.masks.sum(1))


def test_autoregressive_loss_is_the_chain_rule(x64):
    p = np.random.default_rng(2).gamma(1.0, size=(V,) * L)
    p /= p.sum()
    table = true_conditionals(p)

    def causal(tokens, t=None, *, at=None):
        """Logits at i of the table read with positions i and later hidden."""
        columns = [table_denoiser(table)(jnp.where(jnp.arange(L)[None] < i, tokens, V))[:, i] for i in range(L)]
        return jnp.stack(columns, axis=1)

    terms = autoregressive(causal, jnp.asarray(SEQUENCES))
    np.testing.assert_allclose(terms.nats, [-math.log(p[tuple(x)]) for x in SEQUENCES], rtol=1e-10)
    some = autoregressive(
        causal, jnp.asarray(SEQUENCES), eligible=jnp.broadcast_to(jnp.arange(L)[None] > 0, SEQUENCES.shape)
    )
    np.testing.assert_allclose(some.nats, [-math.log(p[tuple(x)] / p[x[0]].sum()) for x in SEQUENCES], rtol=1e-10)
    assert (some.tokens == 2).all()


def test_enumeration_is_refused_where_it_would_not_end():
    with pytest.raises(ValueError, match="length 17: .* up to 16"):
        all_masks(17)


@pytest.mark.parametrize("bound", [discrete_bound, chain_bound])
def test_steps_below_one_are_refused(bound):
    denoiser = table_denoiser(np.zeros(((V + 1) ** L, L, V)))
    with pytest.raises(ValueError, match="steps=0: must be >= 1"):
        bound(denoiser, jnp.zeros(L, int), V, Linear(), 0)


def test_steps_after_all_is_revealed_add_nothing(x64):
    denoiser, x = table_denoiser(random_table(jax.random.key(0), L, V)), jnp.array([0, 2, 1])
    padded, short = OnGrid.budget([1, 2, 0, 0]), OnGrid.budget([1, 2])
    exact = float(chain_bound(denoiser, x, V, short, 2))
    for bound in chain_bound, discrete_bound:
        assert float(bound(denoiser, x, V, padded, 4)) == pytest.approx(exact, rel=1e-9)


def test_draws_are_a_pytree():
    draws = ExactCount().draw(jax.random.key(0), jnp.arange(4), jnp.ones((4, 5), bool), batch=4)
    assert draws.law == "exact_count" and dataclasses.is_dataclass(draws)
    assert len(jax.tree.leaves(draws)) == 5
