"""Planners: which positions are revealed at each denoiser call.

Whether a position is revealed never depends on a coin tossed at each step. Each position draws once the moment at which
it is revealed, its clock U ~ Uniform(0, 1): it is visible from the time at which alpha(t) reaches U. That is the same
law as independent hazards 1 - (1 - alpha(t_{k+1})) / (1 - alpha(t_k)) at every step, and nothing is lost to rounding
however many steps there are, because the clock is compared with alpha near t = 1 and with 1 - alpha near t = 0.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Real

from mdmjax.base import KEEP, UNMASK, Schedule, Turn
from mdmjax.process.multivariate import check_log_weights
from mdmjax.process.schedules import Linear


class Clocks(NamedTuple):
    """U ~ Uniform(0, 1) by its distance from the nearer end, which keeps 24 significant bits: U = near, or 1 - near."""

    near: Float[Array, "L"]  # in [0, 1/2]
    early: Bool[Array, "L"]  # True: U = near, revealed near t = 1. False: 1 - U = near, revealed near t = 0


def draw_clocks(key: Key[Array, ""], length: int) -> Clocks:
    """One clock per position, resolved to 2^-65 near both ends. Consumes the key."""
    side, high, low = jax.random.bits(key, (3, length), jnp.uint32)
    dtype = jnp.result_type(float)
    near = (high.astype(dtype) + low.astype(dtype) * 2.0**-32) * 2.0**-33
    return Clocks(near, side % 2 == 0)


def _rank(score: Real[Array, "L"], open: Bool[Array, "L"]) -> Int[Array, "L"]:
    """Rank of each open position by ascending score: of equal ones the leftmost first, NaN last, closed ones after."""
    return jnp.argsort(jnp.lexsort((score, ~open)))


def _random_rank(clocks: Clocks, open: Bool[Array, "L"]) -> Int[Array, "L"]:
    """Rank of each open position in the order of the clocks: a uniform permutation."""
    return _rank(jnp.where(clocks.early, clocks.near, 1 / clocks.near), open)  # monotone in U, and no digit is lost


class Plan(NamedTuple):
    """State of a planner that knows everything beforehand: when each position is revealed."""

    step: Int[Array, "L"]
    t: Float[Array, "L"]  # time given to the denoiser at that step


class _Planned:
    """Turns of a planner whose state is a `Plan`: the next step is the earliest of any open position."""

    def turn(self, state: Plan, open: Bool[Array, "L"]) -> Turn:
        first = jnp.argmin(jnp.where(open, state.step, jnp.iinfo(state.step.dtype).max))
        return Turn(state.step[first], state.t[first], open & (state.step == state.step[first]))

    def choose(self, state: Plan, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], Plan]:
        return jnp.where(turn.candidates, UNMASK, KEEP), state


class _OneByOne:
    """As many calls as there are masks, one position each."""

    def calls(self, length: int) -> int:
        return length

    def width(self, length: int) -> int:
        return 1


class OnSteps:
    """At most T calls, any number of positions each. A step at which a row has nothing to reveal costs it no call."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"{type(self).__name__}(steps={self.steps}): steps must be >= 1")

    def calls(self, length: int) -> int:
        return min(self.steps, length)

    def width(self, length: int) -> int:
        return length


@dataclasses.dataclass(frozen=True)
class Ancestral(OnSteps, _Planned):
    """The reverse chain of T steps: step k reveals each mask with probability (A_{k+1} - A_k) / (1 - A_k).

    A_k = alpha(t_k), t_k = 1 - k/T. Exact for the T-step chain (MDLM, arXiv 2406.07524; MD4, arXiv 2406.04329,
    algorithm 2); its law tends to that of `FirstHitting` as T grows, with an error O(1/T).
    """

    schedule: Schedule
    steps: int

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Plan:
        clocks = draw_clocks(key, open.shape[0])
        step = reveal_steps(self.schedule, self.steps, clocks)
        return Plan(step, (self.steps - step) / self.steps)


def reveal_steps(schedule: Schedule, steps: int, clocks: Clocks) -> Int[Array, "L"]:
    """The k in 0..steps-1 with A_k < U <= A_{k+1}, by alpha where U < 1/2 and by 1 - alpha where not.

    The schedule is one for all positions, or has a trailing axis L, one for each (`process.PositionPowers`).
    """
    inner = jnp.asarray(np.arange(steps - 1, 0, -1) / steps, clocks.near.dtype)  # t_1 .. t_{T-1}
    visible, hidden = schedule.alpha(inner), schedule.one_minus_alpha(inner)  # [T-1], or [T-1, L]
    place = jnp.searchsorted if visible.ndim == 1 else jax.vmap(jnp.searchsorted, (1, 0))
    by_visible, by_hidden = place(visible, clocks.near), place(-hidden, -clocks.near)
    return jnp.where(clocks.early, by_visible, by_hidden)


@dataclasses.dataclass(frozen=True)
class FirstHitting(_OneByOne, _Planned):
    """One position a call, in the order of the clocks and at their times: exact for the continuous-time process.

    The first-hitting sampler of Zheng et al., arXiv 2409.02908. A row needs as many calls as it has masks. The
    schedule sets only the times given to a time-conditioned denoiser, inverse(U): the order is uniform whatever it is.
    """

    schedule: Schedule = Linear()

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Plan:
        clocks = draw_clocks(key, open.shape[0])
        far = 1 - clocks.near
        visible, hidden = jnp.where(clocks.early, clocks.near, far), jnp.where(clocks.early, far, clocks.near)
        return Plan(_random_rank(clocks, open), self.schedule.inverse(visible, hidden))


