"""Arithmetic: prompts whose answers must be exactly right."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from mdmjax.data.vocabularies import Characters

DIGITS = Characters("0123456789+=")


class Sums(NamedTuple):
    """Every sum of two numbers of `digits` digits, each once, in a random order."""

    rows: Int32[np.ndarray, "N L"]  # such as 07+58=065
    eligible: Bool[np.ndarray, "L"]  # True for the answer
    vocabulary: Characters


def sums(digits: int = 2, seed: int = 0) -> Sums:
    """All 100^digits sums a + b = c, zeros in front: L = 3 digits + 3, the last digits + 1 of them the answer.

    Raises ValueError for digits outside 1..3.
    """
    if not 1 <= digits <= 3:
        raise ValueError(f"digits={digits}: must be in 1..3, for all 100^digits sums are made")
    count = 10**digits
    a, b = np.divmod(np.random.default_rng(seed).permutation(count**2), count)
    plus, equals = (np.full((len(a), 1), DIGITS.characters.index(sign)) for sign in "+=")
    parts = _digits(a, digits), plus, _digits(b, digits), equals, _digits(a + b, digits + 1)
    rows = np.concatenate(parts, axis=1).astype(np.int32)
    return Sums(rows, np.arange(rows.shape[1]) >= 2 * digits + 2, DIGITS)


def _digits(numbers: np.ndarray, count: int) -> np.ndarray:
    return numbers[:, None] // 10 ** np.arange(count)[::-1] % 10
