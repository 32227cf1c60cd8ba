"""Trees and scans on integers: the products, the steps and cells, and the order of the operands."""

import dataclasses
import functools
import itertools
import time

import numpy as np
import pytest
from words import random_words, task

from mdmjax.expressivity import (
    Circuit,
    Stages,
    accounting,
    canvas,
    chain_of_thought,
    evaluate,
    hillis_steele,
    leaves,
    level_expanded,
    read,
    scan_run,
    tree,
    tree_run,
    two_sweep,
)

SCANS = {
    "chain of thought": (chain_of_thought, accounting.chain_of_thought),
    "hillis steele": (hillis_steele, accounting.hillis_steele),
    "hillis steele, copied": tuple(
        functools.partial(f, copied=True) for f in (hillis_steele, accounting.hillis_steele)
    ),
    "level expanded": (level_expanded, accounting.level_expanded),
    "two sweep": (two_sweep, accounting.two_sweep),
    "two sweep, materialised": tuple(functools.partial(f, materialise=True) for f in (two_sweep, accounting.two_sweep)),
}


def prefixes(found, words):
    """By the definition, one symbol after the other."""
    multiply = lambda f, g: found.mul[f, g]
    return np.array([list(itertools.accumulate(row, multiply)) for row in found.labels(words)])


def test_leaves_from_left_to_right_are_the_word():
    for length in range(1, 71):
        nodes = leaves(length)
        assert sorted(nodes) == list(range(length, 2 * length))
        below = lambda h, n=length: [h] if h >= n else below(2 * h) + below(2 * h + 1)
        assert below(1) == nodes.tolist()


@pytest.mark.parametrize("name", ["s3", "a5", "ends with ab"])
def test_the_tree_recognises(name):
    found = task(name)
    for length in [*range(1, 20), 33, 64, 69]:
        words = random_words(20, length, seed=length)
        run, circuit = tree_run(words, found), tree(found, length)
        product = read(circuit, run.tokens)[:, 0]
        np.testing.assert_array_equal(found.elements[product, 0], found.automaton.states(words)[:, -1])
        np.testing.assert_array_equal(found.accepts(product), found.automaton.accepts(words))
        assert run.counts[:2] == accounting.tree(length) == ((length - 1).bit_length(), length - 1)
        assert sum(run.counts.written) == length - 1 and run.counts.resamples == 0


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_gives_all_prefixes(name):
    build, cost = SCANS[name]
    found = task("s3")
    for length in [*range(1, 20), 32, 64, 69]:
        words = random_words(10, length, seed=length)
        run, circuit = scan_run(words, found, build), build(found, length)
        result = read(circuit, run.tokens)
        if circuit.op is not found.mul:
            np.testing.assert_array_equal(result, found.automaton.states(words))
        else:
            np.testing.assert_array_equal(result, prefixes(found, words))
        assert run.counts[:2] == cost(length)
        if isinstance(circuit, Circuit):
            assert run.counts.resamples == 0 and sum(run.counts.written) == circuit.cells
        else:
            assert (run.counts.resamples > 0) == (length >= (2 if "copied" in name else 3))
            assert sum(run.counts.written) - run.counts.resamples == circuit.cells


@pytest.mark.parametrize("build", [tree, *(build for build, _ in SCANS.values())])
def test_each_cell_is_written_as_soon_as_its_operands_are_known(build):
    for length in (1, 2, 3, 6, 13, 16, 25):
        circuit = build(task("parity"), length)
        if isinstance(circuit, Stages):
            continue
        given = np.arange(circuit.length) < length
        if circuit.constant is not None:
            given[circuit.constant_at] = True
        known, step = given, 0
        while not known.all():
            step += 1
            ready = ~known & known[circuit.left] & known[circuit.right]
            np.testing.assert_array_equal(ready, circuit.step == step)
            known = known | ready
        assert step == circuit.steps and (circuit.step[given] == 0).all()


def test_reference_counts():
    """Of the definitions, counted by hand or by earlier programs."""
    cost = lambda f, lengths: [
        tuple(f(task("parity"), n).steps for _ in (0,)) + (f(task("parity"), n).cells,) for n in lengths
    ]
    assert cost(level_expanded, (4, 5, 8, 13, 16, 64)) == [(2, 5), (3, 8), (3, 17), (4, 37), (4, 49), (6, 321)]
    assert cost(two_sweep, (4, 5, 8, 13)) == [(3, 9), (4, 12), (5, 21), (7, 36)]
    assert cost(two_sweep, (16, 32, 64)) == [(7, 45), (9, 93), (11, 189)]


@pytest.mark.parametrize("build", [tree, *(build for name, (build, _) in SCANS.items() if name != "chain of thought")])
def test_the_other_order_of_operands_is_wrong(build):
    """Which no commutative monoid would show."""
    words = random_words(50, 13)
    for name, wrong in (("s3", True), ("parity", False)):
        circuit = build(task(name), 13)
        swapped = dataclasses.replace(circuit, left=circuit.right, right=circuit.left)
        results = [read(c, evaluate(c, words).tokens)[:, -1] for c in (circuit, swapped)]
        assert (results[0] != results[1]).any() == wrong


def test_steps_of_the_tree_are_fewer_than_of_the_chain():
    assert all(accounting.tree(n).steps < accounting.chain_of_thought(n).steps for n in range(3, 70))


def test_long_words_take_little_time():
    """1,000 words of 4,096 symbols in 2 s of the processor, which other work on the machine does not lengthen."""
    found, words = task("a5"), random_words(1000, 4096)
    expected = found.automaton.states(words[:20])
    for build in (tree, hillis_steele, level_expanded, two_sweep, chain_of_thought):
        start = time.process_time()
        run = scan_run(words, found, build)
        assert time.process_time() - start < 2
        result = read(build(found, 4096), run.tokens[:20])
        states = result if build is chain_of_thought else found.elements[result, 0]
        np.testing.assert_array_equal(states, expected[:, -states.shape[1] :])


def test_words_of_65536_symbols():
    found, words = task("a5"), random_words(4, 65536)
    expected = found.automaton.states(words)
    for build in (tree, hillis_steele, level_expanded, two_sweep):
        run = scan_run(words, found, build)
        result = read(build(found, 65536), run.tokens)
        np.testing.assert_array_equal(found.elements[result, 0], expected[:, -result.shape[1] :])


def test_refusals():
    for build in (tree, *(build for build, _ in SCANS.values()), lambda _, n: leaves(n)):
        with pytest.raises(ValueError, match="N=0"):
            build(task("s3"), 0)
    circuit = tree(task("s3"), 4)
    with pytest.raises(ValueError, match="N=4"):
        evaluate(circuit, np.zeros((1, 5), int))
    for build in (tree, chain_of_thought, hillis_steele):
        for words in (np.full((1, 4), 2), task("s3").labels(np.array([[0, 0, 1, 0]]))):
            with pytest.raises(ValueError, match=r"words\[0, .\] = 2: a symbol must be in 0..1"):
                evaluate(build(task("s3"), 4), words)
        with pytest.raises(ValueError, match=r"words\[0, 3\] = -1: a symbol must be in 0..1"):
            canvas(build(task("s3"), 4), np.array([[0, 0, 0, -1]]))
    with pytest.raises(ValueError, match="not at its end"):
        read(circuit, canvas(circuit, np.zeros((1, 4), int)))
