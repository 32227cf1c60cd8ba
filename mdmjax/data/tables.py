"""Tables: each row of a CSV file is a sequence of L discrete tokens, one a column."""

import csv
import io
import itertools
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from mdmjax.data import files
from mdmjax.data.corpora import SPLITS, Corpus, check_fractions, position_cuts
from mdmjax.data.vocabularies import Columns, number


def table(
    path: str | os.PathLike | Mapping[str, str | os.PathLike],
    splits: Mapping[str, float] = SPLITS,
    *,
    bins: int = 32,
    categories: int = 64,
    shuffle_rows: int | None = None,
    held_out: float = 0.0,
    vocabulary: Columns | None = None,
) -> Corpus:
    """A CSV file with a header. Each column is a discrete token with ids of its own, so V is the sum of cardinalities.

    A column whose filled cells are all numbers is numeric: one token for each value where the training rows have at
    most `categories` distinct values (another value counts as the nearest), else at most `bins` quantile bins, where a
    value that fills a quantile has a bin to itself. The bins come from the training rows only, and empty cells are a
    token of their own. Any other column is categorical, with the values of all rows, sorted. `meta["columns"]` lists
    name, kind, cardinality, first id and inner bin edges.

    path: a file, whose consecutive rows are split by `splits` (after a permutation by the seed `shuffle_rows`, if
    given: for files that are sorted), or a mapping from split names, "train" among them, to files with one header.
    held_out: of such a mapping without "validation", the share of the training rows that become it: the last of them
    (after a permutation of the training rows by `shuffle_rows`, if given). Bins come from the rest.
    vocabulary: that of another table with these columns, on which a model was trained, say; no split need be "train".
    The `sha256` is that of the file, or for several of `sha256sum`'s listing of them.

    Raises FileNotFoundError; ValueError for an empty file, a missing header, no rows, ragged rows, text not in UTF-8,
    columns or values that the vocabulary lacks,
    a `held_out` outside [0, 1), or of one file or beside a "validation".
    """
    given = dict(path) if isinstance(path, Mapping) else {"": path}
    if held_out and not (0 < held_out < 1 and "train" in given and "validation" not in given):
        raise ValueError(
            f"held_out={held_out}: must be in [0, 1), and is for a training file without one for validation; "
            f"the files here are {list(given)}"
        )
    for p in given.values():
        if not pathlib.Path(p).is_file():
            raise FileNotFoundError(f"no such table {os.fspath(p)!r}: give the path of a CSV file with a header")
    hashed = files.hashed([pathlib.Path(p) for p in given.values()])
    content = {name: _read(file) for name, file in zip(given, hashed, strict=True)}
    names = list(vocabulary.names) if vocabulary else content[next(iter(content))][0]
    for file, (header, _) in zip(hashed, content.values(), strict=True):
        if header != names:
            known = "the vocabulary" if vocabulary else "the first file"
            raise ValueError(f"{str(file.path)!r} has the columns {header}, {known} has {names}: they should agree")
    rows = list(itertools.chain.from_iterable(rows for _, rows in content.values()))
    if isinstance(path, Mapping):
        ends = np.cumsum([0, *(len(rows) for _, rows in content.values())]).tolist()
        cuts = dict(zip(given, itertools.pairwise(ends), strict=True))
        if held_out:
            start, stop = cuts["train"]
            middle = stop - round(held_out * (stop - start))
            cuts |= {"train": (start, middle), "validation": (middle, stop)}
            if shuffle_rows is not None:
                order = start + np.random.default_rng(shuffle_rows).permutation(stop - start)
                rows[start:stop] = [rows[i] for i in order]
    else:
        check_fractions(splits)
        cuts = position_cuts(len(rows), splits)
        if shuffle_rows is not None:
            rows = [rows[i] for i in np.random.default_rng(shuffle_rows).permutation(len(rows))]
    columns = [[row[c] for row in rows] for c in range(len(names))]
    if vocabulary is None:
        vocabulary = _vocabulary(names, columns, cuts, bins, categories)
    ids = np.stack([vocabulary.encode_column(c, cells) for c, cells in enumerate(columns)], axis=1)
    meta = {
        "name": hashed[0].path.stem,
        "sha256": files.content_hash(hashed),
        "source": {k: os.fspath(p) for k, p in path.items()} if isinstance(path, Mapping) else os.fspath(path),
        "split_by": "source" if isinstance(path, Mapping) else "position",
        "shuffle_rows": shuffle_rows,
        "splits": {name: {"tokens": (b - a) * len(names), "start": a, "stop": b} for name, (a, b) in cuts.items()},
        "columns": [
            {
                "name": name,
                "kind": "categorical" if edges is None else "numeric",
                "cardinality": len(labels),
                "first_id": int(first),
                "edges": None if edges is None else list(edges),
            }
            for name, labels, edges, first in zip(
                names, vocabulary.labels, vocabulary.edges, vocabulary.offsets, strict=True
            )
        ],
    }
    return Corpus({name: ids[a:b].astype(np.uint32) for name, (a, b) in cuts.items()}, vocabulary, meta)


