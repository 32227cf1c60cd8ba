"""Two-sided Dyck words: what the stochastic teacher can write is the language."""

import functools
import itertools

import numpy as np
import pytest

from mdmjax.anyprocess import Dyck, apply
from mdmjax.anyprocess.dyck import BOS, inverse, reduces
from mdmjax.anyprocess.teachers import check_move

COUNTS = {1: [1, 2, 6, 20], 2: [1, 4, 28, 232], 3: [1, 6, 66, 876]}


def reachable(dyck, letters):
    """All states on the way to words of at most that many letters, where only the state decides what may come next."""
    seen, todo = {(BOS,)}, [(BOS,)]
    while todo:
        state = todo.pop()
        if dyck.mask not in state and len(state) > letters - 1:
            continue
        for move in dyck.moves(state):
            check_move(state, move, dyck.mask)
            if (after := apply(state, move, dyck.mask)) not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def cancels(word):
    """Whether nothing is left of a word, letters of which are 2 i - 1 and its inverse 2 i: by a stack of its own."""
    left = []
    for x in word:
        if left and left[-1] == (x + 1 if x % 2 else x - 1):
            left.pop()
        else:
            left.append(x)
    return not left


@functools.cache
def language(k):
    """Of all (2 k)^n words of n <= 6 letters those that reduce to nothing."""
    every = itertools.chain.from_iterable(itertools.product(range(1, 2 * k + 1), repeat=n) for n in range(7))
    return {word for word in every if cancels(word)}


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("k", COUNTS)
def test_the_words_it_writes_are_the_language(k, bits):
    """And their numbers are the known ones."""
    words = {state[1:] for state in reachable(Dyck(k, bits), 6) if Dyck(k).mask not in state}
    assert words == language(k)
    assert [sum(len(word) == n for word in words) for n in range(7)] == [
        COUNTS[k][n // 2] if n % 2 == 0 else 0 for n in range(7)
    ]


def test_the_oracle():
    """Cancellation of neighbours in any order comes to the same: here, of the first pair found, again and again."""
    for word in itertools.product(range(1, 5), repeat=6):
        left = list(word)
        while pairs := [i for i in range(len(left) - 1) if left[i + 1] == inverse(left[i])]:
            del left[pairs[0] : pairs[0] + 2]
        assert reduces(word) == cancels(word) == (not left)


@pytest.mark.parametrize(("bits", "gaps", "steps"), [(False, 1, 3), (False, 3, 3), (True, 1, 4)])
def test_random_moves(bits, gaps, steps):
    """A round is three steps for any number of gaps, four without counts; each move is one of those it may make."""
    dyck, rng = Dyck(2, bits), np.random.default_rng(0)
    for _ in range(20):
        state = (BOS,)
        for _ in range(6):
            pairs = min(gaps, len(state))
            before = len(state)
            for _ in range(steps):
                move = dyck.draw(rng, state, gaps)
                check_move(state, move, dyck.mask)
                assert gaps > 1 or move in dyck.moves(state)
                assert max(move.insert) <= (1 if bits else 2)
                state = apply(state, move, dyck.mask)
            assert dyck.mask not in state and reduces(state[1:]) and len(state) == before + 2 * pairs


def test_every_word_is_drawn():
    """The 28 words of four letters over two generators, by random moves."""
    dyck, rng, words = Dyck(2), np.random.default_rng(0), set()
    for _ in range(700):
        state = (BOS,)
        for _ in range(6):
            state = apply(state, dyck.draw(rng, state), dyck.mask)
        words.add(state[1:])
    assert len(words) == 28


def test_one_gap_at_a_time_without_counts():
    with pytest.raises(ValueError, match=r"gaps \[0, 1\]: without counts there is one at a time"):
        Dyck(1, bits=True).open((BOS, 1, 2), [0, 1])


def test_names():
    """A capital is the inverse of its letter, and a letter is not its own."""
    names, pairs = Dyck(3).names, itertools.product(range(1, 7), repeat=2)
    assert {names[a] + names[b] for a, b in pairs if reduces((a, b))} == {"aA", "Aa", "bB", "Bb", "cC", "Cc"}
    assert Dyck(2).names == ("BOS", "a", "A", "b", "B") and Dyck(2).mask == 5
    assert len(set(Dyck(30).names)) == Dyck(30).mask == 61
