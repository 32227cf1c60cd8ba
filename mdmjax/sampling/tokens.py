"""The draw of one token value from its logits, unbiased in float32 for large vocabularies and rare tokens."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class TokenDraw:
    """token ~ softmax(logits / temperature) cut to its nucleus; temperature 0 is the argmax (ties: the smallest id).

    The nucleus is the smallest set of most probable tokens, after the temperature, whose mass reaches top_p (Holtzman
    et al., arXiv 1904.09751); tokens that tie with its last member are in it. Raises ValueError for a negative or
    infinite temperature and for top_p outside (0, 1].
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature}: must be finite and >= 0 (0 takes the most probable token)"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be in (0, 1] (1 keeps every token)")

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "V"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
        """(token, its probability under softmax(logits)), in float32 or wider. Consumes the key.

        The probability is that of the model itself, at temperature 1 and with every token kept: so confidences mean the
        same whatever the draw, and do not degenerate to 1 at temperature 0.
        """
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        if self.temperature == 1 and self.top_p == 1:
            token, log_mass = categorical(key, logits)
        else:
            log_mass = jax.nn.logsumexp(logits)
            token = self._cut(key, logits)
        return token.astype(jnp.int32), jnp.exp(logits[token] - log_mass)

    def _cut(self, key, logits):
        if self.temperature == 0:
            return jnp.argmax(logits)
        scores = logits / self.temperature
        if self.top_p < 1:
            scores = jnp.where(nucleus(scores, self.top_p), scores, -jnp.inf)
        return categorical(key, scores)[0]


def categorical(key: Key[Array, ""], logits: Float[Array, "V"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """(token ~ softmax(logits), logsumexp(logits)), by two Gumbel draws: a block of about sqrt(V) tokens, then a token.

    Needs 2 sqrt(V) Gumbels in place of V. They are taken in the mode "high", which makes each from two uniforms: the
    usual float32 ones come from one with 23 bits, so no event rarer than about 1e-7 is ever drawn as often as it should
    be. Consumes the key.
    """
    vocab = logits.shape[0]
    width = 1 << ((vocab - 1).bit_length() + 1) // 2  # a power of two, so that blocks are tiles of memory
    blocks = -(-vocab // width)
    noise = jax.random.gumbel(key, (blocks + width,), logits.dtype, mode="high")
    highest = logits.max()
    padded = jnp.pad(logits, (0, blocks * width - vocab), constant_values=-jnp.inf)  # fused into the sum
    masses = jnp.log(jnp.exp(padded - highest).reshape(blocks, width).sum(1))
    block = jnp.argmax(masses + noise[:blocks])
    tokens = block * width + jnp.arange(width)
    inside = jnp.where(tokens < vocab, logits[jnp.minimum(tokens, vocab - 1)], -jnp.inf)
    return block * width + jnp.argmax(inside + noise[blocks:]), highest + jax.nn.logsumexp(masses)


def nucleus(logits: Float[Array, "V"], top_p: float) -> Bool[Array, "V"]:
    """The smallest set {v : p_v >= threshold} of softmax(logits) with mass >= top_p.

    The threshold is found by bisection over the bit patterns of floats, which are ordered as the floats are: exact, and
    V log(2^32) additions in place of a sort.
    """
    p = jnp.exp(logits - logits.max())
    bits = {4: jnp.int32, 8: jnp.int64}[p.dtype.itemsize]
    wanted = top_p * p.sum()

    def halve(_, interval):
        low, high = interval  # {p >= low} has enough mass, {p >= high} has not
        middle = low + (high - low) // 2
        enough = jnp.where(p >= as_float(middle), p, 0).sum() >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    def as_float(pattern):
        return jax.lax.bitcast_convert_type(pattern, p.dtype)

    above = jax.lax.bitcast_convert_type(jnp.ones((), p.dtype), bits) + 1  # the largest p is 1
    threshold, _ = jax.lax.fori_loop(0, p.dtype.itemsize * 8, halve, (jnp.zeros_like(above), above))
    return p >= as_float(threshold)
