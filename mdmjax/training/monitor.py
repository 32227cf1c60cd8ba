"""The variance of training in its parts, measured now and then beside the steps, on rows that stay the same."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdmjax.process import use_key
from mdmjax.training.state import MONITOR, TrainState
from mdmjax.variance import DrawStatistic, Moments, nested, parts

PARTS = ("A", "B", "C", "total")  # masking pattern, masking rate, data


class Monitor:
    """`monitor(step, state)` for `train`: every `every` steps A, B and C (`variance.anova`) of the parameters trained.

    `statistic` is of one draw, its law that of the objective, which a law of the state replaces; its groups make up the
    gradient, or there are none and only the loss is looked at. `rows` [N, ...] are those of all processes, shared out
    over the devices of `layout`, by which N has to be divisible: each has `rates` rates, and `masks` masks of each, so
    there are N rates masks draws. Losses are made for all examples of a device at once, gradients one after the other
    on each device. Draws are other ones each time, given by the step. A run is not changed by it. ValueError for fewer
    than 2 rates or masks.
    """

    def __init__(
        self, statistic: DrawStatistic, layout: Any, rows: dict[str, np.ndarray], *, every: int, rates: int, masks: int
    ):
        self._statistic, self._layout, self._every, self._rates, self._masks = statistic, layout, every, rates, masks
        rank, ranks = layout.share
        share = len(rows["tokens"]) // ranks
        rows = rows | {"ids": np.arange(ranks * share, dtype=np.int32)}
        self._rows = {name: x[rank * share : (rank + 1) * share] for name, x in rows.items()}
        self._measure = layout.map(self._moments)

    def __call__(self, step: int, state: TrainState) -> Callable[[], dict[str, float]] | None:
        """Starts a measurement, where one is due, and returns what fetches it.

        `variance/loss_A` and, with `_error` after it, its jackknife error, and so B, C and total, and of gradient.
        """
        if step % self._every:
            return None
        measured = self._measure((state.params, state.law, state.key, state.step), self._layout.put(self._rows))

        def fetch() -> dict[str, float]:
            kept = jax.tree.map(np.asarray, measured)
            moments = Moments({}, **kept | {"total": {name: x[0] for name, x in kept["total"].items()}})
            numbers = {}
            groups = {"gradient": list(self._statistic.groups)} if self._statistic.groups else {}
            found = parts(moments, sums=groups)
            for group in ("loss", *groups):
                for part, estimate in zip(PARTS, found[group], strict=True):
                    numbers[f"variance/{group}_{part}"] = estimate.mean
                    numbers[f"variance/{group}_{part}_error"] = estimate.standard_error
            return numbers

        return fetch

    def _moments(self, inputs: tuple, batch: dict[str, Array]) -> dict[str, Any]:
        """The moments as one row an example, for a layout puts rows together; of sums of gradients, the norm."""
        params, law, key, step = inputs
        statistic = self._statistic if law is None else dataclasses.replace(self._statistic, law=law)
        key, count = use_key(key, step, MONITOR), len(batch["ids"])
        together = self._layout.shards if statistic.groups else count  # a gradient takes the memory of the parameters

        def one(rows):
            ids = rows.pop("ids")
            of = lambda *draw: statistic(params, *draw)
            return nested(of, rows, ids, key, rates=self._rates, masks=self._masks)

        cut = lambda x: x.reshape(together, count // together, *x.shape[1:])
        moments = jax.vmap(one)(jax.tree.map(cut, batch))
        total = jax.tree.map(lambda x: x.sum(0), moments.total)
        if self._layout.axis is not None:
            total = jax.lax.psum(total, self._layout.axis)
        norm = lambda tree: jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
        flat = lambda name: getattr(moments, name).reshape(count, *getattr(moments, name).shape[2:])
        by_example = {name: flat(name) for name in ("squares", "of_rates", "of_examples", "sketches")}
        return by_example | {"total": {name: jnp.broadcast_to(norm(x), (count,)) for name, x in total.items()}}
