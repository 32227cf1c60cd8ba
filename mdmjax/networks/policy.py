"""The network of a policy of any-process generation: a transformer with a token and three decisions at each position.

It is a function of tokens and lengths (`anyprocess.Policy`): positions are those of the canvas as it is now, and beyond
a row's length nothing is attended to. With `network.time` it is one of the time too, as FlexMDM and Edit Flows want it.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mdmjax.networks.functional import Bound, Model, Params
from mdmjax.networks.layers import Linear
from mdmjax.networks.relations import seen_alike
from mdmjax.networks.transformer import Stack, TransformerConfig, check_length, small

DECISIONS = 3  # remask, insert, delete


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """`network` of V tokens and rows of at most `length`; it embeds PAD too, and its `tied` is not used.

    patch: so many tokens are one place of the blocks, where their embeddings, each from a table of its own, are added,
    and from which each is read out by a head of its own. For rows made of cells of so many tokens: attention costs a
    patch^2-th, all else a patch-th.
    relate: labels [B, R, N] of tokens [B, N]; `each` heads see the positions with the query's own label of relation 0,
    so many those of relation 1, ..., and the heads beyond see all. For texts that say which of their parts belong
    together, such as a graph.
    near: so many tokens on either side are embedded with each token, every one from a table of its own place.
    outputs: logits at each position, V for a policy (None); V + 2 for DreamOn, 2 V for Edit Flows.
    ValueError where `length` is not a multiple of the patch, for a causal network, for patch < 1, outputs < 1 and
    near < 0, and for relations or neighbours of patches.
    """

    network: TransformerConfig
    patch: int = 1
    relate: Callable[[Int[Array, "B N"]], Int[Array, "B R N"]] | None = None
    each: int = 1
    near: int = 0
    outputs: int | None = None
    bias: float = -2.0  # of the decisions at first: each has probability sigmoid(bias)

    def __post_init__(self):
        network = self.network
        if self.patch < 1 or network.length % self.patch:
            raise ValueError(f"patch={self.patch}: must be at least 1, and divide length={network.length}")
        if network.causal:
            raise ValueError("a policy sees the whole canvas: causal=False")
        if self.outputs is not None and self.outputs < 1:
            raise ValueError(f"outputs={self.outputs}: must be at least 1, or None for V")
        if self.near < 0:
            raise ValueError(f"near={self.near}: must not be negative")
        if (self.relate is not None or self.near) and self.patch > 1:
            raise ValueError(f"patch={self.patch}: relations and neighbours are of tokens, patch=1")


def policy_network(config: PolicyConfig) -> "PolicyModel":
    """The policy as pure functions: `init(key) -> params`, `bind(params) -> policy`."""
    return PolicyModel(PolicyNetwork, config)


class PolicyModel(Model):
    """A policy network without its parameters."""

    def bind(self, params: Params) -> "BoundPolicy":
        """`policy(tokens [B, N], lengths [B], t [B]) -> (logits [B, N, outputs], controls [B, N, 3])`, in float32; t
        where the network is conditioned on time."""
        return BoundPolicy(params, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundPolicy(Bound):
    """A policy network with its parameters."""

    @property
    def timed(self) -> bool:
        """Whether it wants a time."""
        return self.model.config.network.time

    def __call__(  # ty: ignore[invalid-method-override]
        self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], t: Float[Array, "B"] | None = None
    ) -> tuple[Float[Array, "B N V"], Float[Array, "B N 3"]]:
        return self._module(tokens, lengths, t)


class PolicyNetwork(Stack):
    """tokens -> embed -> blocks -> norm -> logits of the token, zero at first, and of the decisions (arXiv 2510.06190).

    The decisions' weights are N(0, 0.02^2) at first and their biases `bias`.
    """

    def __init__(self, config: PolicyConfig, rngs: nnx.Rngs):
        network, patch = config.network, config.patch
        self.patch, self.length, self.near = patch, network.length, config.near
        self.relate, self.each = config.relate, config.each
        tables = (patch + 2 * self.near) * (network.vocab + 2)
        self.embed = nnx.Embed(tables, network.width, dtype=network.dtype, embedding_init=small, rngs=rngs)
        self._build(network, network.length // patch, rngs)
        zeros = nnx.initializers.zeros
        self.readout = Linear(
            network.width,
            patch * (config.outputs or network.vocab),
            use_bias=False,
            kernel_init=zeros,
            dtype=network.dtype,
            rngs=rngs,
        )
        self.decisions = Linear(
            network.width,
            patch * DECISIONS,
            kernel_init=small,
            bias_init=nnx.initializers.constant(config.bias),
            dtype=network.dtype,
            rngs=rngs,
        )

    def __call__(
        self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], t: Float[Array, "B"] | None = None
    ) -> tuple[Float[Array, "B N V"], Float[Array, "B N 3"]]:
        network, patch = self.config, self.patch
        rows, length = tokens.shape
        check_length(length, self.length)
        if length % patch:
            raise ValueError(f"rows of {length} tokens; this network reads cells of {patch}")
        inside = jnp.arange(length)[None] < lengths[:, None]
        tokens = jnp.where(inside, tokens, network.pad)  # what stands beyond a row changes nothing
        wide = jnp.pad(tokens, ((0, 0), (self.near, self.near)), constant_values=network.pad)
        places = jnp.stack([wide[:, k : k + length] for k in range(2 * self.near + 1)], 2)
        places = places.reshape(rows, length // patch, -1)
        places += (network.vocab + 2) * jnp.arange(places.shape[2])[None, None]
        seen = inside[:, ::patch]
        if self.relate is not None:
            seen = seen_alike(self.relate(tokens), seen, network.heads, self.each)
        features = self.encode(self.embed(places).sum(2), seen, t)
        of_tokens = lambda x: x.reshape(rows, length, -1).astype(jnp.promote_types(x.dtype, jnp.float32))
        return of_tokens(self.readout(features)), of_tokens(self.decisions(features))
