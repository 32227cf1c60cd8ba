"""Objectives as the training loop takes them: `objective(denoiser, batch, key, size) -> Terms`.

`batch` holds `tokens` [B, L], the rows' global `ids` [B] and, where some positions are a prompt or padding, `eligible`
[B, L]; `size` is the number of rows of the whole global batch, of which these may be a part.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.base import Denoiser
from mdmjax.objectives.bounds import Terms, autoregressive, negative_elbo
from mdmjax.objectives.readout import dense
from mdmjax.process import Delimiters, ExactCount


@dataclasses.dataclass(frozen=True)
class MaskedDiffusion:
    """The negative ELBO under the draws of `law`: the mean of the K ways in which it hides a row; B K denoiser rows.

    For the law `Delimiters` the batch holds `often` [B, L], the tokens that are to be hidden more often.
    """

    vocab: int
    law: object = ExactCount()
    nll: Callable = dense

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens = batch["tokens"]
        eligible = batch.get("eligible", jnp.ones(tokens.shape, bool))
        special = {"often": batch["often"]} if isinstance(self.law, Delimiters) else {}
        draws = self.law.draw(key, batch["ids"], eligible, batch=size, **special)
        terms = negative_elbo(denoiser, tokens, draws, vocab=self.vocab, eligible=eligible, nll=self.nll)
        of_row = lambda x: x.reshape(len(tokens), -1)
        scored = of_row(terms.scored)
        return Terms(of_row(terms.nats).mean(1), of_row(terms.tokens)[:, 0], scored.sum(1), scored[:, 0])


@dataclasses.dataclass(frozen=True)
class Autoregressive:
    """-log p(x) of a causal denoiser: the baseline of every comparison."""

    nll: Callable = dense

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        return autoregressive(denoiser, batch["tokens"], eligible=batch.get("eligible"), nll=self.nll)
