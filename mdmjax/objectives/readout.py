"""Cross-entropy of chosen positions: what a loss needs of a denoiser, without more logits than it must hold.

Each function here is `nll(denoiser, inputs, t, targets, where) -> [B, L]`: -log p(targets | inputs) in nats at the
positions `where`, and 0 elsewhere.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mdmjax.base import Denoiser, SplitDenoiser


def dense(
    denoiser: Denoiser,
    inputs: Int[Array, "B L"],
    t: Float[Array, "B"] | None,
    targets: Int[Array, "B L"],
    where: Bool[Array, "B L"],
) -> Float[Array, "B L"]:
    """Logits at every position, once: 2 B L D V FLOPs forward, B L V floats. The choice for a small vocabulary."""
    return jnp.where(where, _cross_entropy(denoiser(inputs, t), jnp.where(where, targets, 0)), 0)


def _cross_entropy(logits: Float[Array, "*n V"], labels: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """In float32 at least: the sum over V of bfloat16 logits would have two digits."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def systematic_share(rows: int, length: int) -> float:
    """1/2 + 1/(2 rows) + 1/length: what a systematic exact count hides at most of `rows` rows that follow each other.

    It is a bound where the batch and `rows` are powers of two, since such rows have evenly spaced rates.
    """
    return 0.5 + 0.5 / rows + 1 / length


def independent_share(rows: int, length: int) -> float:
    """1/2 + 0.9/sqrt(rows) + 1/length: three standard deviations above the mean of `rows` independent uniform rates.

    Of independent exact counts, as of the calls of `evaluation.Scorer`, about one group in a thousand hides more.
    """
    return 0.5 + 0.9 / math.sqrt(rows) + 1 / length


@dataclasses.dataclass(frozen=True)
class Packed:
    """Logits at the chosen positions only, in chunks that are recomputed in the backward pass.

    The positions of `B / groups` rows are packed together, a share `capacity` of them is read out, and should a group
    ever hold more, all positions are: the result is exact either way, and only the work is not. `capacity` is a share,
    or a function `(rows of a group, L) -> share`: the default is right for the systematic exact count over batches and
    groups of a power of two, `independent_share` for independent exact counts, and 1 for laws that hide more than half
    on average, such as `Continuous(Cosine())` (2/pi). Set `groups` to the number of devices that share a batch, so that
    nothing crosses devices. At most `chunk` logit rows a group are held at a time, once forward and once backward.
    """

    capacity: float | Callable = systematic_share
    groups: int = 1
    chunk: int = 512

    def __post_init__(self):
        if self.chunk < 1 or self.groups < 1:
            raise ValueError(f"Packed(groups={self.groups}, chunk={self.chunk}): both must be >= 1")

    def __call__(
        self,
        denoiser: SplitDenoiser,
        inputs: Int[Array, "B L"],
        t: Float[Array, "B"] | None,
        targets: Int[Array, "B L"],
        where: Bool[Array, "B L"],
    ) -> Float[Array, "B L"]:
        """-log p(targets | inputs) in nats where `where` is True, 0 elsewhere: [B, L].

        FLOPs of the readout: 2 D V for each of `capacity * B * L` positions forward, or of all where one group holds
        more. ValueError where `groups` does not divide the batch or a given share is outside (0, 1].
        """
        rows, length = inputs.shape
        if rows % self.groups:
            raise ValueError(f"Packed(groups={self.groups}): groups must divide the {rows} rows of the batch")
        per_group = rows // self.groups
        share = self.capacity(per_group, length) if callable(self.capacity) else self.capacity
        if share <= 0 or (share > 1 and not callable(self.capacity)):
            raise ValueError(f"Packed(capacity={self.capacity}): capacity must be in (0, 1]")
        size = per_group * length
        room = min(size, math.ceil(share * size))

        def flat(x):
            return x.reshape(self.groups, size, *x.shape[2:])

        features, labels, chosen = flat(denoiser.features(inputs, t)), flat(targets), flat(where)

        def read(positions: int):
            order = jax.vmap(lambda row: jnp.nonzero(row, size=positions, fill_value=0)[0])(chosen)
            live = jnp.arange(positions)[None] < chosen.sum(1, keepdims=True)
            picked = jnp.take_along_axis(features, order[:, :, None], axis=1)
            nats = self._chunked(denoiser, picked, jnp.where(live, jnp.take_along_axis(labels, order, axis=1), 0))
            return jax.vmap(lambda o, n: jnp.zeros(size, n.dtype).at[o].add(n))(order, jnp.where(live, nats, 0))

        if room == size:
            nats = read(size)
        else:
            nats = jax.lax.cond((chosen.sum(1) <= room).all(), lambda: read(room), lambda: read(size))
        return nats.reshape(rows, length)

    def _chunked(self, denoiser, features: Float[Array, "G n D"], labels: Int[Array, "G n"]) -> Float[Array, "G n"]:
        groups, n, width = features.shape
        chunks = -(-n // self.chunk)
        size = -(-n // chunks)
        pad = chunks * size - n
        features = jnp.pad(features, ((0, 0), (0, pad), (0, 0))).reshape(groups, chunks, size, width)
        labels = jnp.pad(labels, ((0, 0), (0, pad))).reshape(groups, chunks, size)

        @jax.checkpoint
        def score(chunk):
            return _cross_entropy(denoiser.readout(chunk[0]), chunk[1])

        nats = jax.lax.map(score, (features.swapaxes(0, 1), labels.swapaxes(0, 1)))
        return nats.swapaxes(0, 1).reshape(groups, chunks * size)[:, :n]
