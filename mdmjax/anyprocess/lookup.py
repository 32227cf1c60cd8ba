"""Any order from left to right: a log of (position, token) pairs says what a row holds.

An any-order model that reveals one token a step is simulated by one that only ever fills the leftmost mask: it writes
what is revealed as a pair, and finds the token at position j by looking for the pair whose position is j. Any order
adds nothing but the look-up, which attention does in a constant number of layers (arXiv 2510.06190).
"""

import dataclasses
from collections.abc import Callable

from mdmjax.anyprocess.teachers import Move, State, make_move


@dataclasses.dataclass(frozen=True)
class PairLog:
    """The teacher that fills a log of L pairs from left to right as `policy(row) -> (position, token)` fills a row.

    The row has L positions, its tokens are 0..V-1 and the mask V; pair (j, y) is token j V + y of the log.
    """

    policy: Callable[[State], tuple[int, int]]
    length: int
    vocab: int

    @property
    def names(self) -> tuple[str, ...]:
        """The pairs, by position and then by token."""
        return tuple(f"{j}:{y}" for j in range(self.length) for y in range(self.vocab))

    def __call__(self, state: State) -> Move | None:
        """Writes the next pair at the leftmost mask; the other masks wait."""
        mask = self.length * self.vocab
        if mask not in state:
            return None
        position, token = self.policy(self.answer(state))
        return make_move(state, mask, values={state.index(mask): position * self.vocab + token})

    def answer(self, state: State) -> State:
        """The row that a log describes: position j holds the token of its pair, and the mask where there is none."""
        pairs = dict(divmod(pair, self.vocab) for pair in state if pair < self.length * self.vocab)
        return tuple(pairs.get(j, self.vocab) for j in range(self.length))
