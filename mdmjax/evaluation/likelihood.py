"""The likelihood bound of a held-out set, with its error bar."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser, Estimate
from mdmjax.evaluation.blocks import ratio
from mdmjax.objectives import autoregressive, dense, negative_elbo
from mdmjax.process import ExactCount, systematic


def check_groups(name: str, draws: int, groups: int) -> None:
    """ValueError for fewer draws or groups than an error bar needs."""
    if groups < 2 or draws < 1:
        raise ValueError(f"{name}(draws={draws}, groups={groups}): an error bar needs draws >= 1 and groups >= 2")


def in_groups(
    draw: Callable, score: Callable, rows: tuple[Array, ...], key: Key[Array, ""], draws: int, groups: int
) -> Float[Array, "B G"]:
    """The mean score of `draws` draws, for each row and each of `groups` independent groups.

    `draw(key, *row)` makes the draws of a group of a row, with a leading axis `draws`, or `draws` x K where each has K
    ways; `rows` are arrays [B, ...], the first of them ids, by which the key is folded. `score(draws) -> [B]` is called
    with one draw of every row at a time.
    """

    def of_row(group, example, *row):
        return draw(jax.random.fold_in(jax.random.fold_in(key, example), group), *row)

    over_rows = jax.vmap(of_row, (None, *(0 for _ in rows)), out_axes=1)  # [draws, B, ...]
    made = jax.vmap(lambda group: over_rows(group, *rows))(jnp.arange(groups))
    made = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made)  # [groups * draws, B, ...]
    return jax.lax.map(score, made).reshape(groups, -1, len(rows[0])).mean(1).T


@dataclasses.dataclass(frozen=True)
class Scorer:
    """`scorer(denoiser, batch, key) -> nats [B, groups]`: independent estimates of each row's negative ELBO, in nats.

    Each of the `groups` is the mean of `draws` masks whose counts are systematic over 1..L, so a row's estimate has
    little noise from the count; of a law of K ways, such as `Copies(K)`, it has K masks for each count. Its draws are
    keyed by its id: no number depends on the batch size or the devices. The batch holds `tokens` [B, L], `scored`
    [B, L] and `ids` [B]; positions not scored are visible context.
    """

    vocab: int
    draws: int = 4
    groups: int = 2
    law: object = ExactCount(systematic)
    nll: Callable = dense

    def __post_init__(self):
        check_groups("Scorer", self.draws, self.groups)

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""]) -> Float[Array, "B G"]:
        tokens, scored, ids = batch["tokens"], batch["scored"], batch["ids"]

        def draw(key, eligible):
            rows = jnp.broadcast_to(eligible, (self.draws, eligible.shape[0]))
            return self.law.draw(key, jnp.arange(self.draws), rows, batch=self.draws)

        def one(draws):  # one call of the denoiser
            return negative_elbo(denoiser, tokens, draws, vocab=self.vocab, eligible=scored, nll=self.nll).nats

        return in_groups(draw, one, (ids, scored), key, self.draws, self.groups)


@dataclasses.dataclass(frozen=True)
class ExactScorer:
    """`scorer(denoiser, batch, key) -> nats [B, 1]`: the exact -log p of each row under an autoregressive denoiser."""

    nll: Callable = dense

    def __call__(self, denoiser: Denoiser, batch: dict[str, Array], key: Key[Array, ""]) -> Float[Array, "B 1"]:
        return autoregressive(denoiser, batch["tokens"], eligible=batch["scored"], nll=self.nll).nats[:, None]


@dataclasses.dataclass(frozen=True)
class Bound:
    """The bound on a set of rows, in nats per token."""

    per_token: Estimate  # error bar: the text as a sample of its source, and the draws
    monte_carlo: float  # the part of the standard error that comes from the draws alone: these rows, other masks
    rows: int
    tokens: int

    def report(self, characters_per_token: float | None = None) -> dict[str, Estimate]:
        """The bound in nats/token, bits/token and, given the characters that a token stands for, bits/char; and exp of
        the first, a bound on the perplexity, its error to first order."""
        bits = self.per_token.scaled(1 / math.log(2), "bits/token")
        nats, perplexity = self.per_token, math.exp(self.per_token.mean)
        error = perplexity * nats.standard_error
        perplexity = dataclasses.replace(nats, mean=perplexity, standard_error=error, unit="")
        out = {"perplexity": perplexity, "nats_per_token": nats, "bits_per_token": bits}
        if characters_per_token:
            out["bits_per_char"] = bits.scaled(1 / characters_per_token, "bits/char")
        return out


def padded_batches(
    tokens: Int[np.ndarray, "N L"], scored: Bool[np.ndarray, "N L"], size: int, rank: int = 0, ranks: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """All rows in batches of `size`, of which a process yields its share; unscored rows fill up the last.

    ValueError where there are no rows, or the processes cannot share a batch.
    """
    if size < 1 or size % ranks:
        raise ValueError(f"size={size}: must be a multiple of {ranks}, the number of processes that share a batch")
    if not len(tokens):
        raise ValueError("there are no rows to score: at least one is needed")
    share = size // ranks
    for start in range(0, len(tokens), size):
        rows = np.arange(start + rank * share, start + (rank + 1) * share)
        real = rows < len(tokens)
        rows = np.minimum(rows, len(tokens) - 1)
        yield {
            "tokens": tokens[rows].astype(np.int32),
            "scored": scored[rows] & real[:, None],
            "ids": rows.astype(np.int32),
        }


def summarise(nats: Float[np.ndarray, "N G"], counts: Int[np.ndarray, "N"], estimator: str) -> Bound:
    """Nats per token of N rows in the order of their text, from G independent estimates of each.

    The total error is that of `blocks.ratio` over the means of the groups: it holds the choice of the text, in which
    neighbouring rows are alike, and the draws. The Monte Carlo part, sqrt(sum_i s_i^2 / G) / sum_i n_i with s_i^2 the
    variance of row i's G groups, holds the draws alone, which are independent by row; 0 for an exact scorer (G = 1).
    Raises ValueError for fewer than 2 rows.
    """
    nats = np.asarray(nats, np.float64)
    if len(nats) < 2:
        raise ValueError(f"{len(nats)} row: an error bar needs at least 2 rows; use more text or a shorter length")
    estimate = ratio(nats.mean(1), counts, "nats/token", estimator)
    groups, total = nats.shape[1], int(counts.sum())
    noise = math.sqrt((nats.var(1, ddof=1) / groups).sum()) / total if groups > 1 else 0.0
    return Bound(estimate, noise, len(nats), total)


def score_rows(
    score: Callable,
    tokens: Int[np.ndarray, "N L"],
    scored: Bool[np.ndarray, "N L"],
    *,
    size: int,
    put: Callable = lambda batch: batch,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable = lambda rows: None,
) -> Float[np.ndarray, "N G"]:
    """The nats of every row, G independent estimates of each. `score(batch) -> [B, G]` is a compiled scorer.

    `put` places a batch of `size` rows on the devices. Works one batch ahead of the device. `progress(rows)` is called
    with the number of rows done.
    """
    results, waiting = [], None
    for batch in padded_batches(tokens, scored, size, rank, ranks):
        result = score(put(batch))
        if waiting is not None:
            results.append(np.asarray(waiting))
            progress(min(len(results) * size, len(tokens)))
        waiting = result
    results.append(np.asarray(waiting))
    progress(len(tokens))
    return np.concatenate(results)[: len(tokens)]


def evaluate(
    score: Callable, tokens: Int[np.ndarray, "N L"], scored: Bool[np.ndarray, "N L"], *, estimator: str, **how: Any
) -> Bound:
    """The bound on all rows: `summarise` of `score_rows`, whose arguments `how` are."""
    return summarise(score_rows(score, tokens, scored, **how), scored.sum(1), estimator)
