"""Many runs of one experiment as one program: what is said about seeds is measured on many of them."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from mdmjax.training.state import SPOILED, Step, TrainState


@dataclasses.dataclass(frozen=True)
class Seeds:
    """`step` of S runs at once: `(states, batch, *frozen) -> (states, metrics)`, each leaf with a leading axis S.

    Each run is what it would be alone, but for rounding. The metrics are means over the runs; the loss and the norm of
    the gradient of run s are `loss/s` and `grad_norm/s`. The runs are fitted at the same steps, where `step.refit`.
    """

    step: Step

    def __call__(self, state: TrainState, batch: dict[str, Array], *frozen: Any) -> tuple[TrainState, dict[str, Array]]:
        step = self.step
        if step.refit is not None:  # outside vmap, where a condition would do the work of both of its sides
            due = state.step[0] % step.refit_every == 0
            law = jax.lax.cond(due, jax.vmap(step.fitted), lambda state, *_: state.law, state, batch, *frozen)
            state, step = dataclasses.replace(state, law=law), dataclasses.replace(step, refit=None)
        state, metrics = jax.vmap(step)(state, batch, *frozen)
        spoiled = metrics.pop(SPOILED).min()
        means: dict[str, Any] = {name: value.mean(0) for name, value in metrics.items()} | {SPOILED: spoiled}
        each = {f"{name}/{s}": x for name in ("loss", "grad_norm") for s, x in enumerate(metrics[name])}
        return state, means | each
