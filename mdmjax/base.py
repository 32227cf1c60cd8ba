"""The nouns of the library. Everything else is functions over these.

Shapes in annotations: B batch, L length, V vocabulary without the mask, K selected positions, T steps. The mask is
token id V; where rows have different lengths PAD is token id V + 1. Time runs from data (t = 0) to all masks (t = 1).
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, Key


@runtime_checkable
class Schedule(Protocol):
    """alpha(t) = P(a token is visible at time t), decreasing from alpha(0) = 1 to alpha(1) = 0, elementwise.

    A multivariate schedule returns a trailing axis L (one schedule per position) or V (per token value).
    """

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*r"]:
        """P(visible at t), accurate in relative terms near t = 1 where it vanishes."""
        ...

    def one_minus_alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*r"]:
        """P(masked at t), accurate in relative terms near t = 0: never computed as 1 - alpha."""
        ...

    def weight(self, t: Float[Array, "*s"]) -> Float[Array, "*r"]:
        """-alpha'(t) / (1 - alpha(t)), the weight of the masked cross-entropy in the continuous-time bound."""
        ...

    def inverse(
        self, alpha: Float[Array, "*s"], one_minus_alpha: Float[Array, "*s"] | None = None
    ) -> Float[Array, "*r"]:
        """The t with alpha(t) = alpha. Pass `one_minus_alpha` too where alpha near 1 has lost its digits."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A model of the clean tokens given the visible ones: `denoiser(tokens, t, at=at) -> logits`.

    tokens [B, L] hold ids 0..V-1 where visible and V where masked; t [B] is read by time-conditioned models only.
    The logits are [B, L, V], or [B, K, V] at the positions `at` [B, K]: there is never a logit for the mask. A lookup
    table, a closure over Flax parameters and an imported model all look like this to the library.

    One that makes several forward passes of a network for one call may say so, for the reports: `passes(K)` is how many
    it makes where it is asked at K positions of each row.
    """

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        t: Float[Array, "B"] | None = None,
        *,
        at: Int[Array, "B K"] | None = None,
    ) -> Float[Array, "B K V"]: ...


@runtime_checkable
class SplitDenoiser(Denoiser, Protocol):
    """A denoiser that is features followed by a readout of each position by itself.

    `self(tokens, t, at=at) == self.readout(self.features(tokens, t)[at])`. Losses use the two halves to compute logits
    only where a token is scored.
    """

    def features(self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None) -> Float[Array, "B L D"]: ...

    def readout(self, features: Float[Array, "*n D"]) -> Float[Array, "*n V"]: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """Everything random in one estimate of a bound, made once and passed on; never drawn again from a seed.

    The estimate of example b is `weights[b] * sum_i masks[b, i] * CE_i`, in nats per example. Two models scored on the
    same Draws share all their noise; an enumerating audit replaces the Draws by every possible one.
    """

    ids: Int[Array, "B"]  # global index of the example that each row belongs to
    t: Float[Array, "B"]  # time given to the denoiser
    masks: Bool[Array, "B L"]  # True where the token is hidden and scored
    weights: Float[Array, "B"] | Float[Array, "B L"]  # factor of the summed cross-entropy, or of each
    groups: Int[Array, "B"]  # rows that are not independent share a group
    law: str = dataclasses.field(default="", metadata=dict(static=True))  # name of the law that made them


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Canvas:
    """A fixed buffer of tokens whose rows may grow and shrink. Beyond `lengths` the tokens are PAD (V + 1)."""

    tokens: Int[Array, "B N"]
    lengths: Int[Array, "B"]
    overflow: Bool[Array, "B"]  # sticky: True once a row wanted more than N tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """What a sampler did, a slice for each denoiser call: call c leads from tokens[c] to tokens[c + 1].

    There are as many slices as the planner may need calls; a row that finished earlier stands still in the rest.

    Where rows grow and shrink, `confidence`, `operations` and `inserted` are of the positions before the call, and
    `lengths` is there. What is inserted shows in `inserted` alone: a position has its own operation beside it, and
    INSERT says no more than KEEP. A row that wants more than L positions keeps the first L.
    """

    tokens: Int[Array, "T1 B L"]  # T1 = T + 1 states
    confidence: Float[Array, "T B L"]  # probability of the token written by this call, 0 where none was
    operations: Int[Array, "T B L"]  # KEEP, UNMASK, REMASK, INSERT or DELETE
    steps: Int[Array, "T B"]  # the planner's step that the call served, -1 where the row had finished
    times: Float[Array, "T B"]  # t given to the denoiser
    inserted: Int[Array, "T B L"] | None = None  # masks or tokens that appear behind each, also a deleted one
    lengths: Int[Array, "T1 B"] | None = None  # beyond them the tokens are PAD


KEEP, UNMASK, REMASK, INSERT, DELETE = range(5)


class Turn(NamedTuple):
    """A row's next denoiser call, as its planner wants it. A row without candidates has finished."""

    step: Int[Array, ""]  # step of the planner; steps at which nothing changes are passed over without a call
    t: Float[Array, ""]  # time given to the denoiser
    candidates: Bool[Array, "L"]  # the positions whose logits are needed, to write or to score a token there


@runtime_checkable
class Planner(Protocol):
    """Which positions change at each denoiser call: pure functions of one row, which `sampling.sample` maps over rows.

    A planner never draws token values. `State` is any pytree of the planner's own. One that is to be told something
    else than the probability of the drawn token has an attribute `score(logits [V], token) -> float`, or a tuple of
    them: the token is the drawn one at a mask, and what stands there at other candidates. One with an attribute
    `judge(tokens [B, L]) -> [B, L]` is told that of the tokens that stand there, from one more call.
    """

    def calls(self, length: int) -> int:
        """A bound on the denoiser calls of a row of that length. The engine stops there whatever the planner says."""
        ...

    def width(self, length: int) -> int:
        """A bound on the candidates of one turn."""
        ...

    def init(self, key: Key[Array, ""], open: Bool[Array, "L"]) -> Any:
        """The State of a row whose masked positions are `open`; what is random later comes from a key in it."""
        ...

    def turn(self, state: Any, open: Bool[Array, "L"]) -> Turn:
        """The next call of a row whose masked positions are now `open`."""
        ...

    def choose(self, state: Any, turn: Turn, confidence: Float[Array, "L"]) -> tuple[Int[Array, "L"], Any]:
        """(operation at each position, next State), given the probability of the token drawn at each candidate.

        UNMASK writes the drawn token at a candidate, also over another token; REMASK writes the mask at any position.
        Those that were given stay. With a `score` its values take the place of the probability.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its standard error. Every reported number that was measured on a sample is one."""

    mean: float
    standard_error: float
    unit: str
    draws: int  # number of independent units that the error bar rests on
    estimator: str

    def scaled(self, factor: float, unit: str) -> "Estimate":
        """The same estimate in another unit, e.g. `scaled(1 / log(2), "bits/char")`."""
        return dataclasses.replace(
            self, mean=self.mean * factor, standard_error=self.standard_error * abs(factor), unit=unit
        )

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """The normal confidence interval, 95 % by default."""
        return self.mean - z * self.standard_error, self.mean + z * self.standard_error

    def __str__(self) -> str:
        if not (math.isfinite(self.standard_error) and self.standard_error > 0):
            return f"{self.mean:.4g} {self.unit}"
        digits = min(9, max(0, 1 - math.floor(math.log10(self.standard_error))))
        return f"{self.mean:.{digits}f} ± {self.standard_error:.{digits}f} {self.unit}"
