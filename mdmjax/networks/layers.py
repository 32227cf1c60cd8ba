"""Parts of a transformer, as NNX modules: activations in `dtype`, parameters, norms and softmax in float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mdmjax.networks.attention import Attend, Seen, attend_memory

lecun = nnx.initializers.lecun_normal()  # variance 1 / fan-in


def scaled(factor: float):
    """Kernels `factor` times as large as the usual ones, for the projections into the residual stream."""
    return nnx.initializers.variance_scaling(factor**2, "fan_in", "truncated_normal")


class Linear(nnx.Linear):
    """x W + b over the last axis, as one matmul of two matrices.

    With the leading axes kept apart, the gradient of W contracts two of them, for which XLA on CPU first writes a
    transposed copy of the cotangent: that took a third of a training step.
    """

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n F"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, computed in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.epsilon)
        return (y * jnp.expand_dims(self.scale[...], range(x.ndim - 1))).astype(x.dtype)


def rotary_table(length: int, size: int, base: float | None) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of position * base^(-2i/d), each [L, d/2], i < d/2; of 0 without a base."""
    frequency = np.zeros(size // 2) if base is None else base ** (-np.arange(0, size, 2) / size)
    angles = np.arange(length)[:, None] * frequency
    return np.cos(angles), np.sin(angles)


def rotate(
    x: Float[Array, "B L H d"], table: tuple[Float[Array | np.ndarray, "*B L c"], Float[Array | np.ndarray, "*B L c"]]
) -> Float[Array, "B L H d"]:
    """Rotary position embedding (Su et al., 2021): feature pairs (i, i + d/2) turned by position * frequency_i.

    The table is one for all rows, or one for each.

    Scores of rotated queries and keys depend on the difference of their positions only.
    """
    cos, sin = (jnp.asarray(part, jnp.promote_types(x.dtype, jnp.float32))[..., None, :] for part in table)
    cos, sin = (part if part.ndim == 4 else part[None] for part in (cos, sin))
    a, b = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention with rotary positions; grouped queries where kv_heads < heads, QK-norm where asked for."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        *,
        attend: Attend,
        causal: bool,
        qk_norm: bool,
        out_scale: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        size = width // heads
        dense = dict(use_bias=False, dtype=dtype, rngs=rngs)
        self.query = Linear(width, heads * size, **dense)
        self.key = Linear(width, kv_heads * size, **dense)
        self.value = Linear(width, kv_heads * size, **dense)
        self.out = Linear(heads * size, width, kernel_init=scaled(out_scale), **dense)
        self.query_norm = RMSNorm(size) if qk_norm else None
        self.key_norm = RMSNorm(size) if qk_norm else None
        self.size, self.attend, self.causal = size, attend, causal

    def __call__(self, x: Float[Array, "B L D"], table: tuple, valid: Seen | None) -> Float[Array, "B L D"]:
        q, k, v = self._project(x, table)
        out = self.attend(q, k, v, causal=self.causal, valid=valid)
        return self.out(out.reshape(*x.shape[:2], -1))

    def remember(
        self, x: Float[Array, "B K D"], table: tuple, memory: tuple, at: Int[Array, "B K"], seen: Bool[Array, "B K L"]
    ) -> tuple[Float[Array, "B K D"], tuple]:
        """The same at the positions `at` only, which see what `memory`, keys and values [B, L, N, d], has of the
        others; theirs are written into it."""
        q, *new = self._project(x, table)
        rows = jnp.arange(len(x))[:, None]
        memory = tuple(kept.at[rows, at].set(n) for kept, n in zip(memory, new, strict=True))
        return self.out(attend_memory(q, *memory, seen).reshape(*x.shape[:2], -1)), memory

    def _project(self, x: Float[Array, "B L D"], table: tuple) -> tuple:
        """Queries and keys, turned, and values."""
        q, k, v = (project(x).reshape(*x.shape[:2], -1, self.size) for project in (self.query, self.key, self.value))
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, table), rotate(k, table), v


class SwiGLU(nnx.Module):
    """down(silu(gate x) * up x) (Shazeer, 2020)."""

    def __init__(self, width: int, hidden: int, *, out_scale: float, dtype: Any, rngs: nnx.Rngs):
        dense = dict(use_bias=False, dtype=dtype, rngs=rngs)
        self.gate = Linear(width, hidden, **dense)
        self.up = Linear(width, hidden, **dense)
        self.down = Linear(hidden, width, kernel_init=scaled(out_scale), **dense)

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class TimeEmbedding(nnx.Module):
    """t in [0, 1] to a vector: sines and cosines of 1000 t at 128 frequencies, then a two-layer perceptron."""

    def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.inner = Linear(256, width, dtype=dtype, rngs=rngs)
        self.outer = Linear(width, width, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, t: Float[Array, "B"]) -> Float[Array, "B D"]:
        frequencies = jnp.asarray(10_000.0 ** (-np.arange(128) / 128), t.dtype)
        angles = 1000 * t[:, None] * frequencies[None]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1).astype(self.dtype)
        return self.outer(jax.nn.silu(self.inner(waves)))


class Modulation(Linear):
    """The shifts, scales and gates of adaLN-zero (Peebles and Xie, 2023): a linear map of the time, zero at first."""

    def __init__(self, width: int, parts: int, *, dtype: Any, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros
        super().__init__(width, parts * width, dtype=dtype, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.parts = parts

    def __call__(self, condition: Float[Array, "B D"]) -> list[Float[Array, "B 1 D"]]:
        return jnp.split(super().__call__(jax.nn.silu(condition))[:, None], self.parts, -1)


class Block(nnx.Module):
    """x + attention(norm x), then x + mlp(norm x).

    With `time`, each norm is scaled and shifted by the condition, and each branch gated: at first, with gates of zero,
    the block is the identity.
    """

    def __init__(
        self, width: int, hidden: int, attention: Attention, *, out_scale: float, time: bool, dtype: Any, rngs
    ):
        self.attention_norm = RMSNorm(width)
        self.attention = attention
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden, out_scale=out_scale, dtype=dtype, rngs=rngs)
        self.modulation = Modulation(width, 6, dtype=dtype, rngs=rngs) if time else None

    def __call__(
        self,
        x: Float[Array, "B L D"],
        table: tuple,
        valid: Seen | None,
        condition: Float[Array, "B D"] | None,
    ) -> Float[Array, "B L D"]:
        return self._around(x, condition, lambda y: (self.attention(y, table, valid), None))[0]

    def remember(
        self, x: Float[Array, "B K D"], condition: Float[Array, "B D"] | None, *where
    ) -> tuple[Float[Array, "B K D"], tuple]:
        """The same at some positions, with `Attention.remember(x, *where)`."""
        return self._around(x, condition, lambda y: self.attention.remember(y, *where))

    def _around(self, x: Float[Array, "B L D"], condition: Float[Array, "B D"] | None, attention: Callable) -> tuple:
        if self.modulation is None:
            y, memory = attention(self.attention_norm(x))
            x = x + y
            return x + self.mlp(self.mlp_norm(x)), memory
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(condition)
        y, memory = attention(modulate(self.attention_norm(x), shift, scale))
        x = x + gate * y
        return x + gate_mlp * self.mlp(modulate(self.mlp_norm(x), shift_mlp, scale_mlp)), memory


def modulate(
    x: Float[Array, "B L D"], shift: Float[Array, "B 1 D"], scale: Float[Array, "B 1 D"]
) -> Float[Array, "B L D"]:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift
