"""Automata, regular expressions against the `re` of Python, and transition monoids against the automata."""

import itertools
import re
import time

import numpy as np
import pytest
from words import AUTOMATA, random_words, task

from mdmjax.expressivity import Automaton, a5, ends_with, minimised, monoid_task, permutations, regular_expression, s5
from mdmjax.expressivity.automata import check_words


def test_an_automaton_keeps_arrays_of_its_own():
    """Lists and narrow integers become what is annotated, and what is changed afterwards is not."""
    delta, accepting = np.array([[0, 1], [1, 0]], np.int8), np.array([False, True])
    made = Automaton(delta, np.int64(1), accepting, ["0", "1"])
    delta[:], accepting[:] = 0, False
    listed = Automaton([[0, 1], [1, 0]], 1, [False, True], ("0", "1"))
    for one in (made, listed):
        assert one.delta.dtype == np.int32 and type(one.start) is int and type(one.symbols) is tuple
        np.testing.assert_array_equal(one.delta, [[0, 1], [1, 0]])
        np.testing.assert_array_equal(one.accepts(one.encode(["01", "11"])), [False, True])
        assert minimised(one).delta.shape == (2, 2) and monoid_task(one).size == 2


def random_automaton(rng, states, symbols):
    delta = rng.integers(0, states, (symbols, states)).astype(np.int32)
    return Automaton(delta, int(rng.integers(states)), rng.random(states) < 0.5, tuple("abc"[:symbols]))


def all_words(symbols, longest):
    return ["".join(w) for n in range(1, longest + 1) for w in itertools.product(symbols, repeat=n)]


def accepted(automaton, word):
    return bool(automaton.accepts(automaton.encode([word]))[0])


@pytest.mark.parametrize("name, size", [("parity", 2), ("s3", 6), ("a5", 60), ("s5", 120), ("ends with ab", 5)])
def test_monoid_is_one(name, size):
    found = task(name)
    mul = found.mul
    assert found.size == size
    np.testing.assert_array_equal(mul[0], np.arange(size))
    np.testing.assert_array_equal(mul[:, 0], np.arange(size))
    triples = np.array(list(itertools.product(range(size), repeat=3))) if size <= 6 else random_words(2000, 3, size)
    f, g, h = triples.T
    np.testing.assert_array_equal(mul[mul[f, g], h], mul[f, mul[g, h]])
    np.testing.assert_array_equal(found.elements[mul[f, g]], found.elements[g[:, None], found.elements[f]])


def test_products_are_what_the_automaton_does():
    """On 300 words of random automata; and not in the other order, where the monoid does not commute."""
    rng, swapped = np.random.default_rng(1), 0
    for _ in range(300):
        found = monoid_task(random_automaton(rng, int(rng.integers(1, 4)), int(rng.integers(1, 4))))
        word = rng.integers(0, len(found.label), (1, rng.integers(1, 70))).astype(np.int32)
        product = other = 0
        for label in found.labels(word)[0]:
            product, other = found.mul[product, label], found.mul[label, other]
        assert found.elements[product, found.automaton.start] == found.automaton.states(word)[0, -1]
        assert found.accepts(np.array([product])) == found.automaton.accepts(word)
        swapped += product != other
    assert swapped > 30


def test_languages_by_what_they_say():
    for word in all_words("ab", 6):
        assert accepted(ends_with("aba", "ab"), word) == word.endswith("aba")
        assert accepted(AUTOMATA["parity"](), word.replace("a", "0").replace("b", "1")) == (word.count("b") % 2 == 1)


