"""The bound where each token value has a schedule of its own: when a token is revealed then says something about it.

alpha_v(t) = 1 - (1 - eps) t^w_v (`process.ValuePowers`; GenMD4 of arXiv 2406.04329, section 6). The reverse process of
a masked position reveals value v at the rate w_v mu_v / t, and the bound is the divergence of that from the rate at
which the true value is revealed, not a weighted cross-entropy. The true posterior depends on t, so the denoiser must:
either it reads t, or `tilted` bends what it says.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser
from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.learned_orders import surrogate
from mdmjax.process import example_keys, systematic


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
    last: Bool[Array, "B K L"] | None = None,
) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    """(nats, log q) of K draws of each example at its time t, uniform on [t_min, 1]: what `surrogate` takes.

    `masks` hide position l with probability t^w of its value (`ValuePowers` with eps = 0). What happens below t_min is
    left out: the cross-entropy of the share t_min^w of positions that are still masked there. `last`, masks drawn in
    the same way at t_min, adds it, as if all that they hide were revealed at once (the reconstruction of GenMD4).
    """
    weights = jnp.exp(log_weights)[tokens]

    def call(t: Float[Array, "B"], masks):
        """Logits, targets and times of the positions, and log q of the masks, at times t."""
        rows, samples, length = masks.shape
        flat = lambda x: jnp.broadcast_to(x, masks.shape).reshape(rows * samples, length)
        targets, times = flat(tokens[:, None]), jnp.repeat(t, samples)
        logits = denoiser(jnp.where(flat(masks), vocab, targets), times)
        log_hidden = jnp.log(t)[:, None] * weights
        visible = jnp.log(-jnp.expm1(jnp.where(log_hidden < 0, log_hidden, -1)))
        log_q = jnp.where(masks, log_hidden[:, None], visible[:, None]).sum(-1)
        return logits, targets, jnp.broadcast_to(times[:, None], targets.shape), log_q

    def total(nats, masks):
        return jnp.where(masks, nats.reshape(masks.shape), 0).sum(-1)

    logits, targets, times, log_q = call(t, masks)
    nats = (1 - t_min) * total(value_rate_loss(logits, targets, times, log_weights), masks)
    if last is not None:
        logits, targets, _, log_q_last = call(jnp.full_like(t, t_min), last)
        nats += total(optax.softmax_cross_entropy_with_integer_labels(logits, targets), last)
        log_q += log_q_last
    return nats, log_q


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ValueScheduled:
    """A denoiser and one power for each token value. With `tilt` it is called without time, and `tilted`."""

    denoiser: Denoiser
    log_weights: Float[Array, "V"]
    tilt: bool = dataclasses.field(default=False, metadata=dict(static=True))

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"], *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        logits = self.denoiser(tokens, None if self.tilt else t, at=at)
        if not self.tilt:
            return logits
        return tilted(logits, jnp.broadcast_to(t[:, None], logits.shape[:2]), self.log_weights)


@dataclasses.dataclass(frozen=True)
class LearnedValues:
    """The bound of a `ValueScheduled` denoiser, with the gradient of its network and of its powers, for training.

    K = `samples` draws of each row at one time t, uniform on [t_min, 1] and spread over the batch; what is still masked
    at t_min is reconstructed from draws of its own; 2 K denoiser rows a row. The score part is leave-one-out, as in
    `surrogate` (GenMD4 has K = 2). ValueError for samples < 1, t_min outside (0, 1), and batches with `eligible`.
    """

    vocab: int
    t_min: float = 1e-3
    samples: int = 2
    baseline: bool = True
    spread: Callable = systematic

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"LearnedValues(samples={self.samples}): samples must be >= 1")
        if not 0 < self.t_min < 1:
            raise ValueError(f"LearnedValues(t_min={self.t_min}): t_min must be in (0, 1)")

    def __call__(self, denoiser: ValueScheduled, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        if "eligible" in batch:
            raise ValueError("LearnedValues: the batch has `eligible`, and every position has a schedule here")
        tokens, log_weights = batch["tokens"], denoiser.log_weights
        t = self.t_min + (1 - self.t_min) * self.spread(key, batch["ids"], size).uniform()
        shape = (self.samples, 2, tokens.shape[1])
        keys = example_keys(jax.random.fold_in(key, _VALUES), batch["ids"])
        uniforms = jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)
        times = jnp.stack([t, jnp.full_like(t, self.t_min)], axis=1)
        hidden = jnp.exp(jnp.log(times)[:, :, None] * jnp.exp(log_weights)[tokens][:, None])  # [B, 2, L]
        masks = uniforms < hidden[:, None]
        nats, log_q = value_rate_bound(
            denoiser, tokens, t, masks[:, :, 0], log_weights, vocab=self.vocab, t_min=self.t_min, last=masks[:, :, 1]
        )
        counted = jnp.full(len(tokens), tokens.shape[1], jnp.int32)
        return Terms(surrogate(nats, log_q, self.baseline), counted, masks.sum((1, 2, 3)))


def log_softplus(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """log(log(1 + e^x)): log-weights of weights that are a softplus, as TabDiff and GenMD4 have them. Finite for all x.

    The slope of a weight is the logistic function of x, so weights that begin near 0 hardly move: use log-weights
    themselves where there is no reason for this.
    """
    small = x < -20
    near = jnp.where(small, x, -20)
    return jnp.where(small, near - jnp.exp(near) / 2, jnp.log(jax.nn.softplus(jnp.where(small, 0, x))))


_VALUES = 5  # use of the key of a draw, beside those of `process.spreads` and `learned_orders`
