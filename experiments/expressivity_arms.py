"""The models of word problems that are compared, of equal size: in log N steps, in one, in loops, and as a chain."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, studies
from experiments.expressivity_places import (
    OnPart,
    PlacedModel,
    Source,
    Words,
    chain_numbers,
    codes,
    elements,
    parts_of,
    tree_numbers,
)
from experiments.expressivity_places import words as drawn
from mdmjax import expressivity, networks, objectives, sampling, training
from mdmjax.base import Planner
from mdmjax.expressivity import Circuit, Dependency, MonoidTask

TASKS = dict(parity=expressivity.parity, s3=expressivity.s3, a5=expressivity.a5)
CHAIN, LOOPED = "chain_of_thought", ("looped", "looped_answer")
ARMS = ("log_steps", "one_step", *LOOPED, CHAIN)
CALLS = {
    "log_steps": lambda circuit: circuit.steps,
    CHAIN: lambda circuit: circuit.steps,
    "one_step": lambda circuit: 1,
    **dict.fromkeys(LOOPED, lambda circuit: circuit.steps),  # passes through the blocks, of one call
}


@dataclasses.dataclass(frozen=True, eq=False)
class Sized:
    """What an arm is for words of one length."""

    circuit: Circuit  # whose cells are filled
    model: PlacedModel
    planner: Planner


class Arm:
    """One way of solving a word problem, for all seeds. ValueError where the config will not do.

    `log_steps` fills the tree of a word level by level (`Dependency`), and has learned its steps (`CircuitSteps`);
    `one_step` fills it at once. `looped` does too, but goes through its blocks log2 N times, and each cell is read
    after as many loops as its level; `looped_answer` is read after all of them, and trained on the root alone.
    `chain_of_thought` writes the product of each prefix, causal, from left to right.
    All have the same positional inputs and sizes, and as many words of the same kind in as many steps. Batches are of
    words of the lengths of `mix` by turns, at any place of the larger circuit, where `parts` says so.
    """

    def __init__(self, config: ConfigDict, task: str, kind: str):
        build.choose(kind, "trained.arms", dict.fromkeys(ARMS))
        c = config.task
        self.config, self.kind, self.name = config, kind, f"{task}_{kind}"
        automaton = build.choose(task, "trained.tasks", TASKS)()
        self.problem: MonoidTask = elements(expressivity.monoid_task(automaton), c.every)
        self.longest = max(2 * c.length, *c.lengths)
        self.sized = functools.cache(self._sized)
        try:
            jax.eval_shape(self.make_states)
        except ValueError as error:
            raise ValueError(f"trained.{task}: {error}") from None

    # ---- parts

    @property
    def trained(self) -> Sized:
        """As it is trained."""
        return self.sized(self.config.task.length)

    def _sized(self, length: int) -> Sized:
        c, causal = self.config.task, self.kind == CHAIN
        circuit = (expressivity.chain_of_thought if causal else expressivity.tree)(self.problem, length)
        parts = self.parts(length)
        numbers = chain_numbers(circuit, parts, 2 * c.length) if causal else tree_numbers(circuit, parts)
        bits = (2 * (1 << (self.longest - 1).bit_length()) + 1).bit_length()
        network = networks.TransformerConfig(
            circuit.vocab, circuit.length, c.width, c.depth, c.heads, ff=c.ff, places=True, causal=causal,
            loops=circuit.steps if self.kind in LOOPED else 1,
            exits=tuple(np.maximum(circuit.step, 1).tolist()) if self.kind == "looped" else None,
            rope_base=None,  # else the network is told how far apart cells are in a row, which goes with N
        )  # fmt: skip
        model = PlacedModel(networks.transformer(network), codes(circuit, numbers, bits, causal))
        if self.kind == "log_steps":
            return Sized(circuit, model, Dependency.of(circuit))
        once = expressivity.AtSteps.of(expressivity.at_once(circuit))
        return Sized(circuit, model, sampling.LeftToRight() if causal else once)

    def parts(self, length: int) -> int:
        """Parts of the larger circuit that words of a length may be."""
        c = self.config.task
        return parts_of(length, c.length) if c.parts and length <= c.length else 1

    def objective(self, circuit: Circuit) -> Callable:
        """What is minimised on the canvases of a circuit."""
        if self.kind == CHAIN:
            return objectives.Autoregressive()
        circuit = circuit if self.kind == "log_steps" else expressivity.at_once(circuit)
        return objectives.MaskedDiffusion(circuit.vocab, expressivity.CircuitSteps(circuit))

    @functools.cached_property
    def step(self) -> training.Seeds:
        c = self.config.train
        optimizer, rate = build.adamw(c)
        sized = [self.sized(n) for n in self.config.task.mix]
        objective = OnPart({s.circuit.length: (s.model, self.objective(s.circuit)) for s in sized})
        one = training.Step(
            lambda params: params, objective, optimizer, rate, size=self.config.task.batch, average_decay=c.average
        )
        return training.Seeds(one)

    def make_states(self) -> training.TrainState:
        """The states before the first step, of all seeds."""
        keys = studies.keys(self.config.seed, training.RUNS, self.config.seeds)
        return jax.vmap(lambda key: training.init_state(self.trained.model.init, self.step.step.optimizer, key))(keys)

    # ---- words

    def solve(self, length: int, words: np.ndarray) -> np.ndarray:
        """The solved canvases of words."""
        return expressivity.evaluate(self.sized(length).circuit, words).tokens

    def source(self, length: int) -> Source:
        """Words of a length to learn from."""
        circuit, uneven = self.sized(length).circuit, self.config.train.uneven
        scored = circuit.step > 0
        if self.kind == "looped_answer":
            scored = np.isin(np.arange(circuit.length), circuit.readout)
        rows, symbols = self.config.task.batch, len(self.problem.label)
        draw = lambda rng: self.solve(length, drawn(rng, symbols, rows, length, uneven))
        return Source(draw, scored, self.parts(length))

    @property
    def batches(self) -> Words:
        """Words of each length of the mix by turns."""
        c = self.config
        sources = [self.source(length) for length in c.task.mix]
        return Words(lambda n: sources[n % len(sources)], c.seeds, c.seed)

    # ---- what is measured

    def test_words(self, length: int, rows: int) -> np.ndarray:
        """Words whose symbols are alike likely. Their generator has four numbers, those of training have three."""
        rng = np.random.default_rng([self.config.seed, length, 0, 1])
        return drawn(rng, len(self.problem.label), rows, length, 0.0)

    def accuracy(self, params: Any, length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """(share of words, share of cells) that each seed has right [S], of words whose symbols are alike."""
        c, sized = self.config.evaluate, self.sized(length)
        final = self.solve(length, self.test_words(length, rows))
        scored = np.tile(sized.circuit.step > 0, (rows, 1))
        found = [
            studies.decoded(sized.model, sized.planner, sized.circuit.vocab, params, final[k : k + c.batch],
                            scored[k : k + c.batch])
            for k in range(0, rows, c.batch)
        ]  # fmt: skip
        same = np.concatenate(found, 1) == final
        return same[:, :, sized.circuit.readout[-1]].mean(1), same[:, :, sized.circuit.step > 0].mean((1, 2))

    def tested(self, name: str) -> int:
        """Words of a length for a test."""
        c = self.config.evaluate
        return max(c[name] // c.chain, 1) if self.kind == CHAIN else c[name]

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        """Trains all seeds in the folder, from its newest checkpoint."""
        length, watched = self.config.task.length, self.tested("watched")
        return studies.train_seeds(
            self, folder, progress, batches=self.batches,
            layout=training.MeshLayout(training.make_mesh(devices=jax.devices()[:1])), measured="right",
            measure=lambda params: self.accuracy(params, length, watched)[0], log_every=self.config.train.log_every,
        )  # fmt: skip

    def result(self, folder: Path, outcome: training.Outcome) -> dict[str, Any]:
        """What is kept of a run that has finished."""
        c = self.config
        measured = [row for row in training.read_rows(folder / "metrics.jsonl") if "right/0" in row]
        rows, lengths = self.tested("rows"), {}
        for length in c.task.lengths:
            answers, cells = self.accuracy(outcome.state.average, length, rows)
            lengths[str(length)] = {"answers": answers.tolist(), "cells": cells.tolist()}
        return {
            "arm": self.kind,
            "step": [row["step"] for row in measured],
            "right": [[row[f"right/{s}"] for s in range(c.seeds)] for row in measured],  # [evaluations, seeds]
            "lengths": lengths,
            "words": rows,
            "elements": self.problem.size,
            "calls": CALLS[self.kind](self.trained.circuit),
            "parameters": networks.parameter_count(outcome.state.params) // c.seeds,
            "seconds": outcome.elapsed,
        }


def arms_of(config: ConfigDict, task: str, kinds: Sequence[str]) -> list[Arm]:
    """The arms of a task. Its fields go over those of all: `config` is the group `trained`, with the seed."""
    c = ConfigDict(config.to_dict())
    own = c[task]
    c.train.update({name: own[name] for name in ("steps", "learning_rate", "muon")})
    c.task = own
    alone = ConfigDict(c.to_dict())
    alone.train.muon = 0.0
    return [Arm(alone if kind in c.adamw else c, task, kind) for kind in kinds]
