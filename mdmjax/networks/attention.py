"""Implementations of attention. Which one a network uses is an argument: a callable

    attend(q, k, v, *, causal, valid) -> out        softmax(q k^T / sqrt(d)) v

with q, out [B, L, H, d] and k, v [B, L, N, d], where N divides H (grouped queries: head h reads key head h // (H/N)).
`causal` hides later keys; `valid` [B, L] is True for the keys that may be seen, and None where all may. `naive` and
`xla` also take [B, H, L, L]: which keys each query of each head may see, or [B, 1, L, L] for all heads. A query that
may see no key at all gets zeros from them; other implementations do not say.
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

Seen = Bool[Array, "B L"] | Bool[Array, "B #H L L"]


@runtime_checkable
class Attend(Protocol):
    """softmax(q k^T / sqrt(d)) v over the keys that `causal` and `valid` leave. See the module."""

    def __call__(
        self,
        q: Float[Array, "B L H d"],
        k: Float[Array, "B L N d"],
        v: Float[Array, "B L N d"],
        *,
        causal: bool = False,
        valid: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B L H d"]: ...


def naive(
    q: Float[Array, "B L H d"],
    k: Float[Array, "B L N d"],
    v: Float[Array, "B L N d"],
    *,
    causal: bool = False,
    valid: Seen | None = None,
) -> Float[Array, "B L H d"]:
    """The formula as it is written, differentiated by JAX in either mode: the reference, and what `jax.jvp` needs."""
    rows, length, heads, size = q.shape
    k, v = (jnp.repeat(x, heads // k.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=_float(q)) / np.sqrt(size)
    seen = _seen(length, length, causal, valid)
    where = None if seen is None else jnp.broadcast_to(seen, scores.shape)
    weights = jax.nn.softmax(scores, where=where).astype(q.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def xla(
    q: Float[Array, "B L H d"],
    k: Float[Array, "B L N d"],
    v: Float[Array, "B L N d"],
    *,
    causal: bool = False,
    valid: Seen | None = None,
) -> Float[Array, "B L H d"]:
    """Attention in plain XLA, for every backend, with a backward pass of its own. Not for forward-mode derivatives.

    With e = exp(s - max s), z = sum e and o = e v / z, the forward pass keeps e and z (not the quotient, which would be
    another pass over [B, H, L, L]). With do the cotangent of o, g = do / z and delta = sum_d(g * o),

        dv = e^T g,   ds = e * (g v^T - delta),   dq = ds k,   dk = ds^T q.
    """
    length, groups = q.shape[1], q.shape[2] // k.shape[2]
    return attend_seen(q, k, v, _seen(groups * length, length, causal, valid))


def attend_seen(
    q: Float[Array, "B L H d"],
    k: Float[Array, "B L N d"],
    v: Float[Array, "B L N d"],
    seen: Bool[Array, "*s"] | None,
) -> Float[Array, "B L H d"]:
    """`xla`, where `seen`, that broadcasts to [B, N, G L, L], says which keys are seen; None: all. G = H / N."""
    rows, length, heads, size = q.shape
    groups = heads // k.shape[2]
    # Grouped queries are more rows of the same key head: [B, N, G L, d] against [B, N, L, d], one batched matmul each.
    q = (q / np.sqrt(size).astype(q.dtype)).reshape(rows, length, -1, groups, size)
    q = q.transpose(0, 2, 3, 1, 4).reshape(rows, -1, groups * length, size)
    out = _xla(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), seen)
    return out.reshape(rows, -1, groups, length, size).transpose(0, 3, 1, 2, 4).reshape(rows, length, heads, size)


def attend_memory(
    q: Float[Array, "B K H d"],
    k: Float[Array, "B L N d"],
    v: Float[Array, "B L N d"],
    seen: Bool[Array, "B K L"],
) -> Float[Array, "B K H d"]:
    """softmax(q k^T / sqrt(d)) v of K queries over L keys that are kept, of which each has `seen` some."""
    rows, count, heads, size = q.shape
    q = (q / np.sqrt(size).astype(q.dtype)).reshape(rows, count, k.shape[2], -1, size)
    scores = jnp.einsum("bqngd,bknd->bngqk", q, k, preferred_element_type=_float(q))
    weights = jax.nn.softmax(scores, where=seen[:, None, None]).astype(q.dtype)
    return jnp.einsum("bngqk,bknd->bqngd", weights, v).reshape(rows, count, heads, size)


@jax.custom_vjp
def _xla(q, k, v, seen):
    return _xla_forward(q, k, v, seen)[0]


def _xla_forward(q, k, v, seen):
    scores = jnp.einsum("bnqd,bnkd->bnqk", q, k, preferred_element_type=_float(q))
    if seen is not None:
        scores = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
    e = jnp.exp(scores - scores.max(-1, keepdims=True))
    if seen is not None:
        e = jnp.where(seen, e, 0)
    z = e.sum(-1, keepdims=True)
    z = z if seen is None else jnp.where(z > 0, z, 1)
    e = e.astype(q.dtype)
    out = (jnp.einsum("bnqk,bnkd->bnqd", e, v, preferred_element_type=_float(q)) / z).astype(q.dtype)
    return out, (q, k, v, e, z, out)


def _xla_backward(saved, cotangent):
    q, k, v, e, z, out = saved
    g = cotangent / z
    delta = jnp.sum(g * out, -1, keepdims=True)
    g = g.astype(q.dtype)
    dv = jnp.einsum("bnqk,bnqd->bnkd", e, g)
    ds = (e * (jnp.einsum("bnqd,bnkd->bnqk", g, v, preferred_element_type=_float(q)) - delta)).astype(q.dtype)
    return jnp.einsum("bnqk,bnkd->bnqd", ds, k), jnp.einsum("bnqk,bnqd->bnkd", ds, q), dv, None


_xla.defvjp(_xla_forward, _xla_backward)


def cudnn(
    q: Float[Array, "B L H d"],
    k: Float[Array, "B L N d"],
    v: Float[Array, "B L N d"],
    *,
    causal: bool = False,
    valid: Bool[Array, "B L"] | None = None,
) -> Float[Array, "B L H d"]:
    """Flash attention of cuDNN. Raises ValueError without an NVIDIA GPU, and where q is not bfloat16 or float16.

    `valid` costs B L^2 numbers: cuDNN takes it as a bias of the scores, and JAX does not spread that over the queries.
    """
    if jax.default_backend() != "gpu":
        raise ValueError(f"cudnn attention needs an NVIDIA GPU; this backend is {jax.default_backend()}: choose xla")
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(f"cudnn attention computes in bfloat16 or float16, not {q.dtype}: set dtype, or choose xla")
    rows, length = q.shape[:2]
    mask = None if valid is None else jnp.broadcast_to(valid[:, None, None], (rows, 1, length, length))
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation="cudnn")


@dataclasses.dataclass(frozen=True)
class Splash:
    """Flash attention for TPU: JAX's splash kernel (Pallas), with a full mask or a causal one.

    It is a custom call, which XLA cannot partition: where the batch is sharded over a mesh, pass the `mesh`, and each
    device runs the kernel on its own rows and heads. Axes that the mesh does not have are left out. Raises ValueError
    where L is not a multiple of 128, and, when the program is lowered, for a platform that is not a TPU: so a CPU host
    compiles it ahead of time for a TPU. `interpret=True` runs the kernel anywhere, slowly, to look at its numbers.
    """

    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ("data", "fsdp")
    head_axis: str | None = "tensor"
    block: int = 512  # rows and columns of scores at a time
    interpret: bool = False

    def __call__(
        self,
        q: Float[Array, "B L H d"],
        k: Float[Array, "B L N d"],
        v: Float[Array, "B L N d"],
        *,
        causal: bool = False,
        valid: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B L H d"]:
        if q.shape[1] % 128:
            raise ValueError(f"splash attention needs a length that is a multiple of 128, not {q.shape[1]}")
        if not self.interpret:
            q = _tpu_only(q)
        attend = functools.partial(self._attend, causal=causal)
        inputs = (q, k, v) if valid is None else (q, k, v, valid)
        if self.mesh is None:
            return attend(*inputs)
        rows = tuple(a for a in self.batch_axes if a in self.mesh.axis_names) or None
        heads = self.head_axis if self.head_axis in self.mesh.axis_names else None
        activations = P(rows, None, heads, None)
        specs = (activations, activations, activations, P(rows, None))[: len(inputs)]
        # check_vma: the kernel's outputs do not say over which axes they vary.
        return jax.shard_map(attend, mesh=self.mesh, in_specs=specs, out_specs=activations, check_vma=False)(*inputs)

    def _attend(self, q, k, v, *valid, causal: bool):
        # Imported here: Pallas costs every user of the library a third of a second, and few have a TPU.
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

        length, heads, size = q.shape[1:]
        mask = splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask
        block = next(b for b in (self.block, 512, 384, 256, 128) if length % b == 0)
        sizes = splash_attention_kernel.BlockSizes(
            **{name: block for name in ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv")},
            **{name: block for name in ("block_kv_dkv_compute", "block_q_dq", "block_kv_dq")},
        )
        kernel = splash_attention_kernel.make_splash_mha(
            splash_attention_mask.MultiHeadMask([mask((length, length))] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=self.interpret,
        )

        def one(q, k, v, *valid):
            q, k, v = (x.swapaxes(0, 1) for x in (q / np.sqrt(size).astype(q.dtype), k, v))
            # Tokens see those of their own segment: valid keys are in segment 1, and so is every query.
            kv = [x.astype(jnp.int32) for x in valid]
            segments = [splash_attention_kernel.SegmentIds(jnp.ones_like(x), x) for x in kv]
            return kernel(q, k, v, *segments).swapaxes(0, 1)

        return jax.vmap(one)(q, k, v, *valid)


def _seen(queries: int, keys: int, causal: bool, valid: Array | None) -> Array | None:
    """Which key each query may see, in a shape that broadcasts to [B, N, queries, keys]; None: every one.

    Query i stands at position i mod `keys`. Positions are compared where the result is used: a mask that is computed
    here would be a constant of queries x keys bytes in every layer of the program.
    """
    seen = valid
    if valid is not None:
        if (
            valid.ndim == 4 and valid.shape[1] == 1
        ):  # for all heads: the queries of a group are one head's after another
            valid = jnp.tile(valid, (1, 1, queries // keys, 1))
        seen = valid[:, None, None] if valid.ndim == 2 else valid.reshape(len(valid), -1, queries, keys)
    if causal:
        past = (jnp.arange(queries) % keys)[:, None] >= jnp.arange(keys)[None]
        seen = past[None, None] if seen is None else seen & past[None, None]
    return seen


def _float(x: Array) -> Any:
    """The type that scores and sums are computed in: float32, or float64 where the inputs are."""
    return jnp.promote_types(x.dtype, jnp.float32)


# ---- an identity that lowers for TPU only: platforms are known when a program is lowered, not when it is traced
_tpu_p = Primitive("tpu_only")
_tpu_p.def_abstract_eval(lambda x: x)
_tpu_p.def_impl(lambda x: jax.jit(_tpu_p.bind)(x))
batching.defvectorized(_tpu_p)


def _refuse(context, x):
    platforms = ", ".join(context.module_context.platforms)
    raise ValueError(f"splash attention is a TPU kernel; this program is lowered for {platforms}: choose xla")


mlir.register_lowering(_tpu_p, _refuse)
mlir.register_lowering(_tpu_p, lambda context, x: [x], platform="tpu")


@jax.custom_vjp
def _tpu_only(x):
    return _tpu_p.bind(x)


_tpu_only.defvjp(lambda x: (_tpu_p.bind(x), None), lambda _, g: (g,))
