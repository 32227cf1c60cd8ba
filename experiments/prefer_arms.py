"""The runs of a preference experiment: the start, and from there every way of estimating the score."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, laws, studies
from experiments.fine_tuned import Runs, placed
from experiments.prefer_probe import probe, right
from experiments.prefer_tasks import Task
from experiments.study_arms import Batches, optimizer_of
from mdmjax import data, networks, objectives, process, training
from mdmjax.objectives import Against, KeptBounds, Preference

FINE_TUNING = "fine_tuning"
_NAME = re.compile(r"(\d+)x(\d+)((?:\+\w+)*)")
NOISE, ARMS = 6, 7  # uses of the seed's key: the draws by which noise is measured, the runs of the arms


@dataclasses.dataclass(frozen=True)
class Way:
    """How the score of an arm is estimated."""

    rates: int
    masks: int
    shared: bool = True  # policy and reference see the same draws
    together: bool = False  # both answers have the same rates
    spread: str = "systematic"

    @classmethod
    def of(cls, name: str) -> "Way":
        """Of a name such as 8x1 or 1x1+apart. ValueError for another one."""
        match = _NAME.fullmatch(name)
        marks = match[3].split("+")[1:] if match else []
        known = {"apart": dict(shared=False), "together": dict(together=True)}
        known |= {spread: dict(spread=spread) for spread in laws.SPREADS}
        fields = [field for mark in marks for field in known.get(mark, ())]
        if match is None or not set(marks) <= set(known) or len(set(fields)) < len(fields):
            raise ValueError(
                f"arms: {name!r}: must be {FINE_TUNING}, or RATESxMASKS and maybe +{', +'.join(known)}: such as 8x1"
            )
        changes = {key: value for mark in marks for key, value in known[mark].items()}
        return cls(int(match[1]), int(match[2]), **changes)


class Arm(Runs):
    """One way of estimating the score, from the start on; or fine-tuning on preferred answers. ValueError where the
    config will not do."""

    def __init__(self, config: ConfigDict, task: Task, name: str, model: networks.Model, start: Any):
        self.config, self.task, self.name, self.seeds = config, task, name, config.seeds
        self.model, self.start = placed(model, self.layout), start  # parameters [S, ...]
        c = config.prefer
        self.way = None if name == FINE_TUNING else Way.of(name)
        first = next((Way.of(other) for other in config.arms if other != FINE_TUNING), None)
        if first is None:
            raise ValueError(f"arms={tuple(config.arms)}: must have one besides {FINE_TUNING}")
        if c.lora < 0:
            raise ValueError(f"prefer.lora={c.lora}: must be a rank, or 0 for none")
        self.lora = networks.LoRA(c.lora) if c.lora else None
        # fine-tuning has the denoiser calls of the first arm's policy
        self.rows = config.train.batch * (2 * first.rates * first.masks if self.way is None else 1)
        jax.eval_shape(self._states, start)  # so that a wrong field is named here

    # ---- parts

    @property
    def pairs(self) -> Any:
        """The source of the training batches."""
        pairs = self.task.pairs
        return pairs if self.way is not None else data.RowSource(pairs.tokens[:, 0], pairs.eligible[:, 0])

    @property
    def calls(self) -> int:
        """Forward passes of a pair at a step: two answers by policy and, where its bounds are not kept, reference; of
        fine-tuning, rows."""
        if self.way is None:
            return self.rows // self.config.train.batch
        return (2 if self.config.prefer.fixed else 4) * self.way.rates * self.way.masks

    @functools.cached_property
    def objective(self) -> Any:
        c = self.config.prefer
        if self.way is None:
            return objectives.MaskedDiffusion(
                self.task.vocab, process.ExactCount(schedule=self.task.schedule), self.task.nll
            )
        spread, schedule = laws.SPREADS[self.way.spread], self.task.schedule
        if not 0 < c.eps < 1:
            raise ValueError(f"prefer.eps={c.eps}: must be in (0, 1)")
        made = dict(
            exact_count=process.ExactCount(spread, schedule), continuous=process.Continuous(schedule, spread, c.eps)
        )
        law = build.choose(c.law, "prefer.law", made)
        return Preference(
            self.task.vocab, c.beta, process.Allocation(self.way.rates, self.way.masks), law, shared=self.way.shared,
            rates_shared=self.way.together, sft=c.sft, two_pass=c.two_pass, nll=self.task.nll,
            fixed=self.config.seed if c.fixed else None,
        )  # fmt: skip

    def bind(self, params: Any, frozen: Any) -> Any:
        """What the objective takes. `frozen` is (the start, its kept bounds or None)."""
        base, kept = frozen
        policy = self.model.bind(params if self.lora is None else self.lora.merged(base, params))
        if self.way is None:
            return policy
        return Against(policy, self.model.bind(base) if kept is None else KeptBounds(kept))

    @functools.cached_property
    def step(self) -> training.Seeds:
        c = self.config.train
        optimizer, rate = optimizer_of(c)
        return training.Seeds(
            training.Step(self.bind, self.objective, optimizer, rate, size=self.rows, average_decay=c.average)
        )

    def make_states(self) -> training.TrainState:
        return self._states(self.start)

    def _states(self, start: Any) -> training.TrainState:
        def one(params, key):
            init = (lambda key: params) if self.lora is None else (lambda key: self.lora.init(params, key))
            return training.init_state(init, self.step.step.optimizer, key)

        return jax.vmap(one)(start, self.keys(self.config.seed, ARMS))

    def frozen(self, folder: Path) -> Any:
        """(the start, its bounds of all pairs [S, N, 2, n] where draws stay). These are kept in the folder, in a file
        named by what they depend on: the start, the pairs, and the draws."""
        if not (self.way and self.config.prefer.fixed):
            return self.start, None
        c = self.config.prefer
        draws = f"{self.way} {c.law} {c.eps} {self.task.schedule} {self.config.seed}"
        what = [np.asarray(training.fingerprint(self.start))]
        what += [self.task.pairs.tokens, self.task.pairs.eligible]
        known = b"".join(x.tobytes() for x in what) + draws.encode()
        path = folder / f"bounds_{hashlib.sha256(known).hexdigest()[:16]}.npy"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, self._bounds())
            temporary.replace(path)
        return self.start, np.load(path)

    def _bounds(self) -> np.ndarray:
        count = len(self.task.pairs)

        @jax.jit
        def bounds(params, batch):
            both = lambda p: Against(self.model.bind(p), self.model.bind(p))
            one = lambda p, batch: self.objective.scores(both(p), batch, jax.random.key(0)).reference  # key: not read
            return jnp.moveaxis(jax.vmap(one, (0, None))(params, batch), 1, 3)

        parts = []
        for part in _parts(count, self.config.evaluate.batch):
            batch = self.task.pairs.gather(part)
            parts.append(np.asarray(bounds(self.start, batch | {"ids": batch["pair"]})))
        return np.concatenate(parts, 1)[:, :count]

    # ---- what is measured

    def network(self, params: Any) -> Any:
        """The parameters [S, ...] of whole networks."""
        return params if self.lora is None else jax.vmap(self.lora.merged)(self.start, params)

    def good(self, params: Any) -> np.ndarray:
        """Of each seed: the share of exact answers, or of held-out pairs in order where no answer can be judged."""
        if self.task.judged is not None:
            return right(self.model, params, self.task)
        return np.asarray(self._in_order(params, self.start))

    @functools.cached_property
    def _in_order(self) -> Callable:
        batch = self.task.held_out.gather(np.arange(min(self.config.evaluate.pairs, len(self.task.held_out))))
        batch = {name: jnp.asarray(x) for name, x in batch.items()} | {"ids": jnp.asarray(batch["pair"])}
        law = process.ExactCount(schedule=self.task.schedule)
        objective = Preference(self.task.vocab, law=law, nll=self.task.nll)
        key = build.key(self.config.seed, training.EVALUATION)

        def one(params, start):
            both = Against(self.model.bind(params), self.model.bind(start))
            return (objective.scores(both, batch, key).score(1.0) > 0).mean()

        return jax.jit(jax.vmap(one))

    def train(self, folder: Path, progress: Callable) -> training.Outcome:
        c = self.config
        batches = Batches(self.pairs, c.seeds, self.rows, self.rows, c.seed)
        return studies.train_seeds(
            self, folder, progress, batches=batches, layout=self.layout, measured="wrong", log_every=c.train.log_every,
            measure=lambda params: 1 - self.good(self.network(params)),
            frozen=self.layout.place(self.frozen(folder.parent)),
        )  # fmt: skip

    def result(self, folder: Path, outcome: training.Outcome) -> dict[str, Any]:
        """What is kept of a run that has finished."""
        params = self.network(outcome.state.average)
        history = training.read_rows(folder / "metrics.jsonl")
        steps = [row for row in history if "loss/0" in row]
        seeds = range(self.seeds)
        return {
            "arm": self.name,
            "right": self.good(params).tolist(),
            "curve": [[row["step"], *(1 - row[f"wrong/{s}"] for s in seeds)] for row in history if "wrong/0" in row],
            "steps": {
                name: [[row["step"], row[name]] for row in steps if name in row]
                for name in ("loss", "accuracy", "margin", "score_variance", "drift")
            },
            "probe": probe(self, outcome.state.average, self.keys(self.config.seed, NOISE)) if self.way else None,
            "calls": self.calls,
            "seconds": outcome.elapsed,
            "parameters": networks.parameter_count(outcome.state.params) // self.seeds,
        }


def _parts(count: int, size: int) -> list[np.ndarray]:
    """0..count-1 in parts of one size; the last one goes on with the last number."""
    size = min(size, count)
    return [np.minimum(np.arange(k, k + size), count - 1) for k in range(0, count, size)]
