"""What the any-process experiments learn from and how they judge: right answers are right, and wrong ones wrong."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import anyprocess_text as text
from experiments.anyprocess_arms import PolicyArm
from experiments.anyprocess_dyck import all_words, dyck_task, found_of
from experiments.anyprocess_mincut import mincut_task
from experiments.anyprocess_parity import parity_task
from experiments.anyprocess_sudoku import sudoku_task
from experiments.configs.base_anyprocess import anyprocess as fields
from mdmjax import anyprocess
from mdmjax.anyprocess.losses import process_targets
from mdmjax.anyprocess.teachers import apply


def made(task, tmp_path, **changes):
    c = fields().data
    c.update(changes)
    return task(c, tmp_path, lambda *_: None)


@pytest.fixture(scope="module")
def sudoku(tmp_path_factory):
    choices = dict(rows=12, problems=12, held_out=4, box=2, fewest=False, givens=(4, 6), givens_judged=(4, 6))
    return made(sudoku_task, tmp_path_factory.mktemp("sudoku"), **choices)


def tuples_of(task, tuples):
    """(state, next state) of each tuple, the labels applied as the transition would."""
    for i, length in enumerate(tuples["lengths"]):
        cut = {name: tuple(x[i, :length].tolist()) for name, x in tuples.items() if name != "lengths"}
        move = anyprocess.Move(*(cut[name] for name in anyprocess.Move._fields))
        yield cut["tokens"], move, apply(cut["tokens"], move, task.vocab)


def test_tuples_are_the_teachers(sudoku):
    """In bytes they still say the same; the last one of each puzzle teaches to stay."""
    last = 0
    for state, move, after in tuples_of(sudoku, sudoku.tuples):
        taught = sudoku.teacher(state)
        last += taught is None
        assert after == (state if taught is None else apply(state, taught, sudoku.vocab))
        assert taught is None or move == taught
    assert last == 12 - sudoku.meta["of them left out, for the search is too long"]


def test_searches_are_kept(tmp_path, monkeypatch):
    """With puzzles that are left out; a task made again has the same tuples, and its teacher has not searched; one that
    gives up later does search."""
    choices = dict(rows=12, problems=12, held_out=4, box=2, fewest=False, givens=(4, 5), givens_judged=(4, 5))
    choices |= dict(max_atoms=40)
    first, searched = made(sudoku_task, tmp_path, **choices), []
    search = anyprocess.sudoku_trajectory
    monkeypatch.setattr(anyprocess, "sudoku_trajectory", lambda *a: searched.append(a) or search(*a))
    again = made(sudoku_task, tmp_path, **choices)
    assert not searched and again.meta == first.meta
    assert 0 < first.meta["of them left out, for the search is too long"] < 12
    for one, other in ((first.tuples, again.tuples), (first.held_out, again.held_out)):
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() and one[name].dtype == other[name].dtype for name in one)
    made(sudoku_task, tmp_path, **choices | dict(max_atoms=41))
    assert len(searched) == 24


def test_parity_is_learned_from_seven_tuples(tmp_path):
    task = made(parity_task, tmp_path, lengths=(2, 300), problems=8, rows=50, questions=8)
    assert len(task) == 7 and task.tuples["tokens"].shape == (7, 3)
    problems = task.tests["300 bits"]
    for i, (start, tape) in enumerate(zip(problems.starts, problems.tapes, strict=True)):
        odd = sum(x == 2 for x in start + tape) % 2
        ends = {(0,): 0, (0, 1): 0, (0, 2): 1}
        assert len(start) == task.room and len(start + tape) == 301
        assert all(problems.right(i, state) == (answer == odd) for state, answer in ends.items())
        assert not problems.right(i, start)
    rows = task.any_order
    answer = rows.tokens[rows.eligible]
    bits = [row[: np.flatnonzero(row == 2)[0]] for row in rows.tokens]
    assert answer.tolist() == [b.sum() % 2 for b in bits] and max(map(len, bits)) <= 20
    for row, canvas in zip(rows.held_out[0], rows.held_out[1], strict=True):
        assert canvas.sum() == 1 and row[canvas] < 2


def test_sudoku_answers(sudoku):
    """The teacher's last state, the grid filled in, that written behind the puzzle: right; a digit changed: wrong."""
    problems = sudoku.tests["held out"]
    grids, written = sudoku.any_order.tests["held out"], sudoku.autoregressive.tests["held out"]
    assert len(problems.starts) == len(grids.canvas) == len(written.canvas)
    for i, start in enumerate(problems.starts):
        _, state = anyprocess.trajectory(sudoku.teacher, start, 2000)
        digits = np.array(state[::4]) - 1
        row = np.where(grids.canvas[i] == 4, digits, grids.canvas[i])
        both = np.concatenate([written.canvas[i][:16], digits])
        assert (row == digits).all() and (written.canvas[i][16:] == 5).all()
        assert problems.right(i, state) and grids.right(i, row) and written.right(i, both)
        at = int(np.flatnonzero(grids.canvas[i] == 4)[0])
        wrong = list(state)
        wrong[4 * at] = wrong[4 * at] % 4 + 1
        row[at] = both[16 + at] = (digits[at] + 1) % 4
        assert not (problems.right(i, tuple(wrong)) or grids.right(i, row) or written.right(i, both))
        both[16 + at] = 4
        assert not problems.right(i, start) and not written.right(i, both)


