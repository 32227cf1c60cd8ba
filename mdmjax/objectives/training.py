"""Objectives as the training loop takes them: `objective(denoiser, batch, key, size) -> Terms`.

`batch` holds `tokens` [B, L], the rows' global `ids` [B] and, where some positions are a prompt or padding, `eligible`
[B, L]; `size` is the number of rows of the whole global batch, of which these may be a part. Of the prompt, it may say
which positions could be hidden as well: `extra` [B, L]. Where several texts stand in a row, `segments` [B, L] tells
them apart.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.base import Denoiser
from mdmjax.objectives.bounds import Terms, autoregressive, negative_elbo
from mdmjax.objectives.readout import dense
from mdmjax.process import Delimiters, ExactCount, also_eligible


@dataclasses.dataclass(frozen=True)
class MaskedDiffusion:
    """The negative ELBO under the draws of `law`: the mean of the K ways in which it hides a row; B K denoiser rows.

    For the law `Delimiters` the batch may say which tokens are to be hidden more often, `often` [B, L], in place of the
    ids that the law has. Of a row with `segments` the terms are those of all its texts together: the law of the row
    hides tokens of each of them at the same rate, which is unbiased for the sum of their bounds.

    With `extra` > 0 each position of the batch's `extra`, of the prompt say, is eligible too with that probability,
    drawn by example (for "SyRM" of arXiv 2511.18159, as far as it is known). This is ANOTHER OBJECTIVE, and none that
    varies less: the mean over those sets of positions of the bound on -log p(the eligible tokens | the others), and
    `tokens` counts what was eligible. A law that is fitted (`variance.Refit`) is fitted without them. ValueError for
    `extra` outside [0, 1], and for a batch that does not say which positions.
    """

    vocab: int
    law: object = ExactCount()
    nll: Callable = dense
    extra: float = 0.0

    def __post_init__(self):
        if not 0 <= self.extra <= 1:
            raise ValueError(f"MaskedDiffusion(extra={self.extra}): must be in [0, 1]")

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens = batch["tokens"]
        if "segments" in batch:
            denoiser = denoiser.within(batch["segments"])
        eligible = batch.get("eligible", jnp.ones(tokens.shape, bool))
        if self.extra > 0:
            if "extra" not in batch:
                raise ValueError(f"MaskedDiffusion(extra={self.extra}): the batch has no `extra`, the positions [B, L]")
            eligible = eligible | also_eligible(key, batch["ids"], batch["extra"], self.extra)
        special = {}
        if isinstance(self.law, Delimiters):
            special["often"] = batch["often"] if "often" in batch else self.law.marked(tokens)
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
