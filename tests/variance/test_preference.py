"""Preference scores: their laws by enumeration on a toy, and the objective held to them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_toy import LENGTH, VOCAB, logits, scored, toy
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.analysis import all_states, table_denoiser
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.objectives import Against, KeptBounds, Preference, elbos, negative_elbo
from mdmjax.objectives.preference import Scores
from mdmjax.process import Allocation, Continuous, Copies, ExactCount, iid, stratified, systematic
from mdmjax.variance import (
    count_law,
    decompose,
    gradient_bias_bound,
    gradient_variance_bound,
    loss_bias_bound,
    score_law,
)

LAW, PAD = count_law(LENGTH), VOCAB + 1
softplus = lambda s: np.logaddexp(0, -s)


@functools.cache
def models(seed=0):
    """Weights of the policy and of the reference, and two answers."""
    found = toy(seed)
    policy = found.weights + 0.15 * np.random.default_rng(0).normal(size=found.weights.shape)
    return policy, found.weights, found.rows[:2]


@functools.cache
def tables(seed=0):
    """Summed cross-entropies [2, M] of the policy and of the reference."""
    policy, reference, rows = models(seed)
    return scored(policy, rows)[0].sum(2), scored(reference, rows)[0].sum(2)


def denoiser(weights):
    return table_denoiser(logits(weights, all_states(LENGTH, VOCAB))[0])


def pair(rows, pairs=1):
    return dict(
        tokens=jnp.tile(jnp.asarray(rows)[None], (pairs, 1, 1)),
        eligible=jnp.ones((pairs, *rows.shape), bool),
        ids=jnp.arange(pairs),
        pair=1 + jnp.arange(pairs),
    )


# ---- the toy


def test_the_numbers_of_the_toy():
    """Bounds, the two parts of the variance of a draw, correlations, and what sharing leaves of the variance."""
    policy, reference = tables()
    of = lambda table, row: decompose(table[row : row + 1], LAW, np.ones(1))
    expected = [
        (-7.442917, -7.402699, 0.977018, 9.100380, 0.980705, 0.021310, 0.893542),
        (-7.510546, -7.417415, 1.307221, 34.538242, 0.994375, 0.006001, 0.958132),
    ]
    for row, numbers in enumerate(expected):
        own, other, gain = of(policy, row), of(reference, row), of(policy - reference, row)
        apart = own.total + other.total
        chance, factor = LAW.probabilities[:, None] * LAW.masks, LAW.factors[:, None]
        covariance = (chance * factor**2 * policy[row] * reference[row]).sum() - own.mean * other.mean
        assert abs(gain.total - (apart - 2 * covariance)) < 1e-12 * apart
        found = (
            -own.mean, -other.mean, own.rate, own.pattern, covariance / math.sqrt(own.total * other.total),
            gain.total / apart, (gain.rate + own.pattern + other.pattern) / apart,
        )  # fmt: skip
        np.testing.assert_allclose(found, numbers, atol=1.5e-6)


@pytest.mark.parametrize(
    "shared, expected", [(True, (0.846044, 0.095291, 0.297198)), (False, (92.660916, 3.132988, 32.796780))]
)
def test_the_score_of_the_toy(shared, expected):
    """Its variance, and the bias and the variance of the loss, all within the bounds."""
    law = score_law(*tables(), LAW, beta=1.0, shared=shared)
    s, variance = law.mean(), law.variance()
    bias, noise = law.mean(softplus) - softplus(s), law.variance(softplus)
    assert abs(law.probabilities.sum() - 1) < 1e-12 and abs(s - 0.052912) < 1e-6
    np.testing.assert_allclose((variance, bias, noise), expected, atol=1.5e-6)
    assert 0 <= bias <= loss_bias_bound(variance) and noise <= variance


def test_the_score_of_another_toy():
    law = score_law(*tables(3), LAW, beta=1.0, shared=True)
    assert abs(law.mean() - 0.8051) < 1e-4
    apart = score_law(*tables(3), LAW, beta=1.0, shared=False)
    assert abs(apart.variance() - 52.5) < 1 and abs(apart.mean(softplus) - softplus(apart.mean()) - 2.17) < 0.05


@given(st.integers(0, 10**6), st.floats(0.05, 5), st.booleans())
def test_the_bounds_hold(seed, beta, shared):
    """Of the loss and of its gradient, whatever the tables; the gradient of s by numbers of its own."""
    rng = np.random.default_rng(seed)
    law = count_law(2)
    policy, reference = (rng.normal(size=(2, 4)) * rng.exponential(3) for _ in range(2))
    found = score_law(policy, reference, law, beta=beta, shared=shared)
    variance, bias = found.variance(), found.mean(softplus) - softplus(found.mean())
    assert -1e-12 <= bias <= loss_bias_bound(variance) + 1e-12
    assert found.variance(softplus) <= variance + 1e-12
    slope = rng.normal(size=(len(found.values), 3)) + rng.normal(size=3)  # of s^ by the parameters, at each value
    p, sigmoid = found.probabilities, lambda s: 1 / (1 + np.exp(s))
    mean = p @ slope
    spread = p @ ((slope - mean) ** 2).sum(1)
    estimate = -sigmoid(found.values)[:, None] * slope
    error = np.linalg.norm(p @ estimate + sigmoid(found.mean()) * mean)
    noise = p @ ((estimate - p @ estimate) ** 2).sum(1)
    squared = (mean**2).sum()
    assert error <= gradient_bias_bound(variance, squared, spread) + 1e-9
    assert noise <= gradient_variance_bound(variance, squared, spread) + 1e-9


# ---- allocation


@pytest.mark.parametrize("n", [4, 8, 12])
def test_a_rate_for_every_mask_is_best(n):
    """Of all ways to share n draws out, by the formula; and there n Var does not depend on n."""
    parts = decompose(tables()[0][:1], LAW, np.ones(1))
    ways = [(k, n // k) for k in range(1, n + 1) if n % k == 0]
    variances = {way: parts.averaged(rates=way[0], masks=way[1]) for way in ways}
    found = {way: x.rate + x.pattern for way, x in variances.items()}
    assert min(found, key=found.get) == (n, 1)
    assert abs(n * found[n, 1] - (parts.rate + parts.pattern)) < 1e-12
    k, m = ways[1]
    assert abs(found[k, m] - found[n, 1] - parts.rate * (1 / k - 1 / n)) < 1e-12


@functools.cache
def repeated(rates, masks, spread=iid, law=ExactCount, rows=40_000):
    """Estimates of the bound of the preferred answer, one for each of so many rows; and its group numbers."""
    policy, _, answers = models()
    tokens = jnp.tile(jnp.asarray(answers[:1]), (rows, 1))
    allocation = Allocation(rates, masks)

    @jax.jit
    def run():
        draws = allocation.draw(law(spread=spread), jax.random.key(0), jnp.arange(rows), jnp.ones(tokens.shape, bool))
        return elbos(denoiser(policy), tokens, draws, vocab=VOCAB), draws

    found, draws = run()
    return np.asarray(found, np.float64), draws


@pytest.mark.parametrize("rates, masks", [(1, 1), (4, 1), (2, 2), (1, 4)])
def test_the_variance_of_an_allocation(rates, masks):
    """V_t / n_t + V_y / (n_t n_y), against 40,000 repetitions; and the mean is the bound."""
    parts = decompose(tables()[0][:1], LAW, np.ones(1))
    means = repeated(rates, masks)[0].mean(0)
    expected = parts.rate / rates + parts.pattern / (rates * masks)
    centred = (means - means.mean()) ** 2
    assert abs(means.mean() + parts.mean) < 4 * means.std() / math.sqrt(len(means))
    assert abs(centred.mean() - expected) < 4 * centred.std() / math.sqrt(len(means))


def test_systematic_rates_of_a_row():
    """n = L of them: every count once, so nothing of V_t is left; stratified and systematic ones are unbiased."""
    parts = decompose(tables()[0][:1], LAW, np.ones(1))
    found, draws = repeated(4, 1, systematic)
    counts = np.sort(np.asarray(draws.masks.sum(2)), axis=0)
    assert (counts == np.arange(1, 5)[:, None]).all()
    centred = (found.mean(0) - found.mean()) ** 2
    assert abs(centred.mean() - parts.pattern / 4) < 4 * centred.std() / math.sqrt(found.shape[1])
    for spread in (stratified, systematic):
        means = repeated(3, 1, spread)[0].mean(0)
        assert abs(means.mean() + parts.mean) < 4 * means.std() / math.sqrt(len(means))


def test_draws_belong_to_their_rows():
    """Alone, in another order, and beside others a row has the draws that it has; groups say what is independent."""
    eligible = jnp.array([[True] * 4, [True, True, False, False], [False, True, True, True]])
    allocation = Allocation(2, 3)
    draw = lambda law, ids, rows: allocation.draw(law, jax.random.key(1), ids, rows)
    for spread, groups in ((iid, [0, 0, 0, 1, 1, 1]), (systematic, [0] * 6)):
        law = ExactCount(spread=spread)
        together = draw(law, jnp.array([5, 7, 9]), eligible)
        alone = draw(law, jnp.array([7]), eligible[1:2])
        assert together.masks.shape == (6, 3, 4) and not (together.masks & ~eligible[None]).any()
        for name in ("ids", "t", "masks", "weights", "groups"):
            assert (getattr(together, name)[:, 1:2] == getattr(alone, name)).all(), name
        assert (together.groups - 6 * together.ids).T.tolist() == [groups] * 3
        counts = np.asarray(together.masks.sum(2)).reshape(2, 3, 3)
        assert (counts == counts[:, :1]).all()  # the masks of a rate hide as many
    assert (together.masks[0] != together.masks[1]).any()
    with pytest.raises(ValueError, match=r"Allocation\(rates=0, masks=1\): both must be at least 1"):
        Allocation(0)


def test_the_scorer_of_a_bound_has_the_same_estimates():
    """The mean of the negative ELBO's own terms, draw by draw; a law of two ways has two rows for each draw."""
    policy, _, answers = models()
    tokens, ids, eligible = jnp.asarray(answers), jnp.arange(2), jnp.ones((2, LENGTH), bool)
    draws = Allocation(3, 1).draw(ExactCount(ways=Copies(2)), jax.random.key(2), ids, eligible)
    found = elbos(denoiser(policy), tokens, draws, vocab=VOCAB, eligible=eligible)
    assert found.shape == (6, 2)
    for j in range(6):
        one = jax.tree.map(lambda x, j=j: x[j], draws)
        assert (found[j] == -negative_elbo(denoiser(policy), tokens, one, vocab=VOCAB).nats).all()


