"""The bound of a model under the law of its decoding order."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mdmjax.evaluation.likelihood import check_groups, in_groups
from mdmjax.objectives import OrderDraws, Ordered, OrderSpace, dense, learned_order_bound


@dataclasses.dataclass(frozen=True)
class OrderScorer:
    """`scorer(ordered, batch, key) -> nats [B, groups]`: independent estimates of each row's bound, in nats.

    The order law is that of the `Ordered` denoiser; with equal weights the bound is that of masked diffusion. Each of
    the `groups` is the mean of `draws` hidden sets whose sizes are systematic over 1..L. Draws are keyed by the row's
    id, so no number depends on the batch size. Rows take part as a whole: a row with a position that is not `scored` is
    not what is meant here (it may fill up a batch). ValueError for draws < 1 and groups < 2.
    """

    vocab: int
    draws: int = 4
    groups: int = 2
    nll: Callable = dense

    def __post_init__(self):
        check_groups("OrderScorer", self.draws, self.groups)

    def __call__(self, denoiser: Ordered, batch: dict[str, Array], key: Key[Array, ""]) -> Float[Array, "B G"]:
        tokens, law = batch["tokens"], OrderSpace()

        def draw(key):
            return law.draw(denoiser.log_weights, key, jnp.arange(self.draws), 1, self.draws)

        def one(draws: OrderDraws):  # one call of the denoiser
            return learned_order_bound(denoiser, tokens, draws, vocab=self.vocab, baseline=False, nll=self.nll).nats

        return in_groups(draw, one, (batch["ids"],), key, self.draws, self.groups)
