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
    hillis_steele,
    level_expanded,
    margins,
    off_target,
    safe_scale,
    sharp_scale,
    trace_counts,
    tree,
    two_sweep,
)
from mdmjax.expressivity.explicit import layer
from mdmjax.sampling import TokenDraw, sample


def ran(circuit, words, **how):
    """(the engine's run, the integer run)."""
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
        words = random_words(4, length)
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
    words = random_words(4, length)
    out, run = ran(circuit, words, dtype=dtype)
    np.testing.assert_array_equal(out.tokens, run.tokens)
    assert trace_counts(out.trace, circuit.vocab) == run.counts


@pytest.mark.parametrize("build", [chain_of_thought, level_expanded, two_sweep])
def test_other_circuits_have_weights_too(build):
    circuit = build(task("s3"), 9)
    words = random_words(6, 9)
    out, run = ran(circuit, words)
    np.testing.assert_array_equal(out.tokens, run.tokens)
    assert trace_counts(out.trace, circuit.vocab) == run.counts


def test_the_mass_off_the_target_is_below_both_bounds():
    """Seen in the least margin, which is at least 1 - 4 eps: at scales where eps is not small either."""
    circuit = tree(task("parity"), 64)
    words = random_words(4, 64)
    final = jnp.asarray(evaluate(circuit, words).tokens)
    tokens = jnp.where(jnp.asarray(circuit.step == circuit.steps), circuit.vocab, final)
    ready = jnp.broadcast_to(jnp.asarray(circuit.step == circuit.steps), tokens.shape)
    bits = 7
    for scale in (1.5, 2.0, 2.5, safe_scale(circuit), sharp_scale(circuit)):
        denoiser, _, positions = explicit_denoiser(circuit, scale)
        assert positions.own.shape[1] == bits
        eps = off_target(circuit, scale)
        assert eps == pytest.approx(min(126 * math.exp(-2 * scale), (1 + math.exp(-2 * scale)) ** bits - 1))
        found = margins(denoiser.weights, circuit, positions, tokens, ready)
        assert found.predictor >= 1 - 4 * eps - 1e-6 and found.planner >= 0.5 - 2 * eps - 1e-6


def test_both_scales_keep_the_mass_below_a_64th():
    """At every length; "sharp" hardly grows, and so is within 2 % of the bound where there are many cells."""
    for length in (1, 2, 3, 5, 16, 100, 1024):
        circuit = tree(task("parity"), length)
        assert off_target(circuit, safe_scale(circuit)) < 1 / 64
        assert off_target(circuit, sharp_scale(circuit)) < 1 / 64
        if length >= 16:
            assert off_target(circuit, sharp_scale(circuit)) > 0.98 / 64 and sharp_scale(circuit) < safe_scale(circuit)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_scales_are_given_by_name_or_function(dtype):
    circuit = tree(task("s3"), 16)
    words = random_words(4, 16)
    query = lambda scale: explicit_denoiser(circuit, scale, dtype)[0].weights.query
    assert (query(sharp_scale) == query("sharp")).all() and (query(sharp_scale(circuit)) == query("sharp")).all()
    assert (query("sharp") != query("safe")).any() and (query(lambda c: float(c.inputs)).max() == 16).all()
    out, run = ran(circuit, words, scale="sharp", dtype=dtype)
    np.testing.assert_array_equal(out.tokens, run.tokens)


@pytest.mark.parametrize("name, sharpness", [("s3", None), ("a5", None), ("a5", 32.0), ("a5", 2.0**16)])
def test_drawn_tokens_are_right_too(name, sharpness):
    """At temperature 1, which is the engine's default: and the planner is, also where the logits are largest."""
    circuit = tree(task(name), 16)
    words = random_words(20, 16)
    denoiser, planner, positions = explicit_denoiser(circuit)
    denoiser = denoiser if sharpness is None else Explicit(denoiser.weights, positions, sharpness)
    out, run = decode(circuit, words, planner, denoiser, draw=TokenDraw()), evaluate(circuit, words)
    np.testing.assert_array_equal(out.tokens, run.tokens)
    assert trace_counts(out.trace, circuit.vocab) == run.counts


def test_draws_that_are_not_sharp_go_wrong():
    circuit = tree(task("a5"), 16)
    words = random_words(20, 16)
    denoiser, planner, positions = explicit_denoiser(circuit)
    out = decode(circuit, words, planner, Explicit(denoiser.weights, positions, 1.0), draw=TokenDraw())
    assert (np.asarray(out.tokens) != evaluate(circuit, words).tokens).any(1).all()


