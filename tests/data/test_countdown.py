"""Countdown: every answer that is given is right, and what counts as right is what Python says."""

import numpy as np
import pytest

from mdmjax import data


def value(expression: str) -> int:
    """Of digits and signs in turn, worked off from the left."""
    total = expression[0]
    for sign, number in zip(expression[1::2], expression[2::2], strict=True):
        total = str(eval(f"({total}){sign}{number}"))
    return int(total)


@pytest.mark.parametrize("numbers, prompts", [(2, 134), (3, 1959), (4, 400)])
def test_answers_reach_their_targets(numbers, prompts):
    made = data.countdown(prompts, numbers, seed=1)
    texts = [made.vocabulary.decode(row) for row in made.rows]
    assert len({text.split(":")[0] for text in texts}) == prompts and made.eligible.sum() == 2 * numbers - 1
    for text in texts:
        given, rest = text.split(">")
        target, answer = rest.split(":")
        assert value(answer) == int(target) and sorted(answer[::2]) == sorted(given) and len(text) == 3 * numbers + 3
    assert np.asarray(data.reaches(made.rows)).all()


def test_what_is_right():
    """Of all answers of two numbers over the alphabet, and those that are not expressions at all."""
    prompt, characters = "37>04:", data.countdown(2).vocabulary.characters
    answers = [a + b + c for a in characters for b in characters for c in characters]
    tokens = np.array([[characters.index(c) for c in prompt + answer] for answer in answers], np.int32)
    right = {answer for answer, good in zip(answers, np.asarray(data.reaches(tokens)), strict=True) if good}
    assert right == {"7-3"}


def test_other_prompts_for_other_seeds():
    assert np.array_equal(data.countdown(50).rows, data.countdown(50).rows)
    assert (data.countdown(50).rows != data.countdown(50, seed=1).rows).any()
    with pytest.raises(ValueError, match="rows=135: must be in 1..134, the prompts of 2 numbers"):
        data.countdown(135, 2)
    with pytest.raises(ValueError, match="numbers=5"):
        data.countdown(5, 5)
