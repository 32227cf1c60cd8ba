"""Teachers of remask, insert and delete: what one is, what its moves do, and how they become supervision.

A state is a tuple of tokens 0..V-1, with V for the mask. A teacher says, from the state alone, which move comes next;
the transition makes the next state of it (arXiv 2510.06190, algorithm 1). All of this is on the host, in plain Python:
`mdmjax.anyprocess.transition` is the same transition for batches on a device.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

IGNORE = -1  # the value where nothing is to be learnt
VARIANTS = ("algorithm1", "literal", "post_remask")

State = tuple[int, ...]


class Move(NamedTuple):
    """What happens at each position of a state, in one step; each field is as long as the state.

    A move is also a label, so `values` is IGNORE wherever the transition does not read it.
    """

    values: tuple[int, ...]  # the token written at each mask that is neither remasked nor deleted, IGNORE elsewhere
    remask: tuple[bool, ...]  # a mask with this bit waits
    insert: tuple[int, ...]  # how many masks to put behind the position
    delete: tuple[bool, ...]  # has an effect on masks only


@runtime_checkable
class Teacher(Protocol):
    """A solver that works on tokens: a function of the state alone, so that a network can learn it from (state, move).

    `names` are those of the V tokens; the mask is token V.
    """

    names: tuple[str, ...]

    def __call__(self, state: State) -> Move | None:
        """The next move, None where the work is done."""
        ...

    def answer(self, state: State) -> Any:
        """What a final state says."""
        ...


def apply(state: State, move: Move, mask: int, variant: str = "algorithm1") -> State:
    """The next state (arXiv 2510.06190, algorithm 1, with counts q_i for the bit e_i):

        for i in 0..n-1:
            if d_i and x_i is the mask: leave it out, and its insertions too
            else: write the mask if r_i, else y_i if x_i is the mask, else x_i;  then q_i masks

    Only "algorithm1" is the paper's algorithm. Its prose can be read in two other ways: "literal" makes the insertions
    of a deleted mask too; "post_remask" does as well, and deletes what is a mask after remasking and unmasking. There
    IGNORE may be read, and counts as token 0. ValueError for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(VARIANTS)}")
    after = []
    for x, y, r, q, d in zip(state, *move, strict=True):
        token = mask if r else max(y, 0) if x == mask else x
        deleted = d and (token if variant == "post_remask" else x) == mask
        if not deleted:
            after.append(token)
        if not (deleted and variant == "algorithm1"):
            after.extend([mask] * q)
    return tuple(after)


# ---- moves -----------------------------------------------------------------------------------------------------------


def make_move(
    state: State,
    mask: int,
    *,
    values: Mapping[int, int] | None = None,
    remask: Collection[int] = (),
    insert: Mapping[int, int] | None = None,
    delete: Collection[int] = (),
) -> Move:
    """A move from the positions at which something happens: values[i] is written at i, insert[i] masks go behind i.

    A mask that gets no value and is not deleted waits: it is remasked. ValueError as `check_move`, and for a position
    outside the state.
    """
    values, insert = values or {}, insert or {}
    places = range(len(state))
    for name, positions in dict(values=values, remask=remask, insert=insert, delete=delete).items():
        if outside := [i for i in positions if i not in places]:
            raise ValueError(f"{name} at {outside}: the state has positions 0..{len(state) - 1}")
    waits = {i for i in places if state[i] == mask and i not in values and i not in delete}
    move = Move(
        tuple(values.get(i, IGNORE) for i in places),
        tuple(i in waits or i in remask for i in places),
        tuple(insert.get(i, 0) for i in places),
        tuple(i in delete for i in places),
    )
    check_move(state, move, mask)
    return move


