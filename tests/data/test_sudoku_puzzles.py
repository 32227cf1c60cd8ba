"""Sudoku puzzles: read, solved with work that is counted, made with one solution each."""

import itertools

import numpy as np
import pytest

from mdmjax.data import sudoku, sudoku_puzzles

# Published many times: an easy one that needs no branch, and two that are known for needing many.
EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
EASY_SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
ESCARGOT = "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3.."
ESCARGOT_SOLUTION = "162857493534129678789643521475312986913586742628794135356478219241935867897261354"
INKALA = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."
INKALA_SOLUTION = "812753649943682175675491283154237896369845721287169534521974368438526917796318452"


def candidates(grid, cell, box):
    """The digits that no cell of the same row, column or box has."""
    n = box**2
    row, column = divmod(cell, n)
    corner = row // box * box * n + column // box * box
    peers = {*range(row * n, row * n + n), *range(column, n * n, n)}
    peers |= {corner + i * n + j for i in range(box) for j in range(box)}
    return [digit for digit in range(1, n + 1) if all(grid[peer] != digit for peer in peers)]


def plain_search(grid, box):
    """(solution, nodes, branches) up to the first solution: the rule of the search as it is told, by recursion."""
    nodes = most = 0

    def visit(grid, branches):
        nonlocal nodes, most
        most = max(most, branches)
        empty = [cell for cell, digit in enumerate(grid) if digit == 0]
        if not empty:
            return grid
        choices = {cell: candidates(grid, cell, box) for cell in empty}
        cell = min(empty, key=lambda cell: (len(choices[cell]), cell))
        nodes += bool(choices[cell])
        for digit in choices[cell]:
            after = [*grid[:cell], digit, *grid[cell + 1 :]]
            if (solution := visit(after, branches + (digit != choices[cell][-1]))) is not None:
                return solution
        return None

    return visit(list(grid), 0), nodes, most


# ---- solving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "puzzle, solution",
    [(EASY, EASY_SOLUTION), (ESCARGOT, ESCARGOT_SOLUTION), (INKALA, INKALA_SOLUTION)],
    ids=["easy", "escargot", "inkala"],
)
def test_well_known_puzzles_are_solved(puzzle, solution):
    puzzle, solution = sudoku.parse(puzzle), sudoku.parse(solution)
    found = sudoku.search(puzzle)
    np.testing.assert_array_equal(found.solution, solution)
    assert found.solutions == 1 and found.finished and sudoku.valid(found.solution)
    assert sudoku.parse(sudoku.text(puzzle)).tolist() == puzzle.tolist()


def test_nodes_and_branches_are_those_of_the_rule():
    """Against the same search written with sets and recursion; an easy puzzle is one choice after the other."""
    easy = sudoku.search(sudoku.parse(EASY))
    assert (easy.nodes, easy.branches) == (81 - 30, 0)
    small = sudoku_puzzles.generate(60, None, seed=3, box=2)
    large = sudoku_puzzles.generate(3, 26, seed=3)
    for box, puzzles in (2, small.puzzles), (3, [*large.puzzles, sudoku.parse(ESCARGOT)]):
        for puzzle in puzzles:
            found = sudoku.search(puzzle, solutions=1)
            assert (found.solution.tolist(), found.nodes, found.branches) == plain_search(puzzle.tolist(), box)
    assert sudoku.search(sudoku.parse(ESCARGOT)).branches > 5


