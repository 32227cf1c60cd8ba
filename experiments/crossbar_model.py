"""Masked diffusion models of text on crossbars: the bound in bits/char against wire resistance."""

import math
from pathlib import Path

import jax
import numpy as np

from experiments import build, cli
from experiments.crossbar_networks import Subject, by_layer, curves, digital, rows, sweep
from experiments.found import Found
from experiments.results import over_seeds
from experiments.search import Cells
from experiments.study_arms import Arm
from experiments.study_tasks import text
from mdmjax import crossbar, networks, training


def diffusion_model(config, workdir: Path) -> Found | None:
    """Trains a model for each seed, as one program, and puts its matrices on crossbars. None where a signal came."""
    build.check_positive(config, ("train.steps", "train.batch", "train.evaluate_every", "evaluate.batch"))
    task = text(config.data, config.evaluate.rows)
    arm = Arm(config, task, "base")
    where = {config.where: ""}
    crossbar.select(jax.eval_shape(arm.model.init, jax.random.key(0)), where)  # before anything is trained
    cli.check_workdir(workdir, config, free=("data.cache_dir",))
    cli.started()
    with cli.progress(config.train.steps) as bar:
        show = lambda step, loss, bound=None, **_: bar.update(
            step, loss=loss, **({} if bound is None else {"held out": bound})
        )
        try:
            outcome = arm.train(workdir / "model", show)
        except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
            raise cli.RunFailed(str(error)) from error
    if not outcome.finished:
        cli.log("stopped by a signal, all saved: the same command goes on from there")
        return None
    stack = outcome.state.average
    params = [jax.tree.map(lambda leaf, s=s: np.asarray(leaf[s]), stack) for s in range(config.seeds)]
    bound = lambda seed, one: float(arm.bounds(jax.tree.map(lambda leaf: np.asarray(leaf)[None], one))[0])
    factor, unit = task.unit
    subject = Subject(params, where, bound, unit)
    cells = Cells(workdir / "cells.jsonl")
    before = digital(subject, cells)
    found = sweep(config, subject, cells)
    lines, changes = rows(subject, found, before, factor)
    return Found(
        f"A masked diffusion model on crossbars: {task.meta['name']}",
        f"{config.seeds} models of width {config.network.width} and depth {config.network.depth}; on/off ratio "
        f"{config.device.on_off:g}, {config.tile.bits} bits; {', '.join(where)} on crossbars, all else digital.",
        {"digital bound": over_seeds([factor * x for x in before], unit), **changes},
        {"deployments": lines, "layers": by_layer(subject, found)},
        {
            "parameters of a model": networks.parameter_count(params[0]),
            "digital bound by seed, nats/token": before,
            "a change of 1 in this unit, in nats/token": math.log(2) if unit.startswith("bits") else 1.0,
            "data": task.meta,
        },
        curves(subject, found, factor, "bound", unit),
        seconds=outcome.elapsed + cells.seconds,
    )
