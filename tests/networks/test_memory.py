"""Keys and values that are kept: what is computed for some positions is what the whole row would have said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.networks import BlockCausal, Relations, TransformerConfig, grid_relations, naive, transformer

V, L, B = 5, 12, 2
TOKENS = jnp.array(np.random.default_rng(0).integers(0, V + 1, (B, L)))


def bound(**choices):
    model = transformer(TransformerConfig(V, L, **dict(width=16, depth=2, heads=2) | choices))
    params = jax.tree.map(
        lambda x: x + 0.2 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), model.init(jax.random.key(0))
    )
    return model.bind(params)


@pytest.mark.parametrize("choices", [
    dict(),
    dict(attention=BlockCausal(4), kv_heads=1, qk_norm=True),
    dict(time=True, places=True, pads=True),
    dict(loops=2, scan=True, attention=BlockCausal(5)),
    dict(loops=3, exits=(1, 2, 3) * 4),
])  # fmt: skip
def test_all_positions_at_once_are_the_features(choices):
    network = bound(**choices)
    tokens = TOKENS.at[0, 9:].set(V + 1) if "pads" in choices else TOKENS
    t = jnp.array([0.3, 0.8])
    whole, (some, memory) = jax.jit(
        lambda: (
            network.features(tokens, t),
            network.features_at(tokens, t, jnp.tile(jnp.arange(L), (B, 1)), network.memory(B, L)),
        )
    )()
    np.testing.assert_allclose(some, whole, atol=2e-5)
    assert all(x.shape == y.shape and x.any() for x, y in zip(memory, network.memory(B, L), strict=True))


def test_blocks_one_after_the_other_are_exact():
    """In a block-causal network each row goes through blocks of its own; every block is that of the full row."""
    network = bound(attention=BlockCausal(4))
    whole = network.features(TOKENS)
    step = jax.jit(network.features_at)
    memory = network.memory(B, L)
    for block in range(3):
        at = jnp.tile(4 * block + jnp.arange(4), (B, 1))
        found, memory = step(TOKENS, None, at, memory)
        np.testing.assert_allclose(found, whole[:, 4 * block : 4 * block + 4], atol=2e-5)
    # what comes later is never seen
    other = network.features(TOKENS.at[:, 8:].set(0))
    np.testing.assert_allclose(other[:, :8], whole[:, :8], atol=1e-6)
    assert not np.allclose(other[:, 8:], whole[:, 8:])
    assert not np.allclose(network.features(TOKENS.at[:, 4].set((TOKENS[:, 4] + 1) % V))[:, 5], whole[:, 5])


def test_what_the_memory_has_is_what_is_seen():
    """A stale memory in a network that sees everything: keys are of the old tokens, the queries' own of the new."""
    network = bound(depth=1)
    everywhere = jnp.tile(jnp.arange(L), (B, 1))
    _, memory = network.features_at(TOKENS, None, everywhere, network.memory(B, L))
    changed = TOKENS.at[:, 0].set((TOKENS[:, 0] + 1) % V).at[:, 6].set((TOKENS[:, 6] + 2) % V)
    at = jnp.tile(jnp.arange(6, 9), (B, 1))
    stale, _ = network.features_at(changed, None, at, memory)
    seen = TOKENS.at[:, 6].set(changed[:, 6])  # position 0 as it was
    np.testing.assert_allclose(stale, network.features(seen)[:, 6:9], atol=2e-5)
    assert not np.allclose(stale, network.features(changed)[:, 6:9], atol=1e-3)


def test_block_causal_attention_is_the_formula():
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, 10, heads, 8)) for key, heads in zip(keys, (4, 2, 2), strict=True))
    valid = jnp.arange(10)[None] < jnp.array([[10], [7]])
    got = jax.jit(BlockCausal(4))(q, k, v, valid=valid)
    for i in range(10):
        seen = valid & (jnp.arange(10) < (i // 4 + 1) * 4)[None]
        np.testing.assert_allclose(got[:, i], naive(q, k, v, valid=seen)[:, i], atol=1e-5)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"length=0\): must be at least 1"):
        BlockCausal(0)
    network = bound(attention=grid_relations(2), heads=4)
    assert isinstance(network.model.config.attention, Relations)
    with pytest.raises(ValueError, match="attention=xla or BlockCausal"):
        network.features_at(TOKENS, None, jnp.zeros((B, 1), int), network.memory(B, L))
    with pytest.raises(ValueError, match="for networks that are not causal"):
        bound(causal=True).features_at(TOKENS, None, jnp.zeros((B, 1), int), network.memory(B, L))
