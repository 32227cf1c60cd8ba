"""The runs of a comparison of policy gradients: every method from one start, with the same prompts."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, studies
from experiments.fine_tuned import Runs, placed
from experiments.reinforce_tasks import Problems
from experiments.study_arms import Batches, optimizer_of
from experiments.surrogate_bias import biases
from mdmjax import networks, process, sampling, training
from mdmjax.objectives import Against
from mdmjax.objectives import policy_gradient as pg

ARMS = 7  # use of the seed's key: the runs of the arms


def methods(c: ConfigDict) -> dict[str, pg.Method]:
    """The methods by name, with what they have in common: the clip range, the weight of the KL, the draws."""
    clip, draws = pg.Clip(c.clip, c.clip, c.kl), process.Allocation(c.draws)
    return dict(
        diffu_grpo=pg.DiffuGRPO(c.prompt, clip), coupled_grpo=pg.CoupledGRPO(clip=clip),
        unigrpo=pg.UniGRPO(draws, clip=clip), espo=pg.ESPO(draws, clip=clip),
        gdpo=pg.GDPO(draws, process.Quadrature(c.draws), clip), spg=pg.SPG(allocation=draws), wd1=pg.WD1(c.prompt),
    )  # fmt: skip


class Arm(Runs):
    """A method, for all seeds, from the start [S, ...] on. ValueError where the config will not do."""

    def __init__(self, config: ConfigDict, task: Problems, name: str, model: networks.Model, start: Any):
        self.config, self.task, self.name, self.seeds = config, task, name, config.seeds
        self.model, self.start = placed(model, self.layout), start
        self.step  # noqa: B018  built now, so that a wrong field is named here

    @functools.cached_property
    def planner(self) -> sampling.Confidence:
        """A token a call, the most certain first, in training and in judgement."""
        return sampling.Confidence(process.Linear(), int(self.task.judged[1][0].sum()))

    @functools.cached_property
    def method(self) -> pg.Method:
        return build.choose(self.name, "arms", methods(self.config.reward))

    @functools.cached_property
    def objective(self) -> pg.Rewarded:
        c, vocab, method = self.config.reward, self.task.vocab, self.method
        draw = sampling.TokenDraw(temperature=c.temperature)

        def sample(policy, canvas, key, ids):
            return sampling.sample(policy, self.planner, canvas, vocab=vocab, key=key, ids=ids, draw=draw).tokens

        scaled = functools.partial(pg.group_advantages, scaled=c.scaled)
        advantages = (lambda r: pg.wd1_advantages(scaled(r))) if isinstance(method, pg.WD1) else scaled
        gradient = pg.PolicyGradient(vocab, method)
        return pg.Rewarded(gradient, sample, self.task.reward, c.group, advantages, self.model.bind)

    def bind(self, params: Any, start: Any) -> Against:
        """What the objective takes."""
        return Against(self.model.bind(params), self.model.bind(start) if self.config.reward.kl else None)

    @functools.cached_property
    def step(self) -> training.Seeds:
        c = self.config
        build.check_positive(c, ("reward.renew",))
        optimizer, rate = optimizer_of(c.train)
        renew = dict(refit=pg.written_by, refit_every=c.reward.renew) if c.reward.renew > 1 else {}
        return training.Seeds(
            training.Step(
                self.bind, self.objective, optimizer, rate, size=c.train.batch, average_decay=c.train.average, **renew
            )
        )

    def make_states(self) -> training.TrainState:
        def one(params, key):
            law = jax.tree.map(jnp.copy, params) if self.config.reward.renew > 1 else None
            return training.init_state(lambda key: params, self.step.step.optimizer, key, law)

        return jax.vmap(one)(self.start, self.keys(self.config.seed, ARMS))

    def right(self, params: Any) -> np.ndarray:
        """The share of judged prompts that each seed answers right, decoded greedily."""
        tokens, eligible = self.task.judged
        found = studies.decoded(self.model, self.planner, self.task.vocab, params, tokens, eligible)
        return np.stack([np.asarray(self.task.reward(one, tokens, eligible)).mean() for one in found])

    def bias(self, params: Any) -> dict[str, list[float]]:
        """Of the surrogates of the method, against the bound."""
        return biases(self.model, params, self.task, self.method)

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        c = self.config
        batches = Batches(self.task.prompts, c.seeds, c.train.batch, c.train.batch, c.seed)
        return studies.train_seeds(
            self, folder, progress, batches=batches, layout=self.layout, measured="wrong", log_every=c.train.log_every,
            measure=lambda params: 1 - self.right(params), frozen=self.layout.place(self.start),
        )  # fmt: skip

    def result(self, folder: Path, outcome: training.Outcome) -> dict[str, Any]:
        """What is kept of a run that has finished."""
        rows = training.read_rows(folder / "metrics.jsonl")
        return {
            "arm": self.name,
            "right": self.right(outcome.state.average).tolist(),
            "curve": [
                [row["step"], *(1 - row[f"wrong/{s}"] for s in range(self.seeds))] for row in rows if "wrong/0" in row
            ],
            "rewards": [[row["step"], row["reward"]] for row in rows if "reward" in row],
            "bias": [self.bias(self.start), self.bias(outcome.state.average)],
            "seconds": outcome.elapsed,
        }