PATTERNS = [
    "(ab)*", "[ab]*ab", "a{2,3}|b+", "a?b", "a|", "(a|b)*a(a|b){3}", "a{2,}b", "(a{0,2}b)*", "[^a]", "[a-c]*c.",
    "((a|b)c)+", "(a*)*b", "(a|b*){2}", "a{0}b", "", "(((a*b?)*c)*|a?)*b", "(a?b?){3}", "((a*)*(b*)*)*",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regular_expressions_match_what_python_matches(pattern):
    automaton = regular_expression(pattern, "abc")
    words = all_words("abc", 6)
    expected = [re.fullmatch(pattern, word) is not None for word in words]
    for n in range(1, 7):
        some = [k for k, word in enumerate(words) if len(word) == n]
        found = automaton.accepts(automaton.encode([words[k] for k in some]))
        assert found.tolist() == [expected[k] for k in some]
    assert automaton.accepting[automaton.start] == (re.fullmatch(pattern, "") is not None)


def test_an_escaped_symbol_is_a_symbol():
    automaton = regular_expression(r"\*[\]*]", "*]")
    assert [accepted(automaton, word) for word in ("*]", "**", "]*", "*")] == [True, True, False, False]


def test_long_patterns_take_little_time():
    """Time of the processor; a subset of 3,000 states for each of 3,002 states."""
    start = time.process_time()
    assert regular_expression("(a?b?){1500}", "ab").delta.shape == (2, 3002)
    assert time.process_time() - start < 8


def test_minimal_automata_are_minimal():
    """The n-th symbol from the end needs 2^n states; copies of states and unreachable ones go."""
    assert regular_expression("[ab]*a[ab]{4}", "ab").delta.shape == (2, 32)
    assert minimised(a5()).delta.shape == (2, 5)
    rng = np.random.default_rng(2)
    for _ in range(50):
        automaton = random_automaton(rng, 4, 2)
        double = Automaton(
            np.tile(automaton.delta, 2), automaton.start + 4, np.tile(automaton.accepting, 2), ("a", "b")
        )
        small, same = minimised(double), minimised(automaton)
        np.testing.assert_array_equal(small.delta, same.delta)
        words = random_words(100, 9, seed=3)
        np.testing.assert_array_equal(small.accepts(words), automaton.accepts(words))
        states = small.delta.shape[1]  # any two states are told apart by a word of fewer symbols than there are states
        ends = [[q for q in range(states)]]
        for word in all_words("ab", states):
            q = np.arange(states)
            for symbol in word:
                q = small.delta["ab".index(symbol), q]
            ends.append(q)
        assert len({tuple(column) for column in small.accepting[np.array(ends)].T}) == states


@pytest.mark.parametrize(
    "pattern, says",
    [
        ("a**", "'*' at 2 repeats a repetition"),
        ("(a", "its end leaves a parenthesis open"),
        ("a)", "')' at 1 closes no parenthesis"),
        ("[b-a]", "range that does not rise"),
        ("[ab", "leaves a bracket open"),
        ("[]", "a bracket without a symbol"),
        ("ad", "'d' at 1 is not in the alphabet 'abc'"),
        ("^a", "has nothing to act on, or is not understood"),
        ("*a", "has nothing to act on"),
        ("a{3,2}", "a count that must rise"),
        ("a{2", "begins no count"),
        ("(?:a)", "groups are plain"),
        ("a\\", "needs a symbol"),
        ("\\a", "'a' at 1 follows a \\, which stands only before what is no letter or digit"),
        ("[\\b]", "'b' at 2 follows a \\"),
        ("a{,2}", "'{' at 1 begins a count without its least number: write {0,2} for {,2}"),
        (None, "pattern=None: must be a string"),
        ("(" * 200, "more than 25 parentheses"),
        ("(a{2000}){2000}", "more than 20000 parts"),
        ("[ab]*a[ab]{12}", "more than 4096 states, the limit"),
    ],
)
def test_patterns_that_cannot_be_read_are_refused_in_one_line(pattern, says):
    with pytest.raises(ValueError) as error:
        regular_expression(pattern, "abc")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_refusals():
    delta = np.array([[0, 1]], np.int32)
    with pytest.raises(ValueError, match="needs a start state in 0..1"):
        Automaton(delta, None, np.array([True, False]), ("a",))
    for start in (2, -1):
        with pytest.raises(ValueError, match=f"start={start}"):
            Automaton(delta, start, np.array([True, False]), ("a",))
    for shift in (1, -1):
        with pytest.raises(ValueError, match="must be in 0..1"):
            Automaton(delta + shift, 0, np.array([True, False]), ("a",))
    with pytest.raises(ValueError, match="accepting"):
        Automaton(delta, 0, np.array([True]), ("a",))
    with pytest.raises(ValueError, match="symbols="):
        Automaton(delta, 0, np.array([True, False]), ("a", "b"))
    for start in (0.5, 0.0, True, "0", np.bool_(True)):
        with pytest.raises(ValueError, match="start=.*: an automaton needs a start state in 0..1"):
            Automaton(delta, start, np.array([True, False]), ("a",))
    for accepting in (np.array([1, 0]), [0.0, 1.0], ["", "a"]):
        with pytest.raises(ValueError, match=r"accepting .*\[2\]: must say True or False of each of 2 states"):
            Automaton(delta, 0, accepting, ("a",))
    for wrong in (delta * 1.0, delta[0], delta[:0], [[0.5, 1]]):
        with pytest.raises(ValueError, match="delta .*: must be integers"):
            Automaton(wrong, 0, np.array([True, False]), ("a",))
    with pytest.raises(ValueError, match=r"words='abba': must be a list of words, such as \['abba'\]"):
        a5().encode("abba")
    for words in ([[0, 1]], np.array([0, 1]), np.zeros((1, 2))):
        with pytest.raises(ValueError, match=r"words .*: must be a NumPy array of integers \[B, N\]"):
            check_words(words, 2)
    for symbol in (2, -1):
        with pytest.raises(ValueError, match=rf"words\[0, 1\] = {symbol}: a symbol must be in 0..1"):
            a5().states(np.array([[0, symbol]]))
    with pytest.raises(ValueError, match="symbol 'c': the alphabet is a, b"):
        a5().encode(["abc"])
    with pytest.raises(ValueError, match="of one length"):
        a5().encode(["ab", "a"])
    with pytest.raises(ValueError, match=r"words\[1, 2\] = 2: a symbol must be in 0..1"):
        task("a5").labels(np.array([[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(ValueError, match="N=0"):
        task("a5").labels(np.zeros((3, 0), int))
    with pytest.raises(ValueError, match=r"at least 12\d elements: more than max_size=119"):
        monoid_task(s5(), max_size=119)
    assert monoid_task(s5(), max_size=120).size == 120
    with pytest.raises(ValueError, match="must be a permutation"):
        permutations([(0, 0, 1)])
    for generators in ([], [(0, 1), (0, 1, 2)], [(0, 1)] * 27):
        with pytest.raises(ValueError, match="generators of .* points: must be 1..26 permutations of the same points"):
            permutations(generators)
    with pytest.raises(ValueError, match="must be a permutation"):
        permutations([()])
    with pytest.raises(ValueError, match="alphabet='aa': must be at least one symbol, each once"):
        ends_with("a", "aa")
    with pytest.raises(ValueError, match="suffix="):
        ends_with("c", "ab")
