"""The bounds, exactly, by enumerating all 2^L masks: the twins that hold the estimators to account. Needs L <= 16."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdmjax.base import Denoiser, Schedule

MAX_LENGTH = 16


def all_masks(length: int) -> np.ndarray:
    """All masks of a length as rows of bool [2^L, L], position 0 the most significant. ValueError for L > 16."""
    if length > MAX_LENGTH:
        raise ValueError(f"length {length}: enumeration of masks is for lengths up to {MAX_LENGTH}")
    return (np.arange(2**length)[:, None] >> np.arange(length)[::-1]) & 1 == 1


def masked_losses(denoiser: Denoiser, tokens: Int[Array, "L"], vocab: int) -> Float[Array, "M L"]:
    """-log p(x_i | visible) in nats for every mask (row) at its masked positions, 0 elsewhere; time-free denoisers."""
    masks = all_masks(tokens.shape[0])
    logits = denoiser(jnp.where(masks, vocab, tokens[None, :]))
    chosen = jnp.take_along_axis(logits, jnp.broadcast_to(tokens, masks.shape)[:, :, None], axis=2)[:, :, 0]
    return jnp.where(masks, jax.nn.logsumexp(logits, axis=-1) - chosen, 0)


def expected_losses(
    denoiser: Denoiser, rows: Int[np.ndarray, "S L"], probabilities: Float[np.ndarray, "S"], vocab: int
) -> Float[Array, "M L"]:
    """sum_x p(x) masked_losses(x): those of a whole law. Bounds are linear in the losses: theirs is its mean bound.

    One call of the denoiser with 2^L rows for each of the S rows x, one after the other.
    """
    shape = jax.eval_shape(lambda x: masked_losses(denoiser, x, vocab), jnp.asarray(rows[0]))

    def add(total, row):
        x, p = row
        return total + p * masked_losses(denoiser, x, vocab), None

    p = jnp.asarray(probabilities, shape.dtype)
    return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), (jnp.asarray(rows), p))[0]


def continuous_bound(denoiser: Denoiser, tokens: Int[Array, "L"], vocab: int) -> Float[Array, ""]:
    """The continuous-time negative ELBO in nats: sum_m sum_{i in m} CE_i(m) / (|m| C(L, |m|)), whatever the schedule.

    Because int_0^1 (dr / r) r^l (1-r)^(L-l) = B(l, L-l+1) = 1 / (l C(L, l)).
    """
    losses = masked_losses(denoiser, tokens, vocab).sum(1)
    length = tokens.shape[0]
    sizes = all_masks(length).sum(1)
    shares = np.array([0.0] + [1 / (n * math.comb(length, n)) for n in range(1, length + 1)])
    return (losses * jnp.asarray(shares, losses.dtype)[sizes]).sum()


def discrete_bound(
    denoiser: Denoiser, tokens: Int[Array, "L"], vocab: int, schedule: Schedule, steps: int
) -> Float[Array, ""]:
    """The T-step negative ELBO in nats: sum_k (alpha(s) - alpha(t)) / (1 - alpha(t)) E[sum CE | t = k/T].

    ValueError for steps < 1.
    """
    _check_steps(steps)
    losses = masked_losses(denoiser, tokens, vocab).sum(1)
    sizes = all_masks(tokens.shape[0]).sum(1)
    t = jnp.arange(1, steps + 1) / steps
    s = jnp.arange(steps) / steps
    hidden, visible = schedule.one_minus_alpha(t), schedule.alpha(t)
    hazards = (hidden - schedule.one_minus_alpha(s)) / jnp.where(hidden > 0, hidden, 1)  # 0 where all is revealed
    length = tokens.shape[0]
    share = jnp.stack([(hazards * hidden**n * visible ** (length - n)).sum() for n in range(length + 1)])
    return (losses * share[sizes]).sum()


def chain_bound(denoiser: Denoiser, tokens: Int[Array, "L"], vocab: int, schedule: Schedule, steps: int) -> float:
    """The T-step negative ELBO from its definition, E_q[log q(z_{1..T} | x) - log p(x, z_{1..T})], by brute force.

    Sums the log-ratio of forward posterior to reverse transition over every pair of states (subsets of x kept visible),
    knowing nothing of the weighted cross-entropy form. In nats; costs T 4^L. Summed in float64 on the host; the logits
    and the schedule have the digits of their own type, float64 only where x64 is on. ValueError for steps < 1.
    """
    _check_steps(steps)
    masks = all_masks(tokens.shape[0])
    log_p = -np.asarray(masked_losses(denoiser, tokens, vocab), np.float64)
    alphas = np.asarray(schedule.alpha(jnp.arange(steps + 1) / steps), np.float64)
    total = 0.0
    for alpha_s, alpha_t in zip(alphas[:-1], alphas[1:], strict=True):
        if alpha_t == 1:  # all is revealed
            continue
        stays = (1 - alpha_s) / (1 - alpha_t)
        for m, state in enumerate(masks):
            reach = np.where(state, 1 - alpha_t, alpha_t).prod()
            for after in masks:
                shown = state & ~after
                q = np.where(after, stays, 1.0).prod() * np.where(shown, 1 - stays, 1.0).prod()
                if np.any(after & ~state) or q == 0 or reach == 0:
                    continue  # visible tokens stay visible
                p = np.where(after, stays, 1.0).prod() * np.where(shown, (1 - stays) * np.exp(log_p[m]), 1.0).prod()
                total += reach * q * np.log(q / p)
    return total


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: must be >= 1")
