"""Policy gradients: what each surrogate is on average, by enumeration; its loss and gradient at a few rows, by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.analysis import continuous_bound, masked_losses, random_table, table_denoiser
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.objectives import Against
from mdmjax.objectives.policy_gradient import (
    ESPO,
    GDPO,
    SPG,
    WD1,
    Clip,
    CoupledGRPO,
    DiffuGRPO,
    PolicyGradient,
    UniGRPO,
    clipped,
    group_advantages,
    k2,
    k3,
    token_log_probs,
    wd1_advantages,
)
from mdmjax.process import Allocation, ExactCount, Quadrature, iid, mirror
from mdmjax.variance import surrogate_means

V, L, ROWS = 3, 4, 20_000
ROW = jnp.array([0, 2, 1, 1])
METHODS = dict(
    diffu=DiffuGRPO(prompt=0.0), wd1=WD1(), coupled=CoupledGRPO(), espo=ESPO(), gdpo=GDPO(),
    unigrpo=UniGRPO(Allocation(8)), spg=SPG(mixture=0.0), counts=ESPO(law=ExactCount(spread=iid)),
    mirrored=ESPO(law=ExactCount(ways=mirror)), gdpo_one=GDPO(Allocation(1), Quadrature(1)),
)  # fmt: skip
MEANS = dict(
    diffu="mean field", wd1="mean field", coupled="coupled rates", espo="coupled counts", gdpo="quadrature",
    unigrpo="mean of masked", spg="exact count", counts="exact count", mirrored="exact count",
)  # fmt: skip


@functools.cache
def denoiser(seed=0):
    with jax.ensure_compile_time_eval():  # be it called while something is traced
        return table_denoiser(random_table(jax.random.key(seed), L, V, 1.5))


@functools.cache
def log_p(seed=0):
    return -np.asarray(masked_losses(denoiser(seed), ROW, V), np.float64)


def rows(count=ROWS, **fields):
    tokens = jnp.tile(ROW[None], (count, 1))
    batch = dict(tokens=tokens, eligible=jnp.ones(tokens.shape, bool), ids=jnp.arange(count))
    return batch | dict(advantages=jnp.ones(count)) | fields


@functools.cache
def surrogates(name, count=ROWS):
    """(surrogates of so many draws of one row, the draws)."""
    method, batch = METHODS[name], rows(count)

    @jax.jit
    def run():
        draws = method.draw(jax.random.key(1), batch["ids"], batch["eligible"], batch=1)
        found = token_log_probs(denoiser(), batch["tokens"], draws, batch["eligible"], vocab=V)
        return method.surrogate(found, draws, batch["eligible"], batch["advantages"]), draws

    return run()


# ---- audit


def test_what_is_unbiased_and_what_is_not():
    """By enumeration alone: coupled counts and exact counts are B; so is quadrature where 2 nodes >= L."""
    bound = -float(continuous_bound(denoiser(), ROW, V))
    found = surrogate_means(log_p())
    for name in ("bound", "exact count", "coupled counts", "quadrature"):
        assert abs(found[name] - bound) < 1e-5, name
    exact = found.pop("bound")
    for name in ("exact count", "coupled counts", "quadrature"):
        assert abs(found.pop(name) - exact) < 1e-10, name
    assert len(found) == 5 and all(abs(x - exact) > 0.05 for x in found.values())
    assert found["upper, many draws"] > exact
    assert abs(found["mean of masked"] - exact * L / (L + 1)) < 1e-10
    assert abs(surrogate_means(log_p(), nodes=1)["quadrature"] - exact) > 0.05


@pytest.mark.parametrize("draws", [1, 4096])
def test_the_upper_surrogate_of_spg(draws):
    """Of one draw on average, and of so many that it is at its limit, for what is to become rarer."""
    method, count = SPG(allocation=Allocation(draws)), ROWS if draws == 1 else 64
    batch = rows(count, advantages=-jnp.ones(count))

    @jax.jit
    def run():
        made = method.draw(jax.random.key(1), batch["ids"], batch["eligible"], batch=1)
        found = token_log_probs(denoiser(), batch["tokens"], made, batch["eligible"], vocab=V)
        return method.surrogate(found, made, batch["eligible"], batch["advantages"])

    values, name = np.asarray(run(), np.float64), "one draw" if draws == 1 else "many draws"
    error = values.std() / math.sqrt(count)
    assert abs(values.mean() - surrogate_means(log_p())[f"upper, {name}"]) < 4 * error + (draws > 1) * 1e-3


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_a_surrogate(name):
    """20,000 draws against the enumeration, which knows nothing of this code."""
    found, _ = surrogates(name)
    values = np.asarray(found if found.ndim == 1 else found.sum(1), np.float64)
    if name == "unigrpo":
        values = values * L
    error = max(values.std() / math.sqrt(len(values)), 1e-6)
    expected = surrogate_means(log_p())[MEANS[name]]
    assert abs(values.mean() - expected) < 4 * error, (values.mean(), expected, error)
    if name in ("diffu", "wd1"):
        assert values.std() < 1e-5


def test_the_rule_of_one_node_is_its_own():
    found, draws = surrogates("gdpo_one")
    values = np.asarray(found, np.float64)
    expected = surrogate_means(log_p(), nodes=1)["quadrature"]
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(len(values))
    assert np.unique(draws.t).size == 1 and np.allclose(draws.weights, 2.0)


def test_coupled_weights_sum_to_three_halves():
    """Of a token, on average; every token is scored in two of the three calls, and a batch has one rate."""
    _, draws = surrogates("coupled")  # each row is a batch by itself
    masks, weights = np.asarray(draws.masks), np.asarray(draws.weights)
    assert masks.shape == (3, ROWS, L) and (masks.sum(0) == 2).all() and masks[0].all()
    total = (masks * weights[..., None]).sum(0)
    assert (np.abs(total.mean(0) - 1.5) < 4 * total.std(0) / math.sqrt(ROWS)).all()
    together = CoupledGRPO().draw(jax.random.key(1), jnp.arange(8), jnp.ones((8, L), bool), batch=4)
    rates = np.asarray(together.t[1])
    assert (rates[:4] == rates[0]).all() and (rates[4:] == rates[4]).all() and rates[0] != rates[4]
    assert ((rates > 0.2) & (rates < 0.8)).all()


def test_coupled_counts_are_complements():
    """All counts 0..L alike, weights by the formula, what is not eligible never hidden."""
    _, draws = surrogates("espo", 1000)
    masks = np.asarray(draws.masks).reshape(2, 2, 1000, L)  # draw, mask of the couple
    weights = np.asarray(draws.weights).reshape(2, 2, 1000)
    assert (masks[:, 0] != masks[:, 1]).all()
    counts = masks.sum(3)
    np.testing.assert_allclose(weights, np.where(counts > 0, (L + 1) / np.maximum(counts, 1), 0))
    seen = np.bincount(counts[:, 0].ravel(), minlength=L + 1)
    assert len(seen) == L + 1 and seen.min() > 300
    few = jnp.array([[True, True, False, False]] * 50)
    made = ESPO(Allocation(1)).draw(jax.random.key(0), jnp.arange(50), few, batch=50)
    assert not (made.masks & ~few[None]).any() and set(np.asarray(made.masks.sum(2)).ravel()) == {0, 1, 2}


# ---- losses


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_distances_are_not_negative(a, b):
    a, b = jnp.float32(a), jnp.float32(b)
    for distance in (k2, k3):
        assert distance(a, b) >= -1e-6 and distance(a, a) == 0


def test_the_clip():
    """The worse of the two, and no slope beyond the range in the direction of the advantage."""
    ratios = jnp.array([0.5, 0.9, 1.0, 1.1, 1.5])
    slope = jax.vmap(jax.grad(lambda log, a: clipped(log, a, 0.2, 0.3)), (0, None))
    for advantage in (2.0, -2.0):
        found = clipped(jnp.log(ratios), jnp.full(5, advantage), 0.2, 0.3)
        clip = np.clip(ratios, 0.8, 1.3)
        np.testing.assert_allclose(found, -np.minimum(ratios * advantage, clip * advantage), rtol=1e-6)
        stopped = slope(jnp.log(ratios), jnp.float32(advantage)) == 0
        assert stopped.tolist() == ([False] * 4 + [True] if advantage > 0 else [True] + [False] * 4)


def gradient(method, batch, **others):
    """(terms, gradient of their sum over their count by the policy's table)."""
    objective = PolicyGradient(V, method)

    def loss(table):
        both = Against(table_denoiser(table), **{name: denoiser(seed) for name, seed in others.items()})
        terms = objective(both, batch, jax.random.key(2), len(batch["ids"]))
        return terms.nats.sum() / terms.tokens.sum(), terms

    (_, terms), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(denoiser().table)
    return terms, np.asarray(slope)


@pytest.mark.parametrize("name", ["diffu", "coupled", "espo", "gdpo", "unigrpo"])
def test_at_the_old_policy_it_is_the_policy_gradient(name):
    """No ratio, no KL: minus A times the gradient of the surrogate, normalised as the method says. With the reference
    the same the KL adds nothing; with another one it does, and more loss."""
    method, batch = METHODS[name], rows(6, advantages=jnp.array([1.0, -0.5, 2.0, 0.0, -1.5, 0.3]))
    terms, slope = gradient(method, batch)
    scale = {"unigrpo": 1.0}.get(name, 1 / L)

    def weighted(table):
        draws = method.draw(jax.random.key(2), batch["ids"], batch["eligible"], batch=6)
        found = token_log_probs(table_denoiser(table), batch["tokens"], draws, batch["eligible"], vocab=V)
        found = method.surrogate(found, draws, batch["eligible"], batch["advantages"])
        total = found if found.ndim == 1 else found.sum(1)
        return -(batch["advantages"] * total).mean() * scale

    np.testing.assert_allclose(slope, jax.jit(jax.grad(weighted))(denoiser().table), atol=1e-6)
    same, unmoved = gradient(method, batch, reference=0, old=0)
    np.testing.assert_allclose(unmoved, slope, atol=1e-6)
    np.testing.assert_allclose(same.nats, terms.nats, atol=1e-5)
    other, _ = gradient(method, batch, reference=3)
    assert (other.nats > terms.nats).all()
    away, _ = gradient(method, batch, old=3)
    assert (jnp.abs(away.nats - terms.nats)[jnp.array([0, 1, 2, 4, 5])] > 1e-4).all()


def test_weighted_likelihoods_have_no_ratio():
    """wd1: the loss is minus its weights times the mean field; weights of a group sum to 0."""
    advantages = group_advantages(jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]]))
    weights = wd1_advantages(advantages)
    a = np.asarray(advantages, np.float64)
    up, down = np.exp(a), np.exp(-a)
    np.testing.assert_allclose(weights, up / up.sum(1, keepdims=True) - down / down.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(weights.sum(1), 0, atol=1e-6)
    terms, _ = gradient(METHODS["wd1"], rows(6, advantages=weights.reshape(-1)), old=3, reference=3)
    np.testing.assert_allclose(terms.nats, -weights.reshape(-1) * surrogate_means(log_p())["mean field"], rtol=1e-5)
    assert terms.tokens.tolist() == [1] * 6


def test_advantages_of_a_group():
    rewards = jnp.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(group_advantages(rewards), [[1, -1, -1, 1], [0] * 4], atol=3e-4)
    np.testing.assert_allclose(group_advantages(rewards, scaled=False), [[0.5, -0.5, -0.5, 0.5], [0] * 4])


@pytest.mark.parametrize("mixture", [1.0, 0.5])
def test_the_two_sides_of_spg(mixture):
    """A lower bound for advantages above 0, by the formula the other one below; with finite gradients where no draw
    masks a token."""
    method = SPG(mixture=mixture, allocation=Allocation(2))
    batch = rows(40, advantages=jnp.where(jnp.arange(40) % 2 == 0, 1.0, -1.0))
    draws = jax.jit(lambda: method.draw(jax.random.key(2), batch["ids"], batch["eligible"], batch=40))()
    terms, slope = gradient(method, batch)
    masks, table = np.asarray(draws.masks), log_p()
    for b in range(40):
        lines = [table[int("".join("01"[int(m)] for m in masks[j, b]), 2)] for j in range(2)]
        lower = np.mean([line.sum() / masks[j, b].sum() * L for j, line in enumerate(lines)])
        upper = 0.0
        for i in range(L):
            inside = [
                math.exp(1.5 * line[i]) / (masks[j, b].sum() / L) * masks[j, b, i] for j, line in enumerate(lines)
            ]
            upper += math.log(np.mean(inside)) / 1.5 if sum(inside) else 0.0
        expected = lower if b % 2 == 0 else mixture * upper + (1 - mixture) * lower
        np.testing.assert_allclose(terms.nats[b], -float(batch["advantages"][b]) * expected, rtol=1e-4)
    assert not masks.any(0).all() and np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_a_prompt_is_hidden_now_and_then_and_never_scored():
    """diffu-GRPO: each of its tokens with the given probability, and none of them counts."""
    eligible = jnp.array([[False, False, True, True]] * 4000)
    draws = DiffuGRPO(prompt=0.25).draw(jax.random.key(0), jnp.arange(4000), eligible, batch=1)
    masks = np.asarray(draws.masks[0])
    assert masks[:, 2:].all() and (np.abs(masks[:, :2].mean(0) - 0.25) < 0.03).all()
    assert (np.asarray(draws.weights[0]) == np.asarray(eligible)).all()
    batch = rows(8) | {"eligible": eligible[:8]}
    terms, _ = gradient(DiffuGRPO(prompt=0.25), batch)
    assert (terms.scored == 2).all()


@pytest.mark.parametrize("name", ["diffu", "wd1", "coupled", "espo", "spg"])
def test_padding_changes_nothing(name):
    """Two paddings of the same completions, of unequal lengths and behind prompts that may be hidden: one loss, and
    gradients that are finite and the same."""
    method = dict(METHODS, diffu=DiffuGRPO(prompt=0.5), wd1=WD1(prompt=0.5))[name]
    pad, answers = V + 1, np.array([[0, 1, 2, 0, 1], [2, 2, 1, V + 1, V + 1]])
    model = transformer(TransformerConfig(V, 8, width=16, depth=1, heads=2, pads=True))
    params = jax.jit(model.init)(jax.random.key(0))
    objective = PolicyGradient(V, method)

    def run(length):
        tokens = jnp.asarray(np.pad(answers, ((0, 0), (0, length - 5)), constant_values=pad))
        eligible = (tokens != pad).at[:, :2].set(False)
        batch = dict(tokens=tokens, eligible=eligible, ids=jnp.arange(2), advantages=jnp.array([1.0, -0.7]))
        loss = lambda p: objective(Against(model.bind(p)), batch, jax.random.key(1), 2).nats.sum()
        return jax.jit(jax.value_and_grad(loss))(params)

    (short, by_short), (long, by_long) = run(5), run(8)
    assert np.isfinite(short) and abs(short) > 1e-3
    np.testing.assert_allclose(short, long, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), by_short, by_long)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(by_short))


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: Clip(low=-0.1), "none may be negative"),
        (lambda: CoupledGRPO(low=0.0), "must be 0 < low <= high < 1"),
        (lambda: SPG(beta=0.5), "beta=0.5"),
        (lambda: DiffuGRPO(prompt=1.5), "prompt=1.5"),
        (lambda: WD1(prompt=-0.1), "prompt=-0.1"),
        (lambda: SPG(mixture=2.0), "mixture=2.0"),
        (lambda: Quadrature(0), "nodes=0"),
        (lambda: GDPO(Allocation(3)).draw(jax.random.key(0), jnp.arange(2), jnp.ones((2, L), bool), batch=2), "not 3"),
    ],
)
def test_what_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
