"""The law of masks by which a model learns a circuit: the canvases of its run, and an unbiased -log p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_circuit_decoding import decode
from words import random_words, task

from mdmjax.expressivity import (
    AtSteps,
    CircuitSteps,
    Dependency,
    Predictor,
    at_once,
    evaluate,
    hillis_steele,
    share_right,
    tree,
)
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.objectives import MaskedDiffusion, negative_elbo
from mdmjax.sampling import TokenDraw

KEY = jax.random.key(0)
CIRCUIT = tree(task("s3"), 11)
WORDS = random_words(12, 11)
FINAL = jnp.asarray(evaluate(CIRCUIT, WORDS).tokens)


def draws(circuit=CIRCUIT, rows=12):
    return CircuitSteps(circuit).draw(KEY, jnp.arange(rows), jnp.ones((rows, circuit.length), bool), batch=rows)


def test_the_masked_canvases_are_those_of_the_run():
    """At the time that the planner tells the denoiser; every step comes in a batch of so many rows."""
    out, found = decode(CIRCUIT, WORDS, Dependency.of(CIRCUIT)), draws()
    seen = np.asarray(jnp.where(found.masks, CIRCUIT.vocab, FINAL))
    steps = []
    for row in range(12):
        call = next(c for c in range(CIRCUIT.steps) if (out.trace.tokens[c, row] == seen[row]).all())
        steps.append(call)
        assert found.t[row] == out.trace.times[call, row]
        written = np.asarray(out.trace.tokens[call + 1, row]) != seen[row]
        np.testing.assert_array_equal(found.weights[row], np.where(written, CIRCUIT.steps, 0))
    assert sorted(steps) == sorted([*range(CIRCUIT.steps)] * 3)


def test_the_exact_predictor_has_no_loss():
    terms = negative_elbo(Predictor(CIRCUIT), FINAL, draws(), vocab=6)
    assert not np.asarray(terms.nats).any()


def test_the_mean_over_steps_is_minus_log_p():
    """Of a random network: the cross-entropies along the run, over all T steps, by an objective of the library."""
    model = transformer(TransformerConfig(vocab=6, length=CIRCUIT.length, width=16, depth=1, heads=2, places=True))
    network = model.bind(jax.tree.map(lambda x: x + 0.3 * jnp.sign(x), jax.jit(model.init)(KEY)))

    @jax.jit
    def losses(masks):
        log_p = jax.nn.log_softmax(network(jnp.where(masks[None], 6, FINAL)))
        return -jnp.take_along_axis(log_p, FINAL[..., None], 2)[..., 0]

    steps = range(1, CIRCUIT.steps + 1)
    exact = sum(losses(CIRCUIT.step >= s)[:, CIRCUIT.step == s].sum(1) for s in steps)
    batch = dict(tokens=jnp.tile(FINAL[:1], (12, 1)), ids=jnp.arange(12))  # every step thrice
    terms = jax.jit(lambda batch: MaskedDiffusion(6, CircuitSteps(CIRCUIT))(network, batch, KEY, 12))(batch)
    np.testing.assert_allclose(terms.nats.mean(), exact[0], rtol=1e-5)  # float32 sums of 10 numbers


def test_all_cells_at_once():
    """One step, all cells hidden and scored; decoded so, all but the lowest level are guesses."""
    once, found = at_once(CIRCUIT), draws(at_once(CIRCUIT))
    assert (
        once.steps == 1
        and (np.asarray(found.masks) == (CIRCUIT.step > 0)).all()
        and (found.weights == found.masks).all()
    )
    out = decode(CIRCUIT, WORDS, AtSteps.of(once), draw=TokenDraw(0.0))
    ready = CIRCUIT.step == 1
    np.testing.assert_array_equal(out.tokens[:, ready], FINAL[:, ready])
    assert (np.asarray(out.tokens)[:, CIRCUIT.step > 1] == 0).all()
    assert share_right(CIRCUIT, FINAL, FINAL) == (1, 1) and share_right(CIRCUIT, out.tokens, FINAL)[1] < 1


def test_a_prompt_is_not_hidden():
    law, eligible = CircuitSteps(CIRCUIT), jnp.zeros((4, CIRCUIT.length), bool)
    found = law.draw(KEY, jnp.arange(4), eligible, batch=4)
    assert not found.masks.any() and not found.weights.any()


def test_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match="N=1"):
        CircuitSteps(tree(task("s3"), 1))
    for made in (CircuitSteps, at_once):
        with pytest.raises(ValueError, match="writes in place: use `AtSteps`"):
            made(hillis_steele(task("s3"), 4))
