"""A denoiser of little capacity: one linear layer for each position."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mdmjax.networks.functional import Model


@dataclasses.dataclass(frozen=True)
class LinearConfig:
    """Sizes of a linear denoiser. Raises ValueError where one is below 1."""

    vocab: int  # V, without the mask
    length: int  # L

    def __post_init__(self):
        for name in ("vocab", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


def linear(config: LinearConfig) -> Model:
    """The linear denoiser as pure functions: `init(key) -> params`, `bind(params) -> denoiser`.

    logits[l] = bias[l] + sum_{j visible} kernel[j, x_j, l], one layer whatever is masked: (L V + 1) L V parameters.
    It can represent what is independent given the target, p(cause | any effects), and not p(effect | effects).
    """
    return Model(Linear, config)


class Linear(nnx.Module):
    """tokens -> one-hot vectors, 0 where masked -> the logits of all positions, which are the features."""

    def __init__(self, config: LinearConfig, rngs: nnx.Rngs):
        self.config = config
        size = config.length * config.vocab
        self.layer = nnx.Linear(size, size, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)

    def features(self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None) -> Float[Array, "B L V"]:
        if tokens.shape[1] != self.config.length:
            raise ValueError(f"rows of {tokens.shape[1]} tokens; this network was made for length={self.config.length}")
        seen = jax.nn.one_hot(
            tokens, self.config.vocab, dtype=self.layer.kernel[...].dtype
        )  # a mask is no value: zeros
        return self.layer(seen.reshape(len(tokens), -1)).reshape(seen.shape)

    def logits(self, features: Float[Array, "*n V"]) -> Float[Array, "*n V"]:
        return features.astype(jnp.promote_types(features.dtype, jnp.float32))
