"""Sudoku by writing, marking and erasing cells: the search is right, and its memory is in the tokens."""

import collections

import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    IGNORE,
    Controls,
    GaveUp,
    Sudoku,
    Teacher,
    consistent,
    padded,
    sudoku_trajectory,
    trajectory,
    transition,
)
from mdmjax.base import Canvas
from mdmjax.data import sudoku, sudoku_puzzles

# Known for the many branches it takes.
ESCARGOT = "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3.."
# promote_last and fewest; with the first, no 4x4 puzzle of one solution needs a branch
RULES = pytest.mark.parametrize("rules", [(True, True), (True, False), (False, False)], ids=str)


@pytest.fixture(scope="module")
def small():
    """One puzzle of each 4x4 grid, without a given that can be spared."""
    rng = np.random.default_rng(0)
    grids = sudoku.all_grids()
    return np.stack([sudoku_puzzles.dig(grid, None, rng) for grid in grids]), grids


@pytest.fixture(scope="module")
def large():
    """9x9 puzzles of few and of many branches."""
    made = sudoku_puzzles.generate(4, (24, 28), seed=0)
    puzzle = sudoku.parse(ESCARGOT)
    return np.stack([*made.puzzles, puzzle]), np.stack([*made.solutions, sudoku.search(puzzle).solution])


def remembered(puzzle, teacher):
    """The states of the same search by a solver that keeps its open branches in a stack, not in the tokens.

    A state is the triples of all cells, by name; also returned is how often each atom was used.
    """
    box, n = teacher.box, teacher.box**2
    places = np.arange(n**2)
    row, column = np.divmod(places, n)
    square = row // box * box + column // box
    grid, states, stack, atoms = np.array(puzzle), [], [], collections.Counter()
    cells = [(str(digit), "WHITE", "NORMAL") for digit in puzzle]

    def candidates(cell):
        sight = (row == row[cell]) | (column == column[cell]) | (square == square[cell])
        return [digit for digit in range(1, n + 1) if digit not in grid[sight]]

    def colour():
        return f"C{len(stack)}" if stack else "WHITE"

    def show(changes):
        for cell, triple in changes.items():
            cells[cell] = triple
        states.append(tuple(cells))

    show({})
    while (grid == 0).any():
        cell = min(places[grid == 0].tolist(), key=lambda cell: (teacher.fewest and len(candidates(cell)), cell))
        digits = candidates(cell)
        failed = not digits
        show({cell: ("M", "M", "M")})
        if failed:
            atoms["contradiction"] += 1
            show({cell: ("0", colour(), "SKULL")})
        else:
            atoms["branch" if digits[1:] else "assign"] += 1
            grid[cell] = digits[0]
            if digits[1:]:
                stack.append((cell, digits[1:], [cell]))
            elif stack:
                stack[-1][2].append(cell)
            show({cell: (str(digits[0]), colour(), "BRANCH" if digits[1:] else "NORMAL")})
        while failed:
            atoms["backtrack"] += 1
            atoms["retry"] += 1
            start, left, written = stack[-1]
            erased = [i for i in places.tolist() if cells[i][1] == colour() and i != start]
            show({i: ("M", "M", "M") for i in erased} | {start: (*cells[start][:2], "M")})
            old = cells[start][0]
            show({i: ("0", "WHITE", "NORMAL") for i in erased} | {start: ("M", "M", old)})
            for i in written:
                grid[i] = 0
            stack.pop()
            failed = not left
            if failed:
                show({start: ("0", colour(), "M")})
                show({start: ("0", colour(), "SKULL")})
                continue
            grid[start] = left[0]
            closed = teacher.promote_last and not left[1:]
            if not closed:
                stack.append((start, left[1:], [start]))
            elif stack:
                stack[-1][2].append(start)
            show({start: (str(left[0]), colour(), "M")})
            show({start: (str(left[0]), colour(), "NORMAL" if closed else "BRANCH")})
    return states, atoms


def by_name(teacher, state):
    """A state as triples of names, without the separators."""
    names = [*teacher.names, "M"]
    tokens = [names[token] for token in state]
    assert set(tokens[3::4]) == {"SEP"}
    return tuple(zip(tokens[0::4], tokens[1::4], tokens[2::4], strict=True))


# ---- solutions -------------------------------------------------------------------------------------------------------


