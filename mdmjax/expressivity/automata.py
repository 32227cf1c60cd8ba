"""Finite automata: the regular languages that word problems come from.

Symbols are numbered in the order of the alphabet, states from 0. A word is a row of symbol numbers.
"""

import dataclasses
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
    """A complete deterministic automaton: in state q it reads the symbol a and goes to delta[a, q].

    ValueError where there is no start state, a state is not in 0..Q-1, `accepting` does not say True or False of each
    state, or the alphabet has not one symbol a row.
    """

    delta: Int[np.ndarray, "S Q"]
    start: int
    accepting: Bool[np.ndarray, "Q"]
    symbols: tuple[str, ...]

    def __post_init__(self):
        delta, accepting, symbols = np.asarray(self.delta), np.asarray(self.accepting), tuple(self.symbols)
        if delta.ndim != 2 or 0 in delta.shape or not np.issubdtype(delta.dtype, np.integer):
            raise ValueError(
                f"delta {delta.dtype}{list(delta.shape)}: must be integers [symbols, states], at least one"
            )
        states = delta.shape[1]
        if delta.min() < 0 or delta.max() >= states:
            raise ValueError(f"delta leads to states {delta.min()}..{delta.max()}: they must be in 0..{states - 1}")
        whole = isinstance(self.start, int | np.integer) and not isinstance(self.start, bool)
        if not whole or not 0 <= self.start < states:
            raise ValueError(f"start={self.start!r}: an automaton needs a start state in 0..{states - 1}")
        if accepting.dtype != bool or accepting.shape != (states,):
            raise ValueError(
                f"accepting {accepting.dtype}{list(accepting.shape)}: must say True or False of each of {states} states"
            )
        if len(symbols) != len(delta) or len(set(symbols)) != len(delta):
            raise ValueError(f"symbols={symbols}: must be {len(delta)} different ones, one for each row of delta")
        made = dict(delta=delta.astype(np.int32), accepting=accepting.copy(), start=int(self.start), symbols=symbols)
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def encode(self, words: Sequence[str]) -> Int[np.ndarray, "B N"]:
        """Words of one length as rows of symbol numbers.

        ValueError for a word that is in no list, for other symbols, unequal lengths and none.
        """
        if isinstance(words, str):
            raise ValueError(f"words={words!r}: must be a list of words, such as [{words!r}]")
        number = {symbol: a for a, symbol in enumerate(self.symbols)}
        for word in words:
            for symbol in word:
                if symbol not in number:
                    raise ValueError(f"symbol {symbol!r}: the alphabet is {', '.join(self.symbols)}")
        lengths = {len(word) for word in words}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"words of lengths {sorted(lengths)}: must all be of one length N >= 1")
        return np.array([[number[symbol] for symbol in word] for word in words], np.int32)

    def states(self, words: Int[np.ndarray, "B N"]) -> Int[np.ndarray, "B N"]:
        """The state behind each symbol, one symbol after the other. ValueError as `check_words`."""
        check_words(words, len(self.symbols))
        state, found = np.full(len(words), self.start), np.empty(words.shape, np.int32)
        for i, symbols in enumerate(words.T):
            found[:, i] = state = self.delta[symbols, state]
        return found

    def accepts(self, words: Int[np.ndarray, "B N"]) -> Bool[np.ndarray, "B"]:
        """Whether the last state is accepting. ValueError as `check_words`."""
        return self.accepting[self.states(words)[:, -1]]


def check_words(words: Any, symbols: int) -> None:
    """ValueError for what is no array of integers [B, N] with N >= 1, and for symbols outside 0..S-1."""
    if not isinstance(words, np.ndarray) or words.ndim != 2 or not np.issubdtype(words.dtype, np.integer):
        found = f"{words.dtype}{list(words.shape)}" if isinstance(words, np.ndarray) else type(words).__name__
        raise ValueError(f"words {found}: must be a NumPy array of integers [B, N]")
    if words.shape[1] < 1:
        raise ValueError("words of length N=0: N must be >= 1")
    if words.size and (words.min() < 0 or words.max() >= symbols):
        row, i = np.argwhere((words < 0) | (words >= symbols))[0]
        raise ValueError(f"words[{row}, {i}] = {words[row, i]}: a symbol must be in 0..{symbols - 1}")


