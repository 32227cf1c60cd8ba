"""Studies of arms: each trains all its seeds as one program, and one that is done is not repeated.

An arm has a `name`, a `config`, `make_states()`, a `step` of all seeds, and `train(folder, progress) -> Outcome`.
"""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from experiments import build, cli, table_columns
from mdmjax import networks, sampling, training
from mdmjax.base import Planner
from mdmjax.reports import environment, to_json, write_atomic

PARTIAL = "partial"  # in the folder of an arm: parts of its result, kept until that is whole


def run(
    arms: Sequence[Any],
    workdir: Path,
    result_of: Callable[[Any, Path, training.Outcome], dict[str, Any]],
    *,
    keep: bool = True,
) -> list[dict[str, Any]] | None:
    """The results of all arms, each kept in its folder with the commit it was trained at. None where a signal came.

    `result_of(arm, folder, outcome)` measures what has come of its training. The checkpoints of an arm that is done are
    kept, or not.
    """
    results, steps = [], arms[0].config.train.steps
    with cli.progress(len(arms) * steps) as bar:
        cli.started()
        for number, arm in enumerate(arms):
            folder, before = workdir / "arms" / arm.name, number * steps
            path = folder / "result.json"
            if path.exists():
                results.append(json.loads(path.read_text()))
            else:
                progress = lambda step, loss, bound=None, arm=arm, before=before, **_: bar.update(
                    before + step, arm=arm.name, loss=loss, **({} if bound is None else {"held out": bound})
                )
                trained_at = table_columns.commit(environment())  # the report may be written by a later one
                try:
                    outcome = arm.train(folder, progress)
                except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
                    raise cli.RunFailed(f"{arm.name}: {error}") from error
                if not outcome.finished:
                    cli.log("stopped by a signal, all saved: the same command goes on from there")
                    return None
                results.append(result_of(arm, folder, outcome) | {"trained at": trained_at})
                write_atomic(path, to_json(results[-1]))
                shutil.rmtree(folder / PARTIAL, ignore_errors=True)
                if not keep:
                    shutil.rmtree(folder / "checkpoints")
            bar.update(before + steps, arm=arm.name)
    return results


def keys(seed: int, use: int, seeds: int) -> Key[Array, "S"]:
    """A key of one use for each seed."""
    return jax.vmap(jax.random.fold_in, (None, 0))(build.key(seed, use), jnp.arange(seeds))


def right(
    model: networks.Model,
    planner: Planner,
    vocab: int,
    params: Any,
    tokens: Int[np.ndarray, "N L"],
    scored: Bool[np.ndarray, "N L"],
) -> Float[np.ndarray, "S"]:
    """The share of rows whose scored tokens each seed gives exactly, decoded greedily by the planner."""
    return (decoded(model, planner, vocab, params, tokens, scored) == tokens).all(2).mean(1)


def decoded(
    model: networks.Model,
    planner: Planner,
    vocab: int,
    params: Any,
    tokens: Int[np.ndarray, "N L"],
    scored: Bool[np.ndarray, "N L"],
    key: Key[Array, ""] | None = None,
) -> Int[np.ndarray, "S N L"]:
    """The rows with their scored tokens as each seed gives them by the planner: greedily, or drawn by a key."""
    canvas = jnp.asarray(np.where(scored, vocab, tokens))
    key, temperature = (jax.random.key(0), 0.0) if key is None else (key, 1.0)
    return np.asarray(_decoded(model, planner, vocab, temperature, params, canvas, key))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _decoded(model, planner, vocab, temperature, params, canvas, key):
    draw = sampling.TokenDraw(temperature=temperature)
    one = lambda p: sampling.sample(model.bind(p), planner, canvas, vocab=vocab, key=key, draw=draw).tokens
    return jax.vmap(one)(params)


def stacked(found: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One dict of arrays [S, ...] of S dicts with the same names."""
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def train_seeds(
    arm: Any,
    folder: Path,
    progress: Callable,
    *,
    batches: Any,
    layout: Any,
    measured: str,
    measure: Callable[[Any], np.ndarray],
    log_every: int = 1,
    frozen: Any = None,
) -> training.Outcome:
    """Trains all seeds in the folder, from its newest checkpoint. `measure(averages)` gives one number for each seed,
    written as `measured`/0, ..., whose mean is the bound that is shown."""
    c = arm.config.train

    def evaluate(states):
        found = measure(states.average)
        return float(np.mean(found)), {f"{measured}/{s}": float(x) for s, x in enumerate(found)}

    return train_in(
        folder, evaluate, plan=training.Plan(c.steps, c.evaluate_every, c.evaluate_every, log_every),
        make_state=arm.make_states, step=arm.step, layout=layout, batches=batches, progress=progress, say=cli.log,
        frozen=frozen,
    )  # fmt: skip


def train_in(
    folder: Path, evaluate: Callable[[training.TrainState], tuple[float, dict[str, float]]], **parts: Any
) -> training.Outcome:
    """`training.train` with the checkpoints and the metrics of a folder: `evaluate(state)` gives the bound and what is
    written; `parts` are the other arguments."""
    checkpoints = training.Checkpoints(folder / "checkpoints", keep=1)
    writer = None

    def on_start(number):
        nonlocal writer
        writer = training.MetricWriter(folder, number)

    def measured(state):
        bound, numbers = evaluate(state)
        writer.write(int(np.ravel(state.step)[0]), **numbers)
        return bound

    try:
        return training.train(
            checkpoints=checkpoints, evaluate=measured, on_start=on_start,
            write=lambda number, **numbers: writer.write(number, **numbers), **parts,
        )  # fmt: skip
    finally:
        checkpoints.close()
        if writer is not None:
            writer.close()
