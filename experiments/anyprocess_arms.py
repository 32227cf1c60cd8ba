"""The models that are compared on a task, all trained by the one loop: a policy, and those that never take back."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, cli, studies
from experiments.anyprocess_tasks import Problems, Questions, Rows, Task, spread
from experiments.study_arms import Batches, columns
from mdmjax import anyprocess, networks, objectives, process, sampling, training
from mdmjax.anyprocess.generation import COUNTED, STOPPED
from mdmjax.base import DELETE, INSERT, REMASK, UNMASK, Planner
from mdmjax.reports import to_json, write_atomic

NAMES = {UNMASK: "unmask", REMASK: "remask", INSERT: "insert", DELETE: "delete"}
CALLS = 32  # of a piece of generation, after which rows that have finished make room


class Arm:
    """What all kinds share: the training of all seeds as one program. ValueError where the config will not do.

    A kind has a `model`, an `objective`, a `source` of training rows of which a batch has `rows`, rows that are
    `held_out`, and says how it does on the tests: `measure(params, folder) -> {test: {decoding: {column: value}}}`.
    """

    name: str

    def __init__(self, config: ConfigDict, task: Task):
        self.config, self.task = config, task
        self.check()

    def check(self) -> None:
        """Builds the parts and traces a loss, so that a wrong field is named before anything is done."""
        params = jax.eval_shape(self.make_states).params
        batch = next(spread(self.held_out, self.config.evaluate.batch, 1))
        jax.eval_shape(self._loss, params, batch)

    def network(self, vocab: int, length: int, group: str, **more) -> networks.TransformerConfig:
        c = self.config[group]
        return networks.TransformerConfig(
            vocab, length, c.width, c.depth, c.heads, ff=c.ff or None, loops=c.loops, qk_norm=c.qk_norm, pads=True,
            **more,
        )  # fmt: skip

    @functools.cached_property
    def step(self) -> training.Seeds:
        c = self.config.train
        optimizer, rate = build.adamw(c)
        one = training.Step(self.model.bind, self.objective, optimizer, rate, size=self.rows, average_decay=c.average)
        return training.Seeds(one)

    def columns(self, length: int) -> int:
        """Of a batch, on average: all, or those that are left where rows of about the same length make a batch."""
        return int(columns(self.source.lengths).mean()) if self.config.train.parts > 1 else length

    def make_states(self) -> training.TrainState:
        """The states before the first step, of all seeds."""
        keys = studies.keys(self.config.seed, training.RUNS, self.config.seeds)
        return jax.vmap(lambda key: training.init_state(self.model.init, self.step.step.optimizer, key))(keys)

    @functools.cached_property
    def _loss(self) -> Callable:
        key = build.key(self.config.seed, training.EVALUATION)

        @jax.jit
        def loss(params, batch):
            def one(params):
                terms = self.objective(self.model.bind(params), batch, key, len(batch["tokens"]))
                return terms.nats.sum() / jnp.maximum(terms.tokens.sum(), 1)

            return jax.vmap(one)(params)

        return loss

    def losses(self, params: Any) -> np.ndarray:
        """The loss of each seed on held-out rows, spread evenly over them: a mean over batches of equal size."""
        c = self.config.evaluate
        return np.mean([np.asarray(self._loss(params, x)) for x in spread(self.held_out, c.batch, c.batches)], axis=0)

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        """Trains all seeds in the folder, from its newest checkpoint."""
        c = self.config
        return studies.train_seeds(
            self, folder, progress, batches=Batches(self.source, c.seeds, self.rows, self.rows, c.seed, c.train.parts),
            layout=training.MeshLayout(training.make_mesh(devices=jax.devices()[:1])),
            measured="held out", measure=self.losses, log_every=c.train.log_every,
        )  # fmt: skip


class PolicyArm(Arm):
    """Remask, insert and delete, taught by a teacher."""

    name = "any_process"

    @property
    def source(self) -> Task:
        return self.task

    @property
    def rows(self) -> int:
        return self.config.train.batch

    @property
    def held_out(self) -> dict[str, np.ndarray]:
        return self.task.held_out

    @functools.cached_property
    def model(self) -> networks.Model:
        task = self.task
        room = max(task.length, task.window or task.room)
        own = dict(places=task.places, attention=task.relations or networks.xla)
        network = self.network(task.vocab, room, "network", **own)
        each = network.heads // 3  # of two relations; as many heads see all
        if task.relate is not None and not each:
            raise ValueError(f"network.heads={network.heads}: at least 3 with data.relations, which has two")
        return networks.policy_network(
            networks.PolicyConfig(network, task.patch, relate=task.relate, each=each, near=task.near)
        )

    @functools.cached_property
    def objective(self) -> Any:
        c = self.config.loss
        weights = (c.remask, c.insert, c.delete)
        if self.task.objective is not None:
            return dataclasses.replace(self.task.objective, weights=weights, pos_weight=tuple(c.pos_weight))
        return anyprocess.Supervised(
            self.task.vocab,
            weights,
            tuple(c.pos_weight),
            balance=anyprocess.balance_of(self.task.tuples, self.task.vocab),
        )

    @property
    def flops(self) -> float:
        """Of a forward pass of a training row."""
        places = self.columns(self.task.length) // self.task.patch
        return networks.forward_flops(self.network(self.task.vocab * self.task.patch, places, "network"), 1, places)

    def check(self) -> None:
        super().check()
        self.decoding()

    def policy(self, params: Any) -> anyprocess.Policy:
        bound = self.model.bind(params)
        return anyprocess.Window(bound, self.task.window) if self.task.window else bound

    def decoding(self) -> anyprocess.Decoding:
        c = self.config.decode
        return anyprocess.Decoding(tuple(c.thresholds), c.draw, c.least, c.single)

    def halting(self, goal: Any) -> anyprocess.Halting:
        stop = self.task.stop
        return anyprocess.Halting(end=self.task.end, stop=stop and (lambda tokens, length: stop(tokens, length, goal)))

    @functools.cached_property
    def run(self) -> Callable:
        """run(params, goal, canvas, steps, ids) -> Generated: some calls."""

        @jax.jit
        def run(params, goal, canvas, steps, ids):
            return anyprocess.generate(
                self.policy(params), canvas, vocab=self.task.vocab, key=build.key(self.config.seed, training.SAMPLING),
                limit=self.task.limit, decoding=self.decoding(), halting=self.halting(goal), begin=steps, ids=ids,
                calls=min(CALLS, self.task.limit),
            )  # fmt: skip

        return run

    def solve(self, params: Any, problems: Problems, progress: Callable = lambda done: None) -> anyprocess.Finished:
        """Runs every problem to its end, and along its tape."""
        states, tapes = list(problems.starts), list(problems.tapes or [()] * len(problems.starts))
        reason, steps, operations = (
            np.zeros(len(states), int),
            np.zeros(len(states), int),
            np.zeros((len(states), 4), int),
        )
        calls, rows = 0, list(range(len(states)))
        while rows:
            found = anyprocess.generate_all(
                functools.partial(self.run, params, jnp.asarray(problems.goal)), [states[i] for i in rows],
                length=self.task.room, slots=self.config.evaluate.slots, vocab=self.task.vocab, progress=progress,
                strict=False,
            )  # fmt: skip
            for i, state in zip(rows, found.states, strict=True):
                states[i] = state
            reason[rows], calls = found.reason, calls + found.calls
            steps[rows] += found.steps
            operations[rows] += found.operations
            rows = [i for i in rows if tapes[i] and reason[i] == STOPPED]
            for i in rows:
                room = self.task.room - len(states[i])
                states[i], tapes[i] = states[i] + tapes[i][:room], tapes[i][room:]
        return anyprocess.Finished(states, reason, steps, operations, calls)

    def measure(self, params: Any, folder: Path | None = None) -> dict[str, dict[str, Any]]:
        """Of each test: which problems are right, and what it took.

        A test whose problems are all in another one before it, of which the same would come, is a part of its numbers.
        What became of the problems of a test is kept in the folder when the last of them has ended, and not found out
        again by the same parameters.
        """
        lines, known = {}, {}
        mark = f"{int(training.fingerprint(params).sum()) % 2**32:08x}"  # of the parameters
        for number, (name, problems) in enumerate(self.task.tests.items()):
            starts, once = problems.starts, not (problems.tapes or problems.goal or self.config.decode.draw)
            if once and known.keys() >= set(starts):
                states, *counted = zip(*(known[start] for start in starts), strict=True)
                (reason, steps, operations), calls = map(np.array, counted), 0
            else:
                solve = functools.partial(self.solve, params, problems, said(f"{self.name}: {name}", len(starts)))
                found = kept(folder / f"test_{number}_{mark}.json", solve) if folder else solve()
                states, reason, steps, operations, calls = found
            if once:
                known |= zip(starts, zip(states, reason, steps, operations, strict=True), strict=True)
            reasons, counts = np.unique(reason, return_counts=True)
            lines[name] = {
                "policy": {
                    "right": [bool(problems.right(i, state)) for i, state in enumerate(states)],
                    "steps": steps.tolist(),
                    "operations": {NAMES[o]: operations[:, i].tolist() for i, o in enumerate(COUNTED)},
                    "finished": {anyprocess.REASONS[r]: int(n) for r, n in zip(reasons, counts, strict=True)},
                    "calls": calls,
                    "also": problems.also(states) if problems.also else {},
                }
            }
        return lines


def kept(path: Path, solve: Callable[[], anyprocess.Finished]) -> anyprocess.Finished:
    """What the file says; what `solve` finds where there is none, which the file says then."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_json(solve()._asdict()))
    found = json.loads(path.read_text())
    arrays = {name: np.array(found[name], int) for name in ("reason", "steps", "operations")}
    return anyprocess.Finished(**found | arrays | {"states": [tuple(state) for state in found["states"]]})


