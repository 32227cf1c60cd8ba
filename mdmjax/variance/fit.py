"""P-POTS: the density of the mask rate that makes a statistic vary least, from a few draws of it.

With weights 1 / p the variance is int E[Z^2 | r] / p - (E Z)^2, least for p proportional to sqrt(E[Z^2 | r])
(arXiv 2511.18159). Z is the loss of a row, or its gradient, with |Z|^2 in place of Z^2; where a row is hidden in two
ways, Z is their mean, and the density is the best one for the pair.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser, Draws, Schedule
from mdmjax.objectives import dense, negative_elbo
from mdmjax.process import Bins, Importance, Linear, Rates, example_keys, fit_bins, log_edges, mix, single
from mdmjax.process.draws import bernoulli

_LINEAR = Linear()


def bin_moments(
    squares: Callable,
    ids: Int[Array, "N"],
    eligible: Bool[Array, "N L"],
    key: Key[Array, ""],
    edges: Float[Array, "K1"],
    *,
    masks: int = 20,
    ways: Callable = single,
    schedule: Schedule = _LINEAR,
) -> Float[Array, "K"]:
    """I_b, the mean of |Z|^2 over rates uniform in each of K bins, masks and rows; a row with nothing hidden is a 0.

    `squares(draws) -> [N]` is |Z|^2 of each row under draws with the weight 1 / r. K `masks` calls of it, one after the
    other. ValueError for masks < 1.
    """
    if masks < 1:
        raise ValueError(f"masks={masks}: must be >= 1")
    low, high = edges[:-1], edges[1:]

    def one(bin_and_key):
        low, high, key = bin_and_key
        key_rate, key_mask = jax.random.split(key)
        place = jax.vmap(jax.random.uniform)(example_keys(key_rate, ids))
        rate = low + (high - low) * place
        rates = Rates(rate, 1 / rate, schedule.inverse(1 - rate, rate), ids)
        return squares(bernoulli(ways, key_mask, ids, eligible, rates, "probe"))

    keys = jax.random.split(key, (masks, len(low)))
    cells = jnp.broadcast_to(low, keys.shape), jnp.broadcast_to(high, keys.shape), keys
    found = jax.lax.map(one, jax.tree.map(lambda x: x.reshape(-1), cells))
    return found.reshape(masks, len(low), -1).mean((0, 2))


@dataclasses.dataclass(frozen=True)
class Refit:
    """`refit(bind, params, batch, key, law) -> law`: the law's density fitted anew to the network as it is.

    To the first `rows` rows of the batch, with `masks` masks in each bin of the density; mixed with a `share` of the
    base law, so that no weight is above 1 / (share r). `gradient`: to the norm of the gradient in place of the loss,
    a backward pass a row. The batch is the one that is trained on next: its rows see other draws there. Over a mapped
    `axis` (pmap) each device takes as many rows, and the moments are averaged: so the density, and with it the draws,
    depend there on the number of devices, which nothing else does; the bound that is trained on does not. ValueError
    for rows or masks < 1 and a share outside (0, 1].
    """

    vocab: int
    rows: int = 10
    masks: int = 20
    share: float = 0.1
    gradient: bool = False
    nll: Callable = dense
    axis: str | None = None

    def __post_init__(self):
        for name in ("rows", "masks"):
            if getattr(self, name) < 1:
                raise ValueError(f"Refit({name}={getattr(self, name)}): must be >= 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"Refit(share={self.share}): must be in (0, 1]: every rate has to be drawn")

    def __call__(
        self, bind: Callable, params: Any, batch: dict[str, Array], key: Key[Array, ""], law: Importance
    ) -> Importance:
        tokens, ids = batch["tokens"][: self.rows], batch["ids"][: self.rows]
        eligible = batch.get("eligible", jnp.ones(batch["tokens"].shape, bool))[: self.rows]
        size = jnp.maximum(eligible.sum(1).mean(), 1)
        if self.axis is not None:
            size = jax.lax.pmean(size, self.axis)
        of_rows = gradient_squares if self.gradient else loss_squares
        squares = of_rows(bind, params, tokens, eligible, size, vocab=self.vocab, nll=self.nll)
        moments = bin_moments(
            squares, ids, eligible, key, law.density.edges, masks=self.masks, ways=law.ways, schedule=law.schedule
        )
        if self.axis is not None:
            moments = jax.lax.pmean(moments, self.axis)
        fitted = mix(fit_bins(moments, law.density.edges), self.share)
        return dataclasses.replace(
            law, density=jax.tree.map(lambda new, old: new.astype(old.dtype), fitted, law.density)
        )


def loss_squares(
    bind: Callable, params: Any, tokens, eligible, size: float | Float[Array, ""], *, vocab: int, nll: Callable = dense
) -> Callable:
    """`squares(draws) -> [N]`: of the nats of each row, the mean over the ways it is hidden in, divided by `size`.

    One `size` for all rows, the mean number of their tokens say: training divides the nats of a batch by its tokens, so
    a longer row counts for more.
    """

    def squares(draws: Draws) -> Float[Array, "N"]:
        return jnp.square(_of_rows(bind(params), tokens, eligible, draws, vocab, nll) / size)

    return squares


def gradient_squares(
    bind: Callable, params: Any, tokens, eligible, size: float | Float[Array, ""], *, vocab: int, nll: Callable = dense
) -> Callable:
    """`squares(draws) -> [N]`: as `loss_squares`, of the norm of the gradient of each row, one row at a time."""

    def squares(draws: Draws) -> Float[Array, "N"]:
        n = len(tokens)
        ways = len(draws.ids) // n
        cut = jax.tree.map(lambda x: x.reshape(n, ways, *x.shape[1:]), draws)

        def of_row(row):
            tokens, eligible, draws = row
            loss = lambda p: _of_rows(bind(p), tokens[None], eligible[None], draws, vocab, nll)[0] / size
            return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(jax.grad(loss)(params)))

        return jax.lax.map(of_row, (tokens, eligible, cut))

    return squares


def _of_rows(denoiser: Denoiser, tokens, eligible, draws: Draws, vocab: int, nll: Callable) -> Float[Array, "N"]:
    terms = negative_elbo(denoiser, tokens, draws, vocab=vocab, eligible=eligible, nll=nll)
    return terms.nats.reshape(len(tokens), -1).mean(1)


def starting_law(eps: float, bins: int = 12, **how: Any) -> Importance:
    """`Importance` of the base law on [eps, 1], in bins equal in log r, before anything is known of the network.

    `how` are its other fields. ValueError unless 0 < eps < 1 and bins >= 1.
    """
    edges = jnp.asarray(log_edges(eps, bins))
    return Importance(Bins(edges, jnp.diff(edges) / (1 - edges[0])), **how)