def test_every_4x4_grid_is_listed_and_every_solution_counted():
    """The valid ones among the 24**4 grids of permuted rows; the solutions of a puzzle are those with its givens."""
    grids = sudoku.all_grids()
    rows = np.array(list(itertools.permutations(range(1, 5))), np.int32)
    choices = np.indices((24,) * 4).reshape(4, -1).T
    every = rows[choices].reshape(-1, 16)
    assert sudoku.valid(every).sum() == 288
    assert {sudoku.text(grid) for grid in grids} == {sudoku.text(grid) for grid in every[sudoku.valid(every)]}
    rng = np.random.default_rng(0)
    counts = set()
    for grid in grids:
        puzzle = np.where(rng.random(16) < rng.random(), grid, 0)
        puzzle[rng.integers(16)] = rng.integers(5)  # mostly a clash, or no solution for another reason
        solutions = ((grids == puzzle) | (puzzle == 0)).all(1)
        found = sudoku.search(puzzle, solutions=1000)
        assert found.solutions == solutions.sum() and found.finished
        assert sudoku.search(puzzle).solutions == min(solutions.sum(), 2)
        assert sudoku.search(puzzle, solutions=1)[1:3] == found[1:3]  # nodes and branches up to the first
        assert found.solution is None or (found.solution == grids[solutions]).all(1).any()
        counts.add(min(found.solutions, 3))
    assert counts == {0, 1, 2, 3}


def test_valid_sees_rows_columns_and_boxes():
    grid = sudoku.parse(EASY_SOLUTION)
    assert sudoku.valid(grid) and not sudoku.valid(sudoku.parse(EASY))
    latin = (np.arange(9)[:, None] + np.arange(9)) % 9 + 1  # rows and columns are right, boxes are not
    swapped = grid.reshape(9, 9)[:, [3, 1, 2, 0, *range(4, 9)]]  # columns of two boxes: only boxes are wrong
    rows = np.tile(np.arange(1, 10), (9, 1))
    wrong = np.stack([latin.reshape(-1), swapped.reshape(-1), rows.reshape(-1), rows.T.reshape(-1), grid % 9, grid * 0])
    assert not sudoku.valid(wrong).any()
    with pytest.raises(ValueError, match="a grid of 80 cells: must have 16 .* or 81"):
        sudoku.valid(grid[:80])


def test_puzzles_without_one_solution_are_refused():
    good = sudoku.parse(EASY)
    none, several = good.copy(), good.copy()
    none[2] = 5  # twice in the row
    several[[0, 1, 4, 9, 12, 13, 14, 79]] = 0
    unreachable = np.zeros(81, np.int32)  # no clash among the givens, and the last cell of the row has no candidate
    unreachable[:8], unreachable[17] = np.arange(1, 9), 9
    np.testing.assert_array_equal(sudoku.solve(good[None]).solutions[0], sudoku.parse(EASY_SOLUTION))
    for puzzle, words in (none, "no solution"), (unreachable, "no solution"), (several, "more than one solution"):
        with pytest.raises(ValueError, match=f"puzzle 1 has {words}"):
            sudoku.solve(np.stack([good, puzzle]))
    assert sudoku.solve(several[None], unique=False).finished.all()


