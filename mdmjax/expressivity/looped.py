"""Padded looped transformers in fixed point: the stream between loops is integers, so that runs can be equal exactly.

An input of N symbols is followed by P blanks; one block is looped T times over the N + P cells, and the last cell is
read. A code k in -2^(b-1) .. 2^(b-1) - 1 is the number k / 2^s.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """b bits of which s are behind the point. In float32 or wider, where every code is exact.

    ValueError for bits that are no integer in 2..16, and fraction that is none in 0..30.
    """

    bits: int
    fraction: int

    def __post_init__(self):
        for name, least, most in (("bits", 2, 16), ("fraction", 0, 30)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not least <= value <= most:
                raise ValueError(f"{name}={value}: must be in {least}..{most}, an integer")

    @property
    def low(self) -> int:
        """The lowest code, -2^(b-1)."""
        return -(1 << (self.bits - 1))

    @property
    def codes(self) -> int:
        """2^b."""
        return 1 << self.bits

    def encode(self, x: Float[Array, "*n"]) -> Int[Array, "*n"]:
        """clip(round(x 2^s)), halves to even."""
        return jnp.clip(jnp.round(_wide(x) * 2.0**self.fraction), self.low, -self.low - 1).astype(jnp.int32)

    def decode(self, codes: Int[Array, "*n"]) -> Float[Array, "*n"]:
        """k / 2^s."""
        return codes.astype(jnp.result_type(float)) / 2.0**self.fraction

    def round(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The nearest number that has a code. In float32 of what is narrower, which has not room for every code."""
        return self.decode(self.encode(x)).astype(_wide(x).dtype)

    def round_all(self, params: Any) -> Any:
        """Every leaf of a pytree rounded: parameters of so many bits."""
        return jax.tree.map(self.round, params)

    def distance(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """How far x is from where its code changes: within the error of float arithmetic it is not decided."""
        scaled = _wide(x) * 2.0**self.fraction
        boundary = jnp.clip(jnp.floor(scaled) + 0.5, self.low + 0.5, -self.low - 1.5)
        return jnp.abs(scaled - boundary) / 2.0**self.fraction


def _wide(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True, eq=False)
class Looped:
    """A looped network: codes_0 = q(embed(row)), codes_{t+1} = q(block(codes_t, noise_t)).

    `block(x, noise) -> x` is of decoded numbers; `noise` is None or one slice of the array given to `run`.
    """

    embed: Callable[[Int[Array, "B S"]], Float[Array, "B S D"]]
    block: Callable[[Float[Array, "B S D"], Any], Float[Array, "B S D"]]
    point: FixedPoint

    @classmethod
    def of(cls, network: Any, point: FixedPoint) -> "Looped":
        """A `networks.PaddedLooped` with its parameters as they are; noise is added before the stream is rounded."""

        def block(x, noise):
            after = network.block(x, point.round)
            return after if noise is None else after + noise

        return cls(network.embed, block, point)

    def first(self, rows: Int[Array, "B S"]) -> Int[Array, "B S D"]:
        """The codes before the first loop."""
        return self.point.encode(jax.lax.optimization_barrier(self.embed(rows)))

    def step(self, codes: Int[Array, "B S D"], noise: Any = None) -> Int[Array, "B S D"]:
        """One loop. Nothing around it is compiled into it, for that may change the last digits before the rounding."""
        return self.point.encode(self.before_rounding(codes, noise))

    def before_rounding(self, codes: Int[Array, "B S D"], noise: Any = None) -> Float[Array, "B S D"]:
        """What `step` rounds."""
        x, noise = jax.lax.optimization_barrier((self.point.decode(codes), noise))
        return jax.lax.optimization_barrier(self.block(x, noise))

    def run(self, rows: Int[Array, "B S"], steps: int, noise: Any = None) -> Int[Array, "T1 B S D"]:
        """The codes before each of T loops, and after the last. `noise` has a leading axis T, or is None.

        ValueError for steps < 0 and noise for another number of loops.
        """
        if steps < 0:
            raise ValueError(f"steps={steps}: must be >= 0")
        lengths = {len(x) for x in jax.tree.leaves(noise)}
        if lengths - {steps}:
            raise ValueError(f"noise for {lengths.pop()} loops: steps={steps} need one slice each")
        first = self.first(rows)
        last, before = jax.lax.scan(lambda x, n: (self.step(x, n), x), first, noise, length=steps)
        return jnp.concatenate([before, last[None]])


def padded(words: Int[Array, "B N"], padding: int, blank: int) -> Int[Array, "B S"]:
    """Words followed by P blanks. ValueError for P < 0 and words without a symbol."""
    if padding < 0 or words.shape[1] < 1:
        raise ValueError(f"N={words.shape[1]}, padding={padding}: N must be >= 1 and padding >= 0")
    return jnp.pad(words, ((0, 0), (0, padding)), constant_values=blank)