def test_a_part_of_a_test_is_what_solving_it_alone_gives(sudoku, tmp_path):
    """Puzzles that are in a test before it are not solved again, nor is what is kept in a folder; a policy after no
    training, of few steps."""
    config = fields()
    config.data.limit, config.evaluate.slots = 20, 4
    config.network.update(width=12, depth=1, heads=3)
    arm = PolicyArm(config, dataclasses.replace(sudoku, limit=20))
    params = jax.tree.map(
        lambda x: x[0] + 0.05 * jax.random.normal(jax.random.key(1), x.shape[1:]), arm.make_states().params
    )
    together = arm.measure(params)
    whole = set(sudoku.tests["held out"].starts)
    parts = [name for name, problems in sudoku.tests.items() if name != "held out" and whole >= set(problems.starts)]
    assert len(parts) == 2 and len({tuple(x["policy"]["steps"]) for x in together.values()}) > 1
    for name in parts:
        arm.task = dataclasses.replace(arm.task, tests={name: sudoku.tests[name]})
        alone, part = arm.measure(params)[name]["policy"], together[name]["policy"]
        assert part.pop("calls") == 0 < alone.pop("calls") and part == alone
    first, last = "held out", list(sudoku.tests)[-1]
    arm.task = dataclasses.replace(arm.task, tests={first: sudoku.tests[first]})
    once = arm.measure(params, tmp_path)
    arm.task = sudoku
    solved, solve = [], arm.solve
    arm.solve = lambda params, problems, *rest: solved.append(problems) or solve(params, problems, *rest)
    again = arm.measure(params, tmp_path)
    assert again[first] == once[first] and again.keys() == sudoku.tests.keys() and first != last
    assert solved == [sudoku.tests[last]]


def test_sudoku_tests_are_other_puzzles_and_split_by_what_the_search_takes(sudoku):
    starts = {name: set(problems.starts) for name, problems in sudoku.tests.items()}
    assert not starts["held out"] & starts["train"]
    straight, fails = starts["held out, no guess fails"], starts["held out, guesses fail"]
    assert straight | fails == starts["held out"] and not straight & fails
    for start in fails:
        assert len(anyprocess.trajectory(sudoku.teacher, start, 2000)[0]) > 2 * start[::4].count(0)
    assert "".join(sudoku.shown) == ".1234wabcdefghijklmno-!? "


def test_rows_that_ask_for_many_cells_stand_beside_the_tuples(tmp_path):
    """So many as the config says; no decision of them is learnt, and all that is masked is."""
    choices = dict(rows=6, problems=6, held_out=2, box=2, givens=(6, 8), givens_judged=(6, 8), together=0.25)
    task = made(sudoku_task, tmp_path, **choices)
    many = {name: x[~task.tuples["decides"]] for name, x in task.tuples.items()}
    count = len(many["lengths"])
    assert count == task.meta["rows that ask for many cells"] and abs(4 * count - len(task)) <= 4
    masks = many["tokens"] == task.vocab
    assert ((many["values"] >= 0) == masks).all() and masks.sum(1).max() > 12
    targets = process_targets(
        {name: jnp.asarray(x) for name, x in task.gather(np.arange(len(task))).items()}, task.vocab
    )
    scored = np.asarray(targets.scored).any((1, 2))
    assert (scored == task.tuples["decides"]).all() and 0 < scored.sum() < len(task)
    fewer = made(sudoku_task, tmp_path, **choices | dict(alone=0.0, together=0.0))
    one = (fewer.tuples["tokens"] == task.vocab).sum(1) == 3
    assert not one.any() and 0.4 < len(fewer) / task.meta["training tuples"] < 0.6
    with pytest.raises(ValueError, match=r"data.alone=2.0: must be in \[0, 1\]"):
        made(sudoku_task, tmp_path, **choices | dict(alone=2.0))
    with pytest.raises(ValueError, match=r"data.together=1.0: must be in \[0, 1\)"):
        made(sudoku_task, tmp_path, **choices | dict(together=1.0))


def test_puzzles_are_made_once(tmp_path, monkeypatch):
    choices = dict(rows=6, problems=6, held_out=2, box=2, givens=(6, 8), givens_judged=(6, 8))
    first = made(sudoku_task, tmp_path, **choices)
    monkeypatch.setattr("mdmjax.data.sudoku_puzzles.generate", lambda *_: pytest.fail("made again"))
    again = made(sudoku_task, tmp_path, **choices)
    assert all((x == again.tuples[name]).all() for name, x in first.tuples.items())


