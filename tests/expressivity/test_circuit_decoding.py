"""Circuits on the sampling engine: token for token the integer runs, and what the order of writing does to them."""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from words import random_words, task

from mdmjax.expressivity import (
    AtSteps,
    Dependency,
    Headed,
    Predictor,
    Stages,
    accounting,
    canvas,
    chain_of_thought,
    evaluate,
    hillis_steele,
    level_expanded,
    order_statistics,
    read,
    trace_counts,
    tree,
    tree_order_probability,
    tree_steps_probability,
    two_sweep,
    valid_orders,
)
from mdmjax.process import Linear
from mdmjax.sampling import Ancestral, Confidence, FirstHitting, LeftToRight, TokenDraw, sample, scores

KEY = jax.random.key(0)


def decode(circuit, words, planner, denoiser=None, draw=None, key=KEY):
    """A traced run of the engine on words of symbols."""
    tokens = jnp.asarray(canvas(circuit, words))
    how = dict(vocab=circuit.vocab, key=key, draw=draw or TokenDraw(0.0), trace=True)
    return jax.jit(lambda tokens: sample(denoiser or Predictor(circuit), planner, tokens, **how))(tokens)


CASES = {
    "tree": (tree, accounting.tree),
    "chain of thought": (chain_of_thought, accounting.chain_of_thought),
    "level expanded": (level_expanded, accounting.level_expanded),
    "two sweep": (two_sweep, accounting.two_sweep),
    "hillis steele": (hillis_steele, accounting.hillis_steele),
    "hillis steele, copied": tuple(
        functools.partial(f, copied=True) for f in (hillis_steele, accounting.hillis_steele)
    ),
}


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("name", CASES)
def test_the_engine_gives_the_integer_run(name, length):
    """All cells, the cells written at each call, and those written again, by both planners, also where it draws."""
    build, cost = CASES[name]
    circuit = build(task("s3"), length)
    words = random_words(6, length)
    run = evaluate(circuit, words)
    planners = [(AtSteps.of(circuit), TokenDraw(1.0))]
    planners += [] if isinstance(circuit, Stages) else [(Dependency.of(circuit), TokenDraw(0.0))]
    for planner, draw in planners:
        out = decode(circuit, words, planner, draw=draw)
        np.testing.assert_array_equal(out.tokens, run.tokens)
        assert bool(out.finished.all())
        for row in range(len(words)):
            counts = trace_counts(out.trace, circuit.vocab, row)
            assert counts == run.counts and counts[:2] == cost(length)


def test_in_place_the_predictor_needs_the_step():
    circuit = hillis_steele(task("s3"), 4)
    with pytest.raises(ValueError, match="t=None"):
        Predictor(circuit)(jnp.asarray(canvas(circuit, np.zeros((1, 4), int))))


def test_an_operand_that_is_missing_leaves_a_guess():
    circuit = tree(task("s3"), 4)
    tokens = jnp.array([[1, 2, 3, 4, 6, 6, 6]])
    logits = Predictor(circuit)(tokens)
    assert (logits[0, 4] == 0).all()  # the root, whose children are masked
    for cell, pair in ((5, (1, 2)), (6, (3, 4))):
        assert logits[0, cell].argmax() == task("s3").mul[pair] and jnp.isneginf(logits[0, cell]).sum() == 5


# ---- orders


def inner_pairs(length):
    return [(h, c) for h in range(1, length) for c in (2 * h, 2 * h + 1) if c < length]


def test_probability_of_a_valid_order_by_enumeration():
    assert [tree_order_probability(n) for n in range(2, 9)] == [Fraction(1, n) for n in (1, 2, 3, 8, 15, 36, 63)]
    for length in range(1, 9):
        valid = sum(
            all(when[h - 1] > when[c - 1] for h, c in inner_pairs(length))
            for when in itertools.permutations(range(length - 1))
        )
        assert tree_order_probability(length) == Fraction(valid, math.factorial(length - 1))


def test_probability_of_valid_steps_by_enumeration():
    assert tree_steps_probability(3, 2) == Fraction(1, 4)
    for length, steps in itertools.product(range(1, 7), range(1, 5)):
        valid = sum(
            all(when[h - 1] > when[c - 1] for h, c in inner_pairs(length))
            for when in itertools.product(range(steps), repeat=length - 1)
        )
        assert tree_steps_probability(length, steps) == Fraction(valid, steps ** (length - 1))


def test_many_steps_are_one_cell_at_a_time():
    """Ties have probability at most C(N-1, 2) / T."""
    for length in (5, 8):
        error = abs(tree_steps_probability(length, 2000) - tree_order_probability(length))
        assert 0 < error < math.comb(length - 1, 2) / 2000
    assert tree_steps_probability(8, 2) == 0 < tree_steps_probability(8, 3)


@pytest.mark.parametrize("length", [4, 6])
def test_simulated_orders_have_these_probabilities(length):
    """Within 4 standard errors of 4,000 rows, by fixed keys."""
    circuit = tree(task("s3"), length)
    cases = [
        (FirstHitting(), tree_order_probability(length)),
        (Ancestral(Linear(), 4), tree_steps_probability(length, 4)),
    ]
    for planner, exact in cases:
        found = order_statistics(circuit, planner, KEY, 4000)
        assert abs(found.mean - float(exact)) < 4 * math.sqrt(float(exact * (1 - exact)) / 4000)
        assert found.standard_error == pytest.approx(math.sqrt(found.mean * (1 - found.mean) / 3999), rel=1e-9) != 0


def test_planners_that_know_the_tree_are_always_right_and_others_are_not():
    """Left to right goes through the nodes from the root, and by confidence a cell is sure when it is ready."""
    circuit, words = tree(task("s3"), 32), random_words(200, 32)
    product = read(circuit, evaluate(circuit, words).tokens)
    share = {}
    confident = Confidence(Linear(), 31, score=scores.margin)
    planners = dict(dependency=Dependency.of(circuit), levels=AtSteps.of(circuit), confident=confident)
    planners |= dict(left=LeftToRight(), uniform=FirstHitting(), steps=Ancestral(Linear(), 5))
    for name, planner in planners.items():
        out = decode(circuit, words, planner)
        right = (np.asarray(read(circuit, np.asarray(out.tokens))) == product)[:, 0]
        share[name] = right.mean()
        assert right[valid_orders(circuit, out.trace)].all()
    assert share["dependency"] == share["levels"] == share["confident"] == 1
    # chance is 1/6 and an order valid by chance is rarer than 1e-9: 5 standard errors of 200 rows
    assert max(share["left"], share["uniform"], share["steps"]) < 1 / 6 + 5 * math.sqrt(5 / 36 / 200)


def test_refusals():
    with pytest.raises(ValueError, match="N=0"):
        tree_order_probability(0)
    with pytest.raises(ValueError, match="steps=0"):
        tree_steps_probability(4, 0)
    for planner in (Headed, lambda steps: Dependency(np.arange(3), np.arange(3), steps)):
        with pytest.raises(ValueError, match="steps=-1: must be >= 0"):
            planner(-1)
    with pytest.raises(ValueError, match="rows=1"):
        order_statistics(tree(task("s3"), 4), FirstHitting(), KEY, 1)
    for call in (Dependency.of, lambda c: order_statistics(c, FirstHitting(), KEY, 10)):
        with pytest.raises(ValueError, match="writes in place: use `AtSteps`"):
            call(hillis_steele(task("s3"), 4))
