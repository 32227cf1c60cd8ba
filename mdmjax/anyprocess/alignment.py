"""Alignments of two texts: columns of a token of either, or of a gap on one side. On the host."""

from collections.abc import Callable, Sequence

import numpy as np

GAP = -1  # no token on this side of a column

Columns = list[tuple[int, int]]


def align(source: Sequence[int], target: Sequence[int]) -> Columns:
    """The columns (source, target) with the fewest that differ: the edits of Levenshtein's distance, by its recursion.

    Of alignments with equally many, from the end of the texts: two tokens side by side come before a deletion
    (x, GAP), and that before an insertion (GAP, y).
    """
    n, m = len(source), len(target)
    cost = np.zeros((n + 1, m + 1), int)
    cost[:, 0], cost[0] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            beside = cost[i - 1, j - 1] + (source[i - 1] != target[j - 1])
            cost[i, j] = min(beside, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    columns = []
    while n or m:
        if n and m and cost[n, m] == cost[n - 1, m - 1] + (source[n - 1] != target[m - 1]):
            n, m = n - 1, m - 1
            columns.append((source[n], target[m]))
        elif n and cost[n, m] == cost[n - 1, m] + 1:
            n -= 1
            columns.append((source[n], GAP))
        else:
            m -= 1
            columns.append((GAP, target[m]))
    return columns[::-1]


def aligned(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    length: int,
    *,
    align: Callable[[Sequence[int], Sequence[int]], Columns] = align,
) -> dict[str, np.ndarray]:
    """Arrays `source` and `target` [B, C] of the aligned rows, C = `length`; unused columns are (GAP, GAP).

    ValueError, which names the row: where it needs more columns than there are, where `align` has changed a text, and
    where the first column is no token that stays (tokens are inserted behind one).
    """
    sides = np.full((2, len(sources), length), GAP, np.int32)
    for row, texts in enumerate(zip(sources, targets, strict=True)):
        columns = align(*texts)
        if len(columns) > length:
            raise ValueError(f"row {row} needs {len(columns)} columns, there are {length}")
        for side, text in enumerate(texts):
            if tuple(column[side] for column in columns if column[side] != GAP) != tuple(text):
                raise ValueError(f"row {row}: the alignment {columns} is not one of {tuple(text)}")
        first = columns[0] if columns else "nothing"
        if not columns or first[0] != first[1]:
            raise ValueError(f"row {row} begins with {first}: both texts must begin with the same token")
        sides[:, row, : len(columns)] = np.array(columns).T
    return dict(source=sides[0], target=sides[1])