# ---- the objective


def shown(law=ExactCount(), pairs=1, **choices):  # noqa: B008 (frozen)
    policy, reference, rows = models()
    objective = Preference(VOCAB, **dict(beta=1.0, law=law) | choices)
    run = jax.jit(lambda both, batch, key: (objective(both, batch, key, pairs), objective.scores(both, batch, key)))
    return run, Against(denoiser(policy), denoiser(reference)), pair(rows, pairs)


def test_at_the_reference_nothing_is_noise():
    """Policy the same as the reference, draws shared: the score is exactly 0 and the loss ln 2; not with own draws."""
    run, both, batch = shown(pairs=5)
    same = Against(both.policy, both.policy)
    terms, found = run(same, batch, jax.random.key(0))
    assert (found.score(1.0) == 0).all() and np.allclose(terms.nats, math.log(2), atol=1e-7)
    assert terms.tokens.tolist() == [1] * 5
    apart = shown(pairs=5, shared=False)[0]
    assert (jnp.abs(apart(same, batch, jax.random.key(0))[1].score(1.0)) > 1e-3).all()


@pytest.mark.parametrize("shared", [True, False])
def test_the_objective_has_the_law_of_the_enumeration(shared):
    """Means and variances of score and loss over 40,000 pairs of one draw, and the estimated variance at n = 4."""
    law = score_law(*tables(), LAW, beta=1.0, shared=shared)
    run, both, batch = shown(pairs=40_000, allocation=Allocation(1, 1), shared=shared)
    terms, found = run(both, batch, jax.random.key(0))
    for values, function in ((found.score(1.0), lambda s: s), (terms.nats, softplus)):
        values = np.asarray(values, np.float64)
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - law.mean(function)) < 4 * error
        squares = (values - values.mean()) ** 2
        assert abs(squares.mean() - law.variance(function)) < 4 * squares.std() / math.sqrt(len(values))


