"""Sudoku: grids read from text, and a depth-first solver that counts its work.

A grid has n x n cells, n = box**2, read row by row, so C = n**2 of them; 0 is an empty cell and 1..n are digits. Every
row, column and box x box box of a solution holds each digit once. box=3 is the usual 9x9 Sudoku, box=2 the 4x4 one.
`mdmjax.data.sudoku_puzzles` makes puzzles.
"""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

SYMBOLS = ".123456789"  # of an empty cell, and of the digits
BOXES = {16: 2, 81: 3}  # by the number of cells


class Search(NamedTuple):
    """What `search` found. A node is a choice of a cell that has a candidate, however many of these are tried there."""

    solution: np.ndarray | None  # the first one, int32 [C]
    nodes: int  # up to the first solution; all of them where there is none
    branches: int  # the most cells, up to there, that had an untried candidate at the same time
    solutions: int  # how many were found
    finished: bool  # False where the limit of nodes ended it


class Solved(NamedTuple):
    """The puzzles of `solve`, their solutions and what the first solution of each took."""

    solutions: Int[np.ndarray, "N C"]  # all 0 where the limit of nodes was met
    nodes: Int[np.ndarray, " N"]
    branches: Int[np.ndarray, " N"]
    finished: Bool[np.ndarray, " N"]


# ---- grids -----------------------------------------------------------------------------------------------------------


def side(box: int) -> int:
    """The number of digits. ValueError for another box than 2 or 3."""
    if box not in BOXES.values():
        raise ValueError(f"box={box}: must be 2 (4x4) or 3 (9x9)")
    return box**2