@RULES
def test_one_puzzle_of_each_4x4_grid_is_solved(small, rules):
    """All 288 by default: no branch where the cell with the fewest candidates comes first, else by backtracking."""
    teacher, skulls = Sudoku(2, 0 if rules[1] else 15, *rules), 0
    skull = teacher.names.index("SKULL")
    for puzzle, grid in zip(*(some[:: 1 if rules[1] else 4] for some in small), strict=True):
        steps, final = sudoku_trajectory(teacher, puzzle, 200)
        np.testing.assert_array_equal(teacher.answer(final), grid)
        assert teacher.solved(puzzle, final) and teacher(final) is None
        skulls += any(skull in state for state, _ in steps)
    assert skulls == 0 if rules[1] else skulls > 40


def test_9x9_puzzles_are_solved(large):
    teacher = Sudoku()
    assert isinstance(teacher, Teacher) and len(teacher.names) == len(set(teacher.names)) == 30
    for puzzle, grid in zip(*large, strict=True):
        assert len(teacher.encode(puzzle)) == 324
        _, final = sudoku_trajectory(teacher, puzzle, 2000)
        np.testing.assert_array_equal(teacher.answer(final), grid)


@pytest.mark.parametrize("rules", [(True, True), (False, True), (True, False), (False, False)], ids=str)
def test_the_tokens_remember_what_a_stack_would(small, large, rules):
    """State by state the same as a solver with a memory of its own; every atom occurs."""
    total = collections.Counter()
    for box, puzzles in (2, small[0][::8]), (3, large[0][: 4 * rules[1]]):
        teacher = Sudoku(box, 20, *rules)
        for puzzle in puzzles:
            states, atoms = remembered(puzzle, teacher)
            steps, final = sudoku_trajectory(teacher, puzzle, 2000)
            assert [by_name(teacher, state) for state in [*(state for state, _ in steps), final]] == states
            assert len(steps) == 2 * atoms.total()
            total += atoms
    assert min(total[atom] for atom in ("assign", "branch", "contradiction", "backtrack", "retry")) > 5


