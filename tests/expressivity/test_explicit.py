"""The transformer with weights written down: no errors, the margins that are promised, other scales."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_circuit_decoding import decode
from words import random_words, task

from mdmjax.expressivity import (
    Dependency,
    Explicit,
    canvas,
    chain_of_thought,
    evaluate,
    explicit_denoiser,
    level_expanded,
    margins,
    safe_scale,
    sharp_scale,
    trace_counts,
    tree,
    two_sweep,
)
from mdmjax.expressivity.explicit import layer
from mdmjax.sampling import TokenDraw, sample


def ran(circuit, words, **how):
    """(the engine's run, the integer run) of words of labels."""
    denoiser, planner, _ = explicit_denoiser(circuit, **how)
    return decode(circuit, words, planner, denoiser), evaluate(circuit, words)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "name, lengths", [("parity", (1, 3, 64)), ("s3", (2, 16)), ("ends with ab", (7,)), ("a5", (16,))]
)
def test_words_are_recognised_in_log_steps(name, lengths, dtype):
    """Token for token the dedicated integer run, every cell written once, and margins above the bound at each step.

    The bound of float32 has eps = 1/64: 1 - 4 eps and 1/2 - 2 eps. bfloat16 has 8 bits: 2^-8 more for each of the four
    sums of numbers up to 2.
    """
    for length in lengths:
        circuit = tree(task(name), length)
        words = task(name).labels(random_words(4, length))
        out, run = ran(circuit, words, dtype=dtype)
        np.testing.assert_array_equal(out.tokens, run.tokens)
        assert trace_counts(out.trace, circuit.vocab) == run.counts and bool(out.finished.all())
        denoiser, _, positions = explicit_denoiser(circuit, dtype=dtype)
        slack = 4 * 2.0**-8 if dtype == jnp.bfloat16 else 1e-6
        for s in range(circuit.steps):
            ready = jnp.broadcast_to(jnp.asarray(circuit.step == s + 1), words.shape[:1] + circuit.step.shape)
            found = margins(denoiser.weights, circuit, positions, out.trace.tokens[s], ready)
            assert found.wrong == 0
            assert found.predictor >= 1 - 4 / 64 - slack and found.planner >= 0.5 - 2 / 64 - slack


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name, length", [("parity", 1024), ("s3", 1024), ("a5", 256)])
def test_long_words_are_recognised(name, length, dtype):
    circuit = tree(task(name), length)
    words = task(name).labels(random_words(4, length))
    out, run = ran(circuit, words, dtype=dtype)
    np.testing.assert_array_equal(out.tokens, run.tokens)
    assert trace_counts(out.trace, circuit.vocab) == run.counts


@pytest.mark.parametrize("build", [chain_of_thought, level_expanded, two_sweep])
def test_other_circuits_have_weights_too(build):
    circuit = build(task("s3"), 9)
    words = random_words(6, 9)
    words = words if circuit.offset else task("s3").labels(words)
    out, run = ran(circuit, words)
    np.testing.assert_array_equal(out.tokens, run.tokens)
    assert trace_counts(out.trace, circuit.vocab) == run.counts


def test_the_mass_off_the_target_is_below_both_bounds():
    """Seen in the least margin, which is at least 1 - 4 eps: at scales where eps is not small either."""
    circuit = tree(task("parity"), 64)
    words = task("parity").labels(random_words(4, 64))
    final = jnp.asarray(evaluate(circuit, words).tokens)
    tokens = jnp.where(jnp.asarray(circuit.step == circuit.steps), circuit.vocab, final)
    ready = jnp.broadcast_to(jnp.asarray(circuit.step == circuit.steps), tokens.shape)
    bits = 7
    for scale in (1.5, 2.0, 2.5, safe_scale(127, bits), sharp_scale(127, bits)):
        denoiser, _, positions = explicit_denoiser(circuit, scale)
        assert positions.own.shape[1] == bits
        eps = min(126 * math.exp(-2 * scale), (1 + math.exp(-2 * scale)) ** bits - 1)
        found = margins(denoiser.weights, circuit, positions, tokens, ready)
        assert found.predictor >= 1 - 4 * eps - 1e-6 and found.planner >= 0.5 - 2 * eps - 1e-6
    assert abs((1 + math.exp(-2 * sharp_scale(127, bits))) ** bits - 1 - 1 / 64) < 1e-3


def test_small_scales_fail_and_large_ones_do_not():
    """A scale of 0.2 is below what tells codes of 7 bits apart; no argmax flips back once it is right."""
    circuit = tree(task("parity"), 64)
    words = task("parity").labels(random_words(20, 64))
    right, errors = evaluate(circuit, words).tokens, []
    _, planner, positions = explicit_denoiser(circuit)
    how = dict(vocab=circuit.vocab, key=jax.random.key(0), draw=TokenDraw(0.0))
    run = jax.jit(lambda weights, x: sample(Explicit(weights, positions), planner, x, **how).tokens)
    for scale in (0.2, 0.5, 1.0, 1.5, 2.0):
        found = run(explicit_denoiser(circuit, scale)[0].weights, jnp.asarray(canvas(circuit, words)))
        errors.append(int((np.asarray(found) != right).any(1).sum()))
    assert errors[0] == 20 and errors[-1] == 0 and errors == sorted(errors, reverse=True)


def test_order_of_operands_matters():
    """Swapped positional inputs compute the product backwards, which S3 tells from the word's."""
    circuit = tree(task("s3"), 16)
    words = task("s3").labels(random_words(20, 16))
    denoiser, planner, positions = explicit_denoiser(circuit)
    swapped = type(positions)(positions.own, positions.right, positions.left, positions.output)
    out = decode(circuit, words, planner, type(denoiser)(denoiser.weights, swapped))
    root = circuit.readout[0]
    backwards = evaluate(circuit, words[:, ::-1]).tokens[:, root]
    np.testing.assert_array_equal(np.asarray(out.tokens)[:, root], backwards)
    assert (backwards != evaluate(circuit, words).tokens[:, root]).any()


def test_cells_may_stand_anywhere():
    """Permuted with their positional inputs they compute the same, up to the order of sums."""
    circuit = tree(task("s3"), 11)
    tokens = jnp.asarray(evaluate(circuit, task("s3").labels(random_words(4, 11))).tokens)
    tokens = jnp.where(jnp.asarray(circuit.step >= 2), circuit.vocab, tokens)
    denoiser, _, positions = explicit_denoiser(circuit)
    order = np.random.default_rng(0).permutation(circuit.length)
    run = jax.jit(layer)
    moved = run(denoiser.weights, tokens[:, order], jax.tree.map(lambda x: x[order], positions))
    for x, y in zip(run(denoiser.weights, tokens, positions), moved, strict=True):
        np.testing.assert_allclose(x[:, order], y, atol=1e-5)


def test_the_planner_of_the_network_is_the_dependency_planner():
    circuit = tree(task("s3"), 13)
    words = task("s3").labels(random_words(4, 13))
    denoiser, planner, _ = explicit_denoiser(circuit)
    ours, other = (decode(circuit, words, p, denoiser) for p in (planner, Dependency.of(circuit)))
    np.testing.assert_array_equal(ours.trace.tokens, other.trace.tokens)


def test_refusals():
    for scale in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="scale="):
            explicit_denoiser(tree(task("s3"), 4), scale)
