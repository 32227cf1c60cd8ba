"""What a model is trained on that is to learn a circuit's steps: a law of masks, for any objective that takes one."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.expressivity.circuits import Circuit, Stages, written_once
from mdmjax.process.draws import Law, Rates
from mdmjax.process.spreads import systematic


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class CircuitSteps(Law):
    """Hides what a circuit writes at the steps s..T, and scores what it writes at step s, with s ~ U{1..T}.

    Tokens are final canvases (`evaluate`). So the model sees what the circuit has before step s, and the time of
    `decoding.Dependency` there, t = 1 - (s - 1)/T. With the weight T for each scored cell the mean is

        sum_cells -log p(cell | the canvas before its step),

    -log p of the canvas where the cells of a step are drawn together, in nats: no bound is left. Of a circuit whose
    steps are all 1 (`at_once`) it is the loss of a model that has one step. ValueError for a circuit without steps, and
    for `Stages`.
    """

    circuit: Circuit | Stages
    spread: Callable = systematic

    def __post_init__(self):
        if written_once(self.circuit).steps < 1:
            raise ValueError("a circuit of N=1 writes no cell: there is nothing to learn")

    def rates(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Rates:
        """The step s of each row."""
        steps, spread = self.circuit.steps, self.spread(key, ids, batch)
        step = 1 + spread.integers(jnp.full_like(ids, steps))
        t = (steps + 1 - step) / jnp.asarray(steps, jnp.result_type(float))
        return Rates(step, jnp.full_like(t, steps), t, spread.groups)

    def hide(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], rates: Rates) -> Draws:
        """The cells of step s and later."""
        mine, step = jnp.asarray(self.circuit.step)[None], rates.value[:, None]
        weights = jnp.where((mine == step) & eligible, rates.weights[:, None], 0)
        return Draws(ids, rates.t, (mine >= step) & eligible, weights, rates.groups, "circuit_steps")


def at_once(circuit: Circuit | Stages) -> Circuit:
    """The same cells, all of them written at step 1: what a model does that has a single step.

    ValueError for `Stages`.
    """
    circuit = written_once(circuit)
    return dataclasses.replace(circuit, step=(circuit.step > 0).astype(circuit.step.dtype))


def share_right(
    circuit: Circuit, tokens: Int[Array, "B L"], final: Int[Array, "B L"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(share of rows with every cell of the readout right, share of written cells that are right)."""
    same = tokens == final
    return same[:, circuit.readout].all(1).mean(), same[:, circuit.step > 0].mean()
