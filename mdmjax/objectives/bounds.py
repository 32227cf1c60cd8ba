"""Likelihood objectives: per-example terms out, means by the caller."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdmjax.base import Denoiser, Draws
from mdmjax.objectives.readout import dense


class Terms(NamedTuple):
    """What an objective says of each example."""

    nats: Float[Array, "B"]  # an estimate of -log p of the example's eligible tokens, or of a bound on it
    tokens: Int[Array, "B"]  # how many tokens that is about
    scored: Int[Array, "B"]  # how many cross-entropies were summed for it
    hidden: Int[Array, "B"] | None = None  # how many tokens its draw hides, in the first way if there are several
    also: dict[str, Float[Array, "B"]] | None = None  # what else is worth a look: a step's metrics have the means


def negative_elbo(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    draws: Draws,
    *,
    vocab: int,
    eligible: Bool[Array, "B L"] | None = None,
    nll: Callable = dense,
) -> Terms:
    """`weights[b] * sum_{i in masks[b]} -log p(x_i | x with the masks of b hidden)`, an estimate of the negative ELBO.

    In nats per example; its mean over `draws` is the bound of the law that made them: continuous-time (MDLM, arXiv
    2406.07524, equation 10; MD4, arXiv 2406.04329, equation 5), T-step, or exact-count (LLaDA, arXiv 2502.09992,
    equation 6). `vocab` is the mask id. `eligible` are the positions that `draws` may hide (all, if not given): the
    others are a prompt or padding, always visible, never scored, not counted. Draws that hide a row in K ways have K
    rows for each of `tokens`, one after the other, and so have the terms.
    """
    counted = _eligible(tokens, eligible)
    if (ways := len(draws.ids) // len(tokens)) > 1:
        tokens, counted = (jnp.repeat(x, ways, axis=0) for x in (tokens, counted))
    inputs = jnp.where(draws.masks, vocab, tokens)
    losses = nll(denoiser, inputs, draws.t, tokens, draws.masks)
    nats = draws.weights * losses.sum(1) if draws.weights.ndim == 1 else (draws.weights * losses).sum(1)
    return Terms(nats, counted.sum(1), draws.masks.sum(1))


def autoregressive(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    *,
    eligible: Bool[Array, "B L"] | None = None,
    nll: Callable = dense,
) -> Terms:
    """-log p(x) = sum_i -log p(x_i | x_<i) in nats per example, for a denoiser whose logits at i see x_<i only."""
    where = _eligible(tokens, eligible)
    count = where.sum(1)
    return Terms(nll(denoiser, tokens, None, tokens, where).sum(1), count, count)


def _eligible(tokens: Int[Array, "B L"], eligible: Bool[Array, "B L"] | None) -> Bool[Array, "B L"]:
    return jnp.ones(tokens.shape, bool) if eligible is None else eligible
