"""Two-sided Dyck words: those that reduce to nothing where each letter stands next to its inverse, in either order.

Insertion writes them as they are defined, a pair t t^-1 at any place, and nothing else; for two generators or more any
fixed autoregressive model fails beyond some length (arXiv 2510.06190). The teacher is stochastic: it has a set of moves
for each state, which depends on the state alone, so a network can learn it.
"""

import dataclasses
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from mdmjax.anyprocess.teachers import Move, State, make_move

BOS = 0


def inverse(letter: int) -> int:
    """Letters 1 and 2 are each other's inverse, and so are 3 and 4, 5 and 6, ..."""
    return letter + 1 if letter % 2 else letter - 1


def reduces(word: Iterable[int]) -> bool:
    """Whether a word of letters freely reduces to the empty one: the oracle, in one pass with a stack."""
    stack = []
    for letter in word:
        if stack and stack[-1] == inverse(letter):
            stack.pop()
        else:
            stack.append(letter)
    return not stack


@dataclasses.dataclass(frozen=True)
class Dyck:
    """Inserts pairs into a word over k generators and their inverses, from (BOS,) on.

    With counts, three steps: two masks go into a gap; the first becomes any letter t while the second waits; that one,
    now alone, becomes the inverse of its left neighbour. Any number of gaps may be served at once. One mask that became
    t and inserted the other would not do: x M could then be a gap just opened, or a letter x yet to be closed.

    Without counts (`bits`), one gap at a time, with one mask inserted at a time, in four steps:
    x -> x M -> x M M -> x M t M -> x t t^-1: what a mask is for shows in whether another mask is next to it, or behind
    the letter next to it.
    """

    generators: int
    bits: bool = False

    def __post_init__(self):
        if self.generators < 1:
            raise ValueError(f"Dyck(generators={self.generators}): must be at least 1")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """BOS a A b B ..., a capital for the inverse; x27 X27 and so on where the alphabet ends."""
        letter = lambda i: chr(ord("a") + i) if i < 26 else f"x{i + 1}"
        return ("BOS", *(f(letter(i)) for i in range(self.generators) for f in (str, str.upper)))

    @property
    def mask(self) -> int:
        """2 k + 1, after BOS and the letters."""
        return 2 * self.generators + 1

    def open(self, word: State, gaps: Iterable[int]) -> Move:
        """Opens the gaps behind the given positions of a word. ValueError for more than one where `bits`."""
        gaps = list(gaps)
        if self.bits and len(gaps) != 1:
            raise ValueError(f"gaps {gaps}: without counts there is one at a time")
        return make_move(word, self.mask, insert={i: 1 if self.bits else 2 for i in gaps})

    def free(self, state: State) -> list[int]:
        """The positions whose letter is chosen next."""
        masks = [i for i, x in enumerate(state) if x == self.mask]
        if self.bits:
            return masks[1:] if len(masks) == 2 and masks[1] == masks[0] + 1 else []
        return [i for i in masks if i + 1 in masks]

    def fill(self, state: State, letters: Iterable[int]) -> Move:
        """Writes letters at the positions that `free` names."""
        chosen = dict(zip(self.free(state), letters, strict=True))
        return make_move(state, self.mask, values=chosen, insert=dict.fromkeys(chosen, 1) if self.bits else {})

    def go_on(self, state: State) -> Move:
        """The one move where masks are open and no letter is to be chosen."""
        masks = [i for i, x in enumerate(state) if x == self.mask]
        if self.bits and len(masks) == 1:
            return make_move(state, self.mask, insert={masks[0]: 1})
        left = masks[:1] if self.bits else []
        return make_move(
            state, self.mask, delete=left, values={i: inverse(state[i - 1]) for i in masks if i not in left}
        )

    def moves(self, state: State) -> list[Move]:
        """Every move with positive probability at a state, where gaps are opened one at a time."""
        if self.mask not in state:
            return [self.open(state, [gap]) for gap in range(len(state))]
        if self.free(state):
            return [self.fill(state, [letter]) for letter in range(1, self.mask)]
        return [self.go_on(state)]

    def draw(self, rng: np.random.Generator, state: State, gaps: int = 1) -> Move:
        """A random move; where the state is a word it opens `gaps` of its gaps, or all if there are fewer."""
        if self.mask not in state:
            return self.open(state, rng.choice(len(state), min(gaps, len(state)), replace=False).tolist())
        if free := self.free(state):
            return self.fill(state, rng.integers(1, self.mask, len(free)).tolist())
        return self.go_on(state)
