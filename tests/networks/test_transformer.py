"""Properties of the transformer: what may depend on what, and which options change nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import SMALL, TIMES, VARIANTS, B, L, V, assert_close, compiled, logits_of, parameters, tokens_of

from mdmjax.networks import TransformerConfig, forward_flops, naive, parameter_count, transformer
from mdmjax.networks.layers import RMSNorm


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
        (dict(heads=0), "heads=0: must be at least 1"),
        (dict(width=0), "width=0: must be at least 1"),
        (dict(kv_heads=-2), "kv_heads=-2: must be at least 1"),
        (dict(ff=-1), "ff=-1: must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


def test_rows_that_are_too_long():
    with pytest.raises(ValueError, match=f"rows of {L + 1} tokens; .* at most length={L}"):
        transformer(SMALL).bind(parameters(SMALL))(jnp.zeros((1, L + 1), jnp.int32))
