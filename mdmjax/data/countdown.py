"""Countdown: numbers and a target, to be reached with each number once. Many answers are right, and each is checked."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, Int32

from mdmjax.data.vocabularies import Characters

SIGNS = Characters("0123456789+-*>:")
_ADD, _SUBTRACT, _TIMES = (SIGNS.characters.index(sign) for sign in "+-*")


class Countdown(NamedTuple):
    """Different prompts, each with one of its answers."""

    rows: Int32[np.ndarray, "N L"]  # such as 3572>22:3*5+7, signs worked off from the left
    eligible: Bool[np.ndarray, "L"]  # True for the answer
    vocabulary: Characters


def countdown(rows: int, numbers: int = 3, seed: int = 0) -> Countdown:
    """`rows` different prompts of `numbers` digits 1 to 9, ascending, and a target of 0 to 99: L = 3 numbers + 3,
    the last 2 numbers - 1 of them the answer, one of those that reach the target, drawn at random.

    Raises ValueError for numbers outside 2..4, and for more rows than there are prompts.
    """
    if not 2 <= numbers <= 4:
        raise ValueError(f"numbers={numbers}: must be in 2..4")
    digits = np.array(list(itertools.combinations_with_replacement(range(1, 10), numbers)))
    orders = np.array(list(itertools.permutations(range(numbers))))
    signs = np.array(list(itertools.product((_ADD, _SUBTRACT, _TIMES), repeat=numbers - 1)))
    values = np.repeat(digits[:, orders].reshape(-1, numbers), len(signs), 0)
    between = np.tile(signs, (len(digits) * len(orders), 1))
    answers = np.empty((len(values), 2 * numbers - 1), np.int32)
    answers[:, ::2], answers[:, 1::2] = values, between
    reached = np.asarray(_reached(answers))
    possible = (0 <= reached) & (reached <= 99)
    of = np.repeat(np.arange(len(digits)), len(orders) * len(signs))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.flatnonzero(possible))
    prompts, first = np.unique(100 * of[shuffled] + reached[shuffled], return_index=True)
    if not 1 <= rows <= len(prompts):
        raise ValueError(f"rows={rows}: must be in 1..{len(prompts)}, the prompts of {numbers} numbers")
    chosen = rng.permutation(first)[:rows]
    at = shuffled[chosen]
    sign = lambda character: np.full((rows, 1), SIGNS.characters.index(character))
    target = np.stack([reached[at] // 10, reached[at] % 10], 1)
    parts = digits[of[at]], sign(">"), target, sign(":"), answers[at]
    found = np.concatenate(parts, 1).astype(np.int32)
    return Countdown(found, np.arange(found.shape[1]) >= numbers + 4, SIGNS)


def reaches(tokens: Int[ArrayLike, "N L"]) -> Bool[Array, "N"]:
    """Whether the answer of each row is an expression of the numbers of its prompt, each used once, that reaches the
    target; in JAX, so that it can be a reward inside a compiled step."""
    numbers = (tokens.shape[1] - 3) // 3
    given, target, answer = tokens[:, :numbers], tokens[:, numbers + 1 : numbers + 3], tokens[:, numbers + 4 :]
    used, signs = answer[:, ::2], answer[:, 1::2]
    same = (jnp.sort(given, 1) == jnp.sort(used, 1)).all(1)
    formed = ((signs >= _ADD) & (signs <= _TIMES)).all(1)
    return same & formed & (_reached(answer) == 10 * target[:, 0] + target[:, 1])


def _reached(answers: Int[ArrayLike, "N l"]) -> Int[Array, "N"]:
    """What the expressions give, worked off from the left."""
    total = answers[:, 0]
    for k in range(1, answers.shape[1], 2):
        sign, number = answers[:, k], answers[:, k + 1]
        otherwise = jnp.where(sign == _SUBTRACT, total - number, total * number)
        total = jnp.where(sign == _ADD, total + number, otherwise)
    return total
