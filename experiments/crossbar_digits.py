"""A classifier of digits on crossbars: one hidden layer, trained here on what scikit-learn brings along."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import build, cli
from experiments.crossbar_networks import (
    ERRORS,
    TILES,
    Subject,
    by_layer,
    curves,
    deployed,
    digital,
    measured,
    rows,
    sweep,
)
from experiments.crossbar_parts import crossbar_of
from experiments.found import Found
from experiments.results import over_seeds, shown
from experiments.search import Cells
from mdmjax import crossbar, training
from mdmjax.crossbar import Network

WHERE = {"kernel$": ""}
PERCENT = 100


def images() -> tuple[np.ndarray, np.ndarray]:
    """(pixels [1797, 64] in 0..1, classes). UsageError where scikit-learn is not there."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise cli.UsageError(
            "the digits come with scikit-learn, which is not installed: pip install 'mdmjax[digits]'"
        ) from None
    found = load_digits()
    return np.asarray(found.data, np.float32) / 16, np.asarray(found.target)


def forward(params: Any, x: np.ndarray) -> tuple[Any, Any]:
    """(logits, hidden units) of pixels."""
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"][None], hidden


def train(config, x: np.ndarray, classes: np.ndarray) -> list[Any]:
    """Parameters for each seed, x [S, n, 64]: cross-entropy + penalty / 2 |W|^2, Adam on all rows at once."""

    def init(key):
        of = lambda k, *shape: jax.random.normal(k, shape) / np.sqrt(shape[0])
        first, second = jax.random.split(key)
        layer = lambda kernel: {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}
        return {"hidden": layer(of(first, 64, config.hidden)), "out": layer(of(second, config.hidden, 10))}

    def loss(params, x, y):
        logits, _ = forward(params, x)
        weights = sum(jnp.square(layer["kernel"]).sum() for layer in params.values())
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return entropy + config.penalty / 2 * weights / len(x)

    optimizer = optax.adam(config.train.learning_rate)

    @jax.jit
    @jax.vmap
    def run(key, x, y):
        params = init(key)

        def step(_, state):
            params, slots = state
            updates, slots = optimizer.update(jax.grad(loss)(params, x, y), slots)
            return optax.apply_updates(params, updates), slots

        return jax.lax.fori_loop(0, config.train.steps, step, (params, optimizer.init(params)))[0]

    root = build.key(config.seed, training.RUNS)
    found = run(jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(len(x))), x, classes)
    return [jax.tree.map(lambda leaf, s=s: np.asarray(leaf[s]), found) for s in range(len(x))]


def subject_of(config) -> Subject:
    """The trained classifiers, each with its own split of the rows."""
    if not 0 < config.share < 1:
        raise ValueError(f"share={config.share}: must be in (0, 1), of the rows that are trained on")
    if not config.penalty >= 0:
        raise ValueError(f"penalty={config.penalty}: must be at least 0")
    if not config.train.learning_rate > 0:
        raise ValueError(f"train.learning_rate={config.train.learning_rate}: must be > 0")
    x, y = images()
    order = [np.random.default_rng([config.seed, s]).permutation(len(x)) for s in range(config.seeds)]
    count = round(config.share * len(x))
    learnt, held = np.stack([o[:count] for o in order]), [o[count:] for o in order]
    params = train(config, x[learnt], y[learnt])
    accuracy = lambda s, p: float((np.argmax(forward(p, x[held[s]])[0], 1) == y[held[s]]).mean())
    activity = []
    for s, p in enumerate(params):
        hidden = np.asarray(forward(p, x[learnt[s]])[1], np.float64)
        activity.append({"hidden/kernel": (x[learnt[s]].astype(float) ** 2).mean(0), "out/kernel": (hidden**2).mean(0)})

    def on_inputs(s, network: Network):
        """Gains from the outputs of each layer for the training rows, its inputs those of the digital network."""
        own, given = x[learnt[s]], params[s]
        inputs = {"hidden": own, "out": np.asarray(forward(given, own)[1])}
        made = {}
        for name, layer in given.items():
            written = network.layers[f"{name}/kernel"][0].weights  # without the noise of a read
            g = crossbar.gains(inputs[name] @ written, inputs[name] @ np.asarray(layer["kernel"], np.float64))
            made[name] = {"kernel": (network.raw[name]["kernel"] * g[None]).astype(np.float32), "bias": layer["bias"]}
        return made

    return Subject(params, WHERE, accuracy, "points", activity, on_inputs)


