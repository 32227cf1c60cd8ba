"""Computations on a canvas of cells: which two cells each cell is made of, and when.

A canvas has the N input cells, then P output cells, then, where a computation needs one, a cell with a constant:

    [ w_0 .. w_{N-1} | c_0 .. c_{P-1} | constant ]

or before the output cells, of a chain of thought.
Output cell c becomes op[token(left c), token(right c)]. A `Circuit` writes each cell once, when both are known;
`Stages` writes cells again, so that it has to know the number of the step. Both run on integers here (`evaluate`), and
on the sampling engine (`mdmjax.expressivity.decoding`).
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.expressivity.automata import check_words


class Counts(NamedTuple):
    """What a run took. Of a batch: the same for every row."""

    steps: int  # T
    cells: int  # P
    written: tuple[int, ...]  # cells written at each step
    resamples: int  # writes over a token: first writes are sum(written) - resamples


class Run(NamedTuple):
    """The last canvas and what it took."""

    tokens: Int[np.ndarray, "B L"]
    counts: Counts


@dataclasses.dataclass(frozen=True, eq=False)
class Circuit:
    """A computation that writes each cell once: the cell at position p at step `step[p]` = 1..T, from older cells.

    `op` [V, V] is -1 for pairs of tokens that no cell is made of. Positions that are given have step 0 and are their
    own operands. The result is read at the positions `readout`, as op[token, token of readout_right] where that is not
    None. `ids` are numbers of the cells, for positional inputs.
    """

    op: Int[np.ndarray, "V V"]
    symbols: Int[np.ndarray, "S"]  # the token of each symbol
    inputs: int  # N
    left: Int[np.ndarray, "L"]
    right: Int[np.ndarray, "L"]
    step: Int[np.ndarray, "L"]
    ids: Int[np.ndarray, "L"]
    readout: Int[np.ndarray, "R"]
    readout_right: Int[np.ndarray, "R"] | None = None
    constant: int | None = None  # the token of a cell that is given too; None: there is no such cell
    constant_at: int = -1

    @property
    def vocab(self) -> int:
        """V, without the mask."""
        return len(self.op)

    @property
    def length(self) -> int:
        """L, cells of the canvas."""
        return len(self.left)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.step.max(initial=0))

    @property
    def cells(self) -> int:
        """P."""
        return self.length - self.inputs - (self.constant is not None)

    def operands(self, t: Float[Array, "B"] | None, batch: int) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
        """The positions (left, right) of each cell, whatever the step."""
        spread = lambda x: jnp.broadcast_to(jnp.asarray(x), (batch, self.length))
        return spread(self.left), spread(self.right)

    def selected(self) -> Bool[np.ndarray, "T L"]:
        """The cells written at each step."""
        return self.step[None] == np.arange(1, self.steps + 1)[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Stages:
    """A computation in place: at step s the cells `writes[s]` become op[left[s], right[s]], all reads before writes."""

    op: Int[np.ndarray, "V V"]
    symbols: Int[np.ndarray, "S"]
    inputs: int
    left: Int[np.ndarray, "T L"]
    right: Int[np.ndarray, "T L"]
    writes: Bool[np.ndarray, "T L"]
    readout: Int[np.ndarray, "R"]
    readout_right: None = None
    constant: int | None = None
    constant_at: int = -1

    @property
    def vocab(self) -> int:
        """V, without the mask."""
        return len(self.op)

    @property
    def length(self) -> int:
        """L, cells of the canvas."""
        return self.left.shape[1]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.left)

    @property
    def cells(self) -> int:
        """P."""
        return self.length - self.inputs - (self.constant is not None)

    def operands(self, t: Float[Array, "B"] | None, batch: int) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
        """Those of step s = T (1 - t). ValueError without a time: tokens do not tell the step."""
        if t is None:
            raise ValueError("t=None: in place the operands depend on the step, so pass its time t = 1 - s/T")
        step = step_number(t, self.steps)
        return jnp.asarray(self.left)[step], jnp.asarray(self.right)[step]

    def selected(self) -> Bool[np.ndarray, "T L"]:
        """The cells written at each step."""
        return self.writes


def written_once(circuit: Circuit | Stages) -> Circuit:
    """The circuit itself. ValueError for `Stages`, of which what writes each cell once makes nothing."""
    if isinstance(circuit, Stages):
        raise ValueError("a `Stages` writes in place: use `AtSteps`, or a `Circuit`")
    return circuit


def step_number(t: Float[Array, "B"], steps: int) -> Int[Array, "B"]:
    """s of t = 1 - s/T."""
    return steps - jnp.round(t * steps).astype(jnp.int32)


def canvas(circuit: Circuit | Stages, words: Int[np.ndarray, "B N"]) -> Int[np.ndarray, "B L"]:
    """The canvas before the first step: tokens of the words' symbols, masks V, the constant.

    Words are of symbols 0..S-1, for every circuit. ValueError for other symbols and words of another length than N.
    """
    check_words(words, len(circuit.symbols))
    if words.shape[1] != circuit.inputs:
        raise ValueError(f"words of {words.shape[1]} symbols: this circuit is for N={circuit.inputs}")
    tokens = np.full((len(words), circuit.length), circuit.vocab, np.int32)
    tokens[:, : circuit.inputs] = circuit.symbols[words]
    if circuit.constant is not None:
        tokens[:, circuit.constant_at] = circuit.constant
    return tokens


def read(circuit: Circuit | Stages, tokens: Int[np.ndarray, "B L"]) -> Int[np.ndarray, "B R"]:
    """The result on a canvas: a token each. ValueError where a cell of the readout is masked."""
    found = tokens[:, circuit.readout]
    if (found >= circuit.vocab).any() or (
        circuit.readout_right is not None and (tokens[:, circuit.readout_right] >= circuit.vocab).any()
    ):
        raise ValueError("the readout has masked cells: the run is not at its end")
    return found if circuit.readout_right is None else circuit.op[found, tokens[:, circuit.readout_right]]


def evaluate(circuit: Circuit | Stages, words: Int[np.ndarray, "B N"]) -> Run:
    """The whole run on integers, a batch at once: a step is one look-up for each cell that it writes.

    Words are of symbols. On the host, in O(T + writes) look-ups. ValueError as `canvas`.
    """
    cells = np.ascontiguousarray(canvas(circuit, words).T.astype(np.min_scalar_type(circuit.vocab)))
    vocab, in_place = circuit.vocab, isinstance(circuit, Stages)
    table = np.ascontiguousarray(circuit.op, dtype=np.int32).astype(cells.dtype).ravel()
    written, again = [], 0
    if in_place:
        plan = ((np.flatnonzero(w), x, y) for w, x, y in zip(circuit.writes, circuit.left, circuit.right, strict=True))
    else:
        order = np.argsort(circuit.step, kind="stable")
        ends = np.searchsorted(circuit.step[order], np.arange(circuit.steps + 2))
        plan = ((order[a:b], circuit.left, circuit.right) for a, b in zip(ends[1:-1], ends[2:], strict=True))
    for at, left, right in plan:
        new = np.empty((len(at), len(words)), cells.dtype)
        for part in range(0, len(at), CELLS_AT_ONCE):
            some = at[part : part + CELLS_AT_ONCE]
            pair = cells[left[some]].astype(np.intp)
            pair *= vocab
            pair += cells[right[some]]
            np.take(table, pair, out=new[part : part + CELLS_AT_ONCE], mode="clip")
        if in_place:
            again += int((cells[at, :1] < vocab).sum()) if len(words) else 0
        cells[at] = new
        written.append(len(at))
    counts = Counts(len(written), circuit.cells, tuple(written), again)
    return Run(np.ascontiguousarray(cells.T).astype(np.int32), counts)


CELLS_AT_ONCE = 256  # so that what a look-up needs stays in the cache