def _read(file: files.Hashed) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all of one length."""
    path, text = file.path, "".join(files.read_utf8(file))
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header, rows = None, []
    try:
        for row in reader:
            if not row:
                continue
            if header is None:
                header = row
            elif len(row) != len(header):
                raise ValueError(
                    f"{str(path)!r}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}; "
                    "every row should have one cell for each column"
                )
            else:
                rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}; a comma-separated table is needed") from None
    if header is None:
        raise ValueError(f"{str(path)!r} is empty: a header with column names, and rows, are needed")
    numbered = header == [str(i) for i in range(len(header))]
    for name in header:
        if not name.strip() or header.count(name) > 1:
            raise ValueError(f"{str(path)!r}: the header {header} should name each column, each differently")
        if number(name) is not None and not numbered:
            raise ValueError(
                f"{str(path)!r} has no header: its first line holds the number {name!r}; the first line should be the "
                "names of the columns"
            )
    if not rows:
        raise ValueError(f"{str(path)!r} has a header and no rows: at least one row is needed")
    return header, rows


def _vocabulary(
    names: list[str], columns: list[list[str]], cuts: dict[str, tuple[int, int]], bins: int, categories: int
) -> Columns:
    """The vocabulary of all rows, with bins from those of the split "train"."""
    if "train" not in cuts:
        raise ValueError(
            f"the bins of a table come from its split 'train', which is not among {list(cuts)}: name one so"
        )
    start, stop = cuts["train"]
    if start == stop:
        raise ValueError(
            f"a table of {len(columns[0])} rows leaves none for training: more rows or a larger split are needed"
        )
    made = [_column(cells, slice(start, stop), bins, categories) for cells in columns]
    return Columns(tuple(names), tuple(labels for labels, _ in made), tuple(edges for _, edges in made))


def _column(
    cells: list[str], train: slice, bins: int, categories: int
) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Labels, and for a numeric column the inner edges of its bins: bin i is edges[i-1] <= x < edges[i]."""
    filled = [cell for cell in cells if cell]
    if not filled or None in map(number, filled):
        return tuple(sorted(set(cells))), None
    numbers = np.array([float(cell) if cell else np.nan for cell in cells])
    missing = ("",) if np.isnan(numbers).any() else ()
    values, counts = np.unique(numbers[train][~np.isnan(numbers[train])], return_counts=True)
    if len(values) <= categories:
        edges = (values[1:] + values[:-1]) / 2
    else:
        ranks = np.arange(1, bins) * counts.sum() / bins
        first = np.searchsorted(np.cumsum(counts), ranks, side="right")  # of each quantile, as an index into values
        full = first[1:][first[1:] == first[:-1]]  # values that fill a quantile end where the next value begins
        cuts = np.unique(np.concatenate([first, full + 1]))
        edges = values[cuts[(cuts > 0) & (cuts < len(values))]]
    bin_of = np.searchsorted(edges, values, side="right")
    labels = []
    for b in range(len(edges) + 1):
        inside = values[bin_of == b]
        low, high = (_text(inside[0]), _text(inside[-1])) if len(inside) else ("", "")
        labels.append(low if low == high else f"{low}..{high}")
    return (*labels, *missing), tuple(edges.tolist())


def _text(value: np.float64) -> str:
    """The shortest text that reads back as the value, whole numbers without the point."""
    return str(int(value)) if value == np.floor(value) and abs(value) < 1e15 else repr(float(value))
