"""Planners that take tokens back at random and keep P(visible) = alpha all the same: ReMDM and correctors.

A step from alpha to alpha' masks each token with probability sigma and reveals each mask with probability

    r = (alpha' - (1 - sigma) alpha) / (1 - alpha),   0 <= sigma <= min(1, (1 - alpha') / alpha),

so P(visible) goes from alpha to alpha' whatever sigma is (ReMDM, arXiv 2503.00307; its time runs as ours). sigma = 0 is
the ancestral sampler. A step from alpha to alpha itself changes no marginal: it is a corrector (arXiv 2402.03701,
2407.15595), and reveals with probability sigma alpha / (1 - alpha).

Steps that reveal nothing need no logits, so they cost no call, also where they take tokens back.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import KEEP, REMASK, UNMASK, Schedule, Turn
from mdmjax.sampling.planners import Clocks, draw_clocks


class _Rate:
    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"{type(self).__name__}(eta={self.eta}): eta must be in [0, 1] (0 takes nothing back)")


@dataclasses.dataclass(frozen=True)
class Cap(_Rate):
    """sigma = min(eta, sigma_max). ValueError for eta outside [0, 1]."""

    eta: float

    def __call__(self, most: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.minimum(self.eta, most)


@dataclasses.dataclass(frozen=True)
class Rescale(_Rate):
    """sigma = eta sigma_max. ValueError for eta outside [0, 1]."""

    eta: float

    def __call__(self, most: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.eta * most


@dataclasses.dataclass(frozen=True)
class Loop:
    """Where `ReMDM` takes tokens back: at a constant `alpha`, on the part [stop, start] of steps counted from 1 to 0.

    Before it alpha rises from 0 to that, after it from that to 1, both by the schedule in a time of its own speed.
    ValueError unless 0 < stop < start < 1 and 0 < alpha < 1.
    """

    start: float = 0.55
    stop: float = 0.05
    alpha: float = 0.9

    def __post_init__(self):
        if not 0 < self.stop < self.start < 1:
            raise ValueError(f"Loop(start={self.start}, stop={self.stop}): 0 < stop < start < 1 is needed")
        if not 0 < self.alpha < 1:
            raise ValueError(f"Loop(alpha={self.alpha}): alpha must be in (0, 1)")


class Path(NamedTuple):
    """The K steps of a planner: from t[k] to t[k + 1], taking tokens back where `back`, reported as `step`."""

    t: Float[Array, "K1"]
    back: Bool[np.ndarray, "K"]
    step: Int[np.ndarray, "K"]


class _State(NamedTuple):
    key: Key[Array, ""]
    free: Bool[Array, "L"]  # what was not given
    masked: Bool[Array, "L"]
    sure: Float[Array, "L"]  # probability of each token when it was written
    at: Int[Array, ""]  # the step of the path
    reveals: Bool[Array, "L"]  # the masks that it reveals; none: the row has finished
    takes: Bool[Array, "L"]  # the tokens that it takes back


class _Remasking:
    """A chain along a `Path`. The coins of a step are keyed by the row, the step and the position."""

    by_confidence = False

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"{type(self).__name__}(steps={self.steps}): steps must be >= 1")

    def calls(self, length: int) -> int:
        return len(self.path().back)

    def width(self, length: int) -> int:
        return length

    def rates(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(sigma, r) of each step: [K], or [K, L] where the schedule is one for each position."""
        path = self.path()
        visible, hidden = self.schedule.alpha(path.t), self.schedule.one_minus_alpha(path.t)
        back = path.back.reshape(-1, *[1] * (visible.ndim - 1))
        before, after = visible[:-1], visible[1:]
        most = jnp.minimum(1, hidden[1:] / jnp.where(before > 0, before, 1))
        sigma = jnp.where(back & (before > 0), self.sigma(most), 0)
        rise = jnp.where(after < 0.5, after - before, hidden[:-1] - hidden[1:])  # near both ends to all digits
        masked_back = jnp.zeros_like(sigma) if self.by_confidence else sigma
        reveal = (rise + masked_back * before) / jnp.where(hidden[:-1] > 0, hidden[:-1], 1)
        return sigma, jnp.where(hidden[1:] > 0, jnp.clip(reveal, 0, 1), 1)

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> _State:
        none = jnp.zeros_like(open)
        return self._onwards(_State(key, open, open, jnp.zeros(open.shape), jnp.int32(-1), none, none))

    def turn(self, state: _State, open: Bool[Array, "L"]) -> Turn:
        path = self.path()
        at = jnp.minimum(state.at, len(path.step) - 1)
        return Turn(jnp.asarray(path.step)[at], path.t[at], state.reveals)

    def choose(self, state: _State, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], _State]:
        shown = state.reveals
        sure = jnp.where(shown, confidence, state.sure)
        after = self._onwards(state._replace(masked=state.masked & ~shown, sure=sure))
        taken = after.masked & ~state.masked
        return jnp.where(shown & ~after.masked, UNMASK, jnp.where(taken, REMASK, KEEP)), after

    def _onwards(self, state: _State) -> _State:
        """The state at the next step that reveals something, after what the steps up to there take back."""
        steps, (sigma, reveal) = len(self.path().back), self.rates()

        def step(state: _State) -> _State:
            masked, at = state.masked | state.takes, state.at + 1
            row = lambda rates: rates[jnp.minimum(at, steps - 1)]
            coins = draw_clocks(jax.random.fold_in(state.key, at), masked.shape[0])  # one a step and position
            written, rate = state.free & ~masked, row(sigma)
            if self.by_confidence:
                rate = rate * jax.nn.softmax(-state.sure, where=written)
            reveals = masked & _happens(coins, row(reveal)) & (at < steps)
            return state._replace(masked=masked, at=at, reveals=reveals, takes=written & _happens(coins, rate))

        return jax.lax.while_loop(lambda s: (s.at < steps) & ~s.reveals.any(), step, step(state))


