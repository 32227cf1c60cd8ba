"""Labels of insert and delete that a policy can learn, and those that none can."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corrupted_rows import KINDS, made

from mdmjax.anyprocess import decisions, policy_losses, supervised_loss
from mdmjax.anyprocess.corruptions import delete

STRING = (0, 1, 2, 3, 4, 5)  # distinct tokens in a known order: what is missing shows


def look_up(canvas, labels):
    """(row by row) the labels of each canvas as a table; fails where equal canvases have different labels."""
    table = {}
    for tokens, label in zip(np.asarray(canvas.tokens).tolist(), np.asarray(labels).tolist(), strict=True):
        assert table.setdefault(tuple(tokens), label) == label
    return table


@pytest.mark.parametrize("kind, control", [("insert", 1), ("delete", 2)])
def test_labels_are_a_function_of_the_canvas(kind, control):
    """So a table made of some rows reaches loss 0 on others."""
    clean = jnp.tile(jnp.array(STRING), (800, 1))
    _, (canvas, targets) = made(KINDS[kind], clean, 6)
    table = look_up(canvas, targets.controls[..., control])
    _, (canvas, targets) = jax.tree.map(np.asarray, made(KINDS[kind], clean, 6, seed=1))
    known = np.array([tuple(row) in table for row in canvas.tokens.tolist()])
    assert known.mean() > 0.5
    rows = np.array([table.get(tuple(row), [False] * len(row)) for row in canvas.tokens.tolist()])
    controls = np.where(rows, 50.0, -50.0).astype(np.float32)[..., None].repeat(3, -1)
    run = jax.jit(lambda c: policy_losses(jnp.zeros((*rows.shape, 6)), c, targets))
    losses = jax.tree.map(np.asarray, run(controls))
    assert losses.controls[known].sum() < 1e-6 and losses.scored[known, control].sum() > 100
    assert targets.controls[known][..., control].sum() > 100


def test_released_labels_have_a_floor():
    """They are independent of the canvas and 1 at the rate 0.3, so no policy is below H(0.3) nats a mask, and the best
    never deletes. (The expectation over labels of that rate is exact here: the loss is linear in the label.)"""
    tokens = jax.random.randint(jax.random.key(1), (20_000, 6), 0, 5)
    noise, (canvas, targets) = jax.tree.map(np.asarray, made(delete(labels="iid"), tokens, 5))
    masked = np.asarray(canvas.tokens) == 5
    np.testing.assert_array_equal(targets.controls[..., 2], np.asarray(noise.marks) & masked)
    with pytest.raises(AssertionError):
        look_up(canvas, targets.controls[..., 2])
    sparse = masked & (masked.sum(1) <= 3)[:, None]
    for group in (masked, sparse, masked & (np.asarray(tokens) == 2), masked & (np.arange(6) == 0)):
        share = np.asarray(targets.controls[..., 2])[group].mean()
        np.testing.assert_allclose(share, 0.3, atol=5 * math.sqrt(0.21 / group.sum()))

    few = jax.tree.map(lambda x: x[:64], targets)

    def cost(logit):
        zeros = jnp.zeros((64, 6, 5))
        of = lambda label: policy_losses(zeros, jnp.full((64, 6, 3), logit), few._replace(controls=few.scored & label))
        return 0.3 * supervised_loss(of(True)) + 0.7 * supervised_loss(of(False))

    logits = jnp.linspace(-2, 1, 601)
    costs = jax.jit(jax.vmap(cost))(logits)
    best = int(costs.argmin())
    assert abs(float(costs[best]) - 0.6109) < 1e-4
    assert abs(float(jax.nn.sigmoid(logits[best])) - 0.3) < 2e-3
    counts = jax.jit(decisions)(jnp.full((*canvas.tokens.shape, 3), logits[best]), jax.tree.map(jnp.asarray, targets))
    total = counts.total()
    assert total.decided[2] == 0 < total.wanted[2]