def equations(jaxpr):
    """Of a program and of those that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in equation.params.values():
            yield from equations(inner.jaxpr) if hasattr(inner, "jaxpr") else ()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_are_in_the_dtype_of_the_weights(dtype):
    """Of every product: what goes in, and what comes out."""
    denoiser, _, positions = explicit_denoiser(tree(task("s3"), 4), dtype=dtype)
    jaxpr = jax.make_jaxpr(layer)(denoiser.weights, jnp.zeros((1, 7), jnp.int32), positions)
    products = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) >= 7 and {v.aval.dtype for e in products for v in e.invars + e.outvars} == {jnp.dtype(dtype)}


def test_what_is_given_is_never_selected():
    """At leaves and the constant the score is at most -3/2, at a mask that stands there too: -5/2 and twice eps."""
    for build in (tree, level_expanded, two_sweep):
        circuit = build(task("s3"), 9)
        denoiser, _, positions = explicit_denoiser(circuit)
        final = evaluate(circuit, random_words(4, 9)).tokens
        given = circuit.step == 0
        for hidden in (circuit.step > 0, given & (np.arange(circuit.length) % 2 == 0), given):
            tokens = jnp.asarray(np.where(hidden, circuit.vocab, final))
            score = np.asarray(jax.jit(layer)(denoiser.weights, tokens, positions)[1])
            assert score[:, given].max() <= -1.5 + 1e-6
            assert score[:, given & hidden].max(initial=-3) <= -2.5 + 2 / 64 + 1e-6


def test_small_scales_fail_and_large_ones_do_not():
    """A scale of 0.2 is below what tells codes of 7 bits apart."""
    circuit = tree(task("parity"), 64)
    words = random_words(20, 64)
    right, errors = evaluate(circuit, words).tokens, []
    _, planner, positions = explicit_denoiser(circuit)
    how = dict(vocab=circuit.vocab, key=jax.random.key(0), draw=TokenDraw(0.0))
    run = jax.jit(lambda weights, x: sample(Explicit(weights, positions), planner, x, **how).tokens)
    for scale in (0.2, 0.5, 1.0, 1.5, 2.0):
        found = run(explicit_denoiser(circuit, scale)[0].weights, jnp.asarray(canvas(circuit, words)))
        errors.append(int((np.asarray(found) != right).any(1).sum()))
    assert errors[0] == 20 and errors[-1] == 0 and errors == sorted(errors, reverse=True)


def test_no_argmax_flips_back_once_its_margin_is_positive():
    """Cell by cell, over scales that grow; some are wrong at first, and none is at last."""
    circuit = tree(task("s3"), 33)
    final = evaluate(circuit, random_words(20, 33)).tokens
    run, positions = jax.jit(layer), explicit_denoiser(circuit)[2]
    first = None
    for scale in np.geomspace(0.05, 20, 25):
        weights, right = explicit_denoiser(circuit, float(scale))[0].weights, []
        for s in range(1, circuit.steps + 1):
            tokens = jnp.asarray(np.where(circuit.step >= s, circuit.vocab, final))
            logits = np.asarray(run(weights, tokens, positions)[0])
            own = np.take_along_axis(logits, final[..., None], 2)
            others = np.where(np.arange(circuit.vocab) == final[..., None], -np.inf, logits).max(-1)
            right.append((own[..., 0] > others)[:, circuit.step == s])
        now = np.concatenate(right, 1)
        first, before = (now, now) if first is None else (first, before)
        assert now[before].all()
        before = now
    assert not first.all() and before.all()


def test_order_of_operands_matters():
    """Swapped positional inputs compute the product backwards, which S3 tells from the word's."""
    circuit = tree(task("s3"), 16)
    words = random_words(20, 16)
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
    tokens = jnp.asarray(evaluate(circuit, random_words(4, 11)).tokens)
    tokens = jnp.where(jnp.asarray(circuit.step >= 2), circuit.vocab, tokens)
    denoiser, _, positions = explicit_denoiser(circuit)
    order = np.random.default_rng(0).permutation(circuit.length)
    run = jax.jit(layer)
    moved = run(denoiser.weights, tokens[:, order], jax.tree.map(lambda x: x[order], positions))
    for x, y in zip(run(denoiser.weights, tokens, positions), moved, strict=True):
        np.testing.assert_allclose(x[:, order], y, atol=1e-5)


def test_the_planner_of_the_network_is_the_dependency_planner():
    circuit = tree(task("s3"), 13)
    words = random_words(4, 13)
    denoiser, planner, _ = explicit_denoiser(circuit)
    ours, other = (decode(circuit, words, p, denoiser) for p in (planner, Dependency.of(circuit)))
    np.testing.assert_array_equal(ours.trace.tokens, other.trace.tokens)


def test_refusals():
    circuit = tree(task("s3"), 4)
    cases = [(0.0, jnp.float32), (-1.0, jnp.float32), (math.inf, jnp.float32), (math.nan, jnp.float32)]
    cases += [(1.2e38, jnp.float32), (1e-40, jnp.float32), (3e4, jnp.float16), (1e-8, jnp.float16)]
    for scale, dtype in cases:
        with pytest.raises(ValueError, match=r"scale=.*: must be in .* for codes of 3 bits in float"):
            explicit_denoiser(circuit, scale, dtype)
    with pytest.raises(ValueError, match="scale='blunt': must be a number, a function of the circuit, or one of safe"):
        explicit_denoiser(circuit, "blunt")
    for dtype in (jnp.int32, bool, jnp.complex64):
        with pytest.raises(ValueError, match="dtype=.*: must be one of float64, float32, bfloat16, float16"):
            explicit_denoiser(circuit, dtype=dtype)
    with pytest.raises(ValueError, match="dtype=float64: JAX has it only where jax_enable_x64 is set"):
        explicit_denoiser(circuit, dtype=jnp.float64)
    for sharpness in (0.0, -1.0, 1e8, math.nan):
        with pytest.raises(ValueError, match="sharpness="):
            Explicit(*explicit_denoiser(circuit)[::2], sharpness)
    with pytest.raises(ValueError, match="writes in place: use `AtSteps`"):
        explicit_denoiser(hillis_steele(task("s3"), 4))


def test_the_largest_scales_are_argmaxes():
    """What the dtype has just room for runs, and is right."""
    circuit = tree(task("s3"), 4)
    words = random_words(20, 4)
    for scale, dtype in ((1.1e38, jnp.float32), (2e4, jnp.float16)):
        out, run = ran(circuit, words, scale=scale, dtype=dtype)
        np.testing.assert_array_equal(out.tokens, run.tokens)


@pytest.mark.usefixtures("x64")
def test_float64_where_jax_has_it():
    assert explicit_denoiser(tree(task("s3"), 4), dtype=jnp.float64)[0].weights.key.dtype == jnp.float64
