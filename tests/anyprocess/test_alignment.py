"""Alignments against the definition of Levenshtein's distance."""

import functools
import itertools

import pytest

from mdmjax.anyprocess import GAP, align, aligned


@functools.cache
def distance(a, b):
    """Levenshtein's, by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[:-1], b[:-1]) + (a[-1] != b[-1]), distance(a[:-1], b) + 1, distance(a, b[:-1]) + 1)


def test_alignments_have_the_fewest_edits():
    """All pairs of strings of up to four letters of two."""
    words = [w for n in range(5) for w in itertools.product(range(2), repeat=n)]
    for a, b in itertools.product(words, words):
        columns = align(a, b)
        assert sum(x != y for x, y in columns) == distance(a, b) and (GAP, GAP) not in columns
        assert all(tuple(c[k] for c in columns if c[k] != GAP) == (a, b)[k] for k in (0, 1))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: aligned([(2, 0)], [(2, 1, 1)], 2), "row 0 needs 3 columns, there are 2"),
        (lambda: aligned([(0,)], [(1,)], 2), "row 0 begins with .*the same token"),
        (lambda: aligned([(2, 0)], [(2,)], 2, align=lambda a, b: [(2, 2)]), "row 0: the alignment .* is not one of"),
        (lambda: aligned([()], [()], 2), "row 0 begins with nothing"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