def test_minimum_cuts(tmp_path):
    """The teacher's text and the cut written down: right. An edge too many or too few, or another ending: wrong."""
    task = made(mincut_task, tmp_path, rows=6, problems=12, nodes_of=(3, 5), judged=(4,))
    problems, questions, eos = task.tests["4 nodes"], task.autoregressive.tests["4 nodes"], task.end
    cuts = 0
    for i, start in enumerate(problems.starts):
        steps, state = anyprocess.trajectory(task.teacher, start, 1000)
        assert problems.right(i, state) and not problems.right(i, start) and not problems.right(i, state[:-1])
        assert max(len(s) for s, _ in steps) <= task.room
        row = questions.canvas[i].copy()
        empty = np.flatnonzero(row == task.vocab)
        left, nodes, cut = list(task.teacher.answer(state)), start.index(task.teacher.names.index("NODES")), []
        pool = [start[j : j + 2] for j in range(7, nodes, 4)]
        for edge in pool:
            if edge in left:
                left.remove(edge)
            else:
                cut += edge
        row[empty[0] : empty[0] + len(cut) + 1] = [*cut, eos]
        assert questions.right(i, row)
        if cut:
            cuts += 1
            fewer = row.copy()
            fewer[empty[0] : empty[0] + len(cut) - 1] = [*cut[2:], eos]
            assert not questions.right(i, fewer)
            row[empty[0]] = 9  # no node of the graph
            assert not questions.right(i, row)
        else:
            row[empty[0] : empty[0] + 3] = [*pool[0], eos]
            assert not questions.right(i, row)
    assert 0 < cuts < len(problems.starts)
    learned = task.autoregressive.tokens
    assert (learned[:, -1] != task.vocab + 1).any() and task.tests["train"].starts[0] not in problems.starts


def test_words(tmp_path):
    assert [len(all_words(2, n)) for n in (0, 2, 4, 6)] == [1, 4, 28, 232]
    assert found_of(1, [(), (1, 2), (1, 2)], range(0, 9, 2)) == {
        "of the 1 words of 0 letters, %": 100.0,
        "of the 2 words of 2 letters, %": 50.0,
        "of the 6 words of 4 letters, %": 0.0,
        "of the 20 words of 6 letters, %": 0.0,
    }
    task = made(dyck_task, tmp_path, rows=60, most=4, letters=(0, 4), problems=3)
    right = task.tests["4 letters"].right
    assert right(0, (0, 1, 2, 3, 4)) and not right(0, (0, 1, 3, 2, 4)) and not right(0, (0, 1, 2))
    assert not right(0, (0, 1, task.vocab, 2, 4)) and task.tests["0 letters"].right(0, (0,))
    rows, end = task.any_order, 4
    question = next(iter(rows.tests.values()))
    assert all(question.right(0, row) for row in rows.tokens)
    assert not question.right(0, np.array([0, 2, end, end, end])) and not question.right(
        0, np.array([0, 1, end, 0, end])
    )
    lengths = [(row != end).sum() for row in rows.tokens]
    assert set(lengths) == {0, 2, 4}
    moves = [move for _, move, _ in tuples_of(task, task.tuples)]
    assert any(any(m.insert) for m in moves) and any(any(m.delete) for m in moves)


def test_edit_distance_and_area_under_the_curve():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    words = [w for n in range(4) for w in itertools.product((0, 1), repeat=n)]
    assert all(text.distance(a, b) == slow(a, b) for a in words for b in words)
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert text.area_under_curve(scores, labels) == pytest.approx(np.mean(pairs))
    assert math.isnan(text.area_under_curve(scores, np.ones(40, bool)))


def test_faults_are_where_they_are_marked():
    """Of neighbouring masks the last are the surplus ones, so that taking those away leaves the masked text."""
    rng, size = np.random.default_rng(0), 5
    for row in rng.integers(0, size, (40, 30)):
        new, marks = text._wrong(rng, row, 0.2, size)
        assert ((new != row) == (marks == 1)).all()
        numbered = np.arange(30) + size  # letters that tell where they were
        new, marks = text._missing(rng, numbered, 0.2, size)
        assert ((np.diff(np.append(new, size + 30)) > 1) == (marks == 1)).all() and new[0] == size
        new, marks = text._surplus(rng, row, 0.3, size)
        left = new[marks != 1]
        assert (
            len(left) == 30
            and ((left == row) | (left == size)).all()
            and (marks >= 0).tolist() == (new == size).tolist()
        )
        runs = "".join("x" if m < 0 else str(m) for m in marks)
        assert "10" not in runs
