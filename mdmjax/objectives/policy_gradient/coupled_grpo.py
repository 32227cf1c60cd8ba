"""coupled-GRPO (DiffuCoder, arXiv 2506.20639): GRPO on a mask, its complement, and the full mask."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws, Schedule
from mdmjax.objectives.policy_gradient.interface import Clip, weighted
from mdmjax.process import Linear
from mdmjax.process.spreads import MASKS, example_keys, row_keys

_RATE = 17  # use of the key of a draw: the rate that a batch has in common


@dataclasses.dataclass(frozen=True)
class CoupledGRPO:
    """log p_i = (p0_i + [i in M] p1_i / r + [i not in M] p2_i / (1 - r)) / 2, with one r ~ U(low, high) for the whole
    batch, M a mask of rate r, and p0, p1, p2 what the model says under the full mask, M and its complement.

    Every token is scored in two of three calls. The weights of a token sum to 3/2 in expectation, so this is no
    likelihood and no bound: its mean is half of the mean field's and of twice a bound's integrand at one rate. Loss as
    PPO's clip at every token + kl k3, divided by all tokens. ValueError unless 0 < low <= high < 1.
    `schedule` is that of the times that the network is told.
    """

    low: float = 0.2
    high: float = 0.8
    clip: Clip = Clip(kl=0.01)
    schedule: Schedule = Linear()

    def __post_init__(self):
        if not 0 < self.low <= self.high < 1:
            raise ValueError(f"CoupledGRPO(low={self.low}, high={self.high}): must be 0 < low <= high < 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        share = jax.vmap(jax.random.uniform)(example_keys(jax.random.fold_in(key, _RATE), ids // batch))
        rate = self.low + (self.high - self.low) * share
        places = jax.vmap(lambda k: jax.random.uniform(k, eligible.shape[1:]))(row_keys(key, MASKS, ids))
        some = (places < rate[:, None]) & eligible
        masks = jnp.stack([eligible, some, eligible & ~some])
        weights = jnp.stack([jnp.ones_like(rate), 1 / rate, 1 / (1 - rate)]) / 2
        visible = jnp.stack([jnp.zeros_like(rate), 1 - rate, rate])
        times = self.schedule.inverse(visible, 1 - visible)
        three = lambda x: jnp.broadcast_to(x, (3, len(ids)))
        return Draws(three(ids), times, masks, weights, three(ids // batch), "coupled")

    def surrogate(self, log_p, draws, eligible, advantages) -> Float[Array, "B L"]:
        return weighted(log_p, draws)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        return self.clip.tokens(current, old, reference, advantages, eligible).sum(1), eligible.sum(1)
