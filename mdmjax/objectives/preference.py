"""Preference optimisation of masked diffusion models: DPO on differences of ELBOs (VRPO, arXiv 2505.19223).

Of a pair of answers to one prompt, y_w preferred to y_l, and with B the bound on log p(answer | prompt) that an
estimate of the negative ELBO gives with its sign turned,

    s = beta [ (B_policy(y_w) - B_reference(y_w)) - (B_policy(y_l) - B_reference(y_l)) ],   loss = softplus(-s).

(A difference of two bounds is no bound on a log-ratio, in either direction.) The estimate of s is unbiased, that of the
loss is not: 0 <= E loss(s^) - loss(s) <= min(V / 8, sqrt(V) / 2), V = Var(s^ | pair) (`variance.loss_bias_bound`). So
what lowers V lowers bias and noise: more draws, one mask for each rate (`process.Allocation`), and the same Draws for
policy and reference, whose differences then vary much less than either. Draws are made once and passed to both.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser, Draws
from mdmjax.objectives.bounds import Terms, negative_elbo
from mdmjax.objectives.readout import dense
from mdmjax.process import Allocation, ExactCount, Law

# uses of a key: the draws of a reference that shares none, and draws that stay the same, of a seed's
_REFERENCE, _FIXED = 16, 19


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeptBounds:
    """In place of a reference that is asked: its bounds of N pairs, for the very draws that the policy sees, or, where
    those are not shared, for the reference's own: `Preference.scores(...).reference` of all pairs."""

    values: Float[Array, "N 2 n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Against:
    """The policy that is trained, and what it is held against: the reference, if there is one, and the policy that
    wrote the completions, where that is another one."""

    policy: Denoiser
    reference: Denoiser | KeptBounds | None = None
    old: Denoiser | None = None


def elbos(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    draws: Draws,
    *,
    vocab: int,
    eligible: Bool[Array, "B L"] | None = None,
    nll: Callable = dense,
    remat: bool = False,
) -> Float[Array, "n B"]:
    """The bound on log p(eligible tokens | the others) in nats, one estimate for each of the n draws of every row.

    `draws` have a leading axis n (`Allocation.draw`). One call of the denoiser after the other. With `remat` the
    gradient keeps nothing of a call and makes it again, so that its memory does not grow with n.
    """

    def one(draws: Draws) -> Float[Array, "B"]:
        return -negative_elbo(denoiser, tokens, draws, vocab=vocab, eligible=eligible, nll=nll).nats

    return jax.lax.map(jax.checkpoint(one) if remat else one, draws)


class Scores(NamedTuple):
    """What n draws say of each of P pairs; axis 2 is (preferred, rejected)."""

    policy: Float[Array, "n P 2"]  # bounds, in nats
    reference: Float[Array, "n P 2"]

    def score(self, beta: float) -> Float[Array, "P"]:
        """s, by the means over the draws."""
        gain = (self.policy - self.reference).mean(0)
        return beta * (gain[:, 0] - gain[:, 1])

    def variance(self, beta: float, rates: int) -> Float[Array, "P"]:
        """The variance of the score as its draws tell it: of what they say by rate, the mean over a rate's masks, the
        sample variance over the `rates`, divided by their number. Unbiased where rates are independent; of rates that
        are spread over a row it is another number, most often a larger one. NaN for one rate."""
        gain = self.policy - self.reference
        by_rate = (gain[..., 0] - gain[..., 1]).reshape(rates, -1, gain.shape[1]).mean(1)
        return beta**2 * by_rate.var(0, ddof=1) / rates


@dataclasses.dataclass(frozen=True)
class Preference:
    """DPO on ELBOs: `objective(Against(policy, reference), batch, key, size) -> Terms`, a term for each pair.

    The batch holds `tokens` [P, 2, L] and `eligible` [P, 2, L], the preferred answer first and only answers eligible,
    and the pairs' `ids` [P].

    allocation, law: the draws of each answer. n x 2 P denoiser rows of the policy, and as many of the reference.
    shared: the reference sees the policy's draws. Else it has draws of its own, which costs variance and gains nothing.
    rates_shared: both answers of a pair have the rates drawn with one key (the same rates for laws of rates, the same
    strata of counts for exact counts); helps where the two differences are positively correlated.
    sft: weight of the negative ELBO of y_w, from the same draws.
    two_pass: the gradient makes every call anew, one at a time, so its memory is that of one draw: the first pass gives
    the scores and the second, with their coefficients, the gradient. The same gradient, up to rounding.
    fixed: the seed of draws that stay the same at every step, by the pairs' numbers in their source (`pair` [P] of the
    batch), so that the reference's bounds can be kept: `Against(policy, KeptBounds(...))`.

    A term is softplus(-s) + sft x NELBO(y_w). `tokens` counts pairs, so that their mean is one over pairs, and `scored`
    estimates of the policy's bounds. `also` has, of each pair, `accuracy` 1[s > 0], `margin` s, `score_variance` as
    `Scores.variance` where there are several rates, and `drift`, the mean of B_reference - B_policy of its answers:
    where those came from the reference, a proxy of KL(reference | policy). ValueError for beta <= 0 and sft < 0.
    """

    vocab: int
    beta: float = 0.2
    allocation: Allocation = Allocation()
    law: Law = ExactCount()
    shared: bool = True
    rates_shared: bool = False
    sft: float = 0.0
    two_pass: bool = True
    fixed: int | None = None
    nll: Callable = dense

    def __post_init__(self):
        if not self.beta > 0:
            raise ValueError(f"Preference(beta={self.beta}): must be > 0")
        if self.sft < 0:
            raise ValueError(f"Preference(sft={self.sft}): must not be negative")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "P"], eligible: Bool[Array, "P 2 L"]) -> Draws:
        """The draws of both answers of every pair, [n, 2 P, ...], the two of a pair one after the other."""
        of_answer = (2 * ids[:, None] + jnp.arange(2)[None]).reshape(-1)
        rows = eligible.reshape(len(of_answer), -1)
        if not self.rates_shared:
            return self.allocation.draw(self.law, key, of_answer, rows)
        return self.allocation.draw(self.law, key, of_answer, rows, rates_of=jnp.repeat(ids, 2))

    def scores(self, denoiser: Against, batch: dict[str, Array], key: Key[Array, ""]) -> Scores:
        """The bounds of every draw; those of the reference have no gradient."""
        tokens, eligible = batch["tokens"], batch["eligible"]
        pairs, _, length = tokens.shape
        ids = batch["ids"]
        if self.fixed is not None:
            ids, key = batch["pair"], jax.random.fold_in(jax.random.key(self.fixed), _FIXED)

        def of(denoiser: Denoiser, draws: Draws) -> Float[Array, "n P 2"]:
            rows, where = tokens.reshape(-1, length), eligible.reshape(-1, length)
            found = elbos(denoiser, rows, draws, vocab=self.vocab, eligible=where, nll=self.nll, remat=self.two_pass)
            return found.reshape(self.allocation.draws, -1, pairs, 2).mean(1)  # over the ways of a law

        draws = self.draw(key, ids, eligible)
        policy = of(denoiser.policy, draws)
        if isinstance(denoiser.reference, KeptBounds):
            if self.fixed is None or denoiser.reference.values.shape[2] != self.allocation.draws:
                raise ValueError(
                    f"KeptBounds of {denoiser.reference.values.shape[2]} draws: are for Preference(fixed=...) with as "
                    f"many, not {self.allocation.draws}{'' if self.fixed is not None else ' that change'}"
                )
            return Scores(policy, jnp.moveaxis(denoiser.reference.values[batch["pair"]], 2, 0))
        self._check(denoiser, tokens.reshape(-1, length), draws)
        own = draws if self.shared else self.draw(jax.random.fold_in(key, _REFERENCE), ids, eligible)
        return Scores(policy, jax.lax.stop_gradient(of(denoiser.reference, own)))

    def _check(self, denoiser: Against, rows: Int[Array, "B L"], draws: Draws) -> None:
        """ValueError where policy and reference do not speak of the same tokens; nothing is computed."""
        of = lambda denoiser: jax.eval_shape(lambda t: denoiser(rows, t), draws.t[0]).shape
        shapes = of(denoiser.policy), of(denoiser.reference)
        if shapes[0] != shapes[1] or shapes[0][-1] != self.vocab:
            raise ValueError(
                f"logits of the policy {shapes[0]} and of the reference {shapes[1]}: both must be of the vocabulary of "
                f"{self.vocab} tokens"
            )

    def loss(self, found: Scores) -> Float[Array, "P"]:
        """softplus(-s) + sft x NELBO(y_w) of each pair."""
        loss = jax.nn.softplus(-found.score(self.beta))
        return loss - self.sft * found.policy[:, :, 0].mean(0) if self.sft else loss

    def __call__(self, denoiser: Against, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        found = self.scores(denoiser, batch, key)
        score, loss = found.score(self.beta), self.loss(found)
        gain = found.policy.mean(0) - found.reference.mean(0)
        also = {"accuracy": (score > 0).astype(score.dtype), "margin": score, "drift": -gain.mean(1)}
        if self.allocation.rates > 1:
            also["score_variance"] = found.variance(self.beta, self.allocation.rates)
        scored = 2 * self.allocation.draws * jnp.ones_like(batch["ids"])
        return Terms(loss, jnp.ones_like(batch["ids"]), scored, also=also)
