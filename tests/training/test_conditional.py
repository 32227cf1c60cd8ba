"""Training on rows with a prompt and padding: neither is hidden, scored or counted, and PAD is not looked at."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.data import RowSource, batches
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.objectives import MaskedDiffusion, Packed, dense
from mdmjax.process import ExactCount, use_key
from mdmjax.training import Step, init_state
from mdmjax.training.state import DRAWS

V, L, B = 7, 12, 8
MODEL = transformer(TransformerConfig(vocab=V, length=L, width=16, depth=1, heads=2, pads=True))
OPTIMIZER = optax.sgd(1.0)  # so that a step takes the gradient away


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda: init_state(MODEL.init, OPTIMIZER, jax.random.key(0)))()


@pytest.fixture(scope="module")
def batch():
    """Rows with a prompt of 1 to 3 tokens and a length of 6 to 12, as a source passes them on."""
    rng = np.random.default_rng(0)
    prompt, length = rng.integers(1, 4, (40, 1)), rng.integers(6, L + 1, (40, 1))
    place = np.arange(L)[None]
    rows = np.where(place < length, rng.integers(0, V, (40, L)), V + 1)
    stream = batches(RowSource(rows, (prompt <= place) & (place < length)), B, seed=0)
    first = next(stream)
    stream.close()
    return {name: jnp.asarray(value) for name, value in first.items()}


@functools.cache
def compiled(nll, micro):
    return jax.jit(Step(MODEL.bind, MaskedDiffusion(V, nll=nll), OPTIMIZER, lambda step: 1.0, B, micro=micro))


def stepped(state, batch, nll=dense, micro=1):
    """(loss, gradient, tokens scored) of a step."""
    after, metrics = compiled(nll, micro)(state, batch)
    return metrics["loss"], jax.tree.map(jnp.subtract, state.params, after.params), metrics["scored"]


@jax.jit
def by_hand(state, batch):
    """sum(nats) / sum(eligible), and its gradient, of a bound that sums over eligible positions only."""
    eligible = batch["eligible"]
    draws = ExactCount().draw(use_key(state.key, state.step, DRAWS), batch["ids"], eligible, batch=B)

    def loss(params):
        inputs = jnp.where(draws.masks & eligible, V, batch["tokens"])
        log_p = jax.nn.log_softmax(MODEL.bind(params)(inputs))
        targets = jnp.where(eligible, batch["tokens"], 0)
        nats = -jnp.take_along_axis(log_p, targets[:, :, None], 2)[:, :, 0]
        hidden = draws.masks & eligible
        return (eligible.sum(1) / hidden.sum(1) * (hidden * nats).sum(1)).sum() / eligible.sum()

    return *jax.value_and_grad(loss)(state.params), draws.masks.sum()


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("nll", [dense, Packed(chunk=16)], ids=["dense", "packed"])
def test_the_loss_is_of_the_eligible_tokens(state, batch, nll, micro):
    assert not batch["eligible"].all(1).any()
    assert_close(stepped(state, batch, nll, micro), by_hand(state, batch))


def test_what_stands_for_pad_changes_nothing(state, batch):
    """The network's row for PAD is another one: the same loss and gradient, which has nothing for that row."""
    assert (batch["tokens"] == V + 1).any()
    loss, gradient, scored = stepped(state, batch)
    (table,) = [x for path, x in jax.tree.leaves_with_path(gradient) if x.shape == (V + 2, 16)]
    np.testing.assert_array_equal(table[V + 1], 0)
    other = jax.tree.map(lambda x: x.at[V + 1].add(3.0) if x.shape == (V + 2, 16) else x, state.params)
    assert_close(stepped(dataclasses.replace(state, params=other), batch), (loss, gradient, scored))


def test_prompts_are_context(state, batch):
    """Another prompt is another loss, though nothing is asked of it."""
    prompt = (jnp.cumsum(batch["eligible"], 1) == 0) & (batch["tokens"] < V)
    assert prompt.any()
    other = {**batch, "tokens": jnp.where(prompt, (batch["tokens"] + 1) % V, batch["tokens"])}
    assert abs(stepped(state, other)[0] - stepped(state, batch)[0]) > 1e-5
