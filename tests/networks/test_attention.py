"""Attention against the formula, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mdmjax.networks import Splash, cudnn, naive, xla

B, L, H, D = 2, 6, 4, 8


def inputs(kv_heads: int, dtype, shape=(B, L, D)):
    rng = np.random.default_rng(0)
    rows, length, size = shape
    draw = lambda heads: jnp.asarray(rng.normal(size=(rows, length, heads, size)), dtype)
    return draw(H), draw(kv_heads), draw(kv_heads), draw(H)


def loop(q, k, v, causal, valid):
    """One softmax at a time, in NumPy."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    seen = valid if valid.ndim == 4 else np.broadcast_to(valid[:, None, None], (len(q), q.shape[2], *2 * q.shape[1:2]))
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for i in range(q.shape[1]):
                keys = [j for j in range(q.shape[1]) if seen[b, h, i, j] and not (causal and j > i)]
                group = h // (q.shape[2] // k.shape[2])
                scores = np.array([q[b, i, h] @ k[b, j, group] / np.sqrt(q.shape[3]) for j in keys])
                if keys:
                    weights = np.exp(scores - scores.max())
                    out[b, i, h] = weights @ v[b, keys, group] / weights.sum()
    return out


VALID = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0]], bool)
ABSENT = np.array([[0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], bool)  # queries with no key at all

BY_HEAD = np.random.default_rng(1).random((B, H, L, L)) < 0.6  # which keys each query sees
SIGHTS = pytest.mark.parametrize("valid", [None, VALID, ABSENT, BY_HEAD], ids=["all", "some", "none", "by head"])


@pytest.mark.parametrize("attend", [naive, xla])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
@SIGHTS
def test_equals_one_softmax_at_a_time(x64, attend, kv_heads, causal, valid):
    q, k, v, _ = inputs(kv_heads, jnp.float64)
    out = attend(q, k, v, causal=causal, valid=None if valid is None else jnp.asarray(valid))
    expected = loop(q, k, v, causal, np.ones((B, L), bool) if valid is None else valid)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("causal", [False, True])
@SIGHTS
def test_backward_equals_autodiff_of_the_formula(x64, kv_heads, causal, valid):
    q, k, v, g = inputs(kv_heads, jnp.float64)
    valid = None if valid is None else jnp.asarray(valid)

    def gradients(attend):
        return jax.grad(lambda *x: (g * attend(*x, causal=causal, valid=valid)).sum(), argnums=(0, 1, 2))(q, k, v)

    for ours, reference in zip(gradients(xla), gradients(naive), strict=True):
        assert np.isfinite(reference).all()
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-10)


def test_second_derivatives_and_numerical_ones(x64):
    q, k, v, _ = inputs(2, jnp.float64, (1, 3, 4))
    check_grads(jax.jit(functools.partial(xla, causal=True)), (q, k, v), order=2, modes=["rev"])


def test_large_scores_stay_finite():
    q, k, v, g = inputs(4, jnp.float32)
    value, grads = jax.value_and_grad(lambda q: (g * xla(q * 1e4, k, v)).sum())(q)
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_a_hidden_key_does_not_set_the_scale():
    """A key that may not be seen, with a score that would make all others vanish beside it."""
    q, k, v, _ = inputs(4, jnp.float32)
    valid = jnp.asarray(VALID)
    hidden = jnp.where(valid[:, :, None, None], k, 1e4 * q)
    np.testing.assert_allclose(xla(q, hidden, v, valid=valid), xla(q, k, v, valid=valid), atol=1e-6)


def test_saves_no_more_than_one_score_matrix():
    """The residuals of the backward pass: q, k, v, out of B L H d each, one [B, H, L, L], and sums."""
    q, k, v, _ = inputs(4, jnp.float32, (2, 64, 8))
    _, pullback = jax.vjp(xla, q, k, v)
    scores = 2 * H * 64 * 64
    assert sum(x.size for x in jax.tree.leaves(pullback)) <= scores + 4 * q.size + 2 * H * 64


