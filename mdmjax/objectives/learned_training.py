"""Training with a learned order, as the training loop takes it."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mdmjax.base import Denoiser, SplitDenoiser
from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.learned_orders import OrderSpace, TimeSpace, learned_order_bound
from mdmjax.objectives.readout import dense
from mdmjax.process import centred


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ordered:
    """A denoiser and the law of the order in which it generates: `PlackettLuce(log_weights)`.

    Calls go to the denoiser, and so do the halves of one that is a `SplitDenoiser`.
    """

    denoiser: Denoiser | SplitDenoiser
    log_weights: Float[Array, "L"]

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        return self.denoiser(tokens, t, at=at)

    def features(self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None) -> Float[Array, "B L D"]:
        return self.denoiser.features(tokens, t)

    def readout(self, features: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        return self.denoiser.readout(features)


@dataclasses.dataclass(frozen=True)
class LearnedOrder:
    """The bound under the order law of an `Ordered` denoiser, estimated with K = `samples` draws of `law` a row.

    The gradient is that of bound(x) + l2 sum_l v_l^2 + control(v) for each row x, in nats, v the centred log-weights;
    the value is the estimate of bound(x) alone, so that the loss which is reported stays a bound. `control` is any
    further function of v, such as minus a bonus for the entropy of the order. Without a gradient for the log-weights
    (a fixed order, or equal weights for plain masked diffusion) it costs the same K denoiser rows.

    ValueError for samples < 1, l2 < 0, and batches with `eligible`: all positions take part in the order.
    """

    vocab: int
    law: OrderSpace | TimeSpace = OrderSpace()
    samples: int = 2
    baseline: bool = True
    l2: float = 0.0
    control: Callable | None = None
    nll: Callable = dense

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"LearnedOrder(samples={self.samples}): samples must be >= 1")
        if not self.l2 >= 0:
            raise ValueError(f"LearnedOrder(l2={self.l2}): l2 must be >= 0")

    def __call__(self, denoiser: Ordered, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        if "eligible" in batch:
            raise ValueError("LearnedOrder: the batch has `eligible`, and every position takes part in a learned order")
        log_weights = denoiser.log_weights
        draws = self.law.draw(log_weights, key, batch["ids"], self.samples, size)
        terms = learned_order_bound(
            denoiser, batch["tokens"], draws, vocab=self.vocab, baseline=self.baseline, nll=self.nll
        )
        price = self.price(log_weights)
        return terms._replace(nats=terms.nats + (price - jax.lax.stop_gradient(price)))

    def price(self, log_weights: Float[Array, "L"]) -> Float[Array, ""]:
        """l2 sum v^2 + control(v), in nats per row."""
        v = centred(log_weights)
        price = self.l2 * jnp.square(v).sum()
        return price if self.control is None else price + self.control(v)
