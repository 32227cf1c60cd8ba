"""Muon for the kernels of the blocks, Adam for all else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.networks import TransformerConfig, transformer
from mdmjax.training import adamw

CONFIG = dict(vocab=5, length=8, width=32, depth=2, heads=2)
HOW = dict(learning_rate=1e-2, steps=100, warmup=0, weight_decay=0.0, clip=1e9)


def updates(scan, **choices):
    """(first updates, params) by made-up gradients, which are the same numbers whether blocks are stacked or not."""
    params = jax.jit(transformer(TransformerConfig(**CONFIG)).init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    gradients = tree.unflatten([jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in leaves])
    if scan:
        stack = lambda p: p | {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *(p["blocks"][k] for k in "01"))}
        params, gradients = stack(params), stack(gradients)
    optimizer = choices.get("optimizer") or adamw(**HOW | choices)[0]
    found, _ = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    return found


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves}


def test_kernels_of_the_blocks_are_orthogonal_and_the_rest_is_adams():
    """Singular values of such an update are near one, but for a few; all other leaves go by Adam with Nesterov."""
    found = named(updates(False, muon=0.02))
    plain = named(updates(False, optimizer=optax.nadam(0.01, 0.9, 0.98)))
    inside = {name for name in found if name.startswith("blocks/") and name.endswith("kernel")}
    assert len(inside) == 2 * 7
    for name, update in found.items():
        if name in inside:
            values = np.linalg.svd(update, compute_uv=False) / 0.02
            rows, columns = update.shape
            values /= max(1, columns / rows) ** 0.5
            assert 0.5 < np.quantile(values, 0.1) and values.max() < 1.4, (name, values)
        else:
            np.testing.assert_allclose(update, plain[name], rtol=1e-5, atol=1e-9)


def test_stacked_blocks_are_updated_as_they_are_alone():
    alone, stacked = named(updates(False, muon=0.02)), named(updates(True, muon=0.02))
    for name, update in stacked.items():
        if name.startswith("blocks/"):
            for k in range(2):
                np.testing.assert_allclose(update[k], alone[f"blocks/{k}/{name[7:]}"], atol=1e-5)


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match="muon=-0.1: must be a learning rate"):
        adamw(**HOW | dict(muon=-0.1))
