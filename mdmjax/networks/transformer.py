"""The bidirectional transformer that denoises, and the causal one that is its autoregressive baseline."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mdmjax.networks.attention import Attend, Seen, naive, xla
from mdmjax.networks.functional import Model
from mdmjax.networks.layers import Attention, Block, Modulation, RMSNorm, TimeEmbedding, modulate, rotary_table

small = nnx.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A pre-norm transformer with RMSNorm, rotary positions and SwiGLU. Raises ValueError where sizes do not fit."""

    vocab: int  # V, without the mask
    length: int  # longest row
    width: int = 384  # D
    depth: int = 6
    heads: int = 6  # H
    kv_heads: int | None = None  # key and value heads, a divisor of heads; None: as many as heads
    ff: int | None = None  # hidden width of SwiGLU; None: 8/3 width, rounded up to a multiple of 32
    qk_norm: bool = False
    time: bool = False  # conditioned on t by adaLN-zero
    tied: bool = False  # read out with the embedding
    places: bool = False  # a learned vector for each position, beside the rotary angles: masks then differ
    causal: bool = False  # logits of position i see the tokens before i only
    pads: bool = False  # rows may hold PAD (V + 1), which is never attended to
    attention: Attend = xla
    dtype: Any = jnp.float32  # of activations; parameters, norms, softmax and logits are float32
    loops: int = 1  # times that the blocks are gone through, with the same parameters: a looped transformer
    exits: tuple[int, ...] | None = None  # of each position, the loop 1..loops after which it is read; None: the last
    scan: bool = False  # one traced block over stacked parameters, for depth 24 and more
    remat: bool = False  # recompute each block in the backward pass instead of keeping what is inside
    rope_base: float | None = 10_000.0  # None: nothing is turned, and only `places` tell positions apart
    # Applied to the residual stream [B, L, D] before and after each block, to the features, to what the readout is
    # given and to the logits: over a mesh, a sharding constraint that keeps rows where they are. Without it XLA may
    # gather the activations of the whole batch rather than one layer's sharded parameters.
    constrain: Callable[[Array], Array] = lambda x: x
    # Applied to the parameters of a block (nested dicts) where it uses them: over a mesh, the constraint that gathers
    # the shares of each. Else XLA forms the gradient of a share from activations gathered from all chips. With remat
    # they are gathered again in the backward pass; without it, the whole parameters of all blocks live until then.
    # Embedding and readout stay as they are.
    gather: Callable[[Any], Any] = lambda params: params

    def __post_init__(self):
        for name in ("vocab", "length", "width", "depth", "heads", "kv_heads", "ff", "loops"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name}={size}: must be at least 1")
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width}: must be a multiple of 2 * heads = {2 * self.heads}")
        if self.heads % self.key_heads:
            raise ValueError(f"kv_heads={self.kv_heads}: must divide heads={self.heads}")
        if self.exits is not None and not (
            len(self.exits) == self.length and 1 <= min(self.exits) and max(self.exits) <= self.loops
        ):
            raise ValueError(f"exits={self.exits}: must be length={self.length} numbers in 1..loops={self.loops}")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def hidden(self) -> int:
        """Hidden width of SwiGLU."""
        return 32 * -(-8 * self.width // 96) if self.ff is None else self.ff

    @property
    def mask(self) -> int:
        """Token id of the mask."""
        return self.vocab

    @property
    def pad(self) -> int:
        """Token id of PAD."""
        return self.vocab + 1


def transformer(config: TransformerConfig) -> Model:
    """The transformer as pure functions: `init(key) -> params`, `bind(params) -> denoiser`.

    With `causal` the input is shifted right by one, behind a mask: logits[:, i] are of p(x_i | x_0 .. x_{i-1}).
    """
    return Model(Transformer, config)


class Stack(nnx.Module):
    """Blocks over vectors, and the norm behind them. Networks differ in what they embed, and in what they read out."""

    def _build(self, config: TransformerConfig, places: int, rngs: nnx.Rngs) -> None:
        """Makes all parts, of a network for at most that many places."""
        self.config = config
        if config.places:
            self.places = nnx.Embed(places, config.width, dtype=config.dtype, embedding_init=small, rngs=rngs)
        if config.time:
            self.time = TimeEmbedding(config.width, dtype=config.dtype, rngs=rngs)
            self.modulation = Modulation(config.width, 2, dtype=config.dtype, rngs=rngs)
        keys = jax.random.split(rngs.params(), config.depth)
        if config.scan:
            self.blocks = _stack(lambda key: _block(config, key), keys)
        else:
            self.blocks = nnx.List([_block(config, key) for key in keys])
        self.norm = RMSNorm(config.width)

    def encode(
        self, x: Float[Array, "B L D"], valid: Seen | None, t: Float[Array, "B"] | None
    ) -> Float[Array, "B L D"]:
        """Features of embedded tokens. `valid` says which may be attended to, as `Attend` takes it; None: all."""
        config, length = self.config, x.shape[1]
        if config.time and t is None:
            raise ValueError("this network is conditioned on time: pass t, one time for each row")
        condition = self.time(t) if config.time else None
        table = rotary_table(length, config.width // config.heads, config.rope_base)

        def apply(block, x):
            return config.constrain(block(x, table, valid, condition))

        if config.places:
            x = x + self.places(jnp.arange(length))[None]
        x = config.constrain(x)
        read = x
        for loop in range(1, config.loops + 1):
            x = self._once(apply, x)
            read = self._leave(loop, x, read, jnp.arange(length)[None])
        x = self.norm(read)
        return config.constrain(modulate(x, *self.modulation(condition)) if config.time else x)

    def _leave(self, loop: int, x: Float[Array, "B K D"], read: Float[Array, "B K D"], at: Int[Array, "b K"]):
        """What is read of the positions `at`: x where they leave after this loop, `read` where not."""
        if self.config.exits is None:
            return x
        return jnp.where((jnp.array(self.config.exits)[at] == loop)[..., None], x, read)

    def _once(self, apply: Callable, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        config = self.config
        if config.scan:
            graph, stacked = _split(self.blocks)
            step = _remat(config, lambda x, params: (apply(nnx.merge(graph, config.gather(params)), x), None))
            return jax.lax.scan(step, x, stacked)[0]
        for block in self.blocks:
            graph, params = _split(block)
            step = _remat(config, lambda x, params, graph=graph: apply(nnx.merge(graph, config.gather(params)), x))
            x = step(x, params)
        return x


class Transformer(Stack):
    """tokens -> embed -> blocks -> norm (the features) -> readout."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        rows = config.vocab + (2 if config.pads else 1)
        self.embed = nnx.Embed(rows, config.width, dtype=config.dtype, embedding_init=small, rngs=rngs)
        self._build(config, config.length, rngs)
        if not config.tied:
            self.readout = nnx.Linear(config.width, config.vocab, use_bias=False, kernel_init=small, rngs=rngs)

    def features(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None, segments: Int[Array, "B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """What the readout reads. With `segments` a position sees those of its own number only. ValueError for
        attention that cannot, and for a network that tells places apart by their numbers in the row."""
        config = self.config
        rows, length = tokens.shape
        check_length(length, config.length)
        if config.causal:
            tokens = jnp.concatenate([jnp.full((rows, 1), config.mask, tokens.dtype), tokens[:, :-1]], axis=1)
        seen = tokens != config.pad if config.pads else None
        if segments is not None:
            if config.attention not in (xla, naive) or config.places or config.causal:
                raise ValueError("segments: for networks with attention=xla, places=False, causal=False")
            same = (segments[:, :, None] == segments[:, None])[:, None]
            seen = same if seen is None else same & seen[:, None, None]
        return self.encode(self.embed(tokens), seen, t)

    def memory(self, rows: int, length: int) -> tuple[Float[Array, "n B L N d"], Float[Array, "n B L N d"]]:
        """Keys and values of each block for `features_at`, all zero."""
        c = self.config
        shape = (c.loops * c.depth, rows, length, c.key_heads, c.width // c.heads)
        return jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)

    def features_at(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None, at: Int[Array, "B K"], memory: tuple
    ) -> tuple[Float[Array, "B K D"], tuple]:
        """(features, memory) of the positions `at` alone, which see of the others what the memory has of them.

        Those that the memory has from before are as they were then; so this is `features` where they have not changed
        since, in any layer. ValueError for a causal network, and for attention that does not say what it sees.
        """
        config, length = self.config, tokens.shape[1]
        check_length(length, config.length)
        sees = getattr(config.attention, "sees", None)
        if config.causal or (sees is None and config.attention not in (xla, naive)):
            raise ValueError("features_at: for networks that are not causal, with attention=xla or BlockCausal")
        seen = jnp.ones((*at.shape, length), bool) if sees is None else sees(at, length)
        if config.pads:
            seen = seen & (tokens != config.pad)[:, None]
        condition = self.time(t) if config.time else None
        table = tuple(jnp.asarray(x)[at] for x in rotary_table(length, config.width // config.heads, config.rope_base))
        x = self.embed(jnp.take_along_axis(tokens, at, 1))
        if config.places:
            x = x + self.places(at)
        new, read = [], x
        for n in range(config.loops * config.depth):
            block = self._block(n % config.depth)
            x, kept = block.remember(x, condition, table, tuple(part[n] for part in memory), at, seen)
            new.append(kept)
            if (n + 1) % config.depth == 0:
                read = self._leave((n + 1) // config.depth, x, read, at)
        x = self.norm(read)
        if config.time:
            x = modulate(x, *self.modulation(condition))
        return x, tuple(jnp.stack(parts) for parts in zip(*new, strict=True))

    def _block(self, number: int) -> Block:
        if not self.config.scan:
            return self.blocks[number]
        graph, stacked = _split(self.blocks)
        return nnx.merge(graph, jax.tree.map(lambda x: x[number], stacked))

    def logits(self, features: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        config = self.config
        kernel = self.embed.embedding[: config.vocab].T if config.tied else self.readout.kernel[...]
        # One matmul of two matrices, for the reason that Linear gives. The sums over D are logits, so they are kept as
        # float32 even where the factors are bfloat16.
        logits = jnp.matmul(
            config.constrain(features).reshape(-1, config.width),
            kernel.astype(config.dtype),
            preferred_element_type=jnp.promote_types(config.dtype, jnp.float32),
        )
        return config.constrain(logits.reshape(*features.shape[:-1], config.vocab))


def check_length(length: int, most: int) -> None:
    """ValueError for a row that is too long."""
    if length > most:
        raise ValueError(f"rows of {length} tokens; this network was made for at most length={most}")


def _block(config: TransformerConfig, key: Array) -> Block:
    rngs = nnx.Rngs(params=key)
    out_scale = (2 * config.depth) ** -0.5  # 2 depth branches add up to about the variance of one
    attention = Attention(
        config.width,
        config.heads,
        config.key_heads,
        attend=config.attention,
        causal=config.causal,
        qk_norm=config.qk_norm,
        out_scale=out_scale,
        dtype=config.dtype,
        rngs=rngs,
    )
    return Block(
        config.width, config.hidden, attention, out_scale=out_scale, time=config.time, dtype=config.dtype, rngs=rngs
    )


def _stack(make, keys: Array) -> nnx.Module:
    """`make(key)` for each key, as one module whose parameters have a leading axis."""
    graph = nnx.split(nnx.eval_shape(make, keys[0]))[0]
    return nnx.merge(graph, jax.vmap(lambda key: nnx.split(make(key))[1])(keys))


def _split(module: nnx.Module) -> tuple[Any, Any]:
    """(structure, parameters as nested dicts) of a module."""
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


def _remat(config: TransformerConfig, function):
    # A scan is itself what keeps XLA from merging the two forward passes.
    return jax.checkpoint(function, prevent_cse=not config.scan) if config.remat else function


def forward_flops(config: TransformerConfig, batch: int, length: int) -> int:
    """Floating-point operations of the matrix products of one forward pass, a multiply-add being two.

    Attention counts all L^2 scores, also where they are hidden; embedding, norms and softmax count nothing.
    """
    width, head = config.width, config.width // config.heads
    token = width * head * 2 * (config.heads + config.key_heads)  # query, out; key, value
    token += 2 * length * width  # scores and weighted values
    token += 3 * width * config.hidden
    total = batch * length * (config.loops * config.depth * token + width * config.vocab)
    if config.time:
        total += batch * (256 * width + width**2 + (6 * config.depth + 2) * width**2)
    return 2 * total
