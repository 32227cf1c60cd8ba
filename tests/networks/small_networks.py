"""A small transformer and its variants, shared by the tests of networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mdmjax.networks import TransformerConfig, naive, transformer

V, L, B = 11, 16, 3
SMALL = TransformerConfig(vocab=V, length=L, width=32, depth=2, heads=4)
VARIANTS = {
    "plain": SMALL,
    "causal": dataclasses.replace(SMALL, causal=True),
    "grouped": dataclasses.replace(SMALL, kv_heads=2, qk_norm=True, tied=True),
    "pads": dataclasses.replace(SMALL, pads=True),
    "time": dataclasses.replace(SMALL, time=True),
    "scan": dataclasses.replace(SMALL, scan=True, time=True),
    "remat": dataclasses.replace(SMALL, remat=True),
    "naive": dataclasses.replace(SMALL, attention=naive),
}
TIMES = np.array([0.1, 0.5, 0.9], np.float32)


@functools.cache
def parameters(config: TransformerConfig):
    """Parameters away from the initial ones, so that nothing is zero or the identity by accident."""
    params = jax.jit(transformer(config).init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@functools.cache
def compiled(config: TransformerConfig):
    model = transformer(config)
    return jax.jit(lambda params, tokens, t=None, at=None: model.bind(params)(tokens, t, at=at))


def tokens_of(config, seed=0, rows=B):
    return jnp.asarray(np.random.default_rng(seed).integers(0, V + 1, (rows, config.length)), jnp.int32)


def logits_of(config, tokens, params=None, at=None):
    t = jnp.asarray(TIMES[: tokens.shape[0]]) if config.time else None
    return compiled(config)(parameters(config) if params is None else params, tokens, t, at)


def assert_close(a, b, rtol=1e-4):
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale), a, b)