def said(what: str, count: int) -> Callable[[int], None]:
    """A progress that logs how many of `count` problems have come to an end, at each tenth."""
    before = 0

    def progress(done: int) -> None:
        nonlocal before
        if 10 * done // count > before:
            before = 10 * done // count
            cli.log(f"{what}: {done:,} of {count:,} problems have come to an end")

    return progress


class RowArm(Arm):
    """A model of rows: it fills masks, or writes from left to right."""

    rows_of: Rows

    @property
    def source(self) -> Rows:
        return self.rows_of

    @property
    def held_out(self) -> dict[str, np.ndarray]:
        tokens, eligible = self.rows_of.held_out
        return {"tokens": tokens, "eligible": eligible}

    @property
    def causal(self) -> bool:
        return self.name == "autoregressive"

    @functools.cached_property
    def made_for(self) -> networks.TransformerConfig:
        rows, longest = self.rows_of, self.rows_of.tokens.shape[1]
        own = dict(places=True) if rows.places else {}
        if rows.relations is not None:
            own["attention"] = rows.relations
        longest = max(longest, *(questions.canvas.shape[1] for questions in rows.tests.values()))
        group = "baseline" if self.config.baseline.width else "network"
        return self.network(rows.vocab, longest, group, causal=self.causal, **own)

    @functools.cached_property
    def model(self) -> networks.Model:
        return networks.transformer(self.made_for)

    @functools.cached_property
    def objective(self) -> Any:
        if self.causal:
            return objectives.Autoregressive()
        return objectives.MaskedDiffusion(self.rows_of.vocab, process.ExactCount())

    @property
    def flops(self) -> float:
        return networks.forward_flops(self.made_for, 1, self.columns(self.rows_of.tokens.shape[1]))

    @functools.cached_property
    def rows(self) -> int:
        """Rows of a batch: those that cost what a batch of the policy does, where the config names no number."""
        c = self.config
        return c.baseline.batch or max(round(c.train.batch * PolicyArm(c, self.task).flops / self.flops), 1)

    @functools.cached_property
    def planners(self) -> Mapping[str, Planner]:
        linear = process.Linear()
        if self.causal:
            return {"left to right": sampling.LeftToRight(linear)}
        most = max(int((q.canvas == self.rows_of.vocab).sum(1).max()) for q in self.rows_of.tests.values())
        one = {"one call": sampling.Confidence(linear, 1)}
        if most == 1:  # then there is but one order
            return one
        margin = sampling.Confidence(linear, most, score=sampling.scores.margin)
        return {"confidence": sampling.Confidence(linear, most), "margin": margin} | one

    @functools.cached_property
    def _fill(self) -> dict[str, Callable]:
        key = build.key(self.config.seed, training.SAMPLING)

        def made(planner):
            @jax.jit
            def fill(params, canvas, ids):
                found = sampling.sample(
                    self.model.bind(params), planner, canvas, vocab=self.rows_of.vocab, key=key, ids=ids,
                    draw=sampling.TokenDraw(temperature=1.0 if self.config.decode.draw else 0.0),
                )  # fmt: skip
                return found.tokens, found.calls

            return fill

        return {name: made(planner) for name, planner in self.planners.items()}

    def answers(self, params: Any, decoding: str, questions: Questions) -> tuple[np.ndarray, int]:
        """The filled rows, and the denoiser calls that they took."""
        size, rows, calls = self.config.evaluate.slots, [], 0
        asked = questions.canvas
        padded = np.concatenate([asked, np.repeat(asked[:1], -len(asked) % size, 0)])
        for k in range(0, len(padded), size):
            canvas = jnp.asarray(padded[k : k + size], jnp.int32)
            found, made = self._fill[decoding](params, canvas, jnp.arange(k, k + size))
            rows.append(np.asarray(found))
            calls += int(made)
        return np.concatenate(rows)[: len(asked)], calls

    def measure(self, params: Any, folder: Path | None = None) -> dict[str, dict[str, Any]]:
        lines = {}
        for name, questions in self.rows_of.tests.items():
            lines[name] = {}
            for decoding in self.planners:
                rows, calls = self.answers(params, decoding, questions)
                right = [bool(questions.right(i, row)) for i, row in enumerate(rows)]
                also = questions.also(rows) if questions.also else {}
                lines[name][decoding] = {"right": right, "calls": calls, "also": also}
        return lines


class AnyOrderArm(RowArm):
    """A masked diffusion model: in any order, and what is written stays."""

    name = "any_order"

    @property
    def rows_of(self) -> Rows:
        return self.task.any_order


class AutoregressiveArm(RowArm):
    """From left to right."""

    name = "autoregressive"

    @property
    def rows_of(self) -> Rows:
        return self.task.autoregressive
