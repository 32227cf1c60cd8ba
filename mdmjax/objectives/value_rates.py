"""The bound where each token value has a schedule of its own: when a token is revealed then says something about it.

alpha_v(t) = 1 - (1 - eps) t^w_v (`process.ValuePowers`; GenMD4 of arXiv 2406.04329, section 6). The reverse process of
a masked position reveals value v at the rate w_v mu_v / t, and the bound is the divergence of that from the rate at
which the true value is revealed, not a weighted cross-entropy. The true posterior depends on t, so the denoiser must:
either it reads t, or `tilted` bends what it says.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdmjax.base import Denoiser


def value_rate_loss(
    logits: Float[Array, "*n V"], targets: Int[Array, "*n"], t: Float[Array, "*n"], log_weights: Float[Array, "V"]
) -> Float[Array, "*n"]:
    """The integrand of the bound at one masked position, in nats per unit of time:

        (w_x (-log mu_x - 1) + sum_v w_v mu_v) / t,     mu = softmax(logits),

    which is (w / t) CE for equal weights. Integrated over t with the probability t^w_x of being masked it is
    -log q_x where mu is the true posterior q_v t^w_v / sum.
    """
    weights = jnp.exp(log_weights)
    log_mu = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(log_mu, targets[..., None], axis=-1)[..., 0]
    return (weights[targets] * (-chosen - 1) + jnp.exp(log_mu) @ weights) / t


def tilted(logits: Float[Array, "*n V"], t: Float[Array, "*n"], log_weights: Float[Array, "V"]) -> Float[Array, "*n V"]:
    """logits + w_v log t: the posterior at time t of one masked position whose prior is softmax(logits)."""
    return logits + jnp.multiply.outer(jnp.log(t), jnp.exp(log_weights))


def value_rate_bound(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    t: Float[Array, "B"],
    masks: Bool[Array, "B K L"],
    log_weights: Float[Array, "V"],
    *,
    vocab: int,
    t_min: float,
) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    """(nats, log q) of K draws of each example at its time t, uniform on [t_min, 1]: what `surrogate` takes.

    `masks` hide position l with probability t^w of its value (`ValuePowers` with eps = 0). What happens below t_min is
    left out: the cross-entropy of the share t_min^w of positions that are still masked there.
    """
    rows, samples, length = masks.shape
    flat = lambda x: jnp.broadcast_to(x, masks.shape).reshape(rows * samples, length)
    hidden, targets, times = flat(masks), flat(tokens[:, None]), jnp.repeat(t, samples)
    logits = denoiser(jnp.where(hidden, vocab, targets), times)
    rates = value_rate_loss(logits, targets, jnp.broadcast_to(times[:, None], targets.shape), log_weights)
    nats = (1 - t_min) * jnp.where(hidden, rates, 0).sum(1).reshape(rows, samples)
    log_hidden = jnp.log(t)[:, None] * jnp.exp(log_weights)[tokens]
    visible = jnp.log(-jnp.expm1(jnp.where(log_hidden < 0, log_hidden, -1)))
    return nats, jnp.where(masks, log_hidden[:, None], visible[:, None]).sum(-1)
