"""Sudoku by a search that writes, marks and erases cells: a teacher of unmasking and remasking (arXiv 2510.06190).

A grid has C = n**2 cells, n = box**2, and a state four tokens for each, row by row: value, colour, marker, SEP.

    value   0 (empty) or a digit 1..n
    colour  the innermost branch that was open when the cell was written, C1..CK, or WHITE if there was none
    marker  NORMAL; BRANCH at the start of an open branch; SKULL where no digit fits

The search takes the empty cell with the fewest candidates, the first of these, and tries its digits from the smallest:
that of `mdmjax.data.sudoku`, which counts its nodes. It is made of five atoms, each of two moves, the first of which
remasks what the second writes:

    assign         a cell with one candidate: (digit, innermost colour, NORMAL)
    branch         a cell with several: (smallest, a new colour, BRANCH)
    contradiction  a cell with none: (0, innermost colour, SKULL)
    backtrack      the cells of the innermost colour are emptied, and the start of the branch is left with its failed
                   digit in place of the marker, the rest of it masked: (M, M, failed)
    retry          at (M, M, failed): the next larger candidate and its colour, then the marker

A branch whose last candidate is tried is closed: by default the cell is then NORMAL, in the colour around it. All that
the search must remember is in the tokens, so each move is a function of the state. Nothing is inserted or deleted.
The layout is the paper's; its rule among equal cells, the contents of the marker while a digit is retried, and when a
branch is closed are not told there.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mdmjax.anyprocess.teachers import IGNORE, Move, State, TooLong, trajectory

VALUE, COLOUR, MARKER, SEP = range(4)  # the places of a cell

Cell = tuple[int, int, int]  # its value, colour and marker
Place = tuple[int, int]  # the cell, and VALUE, COLOUR, MARKER or SEP


class _Special(NamedTuple):
    """The tokens beyond the digits and colours."""

    normal: int
    skull: int
    branch: int
    sep: int
    mask: int


class GaveUp(ValueError):
    """A puzzle that takes more open branches than there are colours, or more atoms than allowed: leave it out."""


@dataclasses.dataclass(frozen=True)
class Sudoku:
    """The teacher: a function of the state, see `mdmjax.anyprocess.teachers.Teacher`.

    box: 3 for 9x9, 2 for 4x4. colours: K, the most branches open at a time. promote_last: close a branch when its last
    candidate is tried; else it stays open until that has failed too, which takes more colours and atoms. fewest: False
    takes the first empty cell, however many candidates it has: a search that errs much more. With True no 4x4 puzzle
    that has one solution needs a branch.
    """

    box: int = 3
    colours: int = 15
    promote_last: bool = True
    fewest: bool = True

    def __post_init__(self):
        if self.box < 2 or self.colours < 0:
            raise ValueError(f"box={self.box}, colours={self.colours}: must be at least 2, and 0")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Those of the V = n + K + 6 tokens; a digit is its own token, and the mask is token V."""
        digits = (str(digit) for digit in range(self._n + 1))
        colours = (f"C{depth}" for depth in range(1, self.colours + 1))
        return *digits, "WHITE", *colours, "NORMAL", "SKULL", "BRANCH", "SEP"

    def encode(self, puzzle: Int[np.ndarray, " C"]) -> State:
        """The state of a puzzle: 0 is an empty cell. ValueError for another size or digit, or two givens that clash."""
        grid = np.asarray(puzzle).tolist()
        if len(grid) != self._n**2 or not all(0 <= digit <= self._n for digit in grid):
            raise ValueError(f"a grid must have {self._n**2} cells that hold 0..{self._n}")
        for cell, digit in enumerate(grid):
            if digit and digit not in self._candidates([*grid[:cell], 0, *grid[cell + 1 :]], cell):
                raise ValueError(f"the puzzle breaks the rules: another cell in sight of cell {cell} holds {digit} too")
        return tuple(
            token for digit in grid for token in (digit, self.colour(0), self.special.normal, self.special.sep)
        )

    def answer(self, state: State) -> Int[np.ndarray, " C"] | None:
        """The digits of a state, None where a cell holds none or the state has another length. They may be wrong."""
        values = state[VALUE::4]
        full = len(state) == 4 * self._n**2 and all(1 <= value <= self._n for value in values)
        return np.array(values, np.int32) if full else None

    def solved(self, puzzle: Int[np.ndarray, " C"], state: State) -> bool:
        """Whether a state holds a solution of the puzzle: its givens, and each digit once in a row, column and box."""
        grid, puzzle = self.answer(state), np.asarray(puzzle)
        if grid is None or not ((puzzle == grid) | (puzzle == 0)).all():
            return False
        units = np.zeros((3 * self._n, self._n + 1), bool)
        for cell, digit in enumerate(grid):
            units[list(self.units[cell]), digit] = True
        return bool(units[:, 1:].all())

    def depth(self, state: State) -> int:
        """How many branches are open."""
        return state[MARKER::4].count(self.special.branch)

    def __call__(self, state: State) -> Move | None:
        """The next move; None where the grid is full, or where no digit fits a cell and no branch is open.

        Raises GaveUp where a branch needs a colour more than there are, ValueError for a state that is no half of an
        atom.
        """
        cells = self._cells(state)
        mask, depth = self.special.mask, sum(cell[MARKER] == self.special.branch for cell in cells)
        gaps = {i: tuple(token == mask for token in cell) for i, cell in enumerate(cells) if mask in cell}
        masked = [i for i, places in gaps.items() if all(places)]
        partly = [i for i, places in gaps.items() if not all(places)]
        skulls = [i for i, cell in enumerate(cells) if cell[MARKER] == self.special.skull]
        # No two of these cases meet in one state, so that the state tells which half of which atom is next.
        match len(masked), [gaps[i] for i in partly], len(skulls):
            case 0, [], 0:
                return self._choose(cells, depth)
            case 1, [], 0:
                return self._write(cells, masked[0], depth)
            case 0, [], 1:
                return self._erase(cells, depth)
            case _, [(False, False, True)], 0 if masked:
                return self._restore(cells, masked, partly[0])
            case 0, [(True, True, False)], 0:
                return self._retry(cells, partly[0], depth)
            case 0, [(False, False, True)], 0:
                return self._mark(cells, partly[0])
        raise self._unknown(f"{len(masked)} masked cells, {len(partly)} partly masked, {len(skulls)} with a SKULL")

    # ---- the halves of the atoms -------------------------------------------------------------------------------------

    def _choose(self, cells: list[Cell], depth: int) -> Move | None:
        """Assign, branch and contradiction: the cell is remasked."""
        used = self._used([value for value, _, _ in cells])
        empty = [i for i, (value, _, _) in enumerate(cells) if value == 0]
        if not empty:
            return None
        cell = max(empty, key=lambda i: (used[i].bit_count(), -i)) if self.fewest else empty[0]
        if self._written(cells, cell, depth) is None:
            return None
        return self._move(remask=[(cell, place) for place in (VALUE, COLOUR, MARKER)])

    def _write(self, cells: list[Cell], cell: int, depth: int) -> Move | None:
        """The same, and what is written: the candidates are those that the cell had when it was remasked."""
        written = self._written(cells, cell, depth)
        return None if written is None else self._move({(cell, place): token for place, token in enumerate(written)})

    def _written(self, cells: list[Cell], cell: int, depth: int) -> Cell | None:
        digits = self._candidates([value for value, _, _ in cells], cell)
        if not digits:
            return (0, self.colour(depth), self.special.skull) if depth else None
        if len(digits) == 1:
            return digits[0], self.colour(depth), self.special.normal
        if depth == self.colours:
            raise GaveUp(f"the search needs more than {self.colours} colours, one for each open branch")
        return digits[0], self.colour(depth + 1), self.special.branch

    def _erase(self, cells: list[Cell], depth: int) -> Move:
        """Backtrack: the innermost colour is remasked, all but value and colour of the start of the branch."""
        colour = self.colour(depth)
        starts = [i for i, cell in enumerate(cells) if cell[COLOUR:] == (colour, self.special.branch)]
        if depth == 0 or len(starts) != 1:
            raise self._unknown(f"{len(starts)} starts of the innermost of {depth} branches")
        places = [(i, place) for i, cell in enumerate(cells) if cell[COLOUR] == colour for place in range(SEP)]
        kept = {(starts[0], VALUE), (starts[0], COLOUR)}
        return self._move(remask=[place for place in places if place not in kept])

    def _restore(self, cells: list[Cell], masked: list[int], start: int) -> Move:
        """Backtrack: the masked cells are empty again, and the start keeps what failed, in place of the marker."""
        failed = cells[start][VALUE]
        empty = enumerate((0, self.colour(0), self.special.normal))
        values = {(cell, place): token for place, token in empty for cell in masked}
        return self._move(values | {(start, MARKER): failed}, remask=[(start, VALUE), (start, COLOUR)])

    def _retry(self, cells: list[Cell], start: int, depth: int) -> Move | None:
        """Retry: value and colour of the next candidate. With none left it is a contradiction in the branch around."""
        failed = cells[start][MARKER]
        if failed > self._n:
            raise self._unknown("a cell to be tried again without the digit that failed")
        left = [digit for digit in self._candidates([v for v, _, _ in cells], start) if digit > failed]
        if not left and depth == 0:
            return None
        closed = not left or (self.promote_last and len(left) == 1)
        colour = self.colour(depth if closed else depth + 1)
        return self._move({(start, VALUE): left[0] if left else 0, (start, COLOUR): colour}, remask=[(start, MARKER)])

    def _mark(self, cells: list[Cell], start: int) -> Move:
        """Retry: the marker."""
        values = [value for value, _, _ in cells]
        tried, values[start] = values[start], 0
        if tried == 0:
            return self._move({(start, MARKER): self.special.skull})
        closed = self.promote_last and tried == max(self._candidates(values, start), default=tried)
        return self._move({(start, MARKER): self.special.normal if closed else self.special.branch})

    # ---- tokens and cells --------------------------------------------------------------------------------------------

    @functools.cached_property
    def _n(self) -> int:
        return self.box**2

    @functools.cached_property
    def special(self) -> _Special:
        return _Special(*range(self._n + self.colours + 2, len(self.names) + 1))

    def colour(self, depth: int | Int[np.ndarray, "*s"]) -> int | Int[np.ndarray, "*s"]:
        """The token of the branch that was opened as the depth-th, or an array of them; WHITE at 0."""
        return self._n + 1 + depth

    def _cells(self, state: State) -> list[Cell]:
        special = self.special
        colours = {self.colour(depth) for depth in range(self.colours + 1)}
        digits, mask = range(1, self._n + 1), special.mask
        markers = {*digits, special.normal, special.skull, special.branch, mask}
        for place, tokens in enumerate(({0, *digits, mask}, colours | {mask}, markers, {special.sep})):
            if len(state) != 4 * self._n**2 or not tokens.issuperset(state[place::4]):
                raise self._unknown("not cells of value, colour, marker and SEP")
        return list(zip(state[VALUE::4], state[COLOUR::4], state[MARKER::4], strict=True))

    def _unknown(self, what: str) -> ValueError:
        return ValueError(f"no state of the search: {what}")

    @functools.cached_property
    def units(self) -> list[tuple[int, int, int]]:
        """Of each cell the row, the column and the box, counted on from each other: 0..3n-1."""
        n, box = self._n, self.box
        return [(i // n, n + i % n, 2 * n + i // n // box * box + i % n // box) for i in range(n**2)]

    def _used(self, values: Sequence[int]) -> list[int]:
        """Of each cell the digits in its row, column and box, as bits 1..n."""
        used = [0] * (3 * self._n)
        for value, units in zip(values, self.units, strict=True):
            if 0 < value <= self._n:
                for unit in units:
                    used[unit] |= 1 << value
        return [used[row] | used[column] | used[box] for row, column, box in self.units]

    def _candidates(self, values: Sequence[int], cell: int) -> list[int]:
        used = self._used(values)[cell]
        return [digit for digit in range(1, self._n + 1) if not used >> digit & 1]

    def _move(self, values: Mapping[Place, int] | None = None, remask: Iterable[Place] = ()) -> Move:
        length = 4 * self._n**2
        written, waits = [IGNORE] * length, [False] * length
        for (cell, place), token in (values or {}).items():
            written[4 * cell + place] = token
        for cell, place in remask:
            waits[4 * cell + place] = True
        return Move(tuple(written), tuple(waits), (0,) * length, (False,) * length)


def sudoku_trajectory(
    teacher: Sudoku, puzzle: Int[np.ndarray, " C"], max_atoms: int
) -> tuple[list[tuple[State, Move]], State]:
    """The steps ((x_0, move_0), ..., (x_{T-1}, move_{T-1})) that solve a puzzle, two an atom, and the solved state.

    Of a puzzle with several solutions it is the first. Raises GaveUp where the puzzle takes more than `max_atoms` or
    more colours than the teacher has; ValueError where it breaks the rules or has no solution.
    """
    try:
        steps, state = trajectory(teacher, teacher.encode(puzzle), 2 * max_atoms)
    except TooLong:
        raise GaveUp(f"the search needs more than {max_atoms} atoms") from None
    if not teacher.solved(puzzle, state):
        raise ValueError("the puzzle has no solution")
    return steps, state
