"""Edits of a text, compiled to moves of remask, unmask, insert and delete.

What cannot be done in one step is done in a few: a token is remasked before it can be written anew or deleted, and
tokens are inserted as masks. Masks that an edit has nothing to do with wait.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mdmjax.anyprocess.teachers import Move, State, apply, make_move


class Substitute(NamedTuple):
    """Writes `value` at position `at`: remask, unmask."""

    at: int
    value: int


class Delete(NamedTuple):
    """Takes position `at` out: remask, delete."""

    at: int


class Insert(NamedTuple):
    """Puts `values` behind position `after`, by q + 1 steps: each inserts a mask behind the last one, and unmasks that.

    With `doubling`, by 2 + ceil(log2 q): each mask inserts one behind itself until there are q, which are then unmasked
    at once.
    """

    after: int
    values: tuple[int, ...]
    doubling: bool = False


Edit = Substitute | Delete | Insert


def compile_edits(state: State, edits: Iterable[Edit], mask: int) -> tuple[list[tuple[State, Move]], State]:
    """(state, move) for each step of the edits, one edit after the other, and the state at their end.

    Positions are those of the text as the edits before have left it. ValueError for a position outside it or a value
    outside 0..mask-1, and should the moves not lead to the edited text.
    """
    steps, state = [], tuple(state)
    for edit in edits:
        (at, *_), text = edit, state
        if not 0 <= at < len(text):
            raise ValueError(f"{edit}: the text has positions 0..{len(text) - 1}")
        for operations in _operations(edit):
            move = make_move(state, mask, **operations)
            steps.append((state, move))
            state = apply(state, move, mask)
        if state != (meant := _edited(text, edit)):
            raise ValueError(f"{edit} has made {state} of {text}, not {meant}")
    return steps, state


def _operations(edit: Edit) -> Iterator[dict]:
    """What `make_move` takes, step by step."""
    match edit:
        case Substitute(at, value):
            yield dict(remask=[at])
            yield dict(values={at: value})
        case Delete(at):
            yield dict(remask=[at])
            yield dict(delete=[at])
        case Insert(after, values, doubling) if values:
            count, last = 1, after + len(values)
            yield dict(insert={after: 1})
            while doubling and count < len(values):
                more = min(count, len(values) - count)
                yield dict(insert=dict.fromkeys(range(after + 1, after + 1 + more), 1))
                count += more
            places = dict(enumerate(values, after + 1))
            if doubling:
                yield dict(values=places)
            else:
                yield from (dict(values={i: y}, insert={i: int(i < last)}) for i, y in places.items())


def _edited(text: State, edit: Edit) -> State:
    """What an edit means, without masks in between."""
    match edit:
        case Substitute(at, value):
            return (*text[:at], value, *text[at + 1 :])
        case Delete(at):
            return text[:at] + text[at + 1 :]
        case Insert(after, values):
            return text[: after + 1] + values + text[after + 1 :]
