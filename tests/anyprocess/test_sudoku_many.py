"""Many cells asked for at once: in each stands what the teacher writes there alone."""

import numpy as np
import pytest

from mdmjax.anyprocess import FORMS, IGNORE, GaveUp, Sudoku, asked_together, sudoku_trajectory
from mdmjax.data import sudoku_puzzles

RULES = dict(
    small=Sudoku(2, fewest=False),
    open=Sudoku(2, promote_last=False, fewest=False),
    large=Sudoku(),
    few=Sudoku(colours=2),
)


def _states(teacher: Sudoku) -> np.ndarray:
    """States of searches that wait for nothing, with and without open branches."""
    box, found = teacher.box, []
    for puzzle in sudoku_puzzles.generate(8, (4, 6) if box == 2 else (24, 27), 5, box).puzzles:
        try:
            found += [state for state, _ in sudoku_trajectory(teacher, puzzle, 400)[0]]
        except GaveUp:
            continue
    states = np.array(found)
    states = states[~np.isin(states, (teacher.special.mask, teacher.special.skull)).any(1)]
    inside = (states == teacher.special.branch).sum(1)
    chosen = np.random.default_rng(0).permutation(len(states))
    return states[np.concatenate([chosen[inside[chosen] == 0][:12], chosen[inside[chosen] > 0][:36]])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rules", RULES)
def test_each_cell_is_what_the_teacher_writes_alone(rules, form):
    teacher = RULES[rules]
    states, rng = _states(teacher), np.random.default_rng(1)
    some = rng.random((len(states), teacher.box**4)) < 0.4
    tokens, values = asked_together(teacher, states, some, form, rng)
    mask, normal, asked, written = teacher.special.mask, teacher.special.normal, 0, set()
    for state, row, wanted in zip(states, tokens, values, strict=True):
        cells = np.flatnonzero((row.reshape(-1, 4) == mask).any(1))
        asked += len(cells)
        assert ((wanted != IGNORE) == (row == mask)).all()
        assert not state.reshape(-1, 4)[cells, 0].any()  # only what is empty is asked for
        for cell in cells:
            alone, at = row.reshape(-1, 4).copy(), np.arange(len(row) // 4) != cell
            if form == "mark":  # the other cells' values stand, their markers open no branch
                alone[at] = np.where(alone[at] == mask, normal, alone[at])
            else:
                alone[at] = state.reshape(-1, 4)[at]
            move = teacher(tuple(alone.ravel().tolist()))
            got = wanted.reshape(-1, 4)[cell]
            assert tuple(got) == move.values[4 * cell : 4 * cell + 4]
            written |= set(got[got != IGNORE].tolist())
    assert asked > 40
    if form != "retry":
        assert {normal, teacher.special.branch} <= written or not teacher.promote_last


def test_what_cannot_be_asked_is_left_alone_or_refused():
    teacher = Sudoku(box=2, fewest=False)
    puzzle = np.array([1, 2, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # nothing fits the cell in the second row
    state = np.array([teacher.encode(puzzle)])
    everything, rng = np.ones((1, 16), bool), np.random.default_rng(0)
    for form in FORMS:
        tokens, _ = asked_together(teacher, state, everything, form, rng)
        waits = (tokens.reshape(16, 4) == teacher.special.mask).any(1)
        assert not waits[puzzle > 0].any()
    tokens, values = asked_together(Sudoku(box=2, colours=0), state, everything, "write", rng)
    assert not np.isin(values, teacher.special.branch).any()
    with pytest.raises(ValueError, match="form='erase': must be one of write, retry, mark"):
        asked_together(teacher, state, everything, "erase", rng)
    with pytest.raises(ValueError, match="waits for a move"):
        asked_together(teacher, np.full_like(state, teacher.special.mask), everything, "write", rng)
