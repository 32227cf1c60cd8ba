"""Moves as labels: what is refused, what is compiled, and how it is stored."""

import math
import re

import numpy as np
import pytest

from mdmjax.anyprocess import (
    IGNORE,
    Delete,
    Insert,
    Move,
    Substitute,
    apply,
    check_move,
    compile_edits,
    consistent,
    make_move,
    move_between,
    padded,
    trajectory,
)

MASK = 3
STATE = (0, MASK, 2, MASK)


def refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# ---- one move --------------------------------------------------------------------------------------------------------


def test_a_move_from_positions():
    move = make_move(STATE, MASK, values={1: 2}, remask=[0], insert={2: 3})
    assert move == ((IGNORE, 2, IGNORE, IGNORE), (True, False, False, True), (0, 0, 3, 0), (False,) * 4)
    assert apply(STATE, move, MASK) == (MASK, 2, 2, MASK, MASK, MASK, MASK)


GOOD = Move((IGNORE, 1, IGNORE, IGNORE), (False, False, True, True), (0, 0, 2, 0), (False,) * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(values=(IGNORE, 1)), "values has length 2, the state has 4"),
        (dict(delete=(False,) * 5), "delete has length 5, the state has 4"),
        (dict(insert=(0, -1, 0, 0)), "insert[1] = -1: must be >= 0"),
        (dict(values=(IGNORE,) * 4), "values[1] = -1: must be in 0..2"),
        (dict(values=(IGNORE, MASK, IGNORE, IGNORE)), "values[1] = 3: must be in 0..2"),
        (dict(values=(0, 1, IGNORE, IGNORE)), "values[0] = 0: must be IGNORE (-1), for the token there is no mask"),
        (dict(values=(IGNORE, 1, IGNORE, 0)), "values[3] = 0: must be IGNORE (-1), for the token there is remasked"),
        (
            dict(delete=(False, True, False, False)),
            "values[1] = 1: must be IGNORE (-1), for the token there is deleted",
        ),
        (dict(remask=(False,) * 4), "values[3] = -1: must be in 0..2"),
    ],
)
def test_a_wrong_label_is_refused(change, message):
    check_move(STATE, GOOD, MASK)
    refused(lambda: check_move(STATE, GOOD._replace(**change), MASK), message)


def test_a_wrong_state_or_position_is_refused():
    refused(lambda: check_move((0, 4), make_move((0, 0), MASK), MASK), "state[1] = 4: must be a token in 0..2")
    refused(lambda: make_move(STATE, MASK, delete=[1, 4]), "delete at [4]: the state has positions 0..3")
    refused(lambda: make_move(STATE, MASK, values={-1: 0}), "values at [-1]")


def test_values_are_read_off_the_next_state():
    """For random moves, and not for states that the operations do not lead to."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = rng.integers(1, 7)
        state = tuple(rng.integers(MASK + 1, size=n).tolist())
        remask, delete = (set(np.flatnonzero(rng.random(n) < 0.4).tolist()) for _ in range(2))
        values = {i: int(rng.integers(MASK)) for i in range(n) if state[i] == MASK and i not in remask | delete}
        insert = {i: int(rng.integers(3)) for i in range(n)}
        move = make_move(state, MASK, values=values, remask=remask, insert=insert, delete=delete)
        after = apply(state, move, MASK)
        assert move_between(state, after, MASK, remask=remask, insert=insert, delete=delete) == move
        for wrong in ((*after, 0), after[:-1], (*((y + 1) % MASK if y != MASK else 0 for y in after),)):
            if wrong != after and not (set(values) and len(wrong) == len(after)):
                refused(lambda: move_between(state, wrong, MASK, remask=remask, insert=insert, delete=delete), "lead")
    refused(lambda: move_between((MASK, 0), (MASK, 0), MASK), "positions [0] are masks before and after")
    assert move_between((MASK, 0), (MASK, 0), MASK, remask=[0]).remask == (True, False)


# ---- edits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubling", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 13])
def test_insertion_takes_as_many_steps_as_said(count, doubling):
    """A mask elsewhere waits meanwhile."""
    values = tuple(i % MASK for i in range(count))
    steps, after = compile_edits((0, MASK, 1), [Insert(1, values, doubling)], MASK)
    assert after == (0, MASK, *values, 1)
    assert len(steps) == (0 if not count else 2 + math.ceil(math.log2(count)) if doubling else count + 1)
    assert all(max(move.insert) <= 1 for _, move in steps)  # bits will do


def test_random_edits():
    """Against lists; each step is a checked label, and leads to the next."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = rng.integers(MASK, size=rng.integers(1, 6)).tolist()
        start, edits = tuple(text), []
        for _ in range(5):
            at, kind = int(rng.integers(len(text))), rng.integers(3) if len(text) > 1 else 2
            values = tuple(rng.integers(MASK, size=rng.integers(1, 4)).tolist())
            if kind == 0:
                edits.append(Delete(at))
                del text[at]
            elif kind == 1:
                edits.append(Substitute(at, values[0]))
                text[at] = values[0]
            else:
                edits.append(Insert(at, values, bool(rng.integers(2))))
                text[at + 1 : at + 1] = values
        steps, after = compile_edits(start, edits, MASK)
        assert after == tuple(text) and steps[0][0] == start
        states = [state for state, _ in steps] + [after]
        for (state, move), following in zip(steps, states[1:], strict=True):
            check_move(state, move, MASK)
            assert apply(state, move, MASK) == following


