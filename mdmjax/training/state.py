"""The training state, the optimiser, and one step of training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Int, Key

from mdmjax.process import use_key

# of the metrics: the first example, by its number in the batch's `pair` or else `ids`, whose loss is not finite; NONE
SPOILED, NONE = "spoiled", 2**31 - 1
DRAWS, REFIT, MONITOR = 0, 1, 2  # uses of randomness at a step: its Draws, fitting their law, `Monitor`

# What the seed's key is folded with for other uses. 0 and 1 would give the keys that `init_state` splits it into.
EVALUATION, SAMPLING, RUNS = 2, 3, 4  # RUNS: the keys of the runs of a comparison, folded with their numbers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes; what a checkpoint holds."""

    step: Int[Array, ""]
    params: Any
    average: Any  # exponential moving average of params, the parameters that are evaluated and sampled
    optimizer: Any
    key: Key[Array, ""]  # of the run; never consumed, only folded
    law: Any = None  # that makes the Draws, where it changes during the run
    baseline: Any = None  # of the logged loss (`variance.Baseline`)


def init_state(
    init: Callable,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    law: Any = None,
    baseline: Any = None,
) -> TrainState:
    """The state before the first step. `init(key) -> params`. `key` is the run's: it is split here once."""
    key_params, key_run = jax.random.split(key)
    params = init(key_params)
    average = jax.tree.map(jnp.copy, params)  # its own buffers, since the state is donated
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params), key_run, law, baseline)


