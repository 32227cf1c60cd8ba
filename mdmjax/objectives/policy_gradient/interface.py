"""What the policy gradients for masked diffusion models share: draws, a surrogate of the log-likelihood, and a loss.

A masked diffusion model has no log-likelihood of its completion that is cheap, so each method puts a surrogate in its
place, made of what the denoiser says of some masked completions. Current policy, old policy and reference see the same
Draws. Rows are completions y with advantages A; the prompt is what is not eligible.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser, Draws
from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.preference import Against
from mdmjax.objectives.readout import dense

Surrogate = Float[Array, "B L"] | Float[Array, "B"]  # of each token, or of the sequence


@runtime_checkable
class Method(Protocol):
    """A policy gradient: `draw`, what is made of the log-probabilities, and what is minimised."""

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        """K draws of each row, arrays with a leading axis K; `key` is only folded."""
        ...

    def surrogate(
        self, log_p: Float[Array, "K B L"], draws: Draws, eligible: Bool[Array, "B L"], advantages: Float[Array, "B"]
    ) -> Surrogate:
        """A stand-in for log p(y | x), given log p of every masked token, 0 elsewhere."""
        ...

    def loss(
        self,
        current: Surrogate,
        old: Surrogate,
        reference: Surrogate | None,
        advantages: Float[Array, "B"],
        eligible: Bool[Array, "B L"],
    ) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        """(loss of each row, what it is divided by when rows are summed)."""
        ...


@dataclasses.dataclass(frozen=True)
class PolicyGradient:
    """`objective(Against(policy, reference, old), batch, key, size) -> Terms` of a method.

    The batch holds `tokens` [B, L], `eligible` [B, L] (the completions), `advantages` [B] and `ids` [B]. Without an old
    policy the current one is it, so that all ratios are 1 and the gradient is that of the first update; without a
    reference there is no KL. `also`: the mean surrogate of a token. One call of the denoiser for each of the K draws,
    made again in the backward pass, so memory does not grow with K.
    """

    vocab: int
    method: Method
    nll: Callable = dense

    def __call__(self, denoiser: Against, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens, eligible, advantages = batch["tokens"], batch["eligible"], batch["advantages"]
        draws = self.method.draw(key, batch["ids"], eligible, batch=size)

        def of(model: Denoiser) -> Surrogate:
            log_p = token_log_probs(model, tokens, draws, eligible, vocab=self.vocab, nll=self.nll)
            return self.method.surrogate(log_p, draws, eligible, advantages)

        current = of(denoiser.policy)
        kept = lambda model: jax.lax.stop_gradient(of(model))
        old = jax.lax.stop_gradient(current) if denoiser.old is None else kept(denoiser.old)
        reference = None if denoiser.reference is None else kept(denoiser.reference)
        loss, count = self.method.loss(current, old, reference, advantages, eligible)
        total = current if current.ndim == 1 else current.sum(1)
        also = {"surrogate": total / jnp.maximum(eligible.sum(1), 1)}
        return Terms(loss, count, (draws.masks & eligible[None]).sum((0, 2)), also=also)


def token_log_probs(
    denoiser: Denoiser,
    tokens: Int[Array, "B L"],
    draws: Draws,
    eligible: Bool[Array, "B L"],
    *,
    vocab: int,
    nll: Callable = dense,
) -> Float[Array, "K B L"]:
    """log p(x_i | x with the masks of draw k hidden) in nats at what is masked and eligible, 0 elsewhere."""

    @jax.checkpoint
    def one(draws: Draws) -> Float[Array, "B L"]:
        inputs = jnp.where(draws.masks, vocab, tokens)
        return -nll(denoiser, inputs, draws.t, tokens, draws.masks & eligible)

    return jax.lax.map(one, draws)


def weighted(log_p: Float[Array, "K B L"], draws: Draws) -> Float[Array, "B L"]:
    """sum_k weights[k] log_p[k]: the surrogate of each token whose sum is linear in the log-probabilities."""
    weights = draws.weights if draws.weights.ndim == 3 else draws.weights[..., None]
    return (weights * log_p).sum(0)


def group_advantages(rewards: Float[Array, "G g"], *, scaled: bool = True) -> Float[Array, "G g"]:
    """r - mean of its group, divided by the standard deviation of the group (of g, not g - 1) + 1e-4 where `scaled`."""
    centred = rewards - rewards.mean(1, keepdims=True)
    return centred / (rewards.std(1, keepdims=True) + 1e-4) if scaled else centred


def clipped(
    log_ratio: Float[Array, "*s"], advantages: Float[Array, "*a"], low: float, high: float
) -> Float[Array, "*s"]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) with rho = exp(log_ratio), as in PPO."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)


def k3(current: Float[Array, "*s"], reference: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """exp(q) - q - 1 with q = reference - current: not negative, and 0 where they are equal."""
    q = reference - current
    return jnp.exp(q) - q - 1


def k2(current: Float[Array, "*s"], reference: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """(current - reference)^2 / 2."""
    return (current - reference) ** 2 / 2


@dataclasses.dataclass(frozen=True)
class Clip:
    """What the ratio-based methods have in common: the clip range and the weight of the KL. ValueError for negative
    numbers."""

    low: float = 0.2
    high: float = 0.2
    kl: float = 0.04

    def __post_init__(self):
        if min(self.low, self.high, self.kl) < 0:
            raise ValueError(f"Clip(low={self.low}, high={self.high}, kl={self.kl}): none may be negative")

    def tokens(self, current: Any, old: Any, reference: Any, advantages: Any, eligible: Any) -> Float[Array, "B L"]:
        """The loss of each eligible token, clip and k3."""
        loss = clipped(current - old, advantages[:, None], self.low, self.high)
        if reference is not None:
            loss = loss + self.kl * k3(current, reference)
        return jnp.where(eligible, loss, 0)
