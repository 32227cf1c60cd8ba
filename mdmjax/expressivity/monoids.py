"""The transition monoid of an automaton: what words do to its states, with a table that multiplies."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from mdmjax.expressivity.automata import Automaton, check_words

MAX_SIZE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class MonoidTask:
    """Word problem of an automaton: a word is the product of the elements of its symbols, "first f, then g".

    (f g)(q) = g(f(q)). Element 0 is the identity e; the others come breadth first from it, symbols in order.
    """

    automaton: Automaton
    elements: Int[np.ndarray, "M Q"]  # elements[f, q] = f(q)
    mul: Int[np.ndarray, "M M"]  # mul[f, g] = f g
    label: Int[np.ndarray, "S"]  # the element of each symbol

    @property
    def size(self) -> int:
        """|M|."""
        return len(self.elements)

    def labels(self, words: Int[np.ndarray, "B N"]) -> Int[np.ndarray, "B N"]:
        """The element of each symbol. ValueError for N = 0 and for symbols outside the alphabet."""
        check_words(words, len(self.label))
        return self.label[words]

    def accepts(self, elements: Int[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
        """Whether words with these products are accepted: element(q0) in F."""
        return self.automaton.accepting[self.elements[elements, self.automaton.start]]


def monoid_task(automaton: Automaton, max_size: int = MAX_SIZE) -> MonoidTask:
    """The closure of the maps q -> delta[a, q] under composition, and its multiplication table in O(|M|^2).

    ValueError that says how large it got where it has more than `max_size` elements.
    """
    maps = [tuple(row) for row in automaton.delta.tolist()]
    elements = [tuple(range(automaton.delta.shape[1]))]
    number, made, after = {elements[0]: 0}, [(0, 0)], []
    for f, element in enumerate(elements):
        row = []
        for a, symbol in enumerate(maps):
            product = tuple(symbol[q] for q in element)
            if product not in number:
                number[product] = len(elements)
                elements.append(product)
                made.append((f, a))
            row.append(number[product])
        after.append(row)
        if len(elements) > max_size:
            raise ValueError(
                f"the transition monoid has at least {len(elements)} elements: more than max_size={max_size}"
            )
    times_symbol = np.array(after, np.int32)  # [M, S]
    mul = np.empty((len(elements), len(elements)), np.int32)
    mul[:, 0] = np.arange(len(elements))
    for g in range(1, len(elements)):  # g = f a, so x g = (x f) a
        f, a = made[g]
        mul[:, g] = times_symbol[mul[:, f], a]
    return MonoidTask(automaton, np.array(elements, np.int32), mul, times_symbol[0])
