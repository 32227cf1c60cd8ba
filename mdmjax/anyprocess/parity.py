"""Parity of a string of bits, by deletion: two programs, of which one looks at three tokens only.

A state is BOS and the bits; the work is done where at most one bit is left. What would have to be counted over the
whole string is here a rule of seven cases, all seen on strings of two bits and right at every length (arXiv
2510.06190).
"""

from collections.abc import Sequence
from typing import ClassVar

from mdmjax.anyprocess.teachers import Move, State, make_move

NAMES = ("BOS", "0", "1")
BOS, ZERO, ONE = range(3)
MASK = len(NAMES)

# (x_1, x_2) -> positions that are remasked, positions that are deleted
_WINDOW = {
    (ZERO, ONE): ((1,), ()),
    (MASK, ONE): ((), (1,)),
    (ONE, ZERO): ((2,), ()),
    (ONE, MASK): ((), (2,)),
    (ZERO, ZERO): ((1, 2), ()),
    (ONE, ONE): ((1, 2), ()),
    (MASK, MASK): ((), (1, 2)),
}


def parity_state(bits: Sequence[int]) -> State:
    """BOS and the bits."""
    return (BOS, *(ONE if bit else ZERO for bit in bits))


class _Parity:
    names: ClassVar[tuple[str, ...]] = NAMES

    def answer(self, state: State) -> int:
        """1 for an odd number of ones, that is where BOS and a one are left."""
        return int(state == (BOS, ONE))


class WindowParity(_Parity):
    """Takes a zero, or two equal bits, off the front: nothing but the tokens 0, 1 and 2 matters.

    For n >= 2 bits it takes 2 floor(n/2) to 2 (n - 1) steps, for fewer none. The moves on the strings of two bits are
    all that there are: seven of them.
    """

    def __call__(self, state: State) -> Move | None:
        """The next move. ValueError for a state that does not come up."""
        if len(state) < 3:
            return None
        if state[1:3] not in _WINDOW:
            raise ValueError(f"{state} does not come up: no move is known for {state[1:3]}")
        remask, delete = _WINDOW[state[1:3]]
        return make_move(state, MASK, remask=remask, delete=delete)


class PairParity(_Parity):
    """All zeros go, then the ones in pairs: at most four steps for any length, where a policy can tell odd from even
    positions, and the length. It works because a deletion gives what is left new positions."""

    def __call__(self, state: State) -> Move | None:
        """The next move: one kind everywhere."""
        places = range(1, len(state))
        masks = [i for i in places if state[i] == MASK]
        if masks:
            return make_move(state, MASK, delete=masks)
        zeros = [i for i in places if state[i] == ZERO]
        if zeros:
            return make_move(state, MASK, remask=zeros)
        pairs = [i for i in places if i % 2 == 0 or i + 1 < len(state)]
        return make_move(state, MASK, remask=pairs) if pairs else None
