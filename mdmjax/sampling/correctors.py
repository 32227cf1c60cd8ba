"""Informed correction: after each call of any planner, the least likely tokens are drawn anew (arXiv 2407.21243)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import KEEP, REMASK, UNMASK, Planner, Turn
from mdmjax.sampling import scores
from mdmjax.sampling.confidence import by_difference, rank_with_ties


class _State(NamedTuple):
    inner: Any
    key: Key[Array, ""]
    free: Bool[Array, "L"]  # what was not given
    masked: Bool[Array, "L"]
    owed: Int[Array, ""]  # sweeps until the planner's next call
    done: Int[Array, ""]  # sweeps so far
    step: Int[Array, ""]  # of the planner


@dataclasses.dataclass(frozen=True)
class InformedCorrector:
    """`planner`, and after each of its calls `sweeps` calls that draw `count` of the written tokens anew, all at once.

    Those with the lowest log p(x_i | x_-i) - max_{v != x_i} log p(v | x_-i) - `temperature` G, G standard Gumbel noise:
    by Plackett-Luce with weights exp(-score / temperature), so that temperature 0 takes the lowest (leftmost of those
    within `tie` of their neighbour) and inf takes any, which is Gibbs sampling where count = 1. Positions that were
    given never change. All written ones where they are fewer than `count`.

    The denoiser must know p(x_i | x_-i) where a token stands: a network that does not see its own position there
    ("hollow"), or `MaskOne` about any other, which is exact, and costs a forward pass for each position asked. A sweep
    is told the time of the next call, after the last one t = 0. ValueError for sweeps or count < 1, a negative
    temperature and a tie outside [0, 1).
    """

    planner: Planner
    count: int = 1
    sweeps: int = 1
    temperature: float = 1.0
    tie: float = 2.0**-14

    def __post_init__(self):
        for name in ("count", "sweeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"InformedCorrector({name}={getattr(self, name)}): {name} must be >= 1")
        if not self.temperature >= 0:
            raise ValueError(f"InformedCorrector(temperature={self.temperature}): temperature must be >= 0")
        if not 0 <= self.tie < 1:
            raise ValueError(f"InformedCorrector(tie={self.tie}): tie must be in [0, 1)")

    @property
    def steps(self) -> int | None:
        return getattr(self.planner, "steps", None)

    def score(self, logits: Float[Array, "V"], token: Int[Array, ""]) -> tuple[Any, Float[Array, ""]]:
        """What the planner is told, and what a sweep is."""
        own = getattr(self.planner, "score", None) or scores.probability
        return own(logits, token), scores.advantage(logits, token)

    @property
    def judge(self):
        """The planner's, if it has one: of what the planner is told; a sweep asks the denoiser alone."""
        own = getattr(self.planner, "judge", None)
        return None if own is None else lambda tokens: (own(tokens), None)

    def calls(self, length: int) -> int:
        return self.planner.calls(length) * (1 + self.sweeps)

    def width(self, length: int) -> int:
        return length

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _State:
        none = jnp.zeros((), jnp.int32)
        plan, own = jax.random.split(key)
        return _State(self.planner.init(plan, open), own, open, open, none, none, none)

    def turn(self, state: _State, open: Bool[Array, "L"]) -> Turn:
        next, sweeping = self.planner.turn(state.inner, open), _sweeping(state)
        after = Turn(state.step, jnp.where(next.candidates.any(), next.t, 0), state.free & ~open)
        return jax.tree.map(lambda sweep, other: jnp.where(sweeping, sweep, other), after, next)

    def choose(self, state: _State, turn: Turn, confidence: Any) -> tuple[Int[Array, "L"], _State]:
        told, advantage = confidence
        sweeping, candidates = _sweeping(state), turn.candidates
        planned, inner = self.planner.choose(state.inner, turn, told)
        inner = jax.tree.map(lambda old, new: jnp.where(sweeping, old, new), state.inner, inner)
        again = candidates & (self._rank(state, advantage, candidates) < self.count)
        operations = jnp.where(sweeping, jnp.where(again, UNMASK, KEEP), planned)
        masked = jnp.where(candidates & (operations == UNMASK), False, state.masked | (operations == REMASK))
        return operations, _State(
            inner,
            state.key,
            state.free,
            masked & state.free,
            jnp.where(sweeping, state.owed - 1, self.sweeps),
            state.done + sweeping,
            jnp.where(sweeping, state.step, turn.step),
        )

    def _rank(self, state: _State, advantage: Float[Array, "L"], written: Bool[Array, "L"]) -> Int[Array, "L"]:
        """The order in which written tokens are drawn anew."""
        doubt = -jnp.nan_to_num(advantage)  # a certain token has infinite advantage
        if self.temperature == 0:
            return rank_with_ties(doubt, written, by_difference(self.tie))
        noise = jax.random.gumbel(jax.random.fold_in(state.key, state.done), doubt.shape, doubt.dtype, mode="high")
        return rank_with_ties(noise + doubt / self.temperature, written, by_difference(0))


def _sweeping(state: _State) -> Bool[Array, ""]:
    """Whether the next call is a sweep's: one is owed, and there is something to draw anew."""
    return (state.owed > 0) & (state.free & ~state.masked).any()
