"""Properties of the transformer: what may depend on what, and which options change nothing."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mdmjax.networks import TransformerConfig, forward_flops, naive, parameter_count, transformer
from mdmjax.networks.layers import RMSNorm, rotary_table, rotate

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


@pytest.mark.parametrize("name", VARIANTS)
def test_is_a_denoiser(name):
    config = VARIANTS[name]
    logits = logits_of(config, tokens_of(config))
    assert logits.shape == (B, L, V) and logits.dtype == jnp.float32 and np.isfinite(logits).all()


def dependence(config):
    """[i, j]: how much the logits at position i move with the embedded token j, j = L being the mask (|gradients|)."""
    params = parameters(config)
    # A table with one row a position makes the embedded tokens of a row a differentiable input.
    model = transformer(dataclasses.replace(config, vocab=L))
    readout = jnp.zeros((config.width, L)).at[:, :V].set(params["readout"]["kernel"])

    def run(table):
        changed = {**params, "embed": {"embedding": table}, "readout": {"kernel": readout}}
        return model.bind(changed)(jnp.arange(L, dtype=jnp.int32)[None])[0].sum(-1)

    return np.abs(jax.jit(jax.jacrev(run))(jax.random.normal(jax.random.key(2), (L + 1, config.width)))).sum(-1)


def test_causal_logits_depend_on_earlier_tokens_only_by_gradient():
    moved = dependence(VARIANTS["causal"])
    before = np.tri(L, k=-1, dtype=bool)
    assert (moved[:, :L][before] > 0).all()
    assert (moved[:, :L][~before] == 0).all()
    assert (moved[:, L] > 0).all()  # every position sees the mask that starts the row


def test_bidirectional_logits_depend_on_every_token_by_gradient():
    assert (dependence(SMALL)[:, :L] > 0).all()


@pytest.mark.parametrize("name", ["plain", "causal", "scan"])
def test_logits_at_positions_are_those_of_all(name):
    config = VARIANTS[name]
    at = jnp.asarray(np.random.default_rng(1).integers(0, L, (B, 5)), jnp.int32)
    tokens = tokens_of(config)
    picked = np.take_along_axis(np.asarray(logits_of(config, tokens)), np.asarray(at)[:, :, None], axis=1)
    np.testing.assert_allclose(logits_of(config, tokens, at=at), picked, atol=1e-5)


def test_features_then_readout_is_the_whole():
    denoiser = transformer(SMALL).bind(parameters(SMALL))
    tokens = tokens_of(SMALL)
    features = denoiser.features(tokens)
    assert features.shape == (B, L, SMALL.width)
    np.testing.assert_allclose(denoiser.readout(features), logits_of(SMALL, tokens), atol=1e-5)
    np.testing.assert_allclose(denoiser.readout(features[1, 2]), logits_of(SMALL, tokens)[1, 2], atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "time"])
def test_a_row_alone_is_the_row_in_a_batch(name):
    config = VARIANTS[name]
    tokens, t = tokens_of(config), jnp.asarray(TIMES)
    alone = compiled(config)(parameters(config), tokens[1:2], t[1:2])
    np.testing.assert_allclose(alone[0], logits_of(config, tokens)[1], atol=1e-5)


def test_positions_matter():
    """Without positions the network would commute with permutations of the row; with them it must not."""
    tokens = tokens_of(SMALL)
    order = np.random.default_rng(2).permutation(L)
    moved = logits_of(SMALL, tokens[:, order])
    assert np.abs(moved - logits_of(SMALL, tokens)[:, order]).max() > 0.01


def stacked(params):
    """The parameters of separate blocks as those of a scan."""
    blocks = [params["blocks"][str(i)] for i in range(len(params["blocks"]))]
    return {**params, "blocks": jax.tree.map(lambda *x: jnp.stack(x), *blocks)}


def value_and_grad(config, params):
    model, tokens = transformer(config), tokens_of(config)
    t = jnp.asarray(TIMES) if config.time else None
    weights = jax.random.normal(jax.random.key(3), (B, L, V))
    return jax.jit(jax.value_and_grad(lambda p: (weights * model.bind(p)(tokens, t)).sum()))(params)


def assert_close(a, b, rtol=1e-4):
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale), a, b)


def test_scan_equals_unrolled_blocks():
    config = VARIANTS["time"]
    loss, grads = value_and_grad(config, parameters(config))
    loss_scan, grads_scan = value_and_grad(dataclasses.replace(config, scan=True), stacked(parameters(config)))
    np.testing.assert_allclose(loss_scan, loss, rtol=1e-4)
    assert_close(grads_scan, stacked(grads))


def test_scan_starts_from_the_same_parameters():
    init = lambda scan: jax.jit(transformer(dataclasses.replace(SMALL, scan=scan)).init)(jax.random.key(4))
    jax.tree.map(np.testing.assert_array_equal, init(True), stacked(init(False)))


@pytest.mark.parametrize("scan", [False, True])
def test_remat_changes_nothing(scan):
    config = dataclasses.replace(SMALL, scan=scan)
    assert_close(
        value_and_grad(dataclasses.replace(config, remat=True), parameters(config)),
        value_and_grad(config, parameters(config)),
    )


def test_remat_needs_less_memory():
    """With a scan; of unrolled blocks XLA on CPU undoes the rematerialisation, as it drops optimisation barriers."""

    def temporaries(remat):
        config = dataclasses.replace(SMALL, depth=8, width=64, length=128, scan=True, remat=remat)
        model = transformer(config)
        params = jax.eval_shape(model.init, jax.random.key(0))
        tokens = jax.ShapeDtypeStruct((4, 128), jnp.int32)
        run = jax.jit(jax.grad(lambda p, x: model.bind(p)(x).sum()))
        return run.lower(params, tokens).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(True) < 0.5 * temporaries(False)


def test_tied_readout_is_the_embedding():
    config = VARIANTS["grouped"]
    params = parameters(config)
    assert "readout" not in params
    features = jnp.eye(config.width)
    readout = transformer(config).bind(params).readout(features)
    np.testing.assert_allclose(readout, params["embed"]["embedding"][:V].T, atol=1e-6)  # no row of the mask


def test_grouped_queries_are_repeated_keys():
    grouped = dataclasses.replace(SMALL, kv_heads=2)
    params = parameters(grouped)
    size = SMALL.width // SMALL.heads

    def repeat(kernel):
        return jnp.repeat(kernel.reshape(-1, 2, size), 2, axis=1).reshape(-1, SMALL.heads * size)

    full = jax.tree_util.tree_map_with_path(
        lambda path, x: repeat(x) if any(getattr(p, "key", 0) in ("key", "value") for p in path) else x, params
    )
    tokens = tokens_of(SMALL)
    np.testing.assert_allclose(logits_of(grouped, tokens), logits_of(SMALL, tokens, full), atol=1e-5)


def test_qk_norm_bounds_the_queries():
    """With QK-norm the logits do not change when the query and key projections grow."""
    config = dataclasses.replace(SMALL, qk_norm=True)
    params = parameters(config)
    grown = jax.tree_util.tree_map_with_path(
        lambda path, x: 100 * x if path[-1].key == "kernel" and path[-2].key in ("query", "key") else x, params
    )
    tokens = tokens_of(config)
    np.testing.assert_allclose(logits_of(config, tokens, grown), logits_of(config, tokens), atol=1e-3)


def test_bfloat16_is_close_to_float32():
    config = dataclasses.replace(SMALL, dtype=jnp.bfloat16)
    params = transformer(SMALL).init(jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(transformer(config).init(jax.random.key(0)))} == {jnp.dtype("float32")}
    tokens = tokens_of(SMALL)
    half, full = logits_of(config, tokens, params), logits_of(SMALL, tokens, params)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()
    assert transformer(config).bind(params).features(tokens).dtype == jnp.bfloat16


def test_float64_is_followed(x64):
    config = dataclasses.replace(SMALL, dtype=jnp.float64)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), parameters(SMALL))
    logits = transformer(config).bind(params)(tokens_of(SMALL))
    assert logits.dtype == jnp.float64
    reference = transformer(dataclasses.replace(config, attention=naive)).bind(params)(tokens_of(SMALL))
    np.testing.assert_allclose(logits, reference, atol=1e-11)


def test_time_says_nothing_at_first_and_something_later():
    config = VARIANTS["time"]
    run, tokens = compiled(config), tokens_of(config)
    early, late = jnp.full(B, 0.1), jnp.full(B, 0.9)
    params = jax.jit(transformer(config).init)(jax.random.key(0))
    np.testing.assert_array_equal(run(params, tokens, early), run(params, tokens, late))
    # adaLN-zero: every block is the identity, so the features are the embedded tokens, normed.
    features = transformer(config).bind(params).features(tokens, early)
    np.testing.assert_allclose(features, RMSNorm(config.width)(params["embed"]["embedding"][tokens]), atol=1e-6)
    moved = run(parameters(config), tokens, early) - run(parameters(config), tokens, late)
    assert np.abs(moved).max(axis=(1, 2)).min() > 1e-2
    # and a row's time is its own
    mixed = run(parameters(config), tokens, early.at[1].set(0.9))
    np.testing.assert_allclose(mixed[0], run(parameters(config), tokens, early)[0], atol=1e-5)


def test_time_is_asked_for():
    with pytest.raises(ValueError, match="conditioned on time: pass t"):
        transformer(VARIANTS["time"]).bind(parameters(VARIANTS["time"]))(tokens_of(SMALL))


@pytest.mark.parametrize("causal", [False, True])
def test_pads_never_matter(causal):
    """Rows padded to L score as they do alone, and no gradient reaches the embedding of PAD."""
    config = dataclasses.replace(VARIANTS["pads"], causal=causal)
    params, n = parameters(config), L - 5
    tokens = tokens_of(config).at[:, n:].set(config.pad)
    padded = logits_of(config, tokens)
    np.testing.assert_allclose(padded[:, :n], logits_of(config, tokens[:, :n]), atol=1e-5)
    model = transformer(config)
    grads = jax.grad(lambda p: (model.bind(p)(tokens)[:, :n] ** 2).sum())(params)["embed"]["embedding"]
    assert (grads[config.pad] == 0).all() and (grads[: config.pad] != 0).any(1).all()
    assert np.isfinite(padded).all()


def test_a_row_of_pads_alone_stays_finite():
    config = VARIANTS["pads"]
    tokens = jnp.full((1, L), config.pad)
    model = transformer(config)
    value, grads = jax.value_and_grad(lambda p: model.bind(p)(tokens).sum())(parameters(config))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_token_outside_the_table_is_not_silent():
    tokens = tokens_of(SMALL).at[1, 3].set(V + 1)  # PAD, for a network without pads
    assert np.isnan(logits_of(SMALL, tokens)[1]).all() and np.isfinite(logits_of(SMALL, tokens)[0]).all()


def test_an_ensemble_is_a_vmap_over_parameters():
    """Many seeds in one program: values and gradients are those of each alone."""
    model, tokens = transformer(SMALL), tokens_of(SMALL)
    loss = jax.value_and_grad(lambda p: (model.bind(p)(tokens) ** 2).mean())
    many = jax.vmap(model.init)(jax.random.split(jax.random.key(5), 3))
    together = jax.jit(jax.vmap(loss))(many)
    for i in range(3):
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), loss(jax.tree.map(lambda x, i=i: x[i], many)))


def test_a_bound_network_passes_through_jit():
    denoiser, tokens = transformer(SMALL).bind(parameters(SMALL)), tokens_of(SMALL)
    np.testing.assert_allclose(jax.jit(lambda d, x: d(x))(denoiser, tokens), logits_of(SMALL, tokens), atol=1e-5)


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
        for path, x in jax.tree_util.tree_leaves_with_path(parameters(config))
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


@pytest.mark.parametrize("name", VARIANTS)
def test_flops_are_those_that_xla_counts(name):
    """XLA also counts elementwise work, so the matmuls must be most of its number and no more than it."""
    config = dataclasses.replace(VARIANTS[name], width=128, length=1024, attention=naive, scan=False)
    model = transformer(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens, t = jax.ShapeDtypeStruct((2, 1024), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.float32)
    run = jax.jit(lambda p, x, t: model.bind(p)(x, t))
    counted = run.lower(params, tokens, t).compile().cost_analysis()["flops"]
    assert 0.9 * counted < forward_flops(config, 2, 1024) <= counted


def test_parameter_count():
    config = TransformerConfig(vocab=35, length=256)  # the configuration of the benchmark
    params = jax.eval_shape(transformer(config).init, jax.random.key(0))
    assert parameter_count(params) == 10_649_088 == 6 * (4 * 384**2 + 3 * 384 * 1024 + 2 * 384) + 384 + 71 * 384


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(heads=5), "width=32: must be a multiple of 2 \\* heads = 10"),
        (dict(kv_heads=3), "kv_heads=3: must divide heads=4"),
        (dict(depth=0), "depth=0: must be at least 1"),
        (dict(vocab=0), "vocab=0: must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


def test_rows_that_are_too_long():
    with pytest.raises(ValueError, match=f"rows of {L + 1} tokens; .* at most length={L}"):
        transformer(SMALL).bind(parameters(SMALL))(jnp.zeros((1, L + 1), jnp.int32))
