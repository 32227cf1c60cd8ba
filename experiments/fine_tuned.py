"""What fine-tuning on right answers gives: the start of policies that learn from preferences and from rewards."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, cli, laws, studies
from experiments.study_arms import Batches, optimizer_of
from mdmjax import networks, objectives, training

START_ROWS = 1 << 32  # added to the seed of the start's batches, so that they are not those of the arms


def model_of(config: ConfigDict, task: Any) -> networks.Model:
    """The network of a start that is made here."""
    c = config.network
    if laws.choose(c.name, "network.name", dict(transformer=False, linear=True)):
        return networks.linear(networks.LinearConfig(task.vocab, task.length))
    return networks.transformer(
        networks.TransformerConfig(task.vocab, task.length, c.width, c.depth, c.heads, qk_norm=c.qk_norm)
    )


def placed(model: networks.Model, layout: training.MeshLayout) -> networks.Model:
    """The model with its activations and parameters where the layout wants them, wherever they were before."""
    if not isinstance(model.config, networks.TransformerConfig):
        return model
    config = dataclasses.replace(model.config, constrain=layout.constrain, gather=layout.gather)
    return networks.transformer(config)


def with_slips(share: float, right: np.ndarray, slipped: np.ndarray) -> np.ndarray:
    """Rows that a start reads, of which about a share has its slip. ValueError for a share outside [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"data.slips={share}: must be in [0, 1]")
    return np.where((np.random.default_rng(0).random(len(right)) < share)[:, None], slipped, right)


class Runs:
    """What the start and the arms share: all seeds are one program, whose devices share the rows of every seed."""

    name: str
    config: ConfigDict  # its `train` says how
    seeds: int

    @functools.cached_property
    def layout(self) -> training.MeshLayout:
        """Of as many devices as the config's mesh asks for; where that is all that are left, of those that divide the
        batch. ValueError where there are not so many, or they do not divide it."""
        sizes, batch = dict(self.config.mesh), self.config.train.batch
        for axis, size in sizes.items():
            if size < 1 and (axis, size) != ("data", -1):
                raise ValueError(f"mesh.{axis}={size}: must be at least 1{', or -1' if axis == 'data' else ''}")
        free = jax.device_count() // (sizes["fsdp"] * sizes["tensor"])
        if sizes["data"] == -1:
            sizes["data"] = max((n for n in range(1, free + 1) if batch % (n * sizes["fsdp"]) == 0), default=1)
        count = math.prod(sizes.values())
        if count > jax.device_count() or batch % (sizes["data"] * sizes["fsdp"]):
            raise ValueError(
                f"mesh={sizes}: there are {jax.device_count()} devices, and data x fsdp of them must divide a batch of "
                f"{batch}"
            )
        return training.MeshLayout(training.make_mesh(**sizes, devices=jax.devices()[:count]), runs=True)

    def keys(self, seed: int, use: int) -> jax.Array:
        """A key for each seed."""
        return studies.keys(seed, use, self.seeds)


class Start(Runs):
    """Masked diffusion on right answers, prompts given: what policy and reference start from."""

    name = "start"

    def __init__(self, config: ConfigDict, task: Any):
        c = config.start
        build.check_positive(config, ("start.steps", "start.batch"))
        own = {name: c[name] for name in ("steps", "learning_rate", "muon", "warmup", "final", "average")}
        train = config.train.to_dict() | own | dict(batch=c.batch, evaluate_every=c.steps)
        self.config = ConfigDict(dict(train=train, mesh=config.mesh))
        self.task, self.seeds, self.seed, self.batch = task, config.seeds, config.seed, c.batch
        self.model = placed(model_of(config, task), self.layout)
        try:
            optimizer, rate = optimizer_of(self.config.train)
        except ValueError as error:  # these fields are of another group
            raise ValueError(re.sub(rf"train\.({'|'.join(own)})\b", r"start.\1", str(error))) from None
        objective = objectives.MaskedDiffusion(task.vocab)
        self.step = training.Seeds(
            training.Step(self.model.bind, objective, optimizer, rate, size=self.batch, average_decay=c.average)
        )

    def make_states(self) -> training.TrainState:
        init = lambda key: training.init_state(self.model.init, self.step.step.optimizer, key)
        return jax.vmap(init)(self.keys(self.seed, training.RUNS))

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        batches = Batches(self.task.start, self.seeds, self.batch, self.batch, self.seed + START_ROWS)
        return studies.train_seeds(
            self, folder, progress, batches=batches, layout=self.layout, measured="nothing",
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
        return jax.device_get(outcome.state.average), outcome.elapsed  # an arm may have other devices