@dataclasses.dataclass(frozen=True)
class LeftToRight(_OneByOne, _Planned):
    """One position a call, from the left: autoregressive sampling where the denoiser at i reads only tokens before i.

    The schedule sets only the times given to a time-conditioned denoiser: those at which the expected share of masks is
    the actual one.
    """

    schedule: Schedule = Linear()

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Plan:
        rank = jnp.cumsum(open) - 1
        visible = jnp.maximum(rank, 0) / jnp.maximum(open.sum(), 1)
        return Plan(rank, self.schedule.inverse(visible, 1 - visible))


@dataclasses.dataclass(frozen=True)
class DrawnOrder(_OneByOne, _Planned):
    """One position a call, in an order drawn from `PlackettLuce(log_weights)`: exact for a `PositionPowers` process.

    Each position is revealed at its own time t_l: with m = 1 - alpha of the base `schedule`, m(t_l) = u_l^(1 / w_l).
    For equal weights it is `FirstHitting`, the times included. What a prompt leaves open follows the law of its own
    weights. `log_weights` [L] are a tuple or an array; with an array the planner cannot be hashed. ValueError where
    rows have another length, and for weights of zero or infinity.
    """

    log_weights: tuple[float, ...] | Float[Array, "L"] | Float[np.ndarray, "L"]
    schedule: Schedule = Linear()

    def __post_init__(self):
        check_log_weights(self.log_weights)

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Plan:
        log_weights = jnp.asarray(self.log_weights, jnp.result_type(float))
        if log_weights.shape != open.shape:
            raise ValueError(
                f"log_weights {list(log_weights.shape)}: rows have {open.shape[0]} positions, one weight each"
            )
        score = log_weights + jax.random.gumbel(key, open.shape, log_weights.dtype, mode="high")  # -log(-log m)
        hidden = jnp.maximum(jnp.exp(-jnp.exp(-score)), jnp.finfo(score.dtype).tiny)
        return Plan(_rank(-score, open), self.schedule.inverse(-jnp.expm1(-jnp.exp(-score)), hidden))


def visible_counts(
    schedule: Schedule, steps: int, total: int | Int[Array, ""], rounding: Callable = jnp.round
) -> Int[Array, "T1"]:
    """K_k = round(n A_k) for k = 0..T, halves to even, with K_0 = 0 and K_T = n: step k reveals K_{k+1} - K_k of n.

    A_k = alpha(1 - k/T): the counts of LLaDA (arXiv 2502.09992) for any schedule. A step may reveal none. `rounding` is
    any non-decreasing function of all inner counts to whole numbers (ROUNDINGS). ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be >= 1")
    inner = jnp.asarray(np.arange(steps - 1, 0, -1) / steps, jnp.result_type(float))
    counts = rounding(total * schedule.alpha(inner)).astype(jnp.int32)
    return jnp.concatenate([jnp.zeros(1, jnp.int32), counts, jnp.full(1, total, jnp.int32)])


def _split(counts: Float[Array, "T"]) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """(whole, part) of the counts n A_k, where one that float arithmetic left beside a whole number is that number.

    The error is that of n: 1 - t has the absolute error of t, so n A_k has more than a part of its own size.
    """
    slack = 2 * jnp.finfo(counts.dtype).eps * counts.max(initial=0)
    nearest = jnp.round(counts)
    counts = jnp.where(jnp.abs(counts - nearest) <= slack, nearest, counts)
    whole = jnp.floor(counts)
    return whole, counts - whole


def _floor(counts: Float[Array, "T"]) -> Float[Array, "T"]:
    return _split(counts)[0]


def _stochastic(key: Key[Array, ""]) -> Callable:
    """floor(x + U). One U for all steps makes the mean count exact and keeps counts from falling. Consumes the key."""
    uniform = jax.random.uniform(key)

    def rounding(counts: Float[Array, "T"]) -> Float[Array, "T"]:
        whole, part = _split(counts)
        return whole + (uniform >= 1 - part)  # floor(whole + U) would round the sum

    return rounding


# How counts become whole numbers, by a key of the row.
ROUNDINGS: dict[str, Callable] = {
    "nearest": lambda key: jnp.round,
    "floor": lambda key: _floor,
    "stochastic": _stochastic,
}


class OnCounts(OnSteps):
    """With counts K_0..K_T of a row. ValueError for a `rounding` that is not in ROUNDINGS."""

    def __post_init__(self):
        super().__post_init__()
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding={self.rounding!r}: choose one of {', '.join(ROUNDINGS)}")

    def counts(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Int[Array, "T1"]:
        return visible_counts(self.schedule, self.steps, open.sum(), ROUNDINGS[self.rounding](key))


@dataclasses.dataclass(frozen=True)
class RandomCount(OnCounts, _Planned):
    """Reveals K_{k+1} - K_k positions at step k, chosen at random (`visible_counts`, by a rounding of ROUNDINGS)."""

    schedule: Schedule
    steps: int
    rounding: str = "nearest"

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Plan:
        rounding = key  # which only "stochastic" consumes
        if self.rounding == "stochastic":
            key, rounding = jax.random.split(key)
        counts = self.counts(rounding, open)
        rank = _random_rank(draw_clocks(key, open.shape[0]), open)
        step = jnp.searchsorted(counts[1:], rank, side="right")
        return Plan(step, (self.steps - step) / self.steps)
