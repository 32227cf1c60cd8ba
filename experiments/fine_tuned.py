"""What fine-tuning on right answers gives: the start of policies that learn from preferences and from rewards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, cli, studies
from experiments.study_arms import Batches
from mdmjax import networks, objectives, training

START_ROWS = 1 << 32  # added to the seed of the start's batches, so that they are not those of the arms


def model_of(config: ConfigDict, task: Any) -> networks.Model:
    """The network of a start that is made here."""
    c = config.network
    return networks.transformer(
        networks.TransformerConfig(task.vocab, task.length, c.width, c.depth, c.heads, qk_norm=c.qk_norm)
    )


class Runs:
    """What the start and the arms share: all seeds are one program on one device."""

    name: str
    config: ConfigDict  # its `train` says how
    seeds: int

    def layout(self) -> training.MeshLayout:
        return training.MeshLayout(training.make_mesh(devices=jax.devices()[:1]))

    def keys(self, seed: int, use: int) -> jax.Array:
        """A key for each seed."""
        return studies.keys(seed, use, self.seeds)


class Start(Runs):
    """Masked diffusion on right answers, prompts given: what policy and reference start from."""

    name = "start"

    def __init__(self, config: ConfigDict, task: Any):
        c = config.start
        build.check_positive(config, ("seeds", "start.steps", "start.batch"))
        own = dict(steps=c.steps, learning_rate=c.learning_rate, muon=c.muon, evaluate_every=c.steps, average=0.99)
        own |= dict(warmup=min(40, c.steps // 10))
        self.config = ConfigDict(dict(train=config.train.to_dict() | own))
        self.task, self.seeds, self.seed, self.batch = task, config.seeds, config.seed, c.batch
        self.model = model_of(config, task)
        optimizer, rate = build.adamw(self.config.train)
        objective = objectives.MaskedDiffusion(task.vocab)
        self.step = training.Seeds(
            training.Step(self.model.bind, objective, optimizer, rate, size=self.batch, average_decay=0.99)
        )

    def make_states(self) -> training.TrainState:
        init = lambda key: training.init_state(self.model.init, self.step.step.optimizer, key)
        return jax.vmap(init)(self.keys(self.seed, training.RUNS))

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        batches = Batches(self.task.start, self.seeds, self.batch, self.batch, self.seed + START_ROWS)
        return studies.train_seeds(
            self, folder, progress, batches=batches, layout=self.layout(), measured="nothing",
            measure=lambda params: np.zeros(self.seeds),
        )  # fmt: skip

    def parameters(self, folder: Path) -> tuple[Any, float] | None:
        """(the averaged parameters [S, ...], the seconds that they took); None where a signal came."""
        with cli.progress(self.config.train.steps) as bar:
            cli.started()
            try:
                outcome = self.train(folder, lambda step, loss, **_: bar.update(step, loss=loss))
            except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
                raise cli.RunFailed(f"start: {error}") from error
        if not outcome.finished:
            cli.log("stopped by a signal, all saved: the same command goes on from there")
            return None
        return outcome.state.average, outcome.elapsed
