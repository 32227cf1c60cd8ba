"""Planners that choose by what the model says of each position: the surest first, by counts or by a threshold.

Heuristics all: their laws are not the model's. With temperature 0 the tokens are the most probable ones, as in the
papers; else the probability is that of the drawn token.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import KEEP, REMASK, UNMASK, Schedule, Turn
from mdmjax.process.schedules import Linear
from mdmjax.sampling import scores
from mdmjax.sampling.planners import OnCounts


def by_ratio(tie: float) -> Callable:
    """Probabilities are equal where their ratio is at least 1 - tie."""
    return lambda score: (1 - tie) * score


def by_difference(tie: float) -> Callable:
    """Scores are equal where they differ by at most `tie`."""
    return lambda score: score - tie


def rank_with_ties(score: Float[Array, "L"], open: Bool[Array, "L"], least: Callable) -> Int[Array, "L"]:
    """Rank of each open position by descending score, where close neighbours in that order are equal.

    A neighbour is close where its score is at least `least(score)`: `by_ratio`, `by_difference`. Of equal ones the
    leftmost comes first; NaN equals nothing and comes last.
    """
    order = jnp.lexsort((-score, ~open))
    ordered = score[order]
    apart = ~(ordered[1:] >= least(ordered[:-1]))
    group = jnp.pad(jnp.cumsum(apart), (1, 0))
    order = order[jnp.lexsort((order, group, ~open[order]))]
    return jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))


def _check_tie(planner) -> None:
    if not 0 <= planner.tie < 1:
        raise ValueError(f"{type(planner).__name__}(tie={planner.tie}): tie must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class Confidence(OnCounts):
    """Reveals K_{k+1} - K_k positions at step k (`visible_counts`), those of which the model is surest.

    MaskGIT, arXiv 2202.04200, without its annealed noise: without a `score`, by the probability of the drawn token, the
    model's own (`TokenDraw`). Other scores are `scores.margin` (top-k probability margin, arXiv 2502.06768) and
    `scores.negative_entropy`. A heuristic: its law is not the model's. Ties go to the left, and neighbours in the order
    whose ratio is at least 1 - `tie` are ties (of another score: whose difference is at most `tie`): to a network with
    relative positions all masks of an empty canvas are alike, and rounding, which changes with the batch size, must not
    choose among them. So `tie` must exceed the rounding of the denoiser's probabilities: 2^-14 does for matmuls in
    float32, about 2^-5 for bfloat16. Neighbours chain: two ends of a row of ties may differ by more. Raises ValueError
    for a tie outside [0, 1) and a rounding that is not in ROUNDINGS.
    """

    schedule: Schedule
    steps: int
    tie: float = 2.0**-14
    rounding: str = "nearest"
    score: Callable | None = None

    def __post_init__(self):
        super().__post_init__()
        _check_tie(self)

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Int[Array, "T1"]:
        return self.counts(key, open)

    def turn(self, state: Int[Array, "T1"], open: Bool[Array, "L"]) -> Turn:
        revealed = state[-1] - open.sum()
        step = jnp.clip(jnp.searchsorted(state, revealed, side="right") - 1, 0, self.steps - 1)
        return Turn(step, (self.steps - step) / self.steps, open)

    def choose(self, state: Int[Array, "T1"], turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], Any]:
        wanted = state[turn.step + 1] - state[turn.step]
        least = by_ratio(self.tie) if self.score is None else by_difference(self.tie)
        chosen = rank_with_ties(confidence, turn.candidates, least) < wanted
        return jnp.where(chosen, UNMASK, KEEP), state


class _Progress(NamedTuple):
    step: Int[Array, ""]  # calls so far
    total: Int[Array, ""]  # masks of the start


class _Eager:
    """As many positions a call as the model is sure of, at least one.

    The times given to a time-conditioned denoiser are those at which the expected share of masks is the actual one.
    """

    def calls(self, length: int) -> int:
        return length

    def width(self, length: int) -> int:
        return length

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _Progress:
        return _Progress(jnp.zeros((), jnp.int32), open.sum())

    def turn(self, state: _Progress, open: Bool[Array, "L"]) -> Turn:
        hidden = open.sum() / jnp.maximum(state.total, 1)
        return Turn(state.step, self.schedule.inverse(1 - hidden, hidden), open)

    def choose(self, state: _Progress, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], _Progress]:
        rank = rank_with_ties(confidence, turn.candidates, by_ratio(self.tie))
        sure = self.sure(confidence, turn.candidates, rank) | (rank == 0)
        return jnp.where(turn.candidates & sure, UNMASK, KEEP), state._replace(step=state.step + 1)


@dataclasses.dataclass(frozen=True)
class Threshold(_Eager):
    """Reveals every position whose drawn token has at least the probability `threshold`, and else the surest one.

    The parallel decoding of Fast-dLLM, arXiv 2505.22618; the surest has the ties of `Confidence`. With threshold 1 it
    goes one by one, but for tokens that are certain; with 0 all at once. ValueError for a threshold outside [0, 1] and
    a tie outside [0, 1).
    """

    threshold: float = 0.9
    schedule: Schedule = Linear()
    tie: float = 2.0**-14

    def __post_init__(self):
        _check_tie(self)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"Threshold(threshold={self.threshold}): threshold must be in [0, 1]")

    def sure(self, confidence, candidates, rank) -> Bool[Array, "L"]:
        return confidence >= self.threshold


@dataclasses.dataclass(frozen=True)
class Factor(_Eager):
    """Reveals the n surest positions, n being the largest with (n + 1) (1 - c_n) < `factor`, and at least one.

    c_n is the n-th highest probability of a drawn token: the fewer are revealed together, the less sure each must be
    (arXiv 2505.22618). ValueError for a factor below 0, and a tie outside [0, 1).
    """

    factor: float = 1.0
    schedule: Schedule = Linear()
    tie: float = 2.0**-14

    def __post_init__(self):
        _check_tie(self)
        if not self.factor >= 0:
            raise ValueError(f"Factor(factor={self.factor}): factor must be >= 0")

    def sure(self, confidence, candidates, rank) -> Bool[Array, "L"]:
        enough = candidates & ((rank + 2) * (1 - confidence) < self.factor)
        return rank <= jnp.where(enough, rank, -1).max()


class _Path(NamedTuple):
    counts: Int[Array, "T1"]
    free: Bool[Array, "L"]  # what was not given
    masked: Bool[Array, "L"]
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class PathPlanning(OnCounts):
    """P2 (arXiv 2502.03540): keeps the K_{k+1} best positions at step k, written or not, and masks all the others.

    The score of a mask is log p of its drawn token, that of a token `eta` log p of it, at all positions that were not
    given. The self-planner takes both from the logits of the one call. With a `judge`, an external or trained planner,
    judge(tokens [B, L]) -> [B, L] says the second, of the canvas with all drawn tokens on it (the log p of an encoder
    such as BERT for each token, or the log of `anyprocess.quality` of a policy's controls: a log-probability, as the
    score of a mask is), and is one more forward pass at each call.

    So eta = 0 never takes back a token and is `Confidence`; the larger it is the more are taken back, and for eta = inf
    each step keeps what it has just drawn, and of the older tokens only what still fits. K is that of `visible_counts`.
    Ties as in `Confidence`, by the ratio of probabilities. Steps that keep no token cost no call, and for eta = 0 those
    that add none; at most T calls, whatever the length. ValueError for eta below 0, a tie outside [0, 1) and a rounding
    that is not in ROUNDINGS.
    """

    schedule: Schedule
    steps: int
    eta: float = 1.0
    tie: float = 2.0**-14
    rounding: str = "nearest"
    judge: Callable[[Int[Array, "B L"]], Float[Array, "B L"]] | None = None

    score = staticmethod(scores.log_probability)

    def __post_init__(self):
        super().__post_init__()
        _check_tie(self)
        if not self.eta >= 0:
            raise ValueError(f"PathPlanning(eta={self.eta}): eta must be >= 0 (0 never takes back a token)")

    def calls(self, length: int) -> int:
        return self.steps

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _Path:
        counts = self.counts(key, open)
        return _Path(counts, open, open, (counts[1:] == 0).sum())

    def turn(self, state: _Path, open: Bool[Array, "L"]) -> Turn:
        return Turn(state.step, (self.steps - state.step) / self.steps, state.free & open.any())

    def choose(self, state: _Path, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], _Path]:
        masked, written = state.masked, state.free & ~state.masked
        rank = lambda score, of: rank_with_ties(score, of, by_difference(-math.log1p(-self.tie)))
        if self.eta == 0:
            ranks = jnp.where(written, 0, written.sum() + rank(confidence, masked))
        elif self.eta == math.inf:
            ranks = jnp.where(masked, rank(confidence, masked), masked.sum() + rank(confidence, written))
        else:
            ranks = rank(jnp.where(written, self.eta * confidence, confidence), state.free)
        kept = state.free & (ranks < state.counts[state.step + 1])
        operations = jnp.where(masked & kept, UNMASK, jnp.where(written & ~kept, REMASK, KEEP))
        # What is written stays for eta 0, so that steps at which nothing is added change nothing.
        step = (state.counts[1:] <= kept.sum()).sum() if self.eta == 0 else state.step + 1
        return operations, state._replace(masked=state.free & ~kept, step=step)