def _happens(coins: Clocks, p: Float[Array, "*s"]) -> Bool[Array, "L"]:
    """True with probability p, resolved as the clocks are."""
    return jnp.where(coins.early, coins.near < p, coins.near >= 1 - p) & (p > 0)


@dataclasses.dataclass(frozen=True)
class ReMDM(_Remasking):
    """The chain of T steps with remasking at the rates of `sigma`, a function of the largest rate: `Cap`, `Rescale`.

    P(visible) is alpha at every step, exactly. `by_confidence` shares the rate out: each token has softmax(-p) of it, p
    being the probability that it had when it was written, and masks are revealed as if there were no remasking, so
    that then fewer tokens are visible than alpha. With a `loop` tokens are taken back there alone. At most T calls,
    whatever the length. ValueError for steps < 1.
    """

    schedule: Schedule
    steps: int
    sigma: Callable = Cap(0.02)
    by_confidence: bool = False
    loop: Loop | None = None

    def path(self) -> Path:
        """The T steps."""
        grid, step = np.arange(self.steps, -1, -1) / self.steps, np.arange(self.steps)
        if self.loop is None:
            return Path(jnp.asarray(grid, jnp.result_type(float)), np.ones(self.steps, bool), step)
        start, stop, alpha = self.loop.start, self.loop.stop, jnp.asarray(self.loop.alpha, jnp.result_type(float))
        held = self.schedule.inverse(alpha, 1 - alpha)
        place = lambda share: jnp.asarray(np.clip(share, 0, 1), jnp.result_type(float))
        t = jnp.where(grid > start, held + (1 - held) * place((grid - start) / (1 - start)), held * place(grid / stop))
        return Path(t, (grid[:-1] <= start) & (grid[1:] >= stop), step)


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(_Remasking):
    """The ancestral chain of T steps, and after each but the last `sweeps` corrector steps, which stand still in time.

    A sweep masks tokens at the rate `sigma` (a function of the largest that is possible) and reveals masks, at once,
    so that P(visible) stays alpha: the forward-backward corrector (arXiv 2402.03701, 2407.15595), in discrete steps.
    At most T + (T - 1) sweeps calls, whatever the length. ValueError for steps < 1 and sweeps < 0.
    """

    schedule: Schedule
    steps: int
    sweeps: int = 1
    sigma: Callable = Cap(0.1)

    def __post_init__(self):
        super().__post_init__()
        if self.sweeps < 0:
            raise ValueError(f"PredictorCorrector(sweeps={self.sweeps}): sweeps must be >= 0")

    def path(self) -> Path:
        """A step of the chain, its sweeps, the next step, ..."""
        each = 1 + self.sweeps
        numbers = np.arange(self.steps * each - self.sweeps)
        done = np.append(0, numbers // each + 1)
        t = jnp.asarray((self.steps - done) / self.steps, jnp.result_type(float))
        return Path(t, numbers % each > 0, numbers // each)
