"""Networks as functions of their parameters: ensembles, meshes, names, initial values."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from small_networks import SMALL, VARIANTS, L, V, assert_close, compiled, logits_of, parameters, tokens_of

from mdmjax.networks import transformer
from mdmjax.networks.layers import RMSNorm, rotary_table, rotate


def test_an_ensemble_is_a_vmap_over_parameters():
    """Many seeds in one program: values and gradients are those of each alone."""
    model, tokens = transformer(SMALL), tokens_of(SMALL)
    loss = jax.jit(jax.value_and_grad(lambda p: (model.bind(p)(tokens) ** 2).mean()))
    many = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(5), 3))
    together = jax.jit(jax.vmap(loss))(many)
    for i in range(3):
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), loss(jax.tree.map(lambda x, i=i: x[i], many)))


def test_a_bound_network_passes_through_jit():
    denoiser, tokens = transformer(SMALL).bind(parameters(SMALL)), tokens_of(SMALL)
    np.testing.assert_allclose(jax.jit(lambda d, x: d(x))(denoiser, tokens), logits_of(SMALL, tokens), atol=1e-5)


@pytest.mark.skipif(jax.device_count() < 8, reason="a mesh of 8 devices is needed")
def test_shard_map_and_a_mesh_compute_the_same():
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    model, params, tokens = transformer(SMALL), parameters(SMALL), tokens_of(SMALL, rows=4)
    expected = logits_of(SMALL, tokens)
    mapped = jax.shard_map(
        lambda p, x: model.bind(p)(x), mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False
    )
    np.testing.assert_allclose(jax.jit(mapped)(params, tokens), expected, atol=1e-5)

    def place(path, x):
        last = {"out": P("tensor"), "down": P("tensor")}.get(path[-2].key, P(None, "tensor"))
        return jax.device_put(x, jax.sharding.NamedSharding(mesh, last if x.ndim == 2 and x.shape[1] % 2 == 0 else P()))

    placed = jax.tree_util.tree_map_with_path(place, params)
    rows = jax.device_put(tokens, jax.sharding.NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(compiled(SMALL)(placed, rows), expected, atol=1e-5)


@pytest.mark.skipif(jax.device_count() < 8, reason="a mesh of 8 devices is needed")
def test_constrained_activations_stay_where_their_rows_are():
    """Over an axis that shards rows and parameters, parameters travel, a matrix at a time, and activations never do."""
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda *axes: jax.sharding.NamedSharding(mesh, P(*axes))

    def matrix(path, x):
        into_the_stream = path[-2].key in ("out", "down") or path[-1].key == "embedding"  # these by columns
        return place() if x.ndim < 2 else place(None, "fsdp") if into_the_stream else place("fsdp")

    def communicated(config):
        model = transformer(config)
        params = jax.eval_shape(model.init, jax.random.key(0))
        params = jax.tree_util.tree_map_with_path(lambda path, x: x.update(sharding=matrix(path, x)), params)
        tokens = jax.ShapeDtypeStruct((8, L), jnp.int32, sharding=place("fsdp"))
        loss = lambda p, x: (model.bind(p)(x) ** 2).sum()
        gradient = jax.jit(jax.grad(loss), out_shardings=jax.tree.map(lambda x: x.sharding, params))
        text = gradient.lower(params, tokens).compile().as_text()
        shapes = re.findall(r"= f32\[([0-9,]+)\]\S* (?:all-gather|all-reduce|all-to-all)\(", text)
        return {tuple(map(int, shape.split(","))) for shape in shapes}

    config = dataclasses.replace(SMALL, vocab=31)
    activations = {shape for shape in communicated(config) if np.prod(shape) > 32 * 96}
    assert activations  # what XLA does by itself, and the reason for the constraint
    rows = dataclasses.replace(config, constrain=lambda x: jax.lax.with_sharding_constraint(x, place("fsdp")))
    assert communicated(rows) and max(np.prod(shape) for shape in communicated(rows)) <= 32 * 96


def test_names_of_parameters():
    """Sharding rules, decay masks and checkpoints are written in these names."""
    names = lambda config: {
        jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(jax.eval_shape(transformer(config).init, jax.random.key(0)))
    }
    attention = {f"attention/{part}/kernel": (32, 32) for part in ("query", "key", "value", "out")}
    mlp = {"mlp/gate/kernel": (32, 96), "mlp/up/kernel": (32, 96), "mlp/down/kernel": (96, 32)}
    block = {**attention, **mlp, "attention_norm/scale": (32,), "mlp_norm/scale": (32,)}
    outside = {"embed/embedding": (V + 1, 32), "norm/scale": (32,), "readout/kernel": (32, V)}
    assert names(SMALL) == {**outside, **{f"blocks/{i}/{k}": v for i in range(2) for k, v in block.items()}}
    time = {"time/inner": (256, 32), "time/outer": (32, 32), "modulation": (32, 64), "blocks/modulation": (2, 32, 192)}
    scanned = {**outside, **{f"blocks/{k}": (2, *v) for k, v in block.items()}}
    scanned |= {f"{k}/kernel": v for k, v in time.items()} | {f"{k}/bias": v[:-2] + v[-1:] for k, v in time.items()}
    assert names(VARIANTS["scan"]) == scanned


def test_more_than_ten_blocks_keep_their_order():
    config = dataclasses.replace(SMALL, depth=11)
    params = transformer(config).init(jax.random.key(0))
    tokens = tokens_of(config)
    zeroed = lambda i: {**params, "blocks": {**params["blocks"], i: jax.tree.map(jnp.zeros_like, params["blocks"][i])}}
    # The last block without effect equals the network one block shorter, with the same parameters otherwise.
    shorter = {**params, "blocks": {k: v for k, v in params["blocks"].items() if k != "10"}}
    expected = logits_of(dataclasses.replace(config, depth=10), tokens, shorter)
    np.testing.assert_allclose(logits_of(config, tokens, zeroed("10")), expected, atol=1e-5)
    assert np.abs(logits_of(config, tokens, zeroed("2")) - expected).max() > 1e-3


def test_initial_logits_are_nearly_uniform_at_any_depth():
    for depth in (2, 16):
        config = dataclasses.replace(SMALL, depth=depth, width=64, scan=True)
        logits = logits_of(config, tokens_of(config), jax.jit(transformer(config).init)(jax.random.key(0)))
        excess = (jax.nn.logsumexp(logits, -1) - logits.mean(-1)).mean() - np.log(V)
        assert 0 <= excess < 0.1


def test_rotary_scores_depend_on_the_difference_of_positions():
    table = rotary_table(L, 8, 10_000.0)
    rng = np.random.default_rng(3)
    q, k = (jnp.asarray(np.broadcast_to(rng.normal(size=8), (1, L, 1, 8)), jnp.float32) for _ in range(2))
    scores = np.asarray(rotate(q, table)[0, :, 0] @ rotate(k, table)[0, :, 0].T)
    for shift in range(-L + 1, L):
        diagonal = np.diagonal(scores, shift)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    assert np.std([scores[0, i] for i in range(L)]) > 0.1  # and they do depend on it
    np.testing.assert_allclose(scores[0, 0], (q[0, 0, 0] * k[0, 0, 0]).sum(), atol=1e-4)  # position 0 is not turned
    np.testing.assert_allclose(jnp.linalg.norm(rotate(q, table), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5)


def test_rms_norm_is_computed_in_float32():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(4, 64)) * 300, jnp.bfloat16)
    normed = RMSNorm(64)(x)
    assert normed.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64) / np.sqrt((np.asarray(x, np.float64) ** 2).mean(-1, keepdims=True))
    np.testing.assert_allclose(np.asarray(normed, np.float64), exact, rtol=2**-8)