@pytest.mark.parametrize("allocation", [(4, 1), (2, 4)])
@pytest.mark.parametrize("choices", [dict(), dict(shared=False), dict(rates_shared=True)], ids=str)
def test_the_variance_that_draws_tell(allocation, choices):
    """Over 10,000 pairs its mean is the variance of their scores, with several masks of a rate and shared rates too."""
    run, both, batch = shown(ExactCount(spread=iid), 10_000, allocation=Allocation(*allocation), **choices)
    found = run(both, batch, jax.random.key(1))[1]
    told, scores = (np.asarray(x, np.float64) for x in (found.variance(1.0, allocation[0]), found.score(1.0)))
    squares = (scores - scores.mean()) ** 2
    error = math.hypot(told.std(), squares.std()) / math.sqrt(len(told))
    assert abs(told.mean() - squares.mean()) < 4 * error


@pytest.mark.parametrize("n", [1, 3, 8])
def test_two_passes_give_the_gradient_of_one(n, x64):
    """In float64, for answers of unequal lengths, with the term of fine-tuning; of the table, by every entry."""
    policy, reference, rows = models()
    batch = pair(rows, 2)
    batch["eligible"] = batch["eligible"].at[0, 0, :2].set(False).at[1, 1, 3].set(False)

    def gradient(two_pass):
        objective = Preference(
            VOCAB, beta=0.7, allocation=Allocation(n, 1), law=Continuous(), sft=0.3, two_pass=two_pass
        )
        both = lambda table: Against(table_denoiser(table), denoiser(reference))
        loss = lambda table: objective(both(table), batch, jax.random.key(3), 2).nats.sum()
        return jax.jit(jax.value_and_grad(loss))(denoiser(policy).table)

    (one, by_one), (two, by_two) = gradient(False), gradient(True)
    assert by_one.dtype == jnp.float64 and jnp.abs(by_one).max() > 0.1
    np.testing.assert_allclose(two, one, rtol=1e-12)
    np.testing.assert_allclose(by_two, by_one, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_the_formula(x64):
    """-sigmoid(-s) grad s, s from policy and reference on the same draws; the reference gets none."""
    policy, reference, rows = models()
    objective, batch, key = Preference(VOCAB, beta=0.7, allocation=Allocation(2, 1)), pair(rows), jax.random.key(4)
    score = lambda own, other: objective.scores(Against(own, other), batch, key).score(0.7)[0]
    loss = lambda own, other: objective(Against(own, other), batch, key, 1).nats.sum()
    both = denoiser(policy), denoiser(reference)
    slope, (of_policy, of_reference) = jax.jit(lambda *both: (jax.grad(score)(*both), jax.grad(loss, (0, 1))(*both)))(
        *both
    )
    factor = -jax.nn.sigmoid(-jax.jit(score)(*both))
    np.testing.assert_allclose(of_policy.table, factor * slope.table, rtol=1e-10)
    assert not of_reference.table.any()


def test_identities_of_the_score():
    """Turned around where answers and their draws are; bounds of the reference that are kept are those that it gives,
    and are refused where draws change, or are not so many."""
    run, both, batch = shown(pairs=3, fixed=5)
    terms, found = run(both, batch, jax.random.key(0))
    kept = KeptBounds(jnp.concatenate([jnp.zeros((1, 2, 8)), jnp.moveaxis(found.reference, 0, 2)]))
    again, same = run(Against(both.policy, kept), batch, jax.random.key(1))
    assert (again.nats == terms.nats).all() and (same.policy == found.policy).all()
    with pytest.raises(ValueError, match="with as many, not 8 that change"):
        shown(pairs=3)[0](Against(both.policy, kept), batch, jax.random.key(1))
    with pytest.raises(ValueError, match="KeptBounds of 8 draws: are for .* as many, not 2"):
        few = shown(pairs=3, fixed=5, allocation=Allocation(2))[0]
        few(Against(both.policy, kept), batch, jax.random.key(1))

    class Turned(Preference):
        def draw(self, key, ids, eligible):
            turn = lambda x: x.reshape(8, 3, 2, *x.shape[2:])[:, :, ::-1].reshape(x.shape)
            return jax.tree.map(turn, super().draw(key, ids, eligible))

    swapped = batch | {name: batch[name][:, ::-1] for name in ("tokens", "eligible")}
    other = jax.jit(Turned(VOCAB, fixed=5).scores)(both, swapped, jax.random.key(0))
    assert (jnp.abs(found.score(1.0)) > 1e-3).all()
    np.testing.assert_allclose(other.score(1.0), -found.score(1.0), rtol=1e-5)
    moved = Scores(*(bounds.at[:, :, 0].add(2.5) for bounds in found))  # of both bounds of y_w
    np.testing.assert_allclose(moved.score(1.0), found.score(1.0), atol=1e-5)


def test_policy_and_reference_have_one_vocabulary():
    _, both, batch = shown()
    more = lambda tokens, t=None, *, at=None: jnp.zeros((*tokens.shape, VOCAB + 2))
    for against in (Against(both.policy, more), Against(more, both.policy)):
        with pytest.raises(ValueError, match="both must be of the vocabulary of 3 tokens"):
            Preference(VOCAB).scores(against, batch, jax.random.key(0))


def test_prompts_are_never_hidden():
    """Draws hide what is eligible; what is more is the prompt's tokens, which the answer's bound then depends on."""
    policy, _, rows = models()
    answer = np.array([False, False, True, True])
    batch = pair(rows, 4) | {"eligible": jnp.asarray(np.tile(answer, (4, 2, 1)))}
    draws = Preference(VOCAB).draw(jax.random.key(0), batch["ids"], batch["eligible"])
    masks = np.asarray(draws.masks)
    assert not masks[..., ~answer].any() and set(masks.sum(2).ravel()) == {1, 2}
    others = [(rows + shift * ~answer) % VOCAB for shift in range(2)]
    both = [elbos(denoiser(policy), jnp.tile(jnp.asarray(x), (4, 1)), draws, vocab=VOCAB) for x in others]
    assert (both[0] != both[1]).all()


def test_padding_changes_nothing():
    """Two paddings of the same pair, read by a network that knows padding: the same draws and the same loss."""
    model = transformer(TransformerConfig(VOCAB, 12, width=16, depth=1, heads=2, pads=True))
    own, other = (model.bind(model.init(jax.random.key(k))) for k in range(2))
    answers = np.array([[0, 1, 2, 0, 1], [2, 2, 1, PAD, PAD]])

    def loss(length):
        tokens = np.pad(answers, ((0, 0), (0, length - 5)), constant_values=PAD)
        batch = pair(tokens) | {"eligible": jnp.asarray(tokens != PAD)[None].at[:, :, 0].set(False)}
        objective = Preference(VOCAB, beta=5.0)
        return jax.jit(lambda: objective(Against(own, other), batch, jax.random.key(0), 1).nats[0])()

    assert abs(loss(5) - math.log(2)) > 0.01
    np.testing.assert_allclose(loss(12), loss(5), rtol=1e-6)


def test_rates_shared_by_both_answers():
    """The two of a pair hide as many tokens at every draw, others do not, and the masks are their own."""
    rows = models()[2]
    batch = pair(rows, 50)
    draw = lambda **how: Preference(VOCAB, **how).draw(jax.random.key(0), batch["ids"], batch["eligible"])
    together, apart = draw(rates_shared=True), draw()
    counts = lambda draws: np.asarray(draws.masks.sum(2)).reshape(8, 50, 2)
    assert (counts(together)[..., 0] == counts(together)[..., 1]).all()
    assert (counts(apart)[..., 0] != counts(apart)[..., 1]).any()
    masks = np.asarray(together.masks).reshape(8, 50, 2, LENGTH)
    assert (masks[:, :, 0] != masks[:, :, 1]).any()


@pytest.mark.parametrize("choices, match", [(dict(beta=0.0), "beta=0.0"), (dict(sft=-1.0), "sft=-1.0")])
def test_what_is_refused(choices, match):
    with pytest.raises(ValueError, match=match):
        Preference(VOCAB, **choices)