def digits(config, workdir: Path) -> Found:
    """Accuracy against resistance, for every mapping; and what devices that vary do besides."""
    build.check_positive(config, ("train.steps",))
    subject = subject_of(config)
    cli.check_workdir(workdir, config)
    cli.started()
    cells = Cells(workdir / "cells.jsonl")
    before = digital(subject, cells)
    found = sweep(config, subject, cells)
    lines, changes = rows(subject, found, before, PERCENT)
    noisy = devices(config, subject, cells, before)
    return Found(
        "Digits on crossbars",
        f"A 64-{config.hidden}-10 classifier, {config.seeds} splits and first parameters; on/off ratio "
        f"{config.device.on_off:g}, {config.tile.bits} bits.",
        {"digital accuracy": over_seeds([PERCENT * a for a in before], "%"), **changes},
        {
            "deployments": lines,
            "layers": by_layer(subject, found),
            "devices that vary": noisy,
        },
        {"digital accuracy by seed, %": [PERCENT * a for a in before]},
        curves(subject, found, PERCENT, "accuracy", "%"),
        seconds=cells.seconds,
    )


def devices(config, subject: Subject, cells: Cells, before: Sequence[float]) -> list[dict[str, Any]]:
    """What device variation, noise of reads, and the paper's model of noise do, at the largest resistance, "full"."""
    resistance, seeds = max(config.resistances), range(config.seeds)
    told = lambda values: shown(over_seeds(PERCENT * (np.asarray(values) - before)))
    out, done = [], 0
    kinds = [("variation", v) for v in config.variations] + [("read_noise", v) for v in config.read_noises]
    with cli.progress(len(kinds) * config.seeds, unit="deployment") as bar:
        for name, value in kinds:
            found = []
            for s in seeds:
                one = lambda s=s, name=name, value=value: measured(
                    subject, s, deployed(config, subject, s, "full", resistance, **{name: value})
                )
                found.append(cells.get(f"seed {s}, {name} {value:g}", one))
                bar.update(done := done + 1, at=f"seed {s}, {name} {value:g}")
            of = np.array(found)
            line = {"r / R_on": resistance, "devices": f"{name.replace('_', ' ')} {value:g}"}
            line |= {TILES[i]: shown(over_seeds(of[:, i])) for i in (0, 2)}
            qualities = of[:, len(TILES) + len(ERRORS) :].T[: len(subject.qualities)]
            named = zip(subject.qualities, qualities, strict=True)
            out.append(line | {f"{n} - digital, {subject.unit}": told(q) for n, q in named})
    out.append(by_distance(config, subject, resistance, cells, told))
    return out


def by_distance(config, subject: Subject, resistance: float, cells: Cells, told: Callable) -> dict[str, Any]:
    """The same with noise that grows with the distance in place of a solve, as large as makes the mean NF the same."""
    made = crossbar_of(config, "full", resistance)

    def one(s):
        known = lambda: measured(subject, s, deployed(config, subject, s, "full", resistance))
        nf = cells.get(f"seed {s}, full, r {resistance:g}", known)[TILES.index("NF")]
        params = {name: dict(layer) for name, layer in subject.params[s].items()}
        for layer in params.values():
            kernel = np.asarray(layer["kernel"], np.float64)
            written = made.map(kernel)
            d = crossbar.distances(made.rows, made.columns)
            mean = (written.tiles.cells * d).sum() / written.tiles.cells.sum()
            layer["kernel"] = crossbar.distance_noise(kernel, made, nf / mean).astype(np.float32)
        return [subject.quality(s, params)]

    found = [cells.get(f"seed {s}, noise by distance", functools.partial(one, s))[0] for s in range(config.seeds)]
    line = {"r / R_on": resistance, "devices": "lose by their distance, without a solve", "NF": "", "MAC error": ""}
    return line | {f"{n} - digital, {subject.unit}": told(found) if n == "raw" else "" for n in subject.qualities}
