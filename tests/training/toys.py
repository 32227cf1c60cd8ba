"""A tiny training run that a test lays out over devices as it likes."""

import dataclasses
import functools

import jax
import numpy as np

from mdmjax.data import RowSource, batches, evaluation_windows
from mdmjax.evaluation import Scorer, evaluate
from mdmjax.networks import LinearConfig, TransformerConfig, linear, transformer
from mdmjax.objectives import MaskedDiffusion, dense
from mdmjax.process import ExactCount
from mdmjax.training import MeshLayout, Monitor, Step, adamw, init_state
from mdmjax.variance import DrawStatistic

VOCAB, LENGTH, BATCH, STEPS = 11, 15, 32, 4
CONFIG = TransformerConfig(vocab=VOCAB, length=LENGTH, width=32, depth=1, heads=2)
MODEL = transformer(CONFIG)
LINEAR = linear(LinearConfig(VOCAB, LENGTH))  # quick to compile: where a layout does not look into the network
OPTIMIZER, RATE = adamw(learning_rate=1e-2, steps=20, warmup=1)


def make_state(model=MODEL):
    """The first state."""
    return init_state(model.init, OPTIMIZER, jax.random.key(7))


def model_of(layout, model=MODEL):
    """The model, the transformer with its activations and parameters placed as the layout wants them."""
    if model is LINEAR or not isinstance(layout, MeshLayout):
        return model
    return transformer(dataclasses.replace(CONFIG, constrain=layout.constrain, gather=layout.gather))


def make_step(layout, micro: int = 1, nll=dense, model=MODEL) -> Step:
    """A step of the toy under a layout."""
    objective = MaskedDiffusion(VOCAB, nll=nll)
    return Step(model_of(layout, model).bind, objective, OPTIMIZER, RATE, BATCH, 0.9, micro, layout.shards, layout.axis)


def make_batches(rank: int = 0, ranks: int = 1):
    """Rows with a pattern, so that there is something to learn."""
    starts = np.random.default_rng(0).integers(0, VOCAB, (200, 1))
    return batches(RowSource((starts + 3 * np.arange(LENGTH)) % VOCAB), BATCH, 5, rank, ranks)


def run(layout, micro: int = 1, nll=dense, rank: int = 0, ranks: int = 1, model=MODEL):
    """(losses [STEPS], scored [STEPS], gradient norms [STEPS], final state)."""
    state = layout.init(functools.partial(make_state, model))
    step = layout.step(make_step(layout, micro, nll, model), state)
    rows, metrics = make_batches(rank, ranks), []
    for _ in range(STEPS):
        state, numbers = step(state, layout.put(next(rows)))
        metrics.append({name: np.asarray(value) for name, value in numbers.items()})
    rows.close()
    return *(np.array([m[name] for m in metrics]) for name in ("loss", "scored", "grad_norm")), state


def monitored(layout, state, model=MODEL):
    """The parts of the variance of the loss on eight rows, and their errors."""
    rows = np.random.default_rng(2).integers(0, VOCAB, (8, LENGTH)).astype(np.int32)
    statistic = DrawStatistic(model_of(layout, model).bind, ExactCount(), VOCAB)
    return Monitor(statistic, layout, {"tokens": rows}, every=1, rates=2, masks=2)(0, state)()


def bound(layout, params, batch: int, rank: int = 0, ranks: int = 1, model=MODEL):
    """The bound of a held-out text of 21 windows, the last of them partly context."""
    text = np.random.default_rng(1).integers(0, VOCAB, 20 * LENGTH + 5)
    key, scorer = jax.random.key(3), Scorer(VOCAB, draws=2, groups=2)
    model = model_of(layout, model)
    score = layout.map(lambda params, batch: scorer(model.bind(params), batch, key))
    return evaluate(
        functools.partial(score, params),
        *evaluation_windows(text, LENGTH),
        size=batch,
        estimator="test",
        put=layout.put,
        rank=rank,
        ranks=ranks,
    )


def numbers(bound) -> list[float]:
    """A bound's mean and its two errors."""
    return [bound.per_token.mean, bound.per_token.standard_error, bound.monte_carlo]