def check_alphabet(alphabet: str) -> None:
    """ValueError for an alphabet without a symbol, or with one twice."""
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError(f"alphabet={alphabet!r}: must be at least one symbol, each once")


def minimised(automaton: Automaton) -> Automaton:
    """The smallest automaton of the same language: reachable states, merged by Moore's refinement; start is state 0."""
    order, seen = [automaton.start], {automaton.start}
    for state in order:
        for after in automaton.delta[:, state].tolist():
            if after not in seen:
                seen.add(after)
                order.append(after)
    place = np.zeros(automaton.delta.shape[1], np.int64)
    place[order] = np.arange(len(order))
    delta, accepting = place[automaton.delta[:, order]], automaton.accepting[order]
    kind, kinds = accepting.astype(np.int64), len(np.unique(accepting))
    while True:
        finer = kind
        for after in kind[delta]:
            finer = np.unique(finer * (kind.max() + 1) + after, return_inverse=True)[1]
        kind = finer
        if kind.max() + 1 == kinds:
            break
        kinds = kind.max() + 1
    first = np.sort(np.unique(kind, return_index=True)[1])  # in the order in which they are reached
    number = np.zeros(kinds, np.int64)
    number[kind[first]] = np.arange(kinds)
    return Automaton(number[kind[delta[:, first]]].astype(np.int32), 0, accepting[first], automaton.symbols)


def permutations(generators: Sequence[Sequence[int]]) -> Automaton:
    """The word problem of a group of permutations, as an action: symbol a moves point q to generators[a][q].

    A word is accepted where it brings point 0 back. Symbols are a, b, c, ... ValueError for what is no permutation,
    for permutations of different sets of points, for none, and for more than 26.
    """
    if not 1 <= len(generators) <= len(ascii_lowercase) or len({len(g) for g in generators}) > 1:
        sizes = [len(g) for g in generators]
        raise ValueError(f"generators of {sizes} points: must be 1..26 permutations of the same points")
    for generator in generators:
        if not generator or sorted(generator) != list(range(len(generator))):
            raise ValueError(f"generator {tuple(generator)}: must be a permutation of 0..{len(generator) - 1}")
    points = len(generators[0])
    symbols = tuple(ascii_lowercase[: len(generators)])
    return Automaton(np.array(generators, np.int32), 0, np.arange(points) == 0, symbols)


def parity() -> Automaton:
    """An odd number of ones: not in AC0, so no constant number of steps recognises it (Furst, Saxe, Sipser, 1984)."""
    return Automaton(np.array([[0, 1], [1, 0]], np.int32), 0, np.array([False, True]), ("0", "1"))


def s3() -> Automaton:
    """S3 on three points, not commutative: a = (0 1 2), b = (0 1)."""
    return permutations([(1, 2, 0), (1, 0, 2)])


def a5() -> Automaton:
    """A5 on five points, the smallest group that is not solvable: NC1-complete (Barrington, 1989)."""
    return permutations([(1, 2, 3, 4, 0), (1, 2, 0, 3, 4)])


def s5() -> Automaton:
    """S5 on five points: NC1-complete (Barrington, 1989)."""
    return permutations([(1, 2, 3, 4, 0), (1, 0, 2, 3, 4)])


def ends_with(suffix: str, alphabet: str) -> Automaton:
    """All words that end with `suffix`: states are lengths of its prefixes (Knuth, Morris and Pratt, 1977).

    ValueError for an alphabet with a symbol twice, and a suffix that is empty or has a symbol outside of it.
    """
    check_alphabet(alphabet)
    if not suffix or not set(suffix) <= set(alphabet):
        raise ValueError(f"suffix={suffix!r}: must be at least one symbol of the alphabet {alphabet!r}")
    longest = lambda text: next(k for k in range(len(suffix), -1, -1) if text.endswith(suffix[:k]))
    delta = [[longest(suffix[:q] + symbol) for q in range(len(suffix) + 1)] for symbol in alphabet]
    accepting = np.arange(len(suffix) + 1) == len(suffix)
    return Automaton(np.array(delta, np.int32), 0, accepting, tuple(alphabet))
