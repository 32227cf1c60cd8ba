"""Many cells of a Sudoku asked at once: what the search would write in each of them if it alone were masked.

A state of the search asks for one cell, so that a row teaches one digit. What is written there depends on the digits
that stand in its sight, not on which other cells wait: masking many empty cells teaches the same function many times
faster. Such rows are no states of the search, so no decision is to be learnt from them (`process_targets`: `decides`).
"""

import numpy as np
from jaxtyping import Bool, Int

from mdmjax.anyprocess.sudoku import COLOUR, MARKER, VALUE, Sudoku
from mdmjax.anyprocess.teachers import IGNORE

FORMS = ("write", "retry", "mark")  # the three kinds of cell that wait


def asked_together(
    teacher: Sudoku,
    states: Int[np.ndarray, "R N"],
    cells: Bool[np.ndarray, "R C"],
    form: str,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, "R N"], Int[np.ndarray, "R N"]]:
    """(tokens, values): the states with the empty ones among `cells` masked, and the moves at the masks, IGNORE
    elsewhere, as `padded` makes them.

    "write": (M, M, M), to be assigned, to open a branch, or a contradiction. "retry": (M, M, failed), `failed` being a
    candidate at random. "mark": (value, colour, M), the value a candidate at random or, where a branch is open, once in
    n times 0. A cell that the search could not ask for stays as it is: a contradiction without an open branch, one more
    branch than there are colours, a cell without candidates to be tried again, and in "mark" two cells in sight of each
    other with one value.

    ValueError for another form, and where a state holds a mask or a SKULL.
    """
    special, n = teacher.special, teacher.box**2
    if form not in FORMS:
        raise ValueError(f"form={form!r}: must be one of {', '.join(FORMS)}")
    if np.isin(states, (special.mask, special.skull)).any():
        raise ValueError("a state that waits for a move, or for the end of its branch, has no cell to ask for")
    grid = states.reshape(len(states), n * n, 4)
    digits, depth = grid[:, :, VALUE], (grid[:, :, MARKER] == special.branch).sum(1)[:, None]
    inside, more = depth > 0, depth < teacher.colours  # a branch is open, and one more may be
    fit, cells = _fit(teacher, digits), cells & (digits == 0)
    first = lambda fit: np.where(fit.any(2), fit.argmax(2) + 1, 0)
    above = lambda value: fit & (np.arange(1, n + 1) > value[:, :, None])
    known: tuple = (None, None, None)  # what stands at the three places of a cell that waits; None: a mask
    wanted: tuple = (None, None, None)
    if form == "write":
        opens = fit.sum(2) > 1
        cells &= (fit.any(2) | inside) & (~opens | more)
        marker = np.select([~fit.any(2), opens], [special.skull, special.branch], special.normal)
        wanted = first(fit), teacher.colour(depth + opens), marker
    elif form == "retry":
        failed = _one(fit, rng)
        left = above(failed)
        opens = left.sum(2) > teacher.promote_last
        cells &= (failed > 0) & (left.any(2) | inside) & (~opens | more)
        known, wanted = (None, None, failed), (first(left), teacher.colour(depth + opens), None)
    else:
        value = np.where(inside & (rng.random(cells.shape) < 1 / n), 0, _one(fit, rng))
        cells &= ((value > 0) | inside) & more
        cells &= (value == 0) | ~_seen(teacher, np.where(cells, value, 0), value)
        fit = _fit(teacher, np.where(cells, value, digits))  # a cell does not see itself
        opens = (value > 0) & (above(value).any(2) | (not teacher.promote_last))
        marker = np.select([value == 0, opens], [special.skull, special.branch], special.normal)
        known, wanted = (value, teacher.colour(depth + opens), None), (None, None, marker)
    tokens, values = grid.copy(), np.full_like(grid, IGNORE)
    for place in (VALUE, COLOUR, MARKER):
        stands = special.mask if known[place] is None else known[place]
        tokens[:, :, place] = np.where(cells, stands, tokens[:, :, place])
        if wanted[place] is not None:
            values[:, :, place] = np.where(cells, wanted[place], IGNORE)
    return tokens.reshape(states.shape), values.reshape(states.shape)


def candidates(teacher: Sudoku, states: Int[np.ndarray, "R N"]) -> Int[np.ndarray, "R C"]:
    """How many digits fit each cell: no other cell in its sight holds them."""
    digits = states.reshape(len(states), -1, 4)[:, :, VALUE]
    return _fit(teacher, digits).sum(2)


def _counts(teacher: Sudoku, digits: np.ndarray) -> np.ndarray:
    """How often each cell sees each digit [R, C, n], itself not counted."""
    n = teacher.box**2
    units = np.array(teacher.units)
    peers = (units[:, None] == units[None]).any(2) & ~np.eye(n * n, dtype=bool)
    shown = (digits[:, :, None] == np.arange(1, n + 1)).astype(np.float32)
    return np.einsum("ij,rjd->rid", peers.astype(np.float32), shown, optimize=True)


def _fit(teacher: Sudoku, digits: np.ndarray) -> np.ndarray:
    """Whether each digit fits each cell [R, C, n]: no other cell in its sight holds it."""
    return _counts(teacher, digits) == 0


def _seen(teacher: Sudoku, digits: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Whether each cell sees its `value` [R, C] among `digits`; False for 0."""
    counts = np.take_along_axis(_counts(teacher, digits), np.maximum(value - 1, 0)[:, :, None], 2)[:, :, 0]
    return (counts > 0) & (value > 0)


def _one(fit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit that fits, at random, for each cell; 0 where none does."""
    return np.where(fit.any(2), np.where(fit, rng.random(fit.shape), -1).argmax(2) + 1, 0)