def test_the_limit_of_nodes_leaves_hard_puzzles_out():
    puzzles = np.stack([sudoku.parse(line) for line in (EASY, ESCARGOT)])
    exact = sudoku.solve(puzzles).nodes
    assert exact[0] < exact[1]
    for limit in exact[0], exact[1] - 1:
        solved = sudoku.solve(puzzles, int(limit))
        assert solved.finished.tolist() == [True, False] and solved.nodes.tolist() == [exact[0], limit]
        assert (solved.solutions[1] == 0).all() and sudoku.valid(solved.solutions).tolist() == [True, False]
    assert sudoku.solve(puzzles, int(exact[1])).finished.all()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_are_read_and_their_faults_named(tmp_path):
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{EASY}\n{ESCARGOT.replace('.', '0')}\r\n")
    assert [sudoku.text(grid) for grid in sudoku.read(path)] == [EASY, ESCARGOT]
    path.write_text("1234341221434321\n12..34..........")
    assert sudoku.valid(sudoku.read(path, box=2)).tolist() == [True, False]
    for content, words in [
        (f"{EASY}\n{EASY[1:]}\n", "line 2: 80 characters where a 9x9 grid has 81"),
        (f"{EASY}\n\n{EASY}\n", "line 2: 0 characters"),
        (f"{EASY[:4]}x{EASY[5:]}\n", r"line 1: character 5 is 'x': should be one of \.123456789, or 0"),
        ("", "is empty: one puzzle a line"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=words) as caught:
            sudoku.read(path)
        assert "puzzles.txt" in str(caught.value) and "\n" not in str(caught.value)
    path.write_text("1234341221434325")
    with pytest.raises(ValueError, match=r"character 16 is '5': should be one of \.1234,"):
        sudoku.read(path, box=2)
    with pytest.raises(FileNotFoundError, match="no such file"):
        sudoku.read(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"box=4: must be 2 \(4x4\) or 3"):
        sudoku.read(path, box=4)


# ---- making puzzles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box, givens, count", [(3, 28, 4), (3, (24, 25), 6), (3, 22, 1), (2, 4, 10), (2, (5, 7), 20)])
def test_puzzles_have_one_solution_and_as_many_givens_as_asked_for(box, givens, count):
    made = sudoku_puzzles.generate(count, givens, seed=1, box=box)
    solved = sudoku.solve(made.puzzles)
    np.testing.assert_array_equal(solved.solutions, made.solutions)
    assert sudoku.valid(made.solutions).all() and solved.finished.all()
    numbers = sudoku.givens(made.puzzles)
    low, high = givens if isinstance(givens, tuple) else (givens, givens)
    assert numbers.min() == low and numbers.max() == high
    assert len({sudoku.text(grid) for grid in made.solutions}) > count // 2


def test_no_given_can_be_spared():
    for box in 2, 3:
        puzzle = sudoku_puzzles.generate(1, None, seed=2, box=box).puzzles[0]
        for cell in np.flatnonzero(puzzle):
            fewer = puzzle.copy()
            fewer[cell] = 0
            assert sudoku.search(fewer).solutions == 2


def test_puzzles_are_those_of_the_seed_and_the_index():
    few, more = (sudoku_puzzles.generate(count, (25, 30), seed=5) for count in (2, 4))
    np.testing.assert_array_equal(few.puzzles, more.puzzles[:2])
    other = sudoku_puzzles.generate(2, (25, 30), seed=6)
    assert (other.solutions != few.solutions).any(1).all()


def test_impossible_puzzles_are_refused():
    for givens, box in (16, 3), (82, 3), (3, 2), ((25, 24), 3):
        with pytest.raises(ValueError, match="givens=.*: must be in"):
            sudoku_puzzles.generate(1, givens, box=box)
    with pytest.raises(ValueError, match="box=4"):
        sudoku_puzzles.generate(1, 100, box=4)
    with pytest.raises(ValueError, match="box=3: all grids are listed for box=2"):
        sudoku.all_grids(3)


def test_a_number_that_is_not_reached_is_refused(monkeypatch):
    monkeypatch.setattr(sudoku_puzzles, "SWEEPS", 1)
    monkeypatch.setattr(sudoku_puzzles, "GRIDS", 2)
    with pytest.raises(ValueError, match="2 full grids had no puzzle with 17 givens: ask for more"):
        sudoku_puzzles.generate(1, 17)


# ---- strata and splits -----------------------------------------------------------------------------------------------


def test_strata_and_splits_hold_every_index_once():
    numbers = np.array([3, 64, 65, 200, 201, 66, 0])
    strata = sudoku_puzzles.strata(numbers, (64, 65, 200))
    assert {name: index.tolist() for name, index in strata.items()} == {
        "<=64": [0, 1, 6],
        "65": [2],
        "66..200": [3, 5],
        ">200": [4],
    }
    parts = sudoku_puzzles.split(10, {"train": 0.8, "test": 0.2})
    assert {name: index.tolist() for name, index in parts.items()} == {"train": [*range(8)], "test": [8, 9]}
    for edges in (), (5, 5):
        with pytest.raises(ValueError, match="edges=.*: must be numbers that rise"):
            sudoku_puzzles.strata(numbers, edges)
    with pytest.raises(ValueError, match="positive fractions that sum to 1"):
        sudoku_puzzles.split(10, {"train": 0.8})
