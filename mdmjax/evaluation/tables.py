"""How alike two tables are, column by column and pair by pair: Shape and Trend, larger is better, 1 for equal laws.

The definitions are those of SDMetrics (DataCebo), on discrete tokens: a numeric column is its bin number. Rows hold
token ids; a shift of all ids of a column, as by `data.Columns`, changes nothing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer


def column_shapes(
    real: Integer[np.ndarray, "N L"], sampled: Integer[np.ndarray, "M L"], numeric: Sequence[bool]
) -> Float[np.ndarray, "L"]:
    """1 - KS of each numeric column, 1 - TV of each other one.

    KS = max_x |F(x) - G(x)|; TV = sum_x |p(x) - q(x)| / 2. ValueError for no rows, or columns that do not agree.
    """
    _check(real, sampled, numeric)
    scores = []
    for column, ordered in enumerate(numeric):
        p, q = _frequencies(real[:, column], sampled[:, column])
        distance = np.abs(np.cumsum(p - q)).max() if ordered else np.abs(p - q).sum() / 2
        scores.append(1 - distance)
    return np.array(scores)


def pair_trends(
    real: Integer[np.ndarray, "N L"], sampled: Integer[np.ndarray, "M L"], numeric: Sequence[bool]
) -> Float[np.ndarray, "L L"]:
    """1 - |rho - rho'| / 2 of each pair of numeric columns, else 1 - TV of the two-way table; 1 on the diagonal.

    rho is Pearson's correlation of the bin numbers, 0 where a column is constant. The TV of two samples from one law
    is not 0: compare scores of tables with the same numbers of rows. ValueError as `column_shapes`.
    """
    _check(real, sampled, numeric)
    columns = len(numeric)
    scores = np.ones((columns, columns))
    rho = [_correlations(rows) for rows in (real, sampled)]
    for a in range(columns):
        for b in range(a + 1, columns):
            if numeric[a] and numeric[b]:
                score = 1 - abs(rho[0][a, b] - rho[1][a, b]) / 2
            else:
                low = min(real[:, b].min(), sampled[:, b].min())
                size = max(real[:, b].max(), sampled[:, b].max()) - low + 1
                p, q = _frequencies(
                    *(rows[:, a].astype(np.int64) * size + rows[:, b] - low for rows in (real, sampled))
                )
                score = 1 - np.abs(p - q).sum() / 2
            scores[a, b] = scores[b, a] = score
    return scores


def shape(real: Integer[np.ndarray, "N L"], sampled: Integer[np.ndarray, "M L"], numeric: Sequence[bool]) -> float:
    """The mean of `column_shapes`."""
    return float(column_shapes(real, sampled, numeric).mean())


def trend(real: Integer[np.ndarray, "N L"], sampled: Integer[np.ndarray, "M L"], numeric: Sequence[bool]) -> float:
    """The mean of `pair_trends` over pairs of different columns; nan for one column."""
    pairs = np.triu_indices(len(numeric), 1)
    scores = pair_trends(real, sampled, numeric)[pairs]
    return float(scores.mean()) if len(scores) else float("nan")


def _check(real: np.ndarray, sampled: np.ndarray, numeric: Sequence[bool]) -> None:
    for name, rows in (("real", real), ("sampled", sampled)):
        if not len(rows) or rows.shape[1] != len(numeric):
            raise ValueError(
                f"{name} {list(rows.shape)}: needs at least one row, and {len(numeric)} columns as numeric"
            )


def _frequencies(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The relative frequency of each value that occurs in either, in the order of the values."""
    values, index = np.unique(np.concatenate([x, y]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(values)) for part in np.split(index.reshape(-1), [len(x)])]
    return counts[0] / len(x), counts[1] / len(y)


def _correlations(rows: np.ndarray) -> Float[np.ndarray, "L L"]:
    centred = rows - rows.mean(0)
    norms = np.sqrt(np.square(centred).sum(0))
    unit = centred / np.where(norms > 0, norms, 1)
    return unit.T @ unit