def test_edits_outside_the_text_are_refused():
    refused(lambda: compile_edits((0, 1), [Delete(0), Delete(1)], MASK), "Delete(at=1): the text has positions 0..0")
    refused(lambda: compile_edits((0,), [Substitute(0, MASK)], MASK), "values[0] = 3: must be in 0..2")


# ---- trajectories ----------------------------------------------------------------------------------------------------


class Fixed:
    """Makes the given move for ever."""

    names = ("a", "b", "c")

    def __init__(self, **operations):
        self.operations = operations

    def __call__(self, state):
        return make_move(state, MASK, **self.operations)._replace(**self.operations.get("raw", {}))

    def answer(self, state):
        return state


def test_a_teacher_must_halt():
    """Exactly at the limit is in time."""
    refused(lambda: trajectory(Fixed(), (0, 1), 10), "has not halted after 10 moves")

    class Once(Fixed):
        def __call__(self, state):
            return None if MASK in state else make_move(state, MASK, remask=[0])

    assert trajectory(Once(), (0, 1), 1) == ([((0, 1), make_move((0, 1), MASK, remask=[0]))], (MASK, 1))
    refused(lambda: trajectory(Once(), (0, 1), 0), "has not halted after 0 moves")


def test_a_wrong_move_is_named():
    class Late(Fixed):
        def __call__(self, state):
            return make_move(state, MASK, remask=[0]) if MASK not in state else Move((0, 0), *[(False, False)] * 3)

    refused(lambda: trajectory(Late(), (0, 1), 5), "move 1: values[1] = 0: must be IGNORE")


def test_equal_states_carry_equal_moves():
    a, b = make_move((0, 1), MASK, remask=[0]), make_move((0, 1), MASK, remask=[1])
    assert consistent([((0, 1), a), ((0, 1), a)]) == {(0, 1): a}
    refused(lambda: consistent([((0, 1), a), ((0, 1), b)]), "row 1: the state (0, 1) has come with another move before")


def test_supervision_as_arrays():
    tuples = [(STATE, GOOD), ((1,), make_move((1,), MASK, remask=[0]))]
    out = padded(tuples, 5, MASK)
    assert out["tokens"].tolist() == [[*STATE, 4], [1, 4, 4, 4, 4]] and out["lengths"].tolist() == [4, 1]
    assert out["values"].tolist() == [[-1, 1, -1, -1, -1], [-1] * 5]
    assert out["insert"].tolist() == [[0, 0, 2, 0, 0], [0] * 5]
    assert np.argwhere(out["remask"]).tolist() == [[0, 2], [0, 3], [1, 0]] and not out["delete"].any()
    assert {name: field.dtype.name for name, field in out.items()} == dict(
        tokens="int32", lengths="int32", values="int32", remask="bool", insert="int32", delete="bool"
    )
    refused(lambda: padded(tuples[::-1], 3, MASK), "row 1 needs 4 positions, there are 3")
