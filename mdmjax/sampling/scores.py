"""What a planner may be told of a candidate in place of the probability of its token: functions of its logits.

Each is `score(logits [V], token) -> float`: the token is the one drawn where a mask is, and the one that stands there
elsewhere. The engine takes them where it draws, so that nothing of the size of the logits is made again.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def probability(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """p(token): what every planner without a score is told."""
    return jnp.exp(log_probability(logits, token))


def log_probability(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """log p(token)."""
    return logits[token] - jax.nn.logsumexp(logits)


def margin(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """p of the most probable token less that of the second, in [0, 1], whatever is drawn (arXiv 2502.06768)."""
    best = jnp.argmax(logits)
    second = _without(logits, best).max(initial=-jnp.inf)
    mass = jax.nn.logsumexp(logits)
    return jnp.exp(logits[best] - mass) - jnp.exp(second - mass)


def negative_entropy(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """sum_v p_v log p_v <= 0 in nats, whatever is drawn."""
    log_p = logits - jax.nn.logsumexp(logits)
    return jnp.where(jnp.isneginf(log_p), 0, jnp.exp(log_p) * log_p).sum()


def advantage(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """log p(token) - max over other v of log p(v): below 0 where another is more probable (arXiv 2407.21243)."""
    return logits[token] - _without(logits, token).max(initial=-jnp.inf)


def _without(logits, token):
    return jnp.where(jnp.arange(logits.shape[0]) == token, -jnp.inf, logits)
