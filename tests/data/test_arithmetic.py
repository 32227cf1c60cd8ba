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


@pytest.mark.parametrize("digits", [1, 3])
def test_workings_add_up_and_slips_do_not(digits):
    """Read back from the text: each digit sum with its carry, then the sum. A slip is one wrong digit sum, by 1 or by a
    carry, and what follows goes on from it."""
    rows = min(100**digits, 400)
    made = data.workings(rows, digits, seed=2)
    assert len({made.vocabulary.decode(row) for row in made.right}) == rows
    assert made.eligible.sum() == 3 * digits + 1 and (made.right != made.slipped).any(1).all()
    assert (made.right[:, ~made.eligible] == made.slipped[:, ~made.eligible]).all()
    for row, slipped in zip(made.right, made.slipped, strict=True):
        prompt, answer = made.vocabulary.decode(row).split("=")
        a, b = prompt.split("+")
        for text, slips in ((answer, 0), (made.vocabulary.decode(slipped).split("=")[1], 1)):
            steps, total = [int(text[2 * i : 2 * i + 2]) for i in range(digits)], text[2 * digits :]
            carry, wrong = 0, []
            for i, found in enumerate(steps):
                wrong.append(found - int(a[-1 - i]) - int(b[-1 - i]) - carry)
                carry = found // 10
            off = [x for x in wrong if x]
            assert len(off) == slips and all(abs(x) in (1, 10) for x in off) and max(steps) < 20
            assert total == str(carry) + "".join(str(x % 10) for x in reversed(steps))
            assert (int(total) == int(a) + int(b)) == (not slips)
    with pytest.raises(ValueError, match="must be in 1..4 and 1..100"):
        data.workings(101, 1)


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_a_slip_of_the_carry_is_off_by_ten(digits):
    """Less where the units have a carry, more where they have none; prompts stay."""
    rows = data.sums(digits).rows[:500]
    slipped = data.carry_slips(rows)
    assert (slipped[:, : 2 * digits + 2] == rows[:, : 2 * digits + 2]).all() and slipped.min() >= 0
    for row, slip in zip(rows, slipped, strict=True):
        text, other = (data.arithmetic.DIGITS.decode(x) for x in (row, slip))
        a, b = text.split("=")[0].split("+")
        carry = int(a[-1]) + int(b[-1]) > 9
        assert int(other.split("=")[1]) == int(a) + int(b) + (-10 if carry else 10)
