"""The arms of a comparison of decoding orders: their networks and steps, and the training of one run."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build, studies
from experiments.order_rows import Rows, least
from mdmjax import analysis, data, networks, objectives, process, training


class Arm(NamedTuple):
    """How the order of a run comes about."""

    initial: Callable  # Bench -> log-weights
    start: Callable  # Bench -> step from which they are learned


ARMS = dict(
    plain=Arm(lambda bench: np.zeros(bench.weights), lambda bench: training.NEVER),
    learned=Arm(lambda bench: np.zeros(bench.weights), lambda bench: bench.config.order.warmup),
    cold=Arm(lambda bench: np.zeros(bench.weights), lambda bench: 0),
    fixed=Arm(lambda bench: process.fixed_order(bench.config.order.known), lambda bench: training.NEVER),
)
LEARN = ("learned", "cold")  # those that learn their order


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that the runs of a config share, compiled once. ValueError where the config will not do."""

    config: ConfigDict
    rows: Rows

    def __post_init__(self):
        c = self.config
        for name in ("seeds", "order.samples", "order.starts", *(f"train.{n}" for n in _COUNTS)):
            least(functools.reduce(getattr, name.split("."), c), name)
        if c.order.kick < 0 or c.order.least < 0:
            raise ValueError(f"order.kick={c.order.kick}, order.least={c.order.least}: both must be >= 0")
        if not c.arms or len(set(c.arms)) != len(c.arms):
            raise ValueError(f"arms={tuple(c.arms)}: name at least one of {', '.join(ARMS)}, each once")
        for name in c.arms:
            build.choose(name, "arms", ARMS)
        if not 0 <= c.order.warmup <= c.train.steps:
            raise ValueError(f"order.warmup={c.order.warmup}: must be in 0..{c.train.steps}, the steps of the training")
        if "fixed" in c.arms:
            try:
                order = process.check_order(c.order.known)
            except ValueError as error:
                raise ValueError(f"order.known of the arm 'fixed': {error}") from None
            if len(order) != self.rows.length:
                raise ValueError(
                    f"order.known={tuple(c.order.known)}: must be a permutation of 0..{self.rows.length - 1}"
                )
        if "fixed" in c.arms and c.order.estimator == "time":
            raise ValueError(
                "order.estimator='time': the weights of a known order are too far apart for random times, so the arm "
                "'fixed' needs order.estimator='order'"
            )
        groups = list(c.order.groups)
        if groups and (len(groups) != self.rows.length or set(groups) != set(range(max(groups) + 1))):
            raise ValueError(f"order.groups={tuple(groups)}: must be {self.rows.length} numbers that count from 0")
        if groups and "fixed" in c.arms:
            raise ValueError("order.groups ties weights together, and the arm 'fixed' has one for each position")
        devices = self.layout.shards
        for name, batch in (("train.batch", c.train.batch), ("evaluate.batch", c.evaluate.batch)):
            if batch < 1 or batch % devices:
                raise ValueError(f"{name}={batch}: must be a multiple of {devices}, the devices that share a batch")
        self.model, self.step  # noqa: B018  built now, so that a wrong field is named here

    # ---- parts

    @functools.cached_property
    def layout(self) -> training.MeshLayout:
        return training.MeshLayout(training.make_mesh())

    @property
    def weights(self) -> int:
        """How many weights the order has."""
        groups = self.config.order.groups
        return max(groups) + 1 if groups else self.rows.length

    @functools.cached_property
    def model(self) -> networks.Model:
        c, rows = self.config.network, self.rows
        transformer = lambda: networks.transformer(
            networks.TransformerConfig(rows.vocab, rows.length, c.width, c.depth, c.heads, places=True)
        )
        linear = lambda: networks.linear(networks.LinearConfig(rows.vocab, rows.length))
        return build.choose(c.name, "network.name", dict(transformer=transformer, linear=linear))()

    def bind(self, params: dict[str, Any]) -> objectives.Ordered:
        """The network under its order; a column has no value that the table does not give it."""
        denoiser = self.model.bind(params["network"])
        if self.rows.allowed is not None:
            denoiser = networks.Legal(denoiser, self.rows.allowed)
        return objectives.Ordered(denoiser, self.by_position(params["order"]))

    def by_position(self, order: Any) -> Any:
        """The weights of an order, of which tied positions share one, for each position."""
        groups = list(self.config.order.groups)
        return order[np.array(groups)] if groups else order

    def log_weights(self, params: dict[str, Any]) -> Float[np.ndarray, "L"]:
        """One for each position."""
        return self.by_position(np.asarray(params["order"], np.float64))

    @functools.cached_property
    def objective(self) -> objectives.LearnedOrder:
        c = self.config.order
        laws = dict(
            order=lambda: objectives.OrderSpace(c.every_step),
            time=lambda: objectives.TimeSpace(c.t_min, c.least, c.power, c.reconstruct),
        )
        if not 0 < c.t_min < 1:
            raise ValueError(f"order.t_min={c.t_min}: must be in (0, 1)")
        if not c.power > 0:
            raise ValueError(f"order.power={c.power}: must be > 0")
        law = build.choose(c.estimator, "order.estimator", laws)()
        control = None
        if c.entropy:
            if self.rows.length > 12:
                raise ValueError(f"order.entropy={c.entropy}: must be 0 beyond 12 positions ({self.rows.length})")
            control = lambda v: -c.entropy * analysis.order_entropy(v)
        return objectives.LearnedOrder(self.rows.vocab, law, c.samples, c.baseline, c.l2, control)

    @functools.cached_property
    def step(self) -> training.Step:
        """One step, and so one compilation, for all runs: they differ in what their states hold."""
        c = self.config.train
        return training.Step(
            self.bind, self.objective, self._optimizer(), self._network[1], size=c.batch, average_decay=c.average
        )

    @functools.cached_property
    def _network(self):
        return build.adamw(self.config.train)

    def _optimizer(self, **run):
        return training.with_order(self._network[0], learning_rate=self.config.order.rate, **run)

    @functools.cached_property
    def _first(self) -> Callable:
        """The state of a run before its first step, compiled once."""

        @jax.jit
        def first(key, initial, start, kick):
            init = lambda key: {"network": self.model.init(key), "order": initial}
            return training.init_state(init, self._optimizer(start=start, kick=kick), key)

        return first

    def kick(self, seed: int, start: int) -> Float[Array, "G"]:
        """What start 1, 2, ... adds to the log-weights when they begin to learn: +a, -a, +b, -b, ... at random."""
        if not start:
            return jnp.zeros(self.weights)
        rng = np.random.default_rng([self.config.seed, seed, (start - 1) // 2])
        move = rng.normal(scale=self.config.order.kick, size=self.weights)
        return jnp.asarray((-1) ** (start - 1) * move, jnp.float32)

    def runs(self) -> list[tuple[str, int, int]]:
        """(arm, seed, start) of every run. Only the arms that learn an order start more than once."""
        c = self.config
        starts = lambda arm: c.order.starts if arm in LEARN else 1
        return [(arm, seed, start) for seed in range(c.seeds) for arm in c.arms for start in range(starts(arm))]

    # ---- one run

    def train(
        self, arm: str, seed: int, start: int, folder: Path, evaluate: Callable, progress: Callable, say: Callable
    ) -> training.Outcome:
        """Trains a run in its folder, from its newest checkpoint. `evaluate(params) -> numbers` with a `bound`.

        The runs of a seed share the network's first parameters, the rows, and the keys of all draws: so arms are
        compared in pairs, and a learned order has the network of the plain arm until its warm-up ends.
        """
        c = self.config.train
        key = jax.random.fold_in(build.key(self.config.seed, training.RUNS), seed)
        initial = ARMS[arm].initial(self)
        begins = jnp.asarray(ARMS[arm].start(self), jnp.int32)
        first = self._first(key, jnp.asarray(initial, jnp.float32), begins, self.kick(seed, start))
        batches = data.batches(self.rows.source, c.batch, self.config.seed + seed, *self.layout.share)

        def bound(state):
            numbers = evaluate(state.average)
            weights = self.log_weights(state.average)
            numbers["orders"] = math.exp(entropy(weights))  # how many orders there are, in effect
            return numbers["bound"], numbers | {f"log_weight/{n}": float(w) for n, w in enumerate(weights)}

        try:
            return studies.train_in(
                folder, bound, plan=training.Plan(c.steps, c.evaluate_every, c.checkpoint_every, c.log_every),
                make_state=lambda: first, step=self.step, layout=self.layout, batches=batches, progress=progress,
                say=say,
            )  # fmt: skip
        finally:
            batches.close()


_COUNTS = ("steps", "log_every", "evaluate_every", "checkpoint_every")


def entropy(log_weights: Float[np.ndarray, "L"], samples: int = 20_000) -> float:
    """The entropy of the order law in nats: exact for up to 12 positions, from that many orders beyond."""
    v = jnp.asarray(log_weights, jnp.float32)
    if len(log_weights) <= 12:
        return float(_exact_entropy(v))
    return float(_sampled_entropy(v, jax.random.split(jax.random.key(0), samples)))


_exact_entropy = jax.jit(analysis.order_entropy)


@jax.jit
def _sampled_entropy(log_weights, keys):
    law = process.PlackettLuce(log_weights)
    return -law.log_prob(jax.vmap(law.sample)(keys)).mean()