def test_the_work_is_that_of_the_search(large):
    """Nodes are cells assigned or branched on; as many colours as open branches suffice, one fewer does not."""
    for puzzle in large[0]:
        found = sudoku.search(puzzle, solutions=1)
        steps, _ = sudoku_trajectory(Sudoku(colours=found.branches), puzzle, 2000)
        written = [[value for value in move.values if value != IGNORE] for _, move in steps]
        assert sum(len(values) == 3 and values[0] > 0 for values in written) == found.nodes
        sudoku_trajectory(Sudoku(), puzzle, len(steps) // 2)
        with pytest.raises(GaveUp, match=f"more than {len(steps) // 2 - 1} atoms"):
            sudoku_trajectory(Sudoku(), puzzle, len(steps) // 2 - 1)
        if found.branches:
            with pytest.raises(GaveUp, match=f"more than {found.branches - 1} colours"):
                sudoku_trajectory(Sudoku(colours=found.branches - 1), puzzle, 2000)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_sudoku_labels_lead_from_state_to_state(small):
    """Moves for some of the puzzles, on the device: values exactly where a mask is unmasked, and the next states."""
    mask, rows, after = len(Sudoku(2).names), [], []
    for rules in (True, True), (True, False), (False, False):
        teacher = Sudoku(2, 15, *rules)
        for puzzle in small[0][::24]:
            steps, final = trajectory(teacher, teacher.encode(puzzle), 1000)
            rows += steps
            after += [state for state, _ in steps[1:]] + [final]
    fields = padded(rows, 64, mask)
    tokens, lengths = jnp.asarray(fields.pop("tokens")), jnp.asarray(fields.pop("lengths"))
    assert ((fields["values"] != IGNORE) == ((tokens == mask) & ~fields["remask"])).all()
    assert fields["remask"].any() and not fields["insert"].any() and not fields["delete"].any()
    controls = Controls(**{name: jnp.asarray(field) for name, field in fields.items()})
    out = transition(Canvas(tokens, lengths, jnp.zeros(len(rows), bool)), controls, vocab=mask)
    np.testing.assert_array_equal(out.tokens, after)


@RULES
def test_equal_states_have_equal_moves(small, large, rules):
    """In all puzzles together, so that a network can learn them; and no trajectory comes to a state again."""
    for box, puzzles in (2, small[0][::6]), (3, large[0][: 3 * rules[1]]):
        teacher = Sudoku(box, 15, *rules)
        steps = [sudoku_trajectory(teacher, puzzle, 2000)[0] for puzzle in puzzles]
        consistent(step for one in steps for step in one)
        assert all(len(consistent(one)) == len(one) for one in steps)


def test_a_new_teacher_goes_on_from_any_state(large):
    """From the middle of a trajectory it makes the rest of it."""
    steps, final = sudoku_trajectory(Sudoku(), large[0][-1], 2000)
    assert any(Sudoku().names.index("SKULL") in state for state, _ in steps)
    for start in np.random.default_rng(0).choice(len(steps), 5, replace=False):
        rest, end = trajectory(Sudoku(), steps[start][0], 5000)
        assert rest == steps[start:] and end == final


# ---- what is refused -------------------------------------------------------------------------------------------------


@RULES
def test_puzzles_without_a_solution_are_refused(small, rules):
    """A contradiction at once, and one behind branches; the teacher halts, and what it leaves is no answer."""
    teacher = Sudoku(2, 15, *rules)
    branched = 0
    for puzzle in small[0][:40]:
        wrong = puzzle.copy()
        given = np.flatnonzero(puzzle)[0]
        wrong[given] = wrong[given] % 4 + 1
        try:
            state = teacher.encode(wrong)
        except ValueError as error:
            assert "breaks the rules" in str(error)
            continue
        if sudoku.search(wrong).solutions == 0:
            steps, final = trajectory(teacher, state, 1000)
            assert teacher(final) is None and teacher.answer(final) is None and not teacher.solved(wrong, final)
            branched += any(teacher.names.index("BRANCH") in state for state, _ in steps)
            with pytest.raises(ValueError, match="the puzzle has no solution"):
                sudoku_trajectory(teacher, wrong, 1000)
    assert branched == 0 if rules[1] else branched > 2


def test_answers_are_full_grids_and_solutions_keep_the_rules():
    teacher, puzzle = Sudoku(box=2), sudoku.parse("1..4....2..3....", box=2)
    right = sudoku.search(puzzle, solutions=1).solution
    state = teacher.encode(right)
    np.testing.assert_array_equal(teacher.answer(state), right)
    assert teacher.solved(puzzle, state) and not teacher.solved(right % 4 + 1, state)
    for place, token in (0, len(teacher.names)), (4, 0), (8, teacher.names.index("WHITE")):
        assert teacher.answer((*state[:place], token, *state[place + 1 :])) is None
    assert teacher.answer(state[:-4]) is None and not teacher.solved(puzzle, state[:-4])
    latin = np.array([[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3]])  # only boxes are wrong
    tiled = np.array([[1, 2, 3, 4], [3, 4, 1, 2]] * 2)  # only columns are, and of the transpose only rows
    for grid in latin, tiled, tiled.T:
        tokens = [token for digit in grid.reshape(-1).tolist() for token in (digit, *state[1:4])]
        assert not teacher.solved(np.zeros(16, np.int32), tuple(tokens))


def test_what_is_no_puzzle_or_no_state_is_refused():
    teacher = Sudoku(box=2)
    for grid in np.zeros(15, np.int32), np.full(16, 5, np.int32):
        with pytest.raises(ValueError, match="a grid must have 16 cells that hold 0..4"):
            teacher.encode(grid)
    with pytest.raises(ValueError, match="breaks the rules: another cell in sight of cell 0 holds 1 too"):
        teacher.encode(sudoku.parse("1..1............", box=2))
    with pytest.raises(ValueError, match="box=1, colours=15"):
        Sudoku(box=1)
    state, mask = teacher.encode(np.zeros(16, np.int32)), len(teacher.names)
    skull, branch = (teacher.names.index(name) for name in ("SKULL", "BRANCH"))
    for changes, words in [
        ({0: mask, 1: mask, 2: mask, 4: mask, 5: mask, 6: mask}, "2 masked cells, 0 partly masked, 0 with a SKULL"),
        ({0: mask}, "1 partly"),
        ({2: mask, 6: mask}, "2 partly"),
        ({2: skull, 6: skull}, "2 with a SKULL"),
        ({2: skull}, "0 starts of the innermost of 0 branches"),
        ({2: skull, 6: branch}, "0 starts of the innermost of 1 branches"),
        ({0: mask, 1: mask}, "without the digit that failed"),
        ({1: mask, 2: mask}, "0 masked cells, 1 partly"),
        ({0: mask, 1: mask, 2: mask, 4: mask}, "1 masked cells, 1 partly"),
        ({3: 0}, "not cells of value, colour, marker and SEP"),
        ({1: 0}, "not cells"),
    ]:
        with pytest.raises(ValueError, match=f"no state of the search: .*{words}"):
            teacher(tuple(changes.get(i, token) for i, token in enumerate(state)))
    with pytest.raises(ValueError, match="not cells"):
        teacher(state[:-4])
