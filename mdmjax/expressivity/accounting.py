"""Steps T and cells P of the inclusions between masked diffusion, looped transformers and chains of thought.

Integers as stated in arXiv 2510.13117, whose "in" and "=" hide uniformity and O() conditions: they count what a
construction takes and prove nothing. N is the length of the input, D the width, L the layers. Tests compare every
function with the counts of real runs, but for `chain_of_corollary`, which is made of the others. ValueError for numbers
that are no integers, or below 1 (P, T: below 0).
"""

import operator
from typing import Any, NamedTuple, SupportsIndex

Index = SupportsIndex | float  # floats are refused by name


class Cost(NamedTuple):
    """Denoising steps and output cells (or padding, or symbols written)."""

    steps: int  # T
    cells: int  # P


def log_steps(length: Index) -> int:
    """ceil(log2 N) in integers: 0 for N = 1."""
    (length,) = _check(length=length)
    return (length - 1).bit_length()


def tree(length: Index) -> Cost:
    """(ceil(log2 N), N - 1): theorem 3.2, regular languages in MDM[log N, N]."""
    (length,) = _check(length=length)
    return Cost(log_steps(length), length - 1)


def chain_of_thought(length: Index) -> Cost:
    """(N, N): one state after the other."""
    (length,) = _check(length=length)
    return Cost(length, length)


def hillis_steele(length: Index, copied: bool = False) -> Cost:
    """(max(1, ceil(log2 N)), N), or with a copy first (1 + ceil(log2 N), N)."""
    (length,) = _check(length=length)
    levels = log_steps(length)
    return Cost(1 + levels if copied else max(1, levels), length)


def level_expanded(length: Index) -> Cost:
    """(ceil(log2 N), N ceil(log2 N) - (2^ceil(log2 N) - 1))."""
    (length,) = _check(length=length)
    levels = log_steps(length)
    return Cost(levels, length * levels - ((1 << levels) - 1))


def two_sweep(length: Index, materialise: bool = False) -> Cost:
    """(T, 3 (N - 1)); a step and N cells more where the prefixes are cells as well. With Lg = ceil(log2 N) and N > 1

        T = 2 Lg - 1,   one less where 4 N <= 3 2^Lg,

    for then all leaves of the right half are a level higher, and its last product waits less. T = 0 for N = 1.
    """
    (length,) = _check(length=length)
    levels = log_steps(length)
    steps = 2 * levels - 1 - (4 * length <= 3 << levels) if length > 1 else 0
    return Cost(steps + materialise, 3 * (length - 1) + length * materialise)


def looped_to_mdm(steps: Index, padding: Index, length: Index, width: Index) -> Cost:
    """(T, (N + P) D): theorem 3.1, PLT[T, P] in MDM[T, (N + P) D]. A cell is a coordinate."""
    length, width = _check(length=length, width=width)
    steps, padding = _check(least=0, steps=steps, padding=padding)
    return Cost(steps, (length + padding) * width)


def looped_to_write_once(steps: Index, padding: Index, length: Index, width: Index) -> Cost:
    """(T, (N + P) D T): the same without resampling, with new cells at each step."""
    cost = looped_to_mdm(steps, padding, length, width)
    return Cost(cost.steps, cost.cells * cost.steps)


def mdm_to_looped(steps: Index, cells: Index) -> Cost:
    """(T, P): theorem 3.1, MDM[T, P] in PLT[T, P]."""
    return Cost(*_check(least=0, steps=steps, cells=cells))


def parallel_chain_to_mdm(steps: Index, symbols: Index, length: Index) -> Cost:
    """(T, P + (N + P)^2): theorem 3.3, pCoT[T, P] in MDM[T, P + (N + P)^2]. The square is the grid of causal views."""
    (length,) = _check(length=length)
    steps, symbols = _check(least=0, steps=steps, symbols=symbols)
    return Cost(steps, symbols + (length + symbols) ** 2)


def mdm_to_parallel_chain(steps: Index, cells: Index, length: Index, layers: Index) -> Cost:
    """(T, L T (P + N)): theorem 3.4, MDM[T, P] in pCoT[T, L T (P + N)]. L copies of all tokens at each step.

    The N + P tokens of a step, which our construction writes before their copies, are not counted.
    """
    length, layers = _check(length=length, layers=layers)
    steps, cells = _check(least=0, steps=steps, cells=cells)
    return Cost(steps, layers * steps * (cells + length))


def chain_of_corollary(steps: Index, length: Index, layers: Index) -> tuple[int, int, int, int, int]:
    """The sizes of corollary 3.5, each at most the next:

        T,   T,   T + (N + T)^2,   L T (N + T + (N + T)^2),   L T (N + T + 1)^2

    of CoT[T] = pCoT[T, T] in MDM[T, .] in pCoT[T, .] in CoT[.] in CoT[.].
    """
    steps, length, layers = _check(steps=steps, length=length, layers=layers)
    total = length + steps
    through = mdm_to_parallel_chain(steps, parallel_chain_to_mdm(steps, steps, length).cells, length, layers).cells
    return steps, steps, steps + total**2, through, layers * steps * (total + 1) ** 2


def _check(least: int = 1, **values: Any) -> list[int]:
    """The values as Python's integers, which do not overflow."""
    for name, value in values.items():
        if not hasattr(value, "__index__"):
            raise ValueError(f"{name}={value!r}: must be an integer")
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    return [operator.index(value) for value in values.values()]
