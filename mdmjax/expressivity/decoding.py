"""Circuits on the sampling engine: planners that say which cells are written, and a predictor that knows what with.

    sample(Predictor(circuit), Dependency.of(circuit), canvas(circuit, words), vocab=circuit.vocab, ...)

Other planners (`FirstHitting`, `Ancestral`, `LeftToRight`, `Confidence` of `mdmjax.sampling`) run with the same
predictor, and may write a cell before its operands are known.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import KEEP, UNMASK, Trace, Turn
from mdmjax.expressivity.circuits import Circuit, Counts, Stages, written_once


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """The exact denoiser of a circuit: certain of op[left, right] where both are known, and uniform where not.

    So the argmax where an operand is missing is a guess, token 0. A `Stages` needs the time of its planner.
    """

    circuit: Circuit | Stages

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        op, vocab = jnp.asarray(self.circuit.op), self.circuit.vocab
        places = self.circuit.operands(t, len(tokens))
        if at is not None:
            places = tuple(jnp.take_along_axis(x, at, 1) for x in places)
        left, right = (jnp.take_along_axis(tokens, x, 1) for x in places)
        known = (left < vocab) & (right < vocab)
        result = jnp.where(known, op[jnp.minimum(left, vocab - 1), jnp.minimum(right, vocab - 1)], -1)[..., None]
        return jnp.where((result < 0) | (result == jnp.arange(vocab)[None, None]), 0.0, -jnp.inf)


class _AtStep(NamedTuple):
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Dependency:
    """Writes every masked cell whose two operands are known, as soon as they are: `steps` calls, nothing is rewritten.

    It sees which cells are masked and not what stands in the others. `left`, `right` [L] are the operands' positions.
    ValueError for steps < 0.
    """

    left: Int[np.ndarray, "L"]
    right: Int[np.ndarray, "L"]
    steps: int

    def __post_init__(self):
        _check_steps(self.steps)

    @classmethod
    def of(cls, circuit: Circuit | Stages) -> "Dependency":
        """The planner of a circuit. ValueError for `Stages`."""
        circuit = written_once(circuit)
        return cls(circuit.left, circuit.right, circuit.steps)

    def calls(self, length: int) -> int:
        return self.steps

    def width(self, length: int) -> int:
        return length

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _AtStep:
        return _AtStep(jnp.int32(0))

    def turn(self, state: _AtStep, open: Bool[Array, "L"]) -> Turn:
        ready = open & ~open[jnp.asarray(self.left)] & ~open[jnp.asarray(self.right)]
        return Turn(state.step, _time(state.step, self.steps), ready)

    def choose(self, state: _AtStep, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], _AtStep]:
        return jnp.where(turn.candidates, UNMASK, KEEP), _AtStep(state.step + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class AtSteps:
    """Writes the cells `selected[s]` at step s = 0..T-1, also over tokens that stand there (resampling).

    For computations in place, and as the oracle of a circuit's levels; `everywhere` for the planner that selects all.
    """

    selected: Bool[np.ndarray, "T L"]

    @classmethod
    def of(cls, circuit: Circuit | Stages) -> "AtSteps":
        """The planner that writes each cell at its own step."""
        return cls(circuit.selected())

    @classmethod
    def everywhere(cls, steps: int, given: Bool[np.ndarray, "L"]) -> "AtSteps":
        """All cells but the given ones at each of `steps` steps."""
        return cls(np.tile(~given, (steps, 1)))

    def calls(self, length: int) -> int:
        return len(self.selected)

    def width(self, length: int) -> int:
        return int(self.selected.sum(1).max(initial=1))

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _AtStep:
        return _AtStep(jnp.int32(0))

    def turn(self, state: _AtStep, open: Bool[Array, "L"]) -> Turn:
        steps = len(self.selected)
        if steps == 0:
            return Turn(state.step, jnp.zeros(()), jnp.zeros_like(open))
        now = jnp.asarray(self.selected)[jnp.minimum(state.step, steps - 1)] & (state.step < steps)
        return Turn(state.step, _time(state.step, steps), now)

    def choose(self, state: _AtStep, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], _AtStep]:
        return jnp.where(turn.candidates, UNMASK, KEEP), _AtStep(state.step + 1)


@dataclasses.dataclass(frozen=True)
class Headed:
    """The planner that is a part of the network: a cell is selected where the network's score of it is above 0.

    The score is the mean of the logits, which their softmax does not see (`with_head`). Masked cells are asked until
    none is left; with `resample` all that are not given, at each of `steps` calls. ValueError for steps < 0.
    """

    steps: int
    resample: bool = False

    def __post_init__(self):
        _check_steps(self.steps)

    def score(self, logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
        """The planner's score of a cell."""
        return logits.mean()

    def calls(self, length: int) -> int:
        return self.steps

    def width(self, length: int) -> int:
        return length

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> tuple[Int[Array, ""], Bool[Array, "L"]]:
        return jnp.int32(0), open

    def turn(self, state: tuple, open: Bool[Array, "L"]) -> Turn:
        step, free = state
        asked = free & (step < self.steps) if self.resample else open
        return Turn(step, _time(step, self.steps), asked)

    def choose(self, state: tuple, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], tuple]:
        return jnp.where(turn.candidates & (confidence > 0), UNMASK, KEEP), (state[0] + 1, state[1])


def with_head(logits: Float[Array, "*n V"], score: Float[Array, "*n"]) -> Float[Array, "*n V"]:
    """The same law of tokens with the planner's score as the mean of its logits: what `Headed` reads."""
    return logits - logits.mean(-1, keepdims=True) + score[..., None]


def _check_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"steps={steps}: must be >= 0")


def _time(step: Int[Array, ""], steps: int) -> Float[Array, ""]:
    """t = 1 - s/T, which the denoiser is told."""
    return (steps - step) / jnp.asarray(max(steps, 1), jnp.result_type(float))


def trace_counts(trace: Trace, vocab: int, row: int = 0) -> Counts:
    """What the engine did to a row: cells written at each call that served it, and how many were tokens before."""
    written = np.asarray(trace.operations[:, row]) == UNMASK
    over = written & (np.asarray(trace.tokens[:-1, row]) < vocab)
    served = np.asarray(trace.steps[:, row]) >= 0
    counts = tuple(int(n) for n in written.sum(1)[served])
    return Counts(int(served.sum()), int(written.any(0).sum()), counts, int(over.sum()))


def valid_orders(circuit: Circuit, trace: Trace) -> Bool[np.ndarray, "B"]:
    """Whether each row wrote every cell after both of its operands: at a later call, not the same one."""
    operations = np.asarray(trace.operations) == UNMASK
    first = np.where(operations.any(0), operations.argmax(0), -1)  # [B, L]; -1: given
    cells = circuit.step > 0
    operands = np.maximum(first[:, circuit.left], first[:, circuit.right])
    return (operands < first)[:, cells].all(1)
