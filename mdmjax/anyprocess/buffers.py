"""Memory that is read, changed and written back: A := F(A) in all cells at once.

A remasked cell has lost its value, so a cell cannot be changed in place where its new value depends on the old one.
With two buffers it can, in four steps a round, and the context stays twice the memory whatever the number of rounds
(arXiv 2510.06190: a PRAM of memory S and time T in context O(S) and O(T) steps).
"""

import dataclasses
from collections.abc import Callable

from mdmjax.anyprocess.teachers import Move, State, make_move


@dataclasses.dataclass(frozen=True)
class TwoBuffers:
    """Iterates a function on memory until it changes nothing: remask B; B := F(A); remask A; A := B.

    A state is A and then B. Each of the four is known from the tokens: of equal buffers B is remasked next, or the work
    is done; of unequal ones A is; a remasked buffer is written next.
    """

    names: tuple[str, ...]
    function: Callable[[State], State]

    def start(self, memory: State) -> State:
        """The state in which A and B hold `memory`."""
        return memory + memory

    def __call__(self, state: State) -> Move | None:
        """The next of the four steps, None at a fixed point. ValueError for a buffer that is masked in part."""
        mask, half = len(self.names), len(state) // 2
        first, second = state[:half], state[half:]
        in_first, in_second = range(half), range(half, len(state))
        masks = [i for i, x in enumerate(state) if x == mask]
        if not masks:
            if first != second:
                return make_move(state, mask, remask=in_first)
            return None if self.function(first) == first else make_move(state, mask, remask=in_second)
        if masks == list(in_second):
            return make_move(state, mask, values=dict(zip(in_second, self.function(first), strict=True)))
        if masks == list(in_first):
            return make_move(state, mask, values=dict(zip(in_first, second, strict=True)))
        raise ValueError(f"masks at {masks}: must fill one of two buffers of {half} cells")

    def answer(self, state: State) -> State:
        """The memory."""
        return state[: len(state) // 2]