def test_bfloat16_is_close_to_float32():
    q, k, v, g = inputs(2, jnp.float32, (2, 64, 16))

    def run(dtype):
        out, pullback = jax.vjp(xla, *(x.astype(dtype) for x in (q, k, v)))
        assert out.dtype == dtype
        return [x.astype(jnp.float32) for x in (out, *pullback(g.astype(dtype)))]

    for half, full in zip(run(jnp.bfloat16), run(jnp.float32), strict=True):
        assert np.abs(half - full).max() < 0.02 * np.abs(full).max()


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_splash_kernel_computes_the_formula(padded, causal, kv_heads):
    """The TPU kernel, interpreted: values, and gradients through its own backward kernels."""
    q, k, v, g = inputs(kv_heads, jnp.float32, (2, 128, 128))
    valid = jnp.arange(128)[None] < jnp.array([[128], [77]]) if padded else None

    def run(attend):
        return jax.vjp(lambda *x: attend(*x, causal=causal, valid=valid), q, k, v)

    ours, ours_back = run(jax.jit(Splash(interpret=True), static_argnames="causal"))
    reference, reference_back = run(naive)
    np.testing.assert_allclose(ours, reference, atol=2e-5)
    for a, b in zip(ours_back(g), reference_back(g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.skipif(jax.device_count() < 8, reason="a mesh of 8 devices is needed")
@pytest.mark.parametrize("padded", [False, True])
def test_splash_over_a_mesh_equals_splash_alone(padded):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    q, k, v, _ = inputs(4, jnp.float32, (4, 128, 128))
    valid = jnp.arange(128)[None] < jnp.array([[128], [77], [128], [5]]) if padded else None
    alone = naive(q, k, v, valid=valid)
    np.testing.assert_allclose(jax.jit(Splash(mesh, interpret=True))(q, k, v, valid=valid), alone, atol=2e-5)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="cuDNN is to be had on a GPU")
def test_what_is_not_to_be_had_says_so_in_one_line():
    q, k, v, _ = inputs(4, jnp.float32)
    long = inputs(4, jnp.float32, (1, 128, 8))[:3]
    for attend, arguments, words in (
        (cudnn, (q, k, v), "NVIDIA GPU.*choose xla"),
        (Splash(), (q, k, v), "multiple of 128, not 6"),
        (Splash(), long, "TPU kernel; this program is lowered for cpu: choose xla"),
        (jax.jit(jax.grad(lambda *x: Splash()(*x).sum())), long, "TPU kernel; this program is lowered for cpu"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            attend(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("attend", [naive, xla])
def test_a_causal_mask_is_no_constant_of_the_program(attend):
    shape = jax.ShapeDtypeStruct((1, 512, 1, 8), jnp.float32)
    text = jax.jit(functools.partial(attend, causal=True)).lower(shape, shape, shape).compile().as_text()
    assert "[512,512]" in text
    assert [line for line in text.splitlines() if "[512,512]" in line and " constant(" in line] == []


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's attention runs on an NVIDIA GPU only")
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_cudnn_computes_the_formula(padded, causal, kv_heads):
    """Values and gradients, but for bfloat16, of which both sides make their inputs and outputs."""
    q, k, v, g = inputs(kv_heads, jnp.bfloat16, (2, 128, 64))
    valid = jnp.arange(128)[None] < jnp.array([[128], [77]]) if padded else None

    def run(attend):
        out, pullback = jax.vjp(lambda *x: attend(*x, causal=causal, valid=valid), q, k, v)
        return [np.asarray(x, np.float32) for x in (out, *pullback(g))]

    for ours, reference in zip(run(cudnn), run(naive), strict=True):
        assert np.abs(ours - reference).max() < 0.02 * np.abs(reference).max()


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "some"])
def test_cudnn_is_asked_for_shapes_that_jax_takes(monkeypatch, valid):
    """What JAX checks before it asks a GPU: gradients are traced, and nothing runs."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    q, k, v, _ = inputs(2, jnp.bfloat16)
    valid = None if valid is None else jnp.asarray(valid)
    gradients = jax.eval_shape(jax.grad(lambda *x: cudnn(*x, valid=valid).sum(), argnums=(0, 1, 2)), q, k, v)
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


def test_cudnn_wants_half_precision(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="bfloat16 or float16, not float32"):
        cudnn(*inputs(4, jnp.float32)[:3])
