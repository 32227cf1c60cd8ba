"""Learning from rewards that can be checked: completions are sampled, rewarded and learnt from in one step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.objectives.bounds import Terms
from mdmjax.objectives.policy_gradient.interface import PolicyGradient, group_advantages
from mdmjax.objectives.preference import Against

SAMPLE = 18  # use of the key of a draw: the completions


@dataclasses.dataclass(frozen=True)
class Rewarded:
    """`objective(Against(policy, reference), batch, key, size) -> Terms`: a group of completions of each prompt.

    The batch holds `tokens` [B, L] with a right answer, `eligible` [B, L] where the completion is to be, and `ids`.
    sample: `(policy, canvas [N, L], key, ids [N]) -> tokens [N, L]` fills the masks; no gradient goes through it.
    reward: `(tokens [N, L], right [N, L], eligible [N, L]) -> [N]`.
    advantages: of rewards [B, group], such as `group_advantages`, or `wd1_advantages` of those.
    bind, law: the policy that writes the completions, `bind(law)`, the old one of the method's ratios. Without a law it
    is the policy that learns, and all ratios are 1. A `Step` of `refit=written_by` whose state has a copy of its
    parameters as its law renews it every `refit_every` steps.
    The terms are those of the gradient's method, of all completions of a prompt together; `also` the mean `reward`.
    Randomness is that of (key, the prompt's id, the number of the completion). ValueError for group < 2.
    """

    gradient: PolicyGradient
    sample: Callable
    reward: Callable
    group: int = 8
    advantages: Callable = group_advantages
    bind: Callable | None = None
    law: Any = None

    def __post_init__(self):
        if self.law is not None and self.bind is None:
            raise ValueError("Rewarded(law=...): needs `bind`, which makes a policy of it")
        if self.group < 2:
            raise ValueError(f"Rewarded(group={self.group}): a completion is compared with others: at least 2")

    def __call__(self, denoiser: Against, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        prompts, group = len(batch["ids"]), self.group
        right, eligible = (jnp.repeat(batch[name], group, axis=0) for name in ("tokens", "eligible"))
        ids = (group * batch["ids"][:, None] + jnp.arange(group)[None]).reshape(-1)
        canvas = jnp.where(eligible, self.gradient.vocab, right)
        if self.law is not None:
            denoiser = dataclasses.replace(denoiser, old=self.bind(self.law))
        writer = denoiser.policy if denoiser.old is None else denoiser.old
        drawn = self.sample(writer, canvas, jax.random.fold_in(key, SAMPLE), ids)
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


def written_by(bind, params, batch, key, law):
    """The `refit` of a `Step`: from now on completions are written by the policy as it is now."""
    return params


def exact(tokens, right, eligible):
    """1 where all of the completion is the right answer, else 0."""
    return jnp.where(eligible, tokens == right, True).all(1).astype(jnp.result_type(float))
