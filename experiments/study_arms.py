"""The arms of a study: how each makes its draws, and the training of all its seeds as one program."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import build, law_names, laws, studies
from experiments.study_tasks import Task
from mdmjax import evaluation, networks, objectives, process, sampling, training, variance

AUTOREGRESSIVE = "autoregressive"


MOST_ENUMERATED = 10  # tokens of a row all masks of which are scored


def sgd(c: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Plain gradient descent, its rate linearly to `final` of the first, the norm of the gradient clipped.

    ValueError for a warm-up and a weight decay, which it has not.
    """
    build.check_optimizer(c)
    for name, what in (("warmup", "warm-up"), ("weight_decay", "weight decay")):
        if c[name]:
            raise ValueError(f"train.{name}={c[name]}: train.optimizer='sgd' has no {what}; use 0")
    rate = optax.linear_schedule(c.learning_rate, c.final * c.learning_rate, c.steps)
    return optax.chain(optax.clip_by_global_norm(c.clip), optax.sgd(rate)), rate


def optimizer_of(c: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser that a `train` group of fields names, and its rate."""
    return laws.choose(c.optimizer, "train.optimizer", dict(adamw=build.adamw, sgd=sgd))(c)


def columns(length: int | np.ndarray) -> int | np.ndarray:
    """Of a batch whose longest row has so many tokens: the next multiple of 32, so that few shapes are compiled."""
    return 32 * -(-length // 32)


class Batches(Iterator[dict[str, np.ndarray]]):
    """Rows for every seed, [S, B, ...], drawn with replacement; known from the seeds and the number of the batch.

    With `parts`, so many batches are drawn, their rows sorted by the source's `lengths`, and one of the parts is taken,
    cut off behind the `columns` of its longest row.
    """

    def __init__(self, source: Any, seeds: int, batch: int, rows: int, seed: int, parts: int = 1):
        self._source = source
        self._seeds, self._batch, self._rows, self._seed = seeds, batch, rows, seed
        self._parts, self._position = parts, 0

    def __next__(self) -> dict[str, np.ndarray]:
        """The first `rows` of each batch: an arm of two masks a row sees half as many of the same rows."""
        n, size = self._position, len(self._source)
        part, longest = int(np.random.default_rng([self._seed, n]).integers(self._parts)), None
        draw = lambda s: np.random.default_rng([self._seed, s, n]).integers(size, size=self._batch * self._parts)
        drawn = [draw(s) for s in range(self._seeds)]
        if self._parts > 1:
            lengths = self._source.lengths
            inside = slice(part * self._batch, (part + 1) * self._batch)
            drawn = [rows[np.argsort(lengths[rows], kind="stable")[inside]] for rows in drawn]
            longest = columns(max(int(lengths[rows].max()) for rows in drawn))
        found = [self._source.gather(rows[: self._rows]) for rows in drawn]
        ids = np.tile(np.arange(n * self._rows, (n + 1) * self._rows, dtype=np.int32), (self._seeds, 1))
        self._position += 1
        cut = lambda x: x[:, :, :longest] if x.ndim > 2 else x
        return {name: cut(x) for name, x in studies.stacked(found).items()} | {"ids": ids}

    def get_state(self) -> dict[str, int]:
        return {"next_batch": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        self._position = state["next_batch"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of drawing, for all seeds. ValueError where the config will not do."""

    config: ConfigDict
    task: Task
    name: str

    def __post_init__(self):
        c = self.config.train
        if law_names.parsed(self.name)[0] == "syrm" and "extra" not in self.task.source.gather(np.zeros(1, int)):
            raise ValueError(f"arms: the law {self.name!r}: there are no prompts here, of which tokens could be hidden")
        if c.batch % self.calls:
            raise ValueError(f"train.batch={c.batch}: must be even, for {self.name} hides each row in two ways")
        self.model, self.step, self.planner, self._score  # noqa: B018  built now, so that a wrong field is named here

    # ---- parts

    @property
    def autoregressive(self) -> bool:
        return self.name == AUTOREGRESSIVE

    @property
    def calls(self) -> int:
        """Denoiser calls of a row."""
        return 1 if self.autoregressive else law_names.calls_of(self.name)

    @property
    def rows(self) -> int:
        """Rows of a batch, so that all arms have the same denoiser calls."""
        return self.config.train.batch // self.calls

    @functools.cached_property
    def layout(self) -> training.MeshLayout:
        """The work of the seeds is shared out over as many devices as divide them; each device holds all states."""
        count = math.gcd(self.config.seeds, jax.device_count())
        return training.MeshLayout(training.make_mesh(devices=jax.devices()[:count]))

    @functools.cached_property
    def model(self) -> networks.Model:
        c = self.config.network
        if laws.choose(c.name, "network.name", dict(transformer=False, linear=True)):
            if self.autoregressive:
                raise ValueError("network.name='linear': it sees all that is visible; leave out the arm autoregressive")
            return networks.linear(networks.LinearConfig(self.task.vocab, self.task.length))
        return networks.transformer(
            networks.TransformerConfig(
                self.task.vocab, self.task.length, c.width, c.depth, c.heads, qk_norm=c.qk_norm,
                causal=self.autoregressive,
            )
        )  # fmt: skip

    @functools.cached_property
    def law(self) -> Any:
        c = self.config
        strata = math.isqrt(c.train.batch)
        if self.autoregressive:
            return None
        return law_names.law_of(
            self.name,
            c.law.eps,
            c.law.bins,
            strata=strata,
            often=self.task.often,
            kinds=(*law_names.TRAINED, AUTOREGRESSIVE),
            field="arms",
        )

    @property
    def in_state(self) -> Any:
        """The law, where it holds arrays: then it is the state's, not the step's."""
        return self.law if isinstance(self.law, process.Importance) else None

    @property
    def refit(self) -> variance.Refit | None:
        kind, c = law_names.parsed(self.name)[0], self.config.law
        if kind not in law_names.FITTED:
            return None
        return laws.refit_of(c, self.task.vocab, law_names.FITTED[kind], "law.")

    @property
    def probe_calls(self) -> float:
        """Denoiser calls of fitting, for each call of training; a backward pass is two calls, as training has them."""
        if self.refit is None:
            return 0.0
        c = self.config
        each = min(c.law.probe_rows, self.rows) * c.law.probe_masks * c.law.bins * self.calls
        share = 1 if self.refit.gradient else 1 / 3  # of what a call of training costs
        fits = -(-c.train.steps // c.law.refit_every)
        return share * each * fits / (c.train.steps * c.train.batch)

    @functools.cached_property
    def step(self) -> training.Seeds:
        c = self.config
        optimizer, rate = optimizer_of(c.train)
        if self.autoregressive:
            objective = objectives.Autoregressive()
        else:
            own = self.law if self.in_state is None else process.ExactCount()  # which the state's replaces
            extra = c.law.extra if law_names.parsed(self.name)[0] == "syrm" else 0.0
            objective = objectives.MaskedDiffusion(self.task.vocab, own, extra=extra)
        one = training.Step(
            self.model.bind, objective, optimizer, rate, size=self.rows, average_decay=c.train.average,
            refit=self.refit, refit_every=c.law.refit_every,
        )  # fmt: skip
        return training.Seeds(one)

    @property
    def planner(self) -> Any:
        if self.autoregressive:
            return sampling.LeftToRight(process.Linear())
        return sampling.Confidence(process.Linear(), int(self.task.scored[0].sum()))

    # ---- what is measured

    @functools.cached_property
    def _score(self) -> Callable:
        c, root = self.config.evaluate, build.key(self.config.seed, training.EVALUATION)
        if self.autoregressive:
            scorer = evaluation.ExactScorer()
        elif c.draws:
            scorer = evaluation.Scorer(self.task.vocab, c.draws, c.groups)
        elif self.task.length > MOST_ENUMERATED or not self.task.scored.all():
            raise ValueError(
                f"evaluate.draws=0: all masks are for rows of at most {MOST_ENUMERATED} tokens, none of them given"
            )
        else:
            scorer = evaluation.EnumeratedScorer(self.task.vocab)

        @jax.jit
        def score(params, batch):
            return jax.vmap(lambda p: scorer(self.model.bind(p), batch, root).mean(1))(params)

        return score

    def bounds(self, params: Any) -> np.ndarray:
        """The bound on the held-out rows of each seed, in nats a token; with the same draws in every arm."""
        total = 0
        for batch in evaluation.padded_batches(self.task.tokens, self.task.scored, self.config.evaluate.batch):
            total += np.asarray(self._score(params, batch), np.float64).sum(1)
        return total / self.task.scored.sum()

    def right(self, params: Any) -> np.ndarray:
        """The share of the held-out rows whose answer each seed gives exactly, decoded greedily, a token a call."""
        task = self.task
        return studies.right(self.model, self.planner, task.vocab, params, task.tokens, task.scored)

    # ---- the runs

    def make_states(self) -> training.TrainState:
        """The states before the first step. The seeds of all arms share parameters, rows and keys."""
        keys = studies.keys(self.config.seed, training.RUNS, self.config.seeds)
        first = lambda key: training.init_state(self.model.init, self.step.step.optimizer, key, self.in_state)
        return jax.vmap(first)(keys)

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        """Trains all seeds in the folder, from its newest checkpoint."""
        c = self.config
        batches = Batches(self.task.source, c.seeds, c.train.batch, self.rows, c.seed)
        return studies.train_seeds(
            self, folder, progress, batches=batches, layout=self.layout, measured="bound", measure=self.bounds
        )

    def result(self, folder: Path, outcome: training.Outcome) -> dict[str, Any]:
        """What is kept of a run that has finished."""
        c = self.config
        history = training.read_rows(folder / "metrics.jsonl")
        by_seed = lambda name, rows: [[row[f"{name}/{s}"] for s in range(c.seeds)] for row in rows]
        measured = [row for row in history if "bound/0" in row]
        steps = [row for row in history if "loss/0" in row]
        half = steps[len(steps) // 2 :]
        return {
            "arm": self.name,
            "step": [row["step"] for row in measured],
            "bound": by_seed("bound", measured),  # [evaluations, seeds], nats a token
            "noise": np.var(by_seed("grad_norm", half), axis=0, ddof=1).tolist(),
            "loss noise": np.var(by_seed("loss", half), axis=0, ddof=1).tolist(),
            "right": self.right(outcome.state.average).tolist() if self.task.answers else None,
            "probe calls": self.probe_calls,
            "seconds": outcome.elapsed,
            "parameters": networks.parameter_count(outcome.state.params) // c.seeds,
        }