def read(path: str | os.PathLike, box: int = 3) -> Int[np.ndarray, "N C"]:
    """The grids of a text file, one a line: C characters, digits and `.` or 0 for an empty cell.

    Raises FileNotFoundError; ValueError, naming the line, for one of another length or with another character; and for
    an empty file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such file {os.fspath(path)!r}: give a text file with one puzzle a line")
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError(f"{os.fspath(path)!r} is empty: one puzzle a line is needed")
    grids = []
    for number, line in enumerate(lines, 1):
        try:
            grids.append(parse(line, box))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)!r}, line {number}: {error}") from None
    return np.stack(grids)


def parse(line: str, box: int = 3) -> Int[np.ndarray, " C"]:
    """The grid of a line of text, as `read` has it. ValueError for another length, another character or box."""
    line, digits = line.strip(), side(box)
    if len(line) != digits**2:
        raise ValueError(f"{len(line)} characters where a {digits}x{digits} grid has {digits**2}")
    symbols = SYMBOLS[: digits + 1]
    cells = [symbols.find(character) for character in line.replace("0", ".")]
    if -1 in cells:
        wrong = cells.index(-1)
        raise ValueError(f"character {wrong + 1} is {line[wrong]!r}: should be one of {symbols}, or 0 if empty")
    return np.array(cells, np.int32)


def text(grid: Int[np.ndarray, " C"]) -> str:
    """The line of a grid, which `parse` reads back."""
    return "".join(SYMBOLS[digit] for digit in grid)


def valid(grids: Int[np.ndarray, "*N C"]) -> Bool[np.ndarray, "*N"]:
    """Whether each grid is full and holds every digit once in each row, column and box. ValueError for another size."""
    grids = np.asarray(grids)
    units = np.array(_units(_box(grids)))
    return np.asarray((np.sort(grids[..., units], axis=-1) == np.arange(1, units.shape[-1] + 1)).all((-1, -2)))


def givens(grids: Int[np.ndarray, "*N C"]) -> Int[np.ndarray, "*N"]:
    """The number of cells of each grid that are not empty."""
    return np.asarray(np.count_nonzero(grids, axis=-1))


def all_grids(box: int = 2) -> Int[np.ndarray, "N C"]:
    """All full grids: the 288 of 4x4. ValueError for a larger box, for which there are too many."""
    if box != 2:
        raise ValueError(f"box={box}: all grids are listed for box=2 only, for 9x9 has 6.7e21 of them")
    blank = np.zeros(16, np.int32)
    return np.stack([_fill(blank, path) for path in _walk(*_begin(blank), solutions=1000).paths])


def random_grid(box: int, rng: np.random.Generator) -> Int[np.ndarray, " C"]:
    """A full grid, found by the search of `search` with candidates in random order: any can come, not all equally
    often. ValueError for another box than 2 or 3."""
    blank = np.zeros(side(box) ** 2, np.int32)
    return _fill(blank, _walk(*_begin(blank), solutions=1, shuffle=rng.shuffle).paths[0])


# ---- solving ---------------------------------------------------------------------------------------------------------


def search(
    puzzle: Int[np.ndarray, " C"],
    solutions: int = 2,
    limit: int | None = None,
    without: tuple[int, int] | None = None,
) -> Search:
    """Depth-first search for up to `solutions` solutions, the first of them within `limit` nodes.

    The next cell is the empty one with the fewest candidates, that of the lowest index among these; its candidates are
    tried from the smallest digit. So nodes and branches are facts of a puzzle, and those of the process that
    `mdmjax.anyprocess.sudoku` teaches (arXiv 2510.06190). without: (cell, digit), solutions with that are not wanted.
    A puzzle that breaks the rules as it stands has no solution and no nodes. ValueError for one of another size.
    """
    boards, empty = _begin(puzzle)
    if without is not None:
        cell, digit = without
        boards[digit - 1] &= ~(1 << cell)
    walk = _walk(boards, empty, solutions, limit)
    solution = _fill(puzzle, walk.paths[0]) if walk.paths else None
    return Search(solution, walk.nodes, walk.branches, len(walk.paths), walk.finished)


def solve(puzzles: Int[np.ndarray, "N C"], limit: int | None = None, unique: bool = True) -> Solved:
    """The solution of each puzzle, with the nodes and branches that the search for it took.

    limit: the most nodes to spend on a puzzle; `finished` is False for one that needs more. unique: go on and refuse a
    puzzle with a second solution, most often several times the work. Raises ValueError for a puzzle with no solution,
    or more than one, by its index.
    """
    found = [search(puzzle, 1 + unique, limit) for puzzle in puzzles]
    for index, result in enumerate(found):
        if result.finished and result.solutions != 1:
            raise ValueError(f"puzzle {index} has {'more than one' if result.solutions else 'no'} solution")
    blank = np.zeros(np.shape(puzzles)[1], np.int32)
    return Solved(
        np.array([result.solution if result.finished else blank for result in found], np.int32).reshape(len(found), -1),
        np.array([result.nodes for result in found], np.int64),
        np.array([result.branches for result in found], np.int32),
        np.array([result.finished for result in found], bool),
    )


# ---- the search ------------------------------------------------------------------------------------------------------


class _Walk(NamedTuple):
    paths: list[list[tuple[int, int]]]  # of each solution the cells that were filled, each with its digit
    nodes: int
    branches: int
    finished: bool


def _walk(
    boards: list[int],
    empty: int,
    solutions: int,
    limit: int | None = None,
    shuffle: Callable[[list[int]], None] | None = None,
) -> _Walk:
    """The search of `search`. A set of cells is the bits of one integer, so a step is a few operations on integers.

    boards[d]: the empty cells that could hold digit d + 1. empty: all empty cells. shuffle: reorders the candidates of
    a cell, the last of which is tried first.
    """
    others, apart = _masks(len(boards))
    path, paths = [], []
    stack = []  # of each cell with an untried candidate what there was before it was filled
    nodes = branches = 0
    first = None  # nodes and branches up to the first solution
    while True:
        one = two = 0  # the cells with at least that many candidates
        for board in boards:
            two |= one & board
            one |= board
        if one == empty and empty:
            if nodes == limit and not paths:
                return _Walk(paths, nodes, branches, False)
            nodes += 1
            cells = one & ~two or _fewest(boards, two)
            bit = cells & -cells
            digits = [digit for digit, board in enumerate(boards) if board & bit]
            cell = bit.bit_length() - 1
            if shuffle is None:
                digits.reverse()
            else:
                shuffle(digits)
        else:
            if not empty:
                first = first or (nodes, branches)
                paths.append(path.copy())
            if not stack or len(paths) == solutions:
                return _Walk(paths, *(first or (nodes, branches)), True)
            boards, empty, cell, digits, length = stack.pop()
            del path[length:]
        digit = digits.pop()
        if digits:
            stack.append((boards, empty, cell, digits, len(path)))
            branches = max(branches, len(stack))
        path.append((cell, digit + 1))
        empty &= others[cell]
        boards = [board & others[cell] for board in boards]
        boards[digit] &= apart[cell]


def _fewest(boards: list[int], cells: int) -> int:
    """Those of `cells`, all with two candidates or more, that have the fewest."""
    for most in (3, len(boards) + 1):  # two is the most common number, and quickly found
        least = [cells, *[0] * most]  # least[k]: the cells with at least k candidates on the boards so far
        for board in boards:
            for k in range(most, 0, -1):
                least[k] |= least[k - 1] & board
        for k in range(2, most):
            if exactly := least[k] & ~least[k + 1]:
                return exactly
    raise AssertionError("a cell has more candidates than there are digits")


def _begin(puzzle: Int[np.ndarray, " C"]) -> tuple[list[int], int]:
    """The boards and the empty cells of a puzzle; no board has a cell, but one is empty, where two givens clash."""
    count = _box(puzzle) ** 2
    others, apart = _masks(count)
    empty = (1 << count**2) - 1
    boards = [empty] * count
    for cell, digit in enumerate(np.asarray(puzzle).tolist()):
        if digit:
            if not boards[digit - 1] >> cell & 1:
                return [0] * count, 1
            empty &= others[cell]
            boards = [board & others[cell] for board in boards]
            boards[digit - 1] &= apart[cell]
    return boards, empty


def _fill(puzzle: np.ndarray, path: list[tuple[int, int]]) -> np.ndarray:
    grid = np.array(puzzle, np.int32)
    for cell, digit in path:
        grid[cell] = digit
    return grid


@functools.cache
def _units(box: int) -> list[list[int]]:
    """The cells of each row, column and box."""
    n = box**2
    cells = np.arange(n**2).reshape(n, n)
    boxes = cells.reshape(box, box, box, box).swapaxes(1, 2).reshape(n, n)
    return np.concatenate([cells, cells.T, boxes]).tolist()


@functools.cache
def _masks(n: int) -> tuple[list[int], list[int]]:
    """Of each cell the set of all others, and of all that share no row, column or box with it."""
    full = (1 << n**2) - 1
    apart = [full] * n**2
    for unit in _units(round(n**0.5)):
        for cell in unit:
            apart[cell] &= ~sum(1 << other for other in unit)
    return [full & ~(1 << cell) for cell in range(n**2)], apart


def _box(grid: np.ndarray) -> int:
    if np.shape(grid)[-1] not in BOXES:
        raise ValueError(f"a grid of {np.shape(grid)[-1]} cells: must have 16 (4x4) or 81 (9x9)")
    return BOXES[np.shape(grid)[-1]]
