"""Learning from rewards that can be checked: completions are sampled, rewarded and learnt from in one step."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.policy_gradient.interface import PolicyGradient, group_advantages
from mdmjax.objectives.preference import Against

_SAMPLE = 18  # use of the key of a draw: the completions


@dataclasses.dataclass(frozen=True)
class Rewarded:
    """`objective(Against(policy, reference), batch, key, size) -> Terms`, on policy: a group of completions a prompt.

    The batch holds `tokens` [B, L] with a right answer, `eligible` [B, L] where the completion is to be, and `ids`.
    sample: `(policy, canvas [N, L], key, ids [N]) -> tokens [N, L]` fills the masks; no gradient goes through it.
    reward: `(tokens [N, L], right [N, L], eligible [N, L]) -> [N]`.
    advantages: of rewards [B, group], such as `group_advantages`, or `wd1_advantages` of those.
    The terms are those of the gradient's method, of all completions of a prompt together; `also` the mean `reward`.
    Randomness is that of (key, the prompt's id, the number of the completion). ValueError for group < 2.
    """

    gradient: PolicyGradient
    sample: Callable
    reward: Callable
    group: int = 8
    advantages: Callable = group_advantages

    def __post_init__(self):
        if self.group < 2:
            raise ValueError(f"Rewarded(group={self.group}): a completion is compared with others: at least 2")

    def __call__(self, denoiser: Against, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        prompts, group = len(batch["ids"]), self.group
        right, eligible = (jnp.repeat(batch[name], group, axis=0) for name in ("tokens", "eligible"))
        ids = (group * batch["ids"][:, None] + jnp.arange(group)[None]).reshape(-1)
        canvas = jnp.where(eligible, self.gradient.vocab, right)
        drawn = self.sample(denoiser.policy, canvas, jax.random.fold_in(key, _SAMPLE), ids)
        rewards = self.reward(drawn, right, eligible)
        own = self.advantages(rewards.reshape(prompts, group)).reshape(-1)
        completions = dict(tokens=drawn, eligible=eligible, ids=ids, advantages=jax.lax.stop_gradient(own))
        terms = self.gradient(denoiser, completions, key, group * size)
        of_prompt = lambda x: x.reshape(prompts, group).sum(1)
        also = {"reward": rewards} | (terms.also or {})
        return Terms(
            of_prompt(terms.nats), of_prompt(terms.tokens), of_prompt(terms.scored),
            also={name: of_prompt(x) / group for name, x in also.items()},
        )  # fmt: skip


def exact(tokens, right, eligible):
    """1 where all of the completion is the right answer, else 0."""
    return jnp.where(eligible, tokens == right, True).all(1).astype(jnp.result_type(float))
