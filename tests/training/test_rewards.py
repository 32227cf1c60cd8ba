"""Learning from rewards through the one step: what is rewarded becomes likelier, by every method."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.analysis import table_denoiser
from mdmjax.objectives import Against
from mdmjax.objectives.policy_gradient import (
    ESPO,
    GDPO,
    SPG,
    WD1,
    CoupledGRPO,
    DiffuGRPO,
    PolicyGradient,
    Rewarded,
    UniGRPO,
    exact,
    group_advantages,
    wd1_advantages,
    written_by,
)
from mdmjax.objectives.policy_gradient.rewarded import SAMPLE
from mdmjax.process import Allocation, use_key
from mdmjax.sampling import FirstHitting, sample
from mdmjax.training import Step, init_state
from mdmjax.training.state import DRAWS

V, L, B = 3, 3, 8
RIGHT = jnp.array([1, 0, 2])
METHODS = dict(
    diffu=DiffuGRPO(), coupled=CoupledGRPO(), espo=ESPO(), gdpo=GDPO(), unigrpo=UniGRPO(Allocation(4)), spg=SPG(),
    wd1=WD1(),
)  # fmt: skip


def draw(policy, canvas, key, ids):
    return sample(policy, FirstHitting(), canvas, vocab=V, key=key, ids=ids).tokens


def partly(tokens, right, eligible):
    """The share of the completion that is right: a reward that is rarely the same for a whole group."""
    return ((tokens == right) & eligible).sum(1) / eligible.sum(1)


@functools.cache
def trained(name, steps=40):
    """(mean reward of the first steps, of the last ones) from no knowledge at all."""
    advantages = (lambda r: wd1_advantages(group_advantages(r))) if name == "wd1" else group_advantages
    objective = Rewarded(PolicyGradient(V, METHODS[name]), draw, partly, group=8, advantages=advantages)
    bind = lambda params, frozen: Against(table_denoiser(params), table_denoiser(frozen))
    rate = 4.0
    step = jax.jit(
        Step(bind, objective, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)), lambda s: rate, B)
    )
    table = jnp.zeros(((V + 1) ** L, L, V))
    state = init_state(lambda key: table, step.__wrapped__.optimizer, jax.random.key(0))
    rewards = []
    for k in range(steps):
        batch = dict(tokens=jnp.tile(RIGHT[None], (B, 1)), eligible=jnp.ones((B, L), bool), ids=jnp.arange(B) + k * B)
        state, metrics = step(state, batch, table)
        rewards.append(float(metrics["reward"]))
    return np.mean(rewards[:2]), np.mean(rewards[-5:])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_rewarded_becomes_likelier(name):
    """Mean fields teach a table no more than the first call of three, in which all is hidden."""
    first, last = trained(name)
    gain = 0.15 if name in ("diffu", "wd1") else 0.25
    assert abs(first - 1 / 3) < 0.1 and last > first + gain, (first, last)


def test_completions_belong_to_their_prompts():
    """In two parts and in one: the same completions, rewards and terms; a prompt stays as it is."""
    objective = Rewarded(PolicyGradient(V, DiffuGRPO(prompt=0.0)), draw, partly, group=5)
    table = jax.random.normal(jax.random.key(1), ((V + 1) ** L, L, V))
    both = Against(table_denoiser(table))
    eligible = jnp.tile(jnp.array([[False, True, True]]), (4, 1))
    batch = dict(tokens=jnp.tile(RIGHT[None], (4, 1)), eligible=eligible, ids=jnp.arange(4) + 20)
    run = jax.jit(lambda batch: objective(both, batch, jax.random.key(2), 4))
    whole, parts = run(batch), [run(jax.tree.map(lambda x, k=k: x[k : k + 2], batch)) for k in (0, 2)]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    assert len(set(np.asarray(whole.also["reward"]).tolist())) > 1 and (whole.scored == 5 * 2).all()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), whole, joined)
    with pytest.raises(ValueError, match="group=1"):
        Rewarded(PolicyGradient(V, DiffuGRPO()), draw, partly, group=1)


def test_exact_answers():
    eligible = jnp.array([[False, True, True]] * 3)
    tokens = jnp.array([[1, 0, 2], [1, 0, 1], [2, 0, 2]])
    assert exact(tokens, jnp.tile(RIGHT[None], (3, 1)), eligible).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["diffu", "espo"])
def test_an_older_policy_writes_the_completions(name):
    """For three steps the completions, and so the rewards, are those of the policy of the first of them, and ratios
    are clipped; then they are the present one's."""
    clip = dataclasses.replace(METHODS[name].clip, low=0.0, high=0.0, kl=0.0)
    method = dataclasses.replace(METHODS[name], clip=clip)
    objective = Rewarded(PolicyGradient(V, method), draw, partly, group=8, bind=table_denoiser)
    bind = lambda params: Against(table_denoiser(params))
    step = Step(bind, objective, optax.sgd(4.0), lambda s: 4.0, B, refit=written_by, refit_every=3)
    table = jnp.zeros(((V + 1) ** L, L, V))
    state = init_state(lambda key: table, step.optimizer, jax.random.key(0), law=table)
    run, laws = jax.jit(step), []
    for k in range(4):
        batch = dict(tokens=jnp.tile(RIGHT[None], (B, 1)), eligible=jnp.ones((B, L), bool), ids=jnp.arange(B) + k * B)
        before = state
        state, metrics = run(state, batch)
        laws.append(state.law)
        writer = table_denoiser(before.params if k in (0, 3) else laws[0])
        canvas = jnp.full((8 * B, L), V)
        ids = (8 * batch["ids"][:, None] + jnp.arange(8)[None]).reshape(-1)
        key = jax.random.fold_in(use_key(state.key, before.step, DRAWS), SAMPLE)
        drawn = draw(writer, canvas, key, ids)
        expected = partly(drawn, jnp.tile(RIGHT[None], (8 * B, 1)), jnp.ones((8 * B, L), bool)).mean()
        assert float(metrics["reward"]) == pytest.approx(float(expected), abs=1e-5)
    assert (laws[0] == laws[2]).all() and (laws[3] != laws[2]).any() and (laws[3] == before.params).all()
    with pytest.raises(ValueError, match="needs `bind`"):
        Rewarded(PolicyGradient(V, method), draw, partly, law=table)
