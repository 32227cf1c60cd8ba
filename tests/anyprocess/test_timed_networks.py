"""The library's network as the model of FlexMDM, Edit Flows and DreamOn: what is read from it, and that it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax import anyprocess
from mdmjax.anyprocess import FlexMDM, edits_from_policy, from_policy, generate_edits, generate_flexible
from mdmjax.networks import PolicyConfig, TransformerConfig, policy_network

V, N, START = 3, 8, 2
TOKENS = jnp.array([[2, 0, 3, 1, 4, 4, 4, 4], [2, 1, 1, 0, 3, 0, 4, 4]])
LENGTHS = jnp.array([4, 6])


def bound(outputs, time):
    config = TransformerConfig(V, N, width=16, depth=1, heads=2, time=time, pads=True)
    model = policy_network(PolicyConfig(config, outputs=outputs, bias=0.5))
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return model.bind(tree.unflatten(moved))


@pytest.mark.parametrize("time", [True, False])
def test_what_is_read_from_it(time):
    """Rates of insertion, substitution and deletion add up to the decisions; a network with time is given it."""
    policy, plain = bound(2 * V, time), bound(None, time)
    assert policy.timed == time
    known = lambda t: (t,) if time else ()

    @jax.jit
    def run(t):
        edits, flexible = edits_from_policy(policy)(TOKENS, LENGTHS, t), from_policy(plain)(TOKENS, LENGTHS, t)
        return edits, flexible, policy(TOKENS, LENGTHS, *known(t)), plain(TOKENS, LENGTHS, *known(t))

    early, late = (jax.tree.map(np.asarray, run(jnp.full(2, t))) for t in (0.2, 0.9))
    edits, (logits, missing), (both, rates), (alone, controls) = early
    np.testing.assert_allclose(np.exp(edits.insert).sum(-1), np.exp(rates[..., 1]), rtol=1e-5)
    np.testing.assert_allclose(np.exp(edits.substitute).sum(-1), np.exp(rates[..., 0]), rtol=1e-5)
    np.testing.assert_array_equal(edits.delete, rates[..., 2])
    for part, shown in ((edits.insert, both[..., :V]), (edits.substitute, both[..., V:])):
        np.testing.assert_allclose(np.diff(part), np.diff(shown), atol=1e-5)
    np.testing.assert_array_equal(logits, alone)
    np.testing.assert_array_equal(missing, controls[..., 1])
    for x, y in zip(jax.tree.leaves(early), jax.tree.leaves(late), strict=True):
        assert (x == y).all() == (not time)


def test_texts_grow_from_a_start():
    """Through both drivers; the start stays, and what is made is tokens."""
    canvas = anyprocess.canvas_of([(START,)] * 2, N, vocab=V)
    key = jax.random.key(2)
    made = [
        jax.jit(lambda: generate_flexible(from_policy(bound(None, True)), canvas, vocab=V, steps=4, key=key))(),
        jax.jit(lambda: generate_edits(edits_from_policy(bound(2 * V, True)), canvas, vocab=V, steps=4, key=key))(),
    ]
    for found in made:
        inside = np.arange(N)[None] < np.asarray(found.canvas.lengths)[:, None]
        tokens = np.asarray(found.canvas.tokens)
        assert (tokens[:, 0] == START).all() and (tokens[inside] < V).all() and (found.canvas.lengths > 1).any()


def test_a_step_of_training_lowers_the_loss():
    """Of FlexMDM, with the same draws: time is part of what is learnt, for its parameters have gradients."""
    policy, objective = bound(None, True), FlexMDM(V)
    batch = dict(tokens=jnp.array([[2, 0, 1, 1], [2, 1, 4, 4]]), ids=jnp.arange(2), lengths=jnp.array([4, 2]))

    @jax.jit
    def loss(params):
        bound = policy.model.bind(params)
        return objective(from_policy(bound), batch, jax.random.key(3), 2).nats.sum()

    before, gradient = jax.value_and_grad(loss)(policy.params)
    norm = sum((x**2).sum() for x in jax.tree.leaves(gradient))
    after = loss(jax.tree.map(lambda x, g: x - 0.01 * g / jnp.sqrt(norm), policy.params, gradient))
    assert after < before and all((x != 0).any() for x in jax.tree.leaves(gradient["time"]))


def test_dreamon_reads_two_more_tokens():
    """EXPAND and DELETE at masks; the policy made of it does what is likeliest there."""
    model = bound(V + 2, False)
    policy = anyprocess.expanding_policy(lambda *state: model(*state)[0], vocab=V, count=None)
    logits, controls = jax.jit(policy)(TOKENS, LENGTHS)
    best = np.asarray(jax.jit(lambda *state: model(*state)[0])(TOKENS, LENGTHS)).argmax(-1)
    assert logits.shape == (2, N, V)
    for b, i in ((0, 2), (1, 4)):
        expand, delete = best[b, i] == V, best[b, i] == V + 1
        assert (np.asarray(controls[b, i]) > 0).tolist() == [expand, expand, delete]
