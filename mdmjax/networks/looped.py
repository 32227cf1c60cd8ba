"""A padded looped transformer in parts: embedding, one block, readout; what loops it rounds the residual stream."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mdmjax.networks.functional import Bound, Model
from mdmjax.networks.layers import Linear

Rounding = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class PaddedLoopedConfig:
    """Sizes of a padded looped transformer. Raises ValueError where they do not fit."""

    vocab: int  # V, without the blank, which is V
    length: int  # N + P: the input and the padding
    width: int  # D
    heads: int = 2
    ff: int = 32  # hidden width of the perceptron
    loops: int = 1  # of `features`, which rounds nothing

    def __post_init__(self):
        for name in ("vocab", "length", "width", "heads", "ff", "loops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width={self.width}: must be a multiple of heads={self.heads}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PaddedLooped(Bound):
    """The network with its parameters: `embed`, `block` and `readout` are pure functions. A denoiser as well."""

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """The stream before the first loop. ValueError for rows of another length."""
        return self._module.embed(tokens)

    def block(self, x: Float[Array, "B S D"], rounding: Rounding) -> Float[Array, "B S D"]:
        """One loop, which ends before the stream is rounded."""
        return self._module.block(x, rounding)


@dataclasses.dataclass(frozen=True)
class _LoopedModel(Model):
    def bind(self, params) -> PaddedLooped:
        return PaddedLooped(params, self)


def padded_looped(config: PaddedLoopedConfig) -> Model:
    """The network as pure functions: `init(key) -> params`, `bind(params) -> PaddedLooped`."""
    return _LoopedModel(_PaddedLooped, config)


class _PaddedLooped(nnx.Module):
    """x + rounding(attention x), then x + mlp x: bidirectional, no norm, so that numbers in fixed point stay them."""

    def __init__(self, config: PaddedLoopedConfig, rngs: nnx.Rngs):
        normal, width = nnx.initializers.normal(1.0), config.width
        self.config = config
        self.tokens = nnx.Embed(config.vocab + 1, width, embedding_init=normal, rngs=rngs)
        self.places = nnx.Embed(config.length, width, embedding_init=normal, rngs=rngs)
        self.query, self.key, self.value, self.out = (Linear(width, width, use_bias=False, rngs=rngs) for _ in range(4))
        self.up, self.down = Linear(width, config.ff, rngs=rngs), Linear(config.ff, width, rngs=rngs)
        self.last = Linear(width, config.vocab, use_bias=False, rngs=rngs)

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        if tokens.shape[1] != self.config.length:
            raise ValueError(f"rows of {tokens.shape[1]} cells; this network was made for length={self.config.length}")
        return self.tokens(tokens) + self.places(jnp.arange(tokens.shape[1]))[None]

    def block(self, x: Float[Array, "B S D"], rounding: Rounding) -> Float[Array, "B S D"]:
        heads = lambda y: y.reshape(*x.shape[:2], self.config.heads, -1)
        seen = jax.nn.dot_product_attention(heads(self.query(x)), heads(self.key(x)), heads(self.value(x)))
        x = x + rounding(self.out(seen.reshape(x.shape)))
        return x + self.down(jax.nn.relu(self.up(x)))

    def features(self, tokens: Int[Array, "B S"], t: Float[Array, "B"] | None) -> Float[Array, "B S D"]:
        x = self.embed(tokens)
        for _ in range(self.config.loops):
            x = self.block(x, lambda y: y)
        return x

    def logits(self, features: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        return self.last(features)