def move_between(
    before: State,
    after: State,
    mask: int,
    *,
    remask: Collection[int] = (),
    insert: Mapping[int, int] | None = None,
    delete: Collection[int] = (),
) -> Move:
    """The move that leads from one state to the next with the given operations; the values are read off `after`.

    ValueError where there is none: whatever is built here leads from `before` to `after`.
    """
    insert = insert or {}
    values, place = {}, 0
    for i, x in enumerate(before):
        deleted = i in delete and x == mask
        if x == mask and not deleted and i not in remask and place < len(after):
            values[i] = after[place]
        place += 0 if deleted else 1 + insert.get(i, 0)
    if wrong := [i for i, y in values.items() if y == mask]:
        raise ValueError(f"positions {wrong} are masks before and after: they must be remasked")
    move = make_move(before, mask, values=values, remask=remask, insert=insert, delete=delete)
    if (made := apply(before, move, mask)) != after:
        raise ValueError(f"the operations lead from {before} to {made}, not to {after}")
    return move


def check_move(state: State, move: Move, mask: int) -> None:
    """ValueError unless each field is as long as the state, counts are >= 0, and there is a value 0..mask-1 exactly at
    the masks that are neither remasked nor deleted, IGNORE elsewhere."""
    for name, field in zip(Move._fields, move, strict=True):
        if len(field) != len(state):
            raise ValueError(f"{name} has length {len(field)}, the state has {len(state)}")
    for i, (x, y, r, q, d) in enumerate(zip(state, *move, strict=True)):
        if not 0 <= x <= mask:
            raise ValueError(f"state[{i}] = {x}: must be a token in 0..{mask - 1} or the mask {mask}")
        if q < 0:
            raise ValueError(f"insert[{i}] = {q}: must be >= 0")
        if x == mask and not r and not d:
            if not 0 <= y < mask:
                raise ValueError(f"values[{i}] = {y}: must be in 0..{mask - 1}, for the mask there is unmasked")
        elif y != IGNORE:
            why = "is no mask" if x != mask else "is remasked" if r else "is deleted"
            raise ValueError(f"values[{i}] = {y}: must be IGNORE ({IGNORE}), for the token there {why}")


# ---- trajectories ----------------------------------------------------------------------------------------------------


class TooLong(ValueError):
    """A teacher goes on after as many moves as it was given."""


def trajectory(teacher: Teacher, state: State, limit: int) -> tuple[list[tuple[State, Move]], State]:
    """((x_0, move_0), ..., (x_{T-1}, move_{T-1})) and the final state x_T, at which the teacher halts.

    The final state carries no move. To teach staying there, add (x_T, make_move(x_T, mask)): nothing happens.

    ValueError for a move that `check_move` refuses; TooLong, which is one, where it goes on after `limit` moves.
    """
    mask, steps = len(teacher.names), []
    while (move := teacher(state)) is not None:
        if len(steps) == limit:
            raise TooLong(f"the teacher has not halted after {limit} moves; the state is now {state}")
        try:
            check_move(state, move, mask)
        except ValueError as error:
            raise ValueError(f"move {len(steps)}: {error}") from None
        steps.append((state, move))
        state = apply(state, move, mask)
    return steps, state


def consistent(tuples: Iterable[tuple[State, Move]]) -> dict[State, Move]:
    """The move of each state. ValueError where equal states carry different moves: no network could learn both."""
    moves = {}
    for row, (state, move) in enumerate(tuples):
        if moves.setdefault(state, move) != move:
            raise ValueError(f"row {row}: the state {state} has come with another move before: {moves[state]}, {move}")
    return moves


def padded(tuples: Iterable[tuple[State, Move]], length: int, mask: int) -> dict[str, np.ndarray]:
    """Supervision as arrays: tokens, values, remask, insert and delete [T, N], and lengths [T]; N = `length`.

    Beyond a row's length the tokens are PAD (V + 1), the values IGNORE, and nothing happens. ValueError, which names
    the row and the size it needs, where one is longer than N.
    """
    tuples = list(tuples)
    shape = len(tuples), length
    out = dict(
        tokens=np.full(shape, mask + 1, np.int32),
        lengths=np.array([len(state) for state, _ in tuples], np.int32),
        values=np.full(shape, IGNORE, np.int32),
        remask=np.zeros(shape, bool),
        insert=np.zeros(shape, np.int32),
        delete=np.zeros(shape, bool),
    )
    for row, (state, move) in enumerate(tuples):
        if len(state) > length:
            raise ValueError(f"row {row} needs {len(state)} positions, there are {length}")
        for name, field in dict(tokens=state, **move._asdict()).items():
            out[name][row, : len(state)] = field
    return out
