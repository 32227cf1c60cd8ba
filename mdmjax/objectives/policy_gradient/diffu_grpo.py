"""diffu-GRPO (d1, arXiv 2504.12216): GRPO on what the model says of all completion tokens at once."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.objectives.policy_gradient.interface import Clip, weighted
from mdmjax.process import also_eligible


def mean_field(key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], prompt: float) -> Draws:
    """One draw [1, B, ...]: every completion token hidden, and each token before the first of them, of the prompt, with
    probability `prompt`; these are not scored."""
    before = jnp.cumsum(eligible, axis=1) == 0
    hidden = also_eligible(key, ids, before, prompt)
    ones = jnp.ones((1, len(ids)))
    return Draws(ids[None], ones, (eligible | hidden)[None], eligible[None].astype(ones.dtype), ids[None], "mean_field")


def check_share(prompt: float, name: str) -> None:
    """ValueError for a probability outside [0, 1]."""
    if not 0 <= prompt <= 1:
        raise ValueError(f"{name}(prompt={prompt}): must be in [0, 1]")


@dataclasses.dataclass(frozen=True)
class DiffuGRPO:
    """log p_i = log p(y_i | the prompt, of which each token is hidden with probability `prompt`, and nothing else).

    A one-step mean field: sum_i log p_i is not log p(y | x), for tokens are taken as independent, and no bound on it;
    with prompt > 0 it varies with the draw. A network that knows the time is told 1. Loss: PPO's clip at every token,
    + kl k3, the mean over a completion's tokens and then over completions. ValueError for `prompt` outside [0, 1].
    """

    prompt: float = 0.15
    clip: Clip = Clip()

    def __post_init__(self):
        check_share(self.prompt, "DiffuGRPO")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        return mean_field(key, ids, eligible, self.prompt)

    def surrogate(self, log_p, draws, eligible, advantages) -> Float[Array, "B L"]:
        return weighted(log_p, draws)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        of_token = self.clip.tokens(current, old, reference, advantages, eligible)
        count = eligible.sum(1)
        return of_token.sum(1) / jnp.maximum(count, 1), jnp.ones_like(count)
