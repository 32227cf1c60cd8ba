"""Bounds whose order of revealing is learned: unbiased estimates, with gradients for the order weights.

The bound is sum_pi P_w(pi) AR(pi), P_w the Plackett-Luce law of one weight for each position (arXiv 2511.19152). An
estimate draws what is hidden from a law that depends on w, so its gradient in w has two parts: pathwise, through the
factors of the losses, and a score part, d log q(draw), which multiplies how much worse a draw did than the others of
its example (leave-one-out). The K draws of an example share the example and the time or step. A surrogate has
the estimate as its value and both parts in its gradient. Denoisers are time-free.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser
from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.readout import dense
from mdmjax.process import PlackettLuce, example_keys, systematic


class OrderDraws(NamedTuple):
    """What is hidden in K draws of each example, C denoiser calls each, and what their law says of it.

    The estimate of draw k is sum_c sum_l weights[b, k, c, l] CE_l(masks[b, k, c]). `weights` and `log_q` depend on w.
    """

    masks: Bool[Array, "B K C L"]  # hidden and scored
    weights: Float[Array, "B K C L"]  # factors of the cross-entropies
    log_q: Float[Array, "B K"]  # log-probability of the draw, up to what does not depend on w


@dataclasses.dataclass(frozen=True)
class OrderSpace:
    """Hides what is left of a random order after a random number of steps.

    An order of P_w is drawn for each of the K draws and i ~ U{1..L} for the example. The first i - 1 positions of the
    order are revealed, and each member l of the hidden set H is scored with the factor L w_l / W(H): the next position
    is averaged over, not drawn. Unbiased, and nothing is left out. For equal weights it is `ExactCount`. With
    `every_step` all L hidden sets of an order are scored, L denoiser calls a draw.
    """

    every_step: bool = False
    spread: Callable = systematic

    def calls(self, length: int) -> int:
        """Denoiser calls of one draw."""
        return length if self.every_step else 1

    def draw(
        self, log_weights: Float[Array, "L"], key: Key[Array, ""], ids: Int[Array, "B"], samples: int, batch: int
    ) -> OrderDraws:
        """K = `samples` draws for rows `ids` of a batch of `batch` rows. Differentiable in `log_weights`."""
        length = log_weights.shape[0]
        order = jax.vmap(jax.vmap(PlackettLuce(log_weights).sample))(_keys(key, ids, samples))
        revealed = self.spread(key, ids, batch).integers(jnp.full_like(ids, length))[:, None]
        if self.every_step:
            revealed = jnp.broadcast_to(jnp.arange(length), (len(ids), length))
        return self.given(log_weights, order, revealed)

    def given(
        self, log_weights: Float[Array, "L"], order: Int[Array, "B K L"], revealed: Int[Array, "B C"]
    ) -> OrderDraws:
        """The draws with these orders, after `revealed` steps of each."""
        length = log_weights.shape[0]
        rank = jnp.argsort(order, axis=-1)  # of each position
        masks = rank[:, :, None] >= revealed[:, None, :, None]
        factors = jax.nn.softmax(jnp.where(masks, jnp.broadcast_to(log_weights, masks.shape), -jnp.inf), axis=-1) * (
            length / revealed.shape[1]
        )
        choices = PlackettLuce(log_weights).log_choices(order)
        used = (
            jnp.arange(length)[None, None] < revealed.max(1)[:, None, None]
        )  # the score of what was revealed is enough
        return OrderDraws(masks, factors, jnp.where(used, choices, 0).sum(-1))


@dataclasses.dataclass(frozen=True)
class TimeSpace:
    """Hides each position by itself at a random time: the estimator of arXiv 2511.19152 (and of GenMD4, for K = 2).

    u is uniform on [t_min, 1], spread over the batch and shared by the K draws of an example, and t = u^power: l is
    hidden with probability u^(power w_l) and scored with the factor (1 - t_min) power w_l / u. So times drawn as
    u^power are uniform times for the weights power w, which have the same orders. What lies below t_min is left out, a
    bias of about t_min^(power w_l) for each token: so the weights are multiplied further until the smallest is at least
    `least` (0 leaves them). With `reconstruct` a second denoiser call scores what is hidden at u = t_min, as if it were
    revealed at once there: a bound whose last step is from t_min (GenMD4 has this term), with nothing left out.

    ValueError for a t_min outside (0, 1) and a power that is not positive.
    """

    t_min: float = 1e-3
    least: float = 2.0
    power: float = 1.0
    reconstruct: bool = False
    spread: Callable = systematic

    def __post_init__(self):
        if not 0 < self.t_min < 1:
            raise ValueError(f"TimeSpace(t_min={self.t_min}): t_min must be in (0, 1)")
        if not self.power > 0:
            raise ValueError(f"TimeSpace(power={self.power}): power must be > 0")

    def calls(self, length: int) -> int:
        """Denoiser calls of one draw."""
        return 2 if self.reconstruct else 1

    def draw(
        self, log_weights: Float[Array, "L"], key: Key[Array, ""], ids: Int[Array, "B"], samples: int, batch: int
    ) -> OrderDraws:
        """As `OrderSpace.draw`."""
        u = self.t_min + (1 - self.t_min) * self.spread(key, ids, batch).uniform()
        shape = (self.calls(len(log_weights)), *log_weights.shape)
        uniforms = jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, shape)))(_keys(key, ids, samples))
        return self.given(log_weights, u, jnp.log(uniforms) < self._log_hidden(log_weights, u)[:, None])

    def given(self, log_weights: Float[Array, "L"], u: Float[Array, "B"], masks: Bool[Array, "B K C L"]) -> OrderDraws:
        """The draws with these u and masks; where `reconstruct`, masks[:, :, 1] are those at t_min."""
        log_hidden = self._log_hidden(log_weights, u)[:, None]
        visible = jnp.where(log_hidden < 0, log_hidden, -1)  # u = 1 hides everything
        log_q = jnp.where(masks, log_hidden, jnp.log(-jnp.expm1(visible))).sum((2, 3))
        factors = [jnp.multiply.outer((1 - self.t_min) / u, self.weights(log_weights))]
        if self.reconstruct:
            factors.append(jnp.ones_like(factors[0]))
        return OrderDraws(masks, jnp.where(masks, jnp.stack(factors, axis=1)[:, None], 0), log_q)

    def weights(self, log_weights: Float[Array, "L"]) -> Float[Array, "L"]:
        """w, scaled. The scale is part of the estimator, not of what is learned: no gradient passes through it."""
        scaled = log_weights + math.log(self.power)
        if self.least <= 0:
            return jnp.exp(scaled)
        scale = jnp.maximum(0, jnp.log(self.least) - scaled.min())
        return jnp.exp(scaled + jax.lax.stop_gradient(scale))

    def _log_hidden(self, log_weights: Float[Array, "L"], u: Float[Array, "B"]) -> Float[Array, "B C L"]:
        """log P(l is hidden) of each call."""
        times = jnp.stack([u, jnp.full_like(u, self.t_min)], axis=1) if self.reconstruct else u[:, None]
        return jnp.multiply.outer(jnp.log(times), self.weights(log_weights))


def surrogate(nats: Float[Array, "B K"], log_q: Float[Array, "B K"], baseline: bool = True) -> Float[Array, "B"]:
    """mean_k F_k, with the gradient of mean_k F_k + (1/K) sum_k stop(F_k - mean_{j != k} F_j) log q_k.

    Unbiased in both parts where the K draws are independent given what they share. For K = 1, or without `baseline`,
    nothing is subtracted.
    """
    samples = nats.shape[1]
    advantage = nats
    if baseline and samples > 1:
        advantage = nats - (nats.sum(1, keepdims=True) - nats) / (samples - 1)
    score = jax.lax.stop_gradient(advantage) * (log_q - jax.lax.stop_gradient(log_q))
    return (nats + score).mean(1)


def learned_order_bound(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    draws: OrderDraws,
    *,
    vocab: int,
    baseline: bool = True,
    nll: Callable = dense,
) -> Terms:
    """The estimate of the bound, with the gradient of network and order weights; B K C denoiser rows.

    In nats per example; `scored` counts all K draws.
    """
    shape = draws.masks.shape
    flat = lambda x: jnp.broadcast_to(x, shape).reshape(-1, shape[-1])
    targets, masks = flat(tokens[:, None, None]), flat(draws.masks)
    losses = nll(denoiser, jnp.where(masks, vocab, targets), None, targets, masks).reshape(shape)
    nats = (draws.weights * losses).sum((2, 3))
    counted = jnp.full(shape[0], shape[-1], jnp.int32)
    return Terms(surrogate(nats, draws.log_q, baseline), counted, draws.masks.sum((1, 2, 3)))


def _keys(key: Key[Array, ""], ids: Int[Array, "B"], samples: int) -> Key[Array, "B K"]:
    keys = example_keys(jax.random.fold_in(key, _ORDERS), ids)
    return jax.vmap(lambda k: jax.random.split(k, samples))(keys)


_ORDERS = 4  # use of the key of a draw, beside those of the scalar laws
