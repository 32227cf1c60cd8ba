"""A binary counter: exponentially many steps in a context that does not grow.

What is written can be written again, so n cells go through 2^n states. A model that never takes back a token halts
after n steps (arXiv 2510.06190: polynomial context reaches PSPACE against P).
"""

from typing import ClassVar

from mdmjax.anyprocess.teachers import Move, State, make_move


class Counter:
    """Adds one until all bits are ones, lowest bit first: from zero 2 (2^n - 1) steps, two for each addition."""

    names: ClassVar[tuple[str, ...]] = ("0", "1")

    def __call__(self, state: State) -> Move | None:
        """Remasks the ones at the front and the first zero; then writes zeros and a one there."""
        mask = len(self.names)
        run = [i for i, x in enumerate(state) if x == mask]
        if run:
            return make_move(state, mask, values={i: int(i == run[-1]) for i in run})
        if 0 not in state:
            return None
        return make_move(state, mask, remask=range(state.index(0) + 1))

    def answer(self, state: State) -> int:
        """The number."""
        return sum(bit << i for i, bit in enumerate(state))
