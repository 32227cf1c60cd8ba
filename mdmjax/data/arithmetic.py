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


def carry_slips(rows: Int32[np.ndarray, "N L"]) -> Int32[np.ndarray, "N L"]:
    """Rows of `sums` with the carry of the units forgotten, or invented where there is none: each sum is off by ten."""
    digits = (rows.shape[1] - 3) // 3
    units = rows[:, digits - 1] + rows[:, 2 * digits]
    total = rows[:, 2 * digits + 2 :] @ 10 ** np.arange(digits + 1)[::-1] + np.where(units > 9, -10, 10)
    return np.concatenate([rows[:, : 2 * digits + 2], _digits(total, digits + 1)], axis=1).astype(np.int32)


class Workings(NamedTuple):
    """Sums with their working, each answered as it should be and with a slip."""

    right: Int32[np.ndarray, "N L"]  # such as 457+968=1512141425: 7+8, 5+6+1, 4+9+1, and the sum
    slipped: Int32[
        np.ndarray, "N L"
    ]  # the same prompt; a digit sum is wrong by one or by a carry, and all that follows
    eligible: Bool[np.ndarray, "L"]  # True for the answer: the working and the sum
    vocabulary: Characters


def workings(rows: int, digits: int = 3, seed: int = 0) -> Workings:
    """`rows` different sums of two numbers of `digits` digits: L = 5 digits + 3, the last 3 digits + 1 the answer.

    The working has the sum of each pair of digits with its carry, in two digits, from the units on. A slip changes one
    of these by 1, or forgets or invents a carry, and goes on from there without another one.
    Raises ValueError for digits outside 1..4, and for more rows than there are sums.
    """
    if not 1 <= digits <= 4 or not 1 <= rows <= 100**digits:
        raise ValueError(f"digits={digits}, rows={rows}: must be in 1..4 and 1..{100 ** min(max(digits, 1), 4)}")
    rng = np.random.default_rng(seed)
    a, b = np.divmod(rng.choice(100**digits, rows, replace=False), 10**digits)
    plus, equals = (np.full((rows, 1), DIGITS.characters.index(sign)) for sign in "+=")
    prompt = [_digits(a, digits), plus, _digits(b, digits), equals]
    by_place = (_digits(a, digits) + _digits(b, digits))[:, ::-1]  # units first

    def answer(slips: np.ndarray) -> list[np.ndarray]:
        carry, working, total = np.zeros(rows, int), [], []
        for place in range(digits):
            found = by_place[:, place] + carry + slips[:, place]
            carry = found // 10
            working.append(_digits(found, 2))
            total.append(found % 10)
        return [*working, np.stack([carry, *total[::-1]], 1)]

    slips, place = np.zeros((rows, digits), int), rng.integers(digits, size=rows)
    right = answer(slips)
    here = np.take_along_axis(np.stack([10 * w[:, 0] + w[:, 1] for w in right[:digits]], 1), place[:, None], 1)[:, 0]
    slip = rng.choice([-10, -1, 1, 10], size=rows)
    slip = np.where((here + slip < 0) | (here + slip > 19), -slip, slip)
    slips[np.arange(rows), place] = slip
    both = [np.concatenate([*prompt, *parts], 1).astype(np.int32) for parts in (right, answer(slips))]
    return Workings(*both, np.arange(both[0].shape[1]) >= 2 * digits + 2, DIGITS)


def _digits(numbers: np.ndarray, count: int) -> np.ndarray:
    return numbers[:, None] // 10 ** np.arange(count)[::-1] % 10
