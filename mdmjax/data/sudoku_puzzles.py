"""Sudoku puzzles: made at random with one solution each, put into strata and splits."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mdmjax.data import sudoku
from mdmjax.data.corpora import SPLITS, check_fractions, position_cuts

LEAST = {2: 4, 3: 17}  # givens of a puzzle with one solution, by box
CHECK = 20_000  # nodes of a search for another solution, after which the given is kept rather than searched on
SWEEPS = 100  # tries with one full grid
GRIDS = 100  # tries with other full grids


class Puzzles(NamedTuple):
    """Puzzles with one solution each, and these; 0 is an empty cell."""

    puzzles: Int[np.ndarray, "N C"]
    solutions: Int[np.ndarray, "N C"]


def generate(count: int, givens: int | tuple[int, int] | None = None, seed: int = 0, box: int = 3) -> Puzzles:
    """`count` puzzles with one solution each: random full grids from which cells are emptied in random order.

    givens: how many cells are given, or a range (low, high) from which each puzzle draws its number; None: until no
    given can be spared. Puzzle i depends on the seed and i alone. A 9x9 puzzle takes some hundredths of a second down
    to 24 givens, about half a second with 21, several seconds with 20; two puzzles of 4x4 may be equal. Raises
    ValueError for another box than 2 or 3, numbers outside `LEAST[box]`..C, and where `GRIDS` full grids did not have
    such a puzzle.
    """
    cells = sudoku.side(box) ** 2
    low, high = givens if isinstance(givens, tuple) else (givens, givens)
    if givens is not None and not LEAST[box] <= low <= high <= cells:
        raise ValueError(f"givens={givens}: must be in {LEAST[box]}..{cells}, a range as (low, high)")
    made = np.zeros((2, count, cells), np.int32)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        wanted = None if givens is None else int(rng.integers(low, high + 1))
        for _ in range(GRIDS):
            solution = sudoku.random_grid(box, rng)
            if (puzzle := dig(solution, wanted, rng)) is not None:
                break
        else:
            raise ValueError(f"{GRIDS} full grids had no puzzle with {wanted} givens: ask for more givens")
        made[:, index] = puzzle, solution
    return Puzzles(*made)


def dig(solution: Int[np.ndarray, " C"], givens: int | None, rng: np.random.Generator) -> Int[np.ndarray, " C"] | None:
    """Empties cells of a full grid in random order, each if the solution stays the only one, until `givens` are left.

    Where no cell can be emptied, two are filled again and others are tried, `SWEEPS` times, and then None is returned.
    givens=None: the first puzzle of which no given can be spared, always one. ValueError for a grid of another size.
    """
    places = [1 << cell for cell in range(len(solution))]
    order, kept, best = rng.permutation(len(solution)), sum(places), sum(places)
    differences = []  # sets of cells in which another full grid differs: with no given in one there are two solutions

    def spared(cell: int) -> bool:
        rest = kept & ~places[cell]
        if not all(rest & difference for difference in differences):
            return False
        puzzle = np.where([rest & place > 0 for place in places], solution, 0)
        found = sudoku.search(puzzle, 1, CHECK, without=(cell, int(solution[cell])))
        if found.solution is not None:
            differences.append(sum(places[i] for i in np.flatnonzero(found.solution != solution)))
        return found.solution is None and found.finished

    for _ in range(SWEEPS):
        for cell in order.tolist():
            if kept.bit_count() != givens and spared(cell):
                kept &= ~places[cell]
        if givens in (None, kept.bit_count()):
            return np.where([kept & place > 0 for place in places], solution, 0).astype(np.int32)
        if kept.bit_count() <= best.bit_count():
            best = kept
        given = [bool(best & place) for place in places]
        back = rng.choice(np.flatnonzero(np.logical_not(given)), 2, replace=False)
        kept = best | sum(places[cell] for cell in back)
        order = np.concatenate([rng.permutation(np.flatnonzero(given)), back])
    return None


def strata(numbers: Int[np.ndarray, " N"], edges: Sequence[int]) -> dict[str, Int[np.ndarray, " _"]]:
    """The indices of the puzzles in each stratum of a number that each has, such as its givens or its solver's nodes.

    edges (a, b, ..., z), rising, make the strata "<=a", "a+1..b", ..., ">z". Every index is in one stratum; a stratum
    may be empty. ValueError for edges that do not rise.
    """
    edges = list(edges)
    if not edges or any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
        raise ValueError(f"edges={edges}: must be numbers that rise, at least one")
    between = [f"{a + 1}..{b}" if a + 1 < b else str(b) for a, b in zip(edges, edges[1:], strict=False)]
    names = [f"<={edges[0]}", *between, f">{edges[-1]}"]
    stratum = np.searchsorted(edges, numbers)
    return {name: np.flatnonzero(stratum == k) for k, name in enumerate(names)}


def split(count: int, fractions: Mapping[str, float] = SPLITS) -> dict[str, Int[np.ndarray, " _"]]:
    """The indices 0..count-1 in consecutive parts: line i of a file is in the split that holds i.

    ValueError unless the fractions are positive and sum to 1.
    """
    check_fractions(fractions)
    return {name: np.arange(start, stop) for name, (start, stop) in position_cuts(count, fractions).items()}
