"""Sums whose answers can be checked."""

import numpy as np
import pytest

from mdmjax import data


def test_every_sum_is_there_once_and_right():
    """All 10,000 of them, read back from the text."""
    made = data.sums(2, seed=1)
    texts = [made.vocabulary.decode(row) for row in made.rows]
    assert len(set(texts)) == len(texts) == 10_000
    for text in texts:
        left, answer = text.split("=")
        assert sum(map(int, left.split("+"))) == int(answer)
    assert made.vocabulary.decode(made.rows[0][~made.eligible])[-1] == "=" and made.eligible.sum() == 3


def test_the_order_is_that_of_the_seed():
    """Another seed has another order."""
    assert (data.sums(1).rows == data.sums(1).rows).all()
    assert (data.sums(1).rows != data.sums(1, seed=1).rows).any()
    assert np.array_equal(np.sort(data.sums(1).rows, 0), np.sort(data.sums(1, seed=1).rows, 0))


@pytest.mark.parametrize("digits", [0, 4])
def test_too_many_digits_are_refused(digits):
    """And none."""
    with pytest.raises(ValueError, match=f"digits={digits}: must be in 1..3"):
        data.sums(digits)