def adamw(
    *,
    learning_rate: float,
    steps: int,
    warmup: int = 0,
    final: float = 0.1,
    weight_decay: float = 0.1,
    b1: float = 0.9,
    b2: float = 0.98,
    clip: float = 1.0,
    muon: float = 0.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with linear warm-up, cosine decay to `final` of the peak, and clipping of the global gradient norm.

    Only matrices named `kernel` decay: norms, embeddings and biases do not. With `muon` > 0 the kernels of the blocks
    go by Muon instead (Jordan, 2024: momentum whose matrix is made orthogonal), at a rate of that peak and the same
    shape, and they alone decay; all else goes by Adam with Nesterov momentum. Returns the optimiser and Adam's rate.
    ValueError for a warm-up that is not within the steps, and a negative `muon`.
    """
    if muon < 0:
        raise ValueError(f"muon={muon}: must be a learning rate, or 0 for none")
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup}: must be at least 0 and less than steps={steps}")
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps, final * learning_rate)
    if warmup == 0:
        rate = optax.cosine_decay_schedule(learning_rate, steps, final)
    by_norm = optax.clip_by_global_norm(clip)
    if not muon:
        return optax.chain(by_norm, optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=decay_mask)), rate
    orthogonal = optax.contrib.muon(
        lambda step: muon / learning_rate * rate(step), weight_decay=weight_decay, adam_learning_rate=rate, adam_b1=b1,
        adam_b2=b2, muon_weight_dimension_numbers=_matrices,
    )  # fmt: skip
    return optax.chain(by_norm, orthogonal), rate


def _matrices(params: Any) -> Any:
    """Where the matrix of each kernel of the blocks is, be they stacked; None for all other leaves."""

    def axes(path, leaf):
        names = [getattr(key, "key", None) for key in path]
        if "blocks" not in names or names[-1] != "kernel":
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to: those whose name is `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step as a pure function `(state, batch) -> (state, metrics)`.

    `objective(denoiser, batch, key, size) -> Terms` is summed over the batch and divided by the number of tokens it is
    about; `size` is the number of rows of the global batch. The batch holds `tokens` [B, L], `ids` [B] and, for
    conditional training, `eligible` [B, L]: what is not eligible (a prompt, PAD) is always visible, never predicted
    and not counted, and without it all tokens are eligible. A source passes them on (`data.RowSource`), as it does
    what else an objective reads. With `micro > 1` the gradient is accumulated over that many parts, cut inside each of
    the `shards` device shares of the batch. `axis` is the mapped axis under pmap. Draws are keyed by example, so none
    of this changes the loss.

    What is not trained may come beside the batch: `step(state, batch, frozen)` binds with `bind(params, frozen)`, be it
    the reference of a preference or the weights below adapters. It is neither donated nor part of a checkpoint.

    Where the state has a `law`, it takes the place of the objective's, and every `refit_every` steps, the first among
    them, it is `refit(bind, params, batch, key, law)` (`variance.Refit`) before the step draws. Where it has a
    `baseline`, the metrics have `loss_adjusted` too, and nothing else changes.
    """

    bind: Callable  # params -> denoiser, or (params, frozen) -> what the objective takes
    objective: Callable
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    size: int
    average_decay: float = 0.0
    micro: int = 1
    shards: int = 1
    axis: str | None = None
    refit: Callable | None = None
    refit_every: int = 1000

    def __call__(
        self, state: TrainState, batch: dict[str, Array], frozen: Any = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = use_key(state.key, state.step, DRAWS)
        law, objective = self._law(state, batch, frozen), self.objective
        if law is not None:
            objective = dataclasses.replace(objective, law=law)

        def nats(params, part):
            terms = objective(self._bound(params, frozen), part, key, self.size)
            # What only looks on is kept apart: fused with the rest it would change the order of sums, and so the last
            # bits of the gradient (which, over several devices of a CPU, XLA may do nevertheless).
            seen = jax.lax.optimization_barrier(jax.lax.stop_gradient(terms))
            sums = None if state.baseline is None else state.baseline.sums(seen)
            also = jax.tree.map(jnp.sum, seen.also)
            places = jnp.arange(len(seen.nats), dtype=jnp.int32)
            number = next((part[name] for name in ("line", "pair", "ids") if name in part), places)  # to find it by
            spoiled = jnp.where(jnp.isfinite(seen.nats), NONE, number).min()
            return terms.nats.sum(), ((seen.nats.sum(), seen.tokens.sum(), seen.scored.sum(), also, sums), spoiled)

        def value_and_grad(part):
            (_, (found, spoiled)), grads = jax.value_and_grad(nats, has_aux=True)(state.params, part)
            return (found, grads), spoiled

        if self.micro == 1:
            added, spoiled = value_and_grad(batch)
        else:
            parts = _split(batch, self.micro, self.shards)
            shapes = jax.eval_shape(value_and_grad, jax.tree.map(lambda x: x[0], parts))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[0])

            def add(before, part):
                added, spoiled = value_and_grad(part)
                return jax.tree.map(jnp.add, before, added), spoiled

            added, spoiled = jax.lax.scan(add, zeros, parts)
            spoiled = spoiled.min()
        if self.axis is not None:
            added, spoiled = jax.lax.psum(added, self.axis), jax.lax.pmin(spoiled, self.axis)
        (total, tokens, scored, also, sums), grads = added

        grads = jax.tree.map(lambda g: g / tokens, grads)
        updates, optimizer = self.optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(self.average_decay, (1 + state.step) / (10 + state.step))  # short memory at first
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        metrics = {
            "loss": total / tokens,  # nats per token
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(self.learning_rate(state.step), jnp.float32),
            "scored": scored,
            SPOILED: spoiled,
        } | {name: value / self.size for name, value in (also or {}).items()}
        baseline = state.baseline
        if baseline is not None:
            baseline, taken = baseline.step(sums)
            metrics["loss_adjusted"] = metrics["loss"] - taken
        return TrainState(state.step + 1, params, average, optimizer, state.key, law, baseline), metrics

    def _bound(self, params: Any, frozen: Any) -> Any:
        return self.bind(params) if frozen is None else self.bind(params, frozen)

    def _law(self, state: TrainState, batch: dict[str, Array], frozen: Any) -> Any:
        """The law of this step."""
        if self.refit is None:
            return state.law
        due = state.step % self.refit_every == 0
        return jax.lax.cond(due, lambda: self.fitted(state, batch, frozen), lambda: state.law)

    def fitted(self, state: TrainState, batch: dict[str, Array], frozen: Any = None) -> Any:
        """The law of the state, fitted to its parameters."""
        return self.refit(
            lambda params: self._bound(params, frozen),
            state.params,
            batch,
            use_key(state.key, state.step, REFIT),
            state.law,
        )


def _split(batch: dict[str, Array], micro: int, shards: int) -> dict[str, Array]:
    """[B, ...] -> [micro, B / micro, ...], each part holding an equal run of rows from every device's share."""

    def cut(x):
        rows = x.shape[0] // (shards * micro)
        parts = x.reshape(shards, micro, rows, *x.shape[1:])
        return parts.swapaxes(0, 1).reshape(micro, shards * rows, *x.shape[1:])

    return jax.tree.map(cut, batch)
