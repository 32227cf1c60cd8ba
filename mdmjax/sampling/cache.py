"""Keys and values kept from call to call, for decoding in blocks: a call then costs what a block or two cost.

The engine treats such a denoiser as any other, and carries its memory along with the canvas.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

KINDS = ("exact", "prefix", "dual")


class Kept(NamedTuple):
    """What is carried along."""

    memory: Any  # of the network
    block: Int[Array, "B"]  # that the row was in at its last call, before which all were full; -1 before the first
    whole: Int[Array, ""]  # calls that went through whole rows


@dataclasses.dataclass(frozen=True)
class BlockCache:
    """A denoiser that remembers, for the planner `Blocks` of the same `length`.

    `network` has `memory(rows, L)`, `features_at(tokens, t, at, memory)` and `readout` (`networks.Model.bind`). The
    current block of a row is that of its first mask, or of the first position that it asks for where that comes before:
    a planner may ask of written tokens, such as `InformedCorrector`.

    "exact": for a block-causal network (`networks.BlockCausal` of this length) without time. A call goes through the
    current block and the one before it, which has been filled since its keys were last written; all blocks before that
    are as they will always be. Its logits are those of the whole row, but for rounding.

    "prefix" and "dual" are approximate, for a network that sees everything: when the row comes into a block the whole
    of it is gone through, and after that what is kept of some positions, what they see and say, is as it was then
    (Fast-dLLM, arXiv 2505.22618). "prefix" keeps what stands before the current block (the first one, where the rows of
    a batch are in several), and goes through all from there on; "dual" goes through the current block alone. The logits
    differ from the network's, by how much is to be measured.

    Where a row asks for positions outside of that, or has passed over blocks, the call goes through the whole rows.
    ValueError for length < 1, another kind, and a network that is known not to be of the kind.
    """

    network: Any
    length: int
    kind: str = "exact"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"BlockCache(kind={self.kind!r}): must be one of {', '.join(KINDS)}")
        if self.length < 1:
            raise ValueError(f"BlockCache(length={self.length}): must be at least 1")
        config = getattr(getattr(self.network, "model", None), "config", None)
        if self.kind == "exact" and config is not None:
            blocks = getattr(config.attention, "length", None)
            if blocks != self.length or config.time:
                raise ValueError(
                    f"BlockCache(length={self.length}, kind='exact'): the network must have attention=BlockCausal("
                    f"{self.length}) and time=False; for another, kind='prefix' or 'dual'"
                )

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        """The network itself, which remembers nothing."""
        return self.network(tokens, t, at=at)

    def begin(self, tokens: Int[Array, "B L"], vocab: int) -> Kept:
        """Nothing is known yet."""
        rows, length = tokens.shape
        return Kept(self.network.memory(rows, length), jnp.full(rows, -1), jnp.zeros((), jnp.int32))

    def remember(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None, at: Int[Array, "B K"], kept: Kept, vocab: int
    ) -> tuple[Float[Array, "B K V"], Kept]:
        """(logits at the positions `at`, what is kept)."""
        length, exact = tokens.shape[1], self.kind == "exact"
        masks = tokens == vocab
        mask = jnp.where(masks.any(1), jnp.argmax(masks, 1), length - 1)
        # what is asked may change, so the blocks before it stay as they are, and those before the first mask are full
        block = jnp.minimum(mask, at.min(1)) // self.length
        first = jnp.maximum(block - 1, 0) if exact else block
        width = min(self.length * (2 if exact else 1), length)
        start = jnp.minimum(first * self.length, length - width)
        end = length if self.kind == "prefix" else start + width
        inside = (at >= start[:, None]) & (at < jnp.broadcast_to(end, start.shape)[:, None])
        # what is known of the blocks before `first` was written when they were full, so it stays
        known = first <= jnp.maximum(kept.block, 0) if exact else kept.block == block

        def window(start, width):
            """The call through so many positions from `start` on."""
            positions = jnp.broadcast_to(start, block.shape)[:, None] + jnp.arange(width)[None]
            features, memory = self.network.features_at(tokens, t, positions, kept.memory)
            picked = jnp.clip(at - positions[:, :1], 0, width - 1)
            return jnp.take_along_axis(features, picked[..., None], 1), memory

        def some(_):
            if self.kind != "prefix":
                return *window(start, width), kept.whole
            starts = range(0, length, self.length)  # a branch for each, for shapes are known when they are compiled
            ways = [lambda _, start=start: window(start, length - start) for start in starts]
            return *jax.lax.switch(block.min(), ways, None), kept.whole

        def whole(_):
            return *window(0, length), kept.whole + 1

        near = inside.all(1) & known
        features, memory, count = jax.lax.cond(near.all(), some, whole, None)
        return self.network.readout(features), Kept(memory, block, count)
