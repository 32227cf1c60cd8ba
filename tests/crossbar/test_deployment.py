"""Layers on crossbars: without resistance they are what was quantised, with it they are what every solve says."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.crossbar import (
    Crossbar,
    NotConverged,
    Wires,
    distance_noise,
    effective_weights,
    gains,
    iterations_for,
    solve,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("x64")
SMALL = dict(rows=8, columns=12, bits=4)


def layer(seed=0, inputs=19, outputs=5):
    return np.random.default_rng(seed).normal(size=(inputs, outputs))


@pytest.mark.parametrize("on_off", [10, math.inf])
@pytest.mark.parametrize("layout, flow, key", [("planes", "reversed", "greedy"), ("words", "conventional", "none")])
def test_without_resistance_it_is_what_was_quantised(on_off, layout, flow, key):
    crossbar = Crossbar(**SMALL, wires=Wires(0.0, 0.0), on_off=on_off, layout=layout, flow=flow, key=key)
    found = effective_weights(layer(), crossbar, dtype=jnp.float64, chunk=3)
    np.testing.assert_allclose(found.weights, found.quantised, atol=1e-12)
    assert np.abs(found.nf_total).max() < 1e-12 and np.abs(found.mac).max() < 1e-12 and found.residual == 0
    assert np.abs(found.quantised - layer()).max() < 2 * np.abs(layer()).max() / 16


def test_every_input_gives_the_currents_of_its_tiles():
    """x @ W_eff against one solve of every tile with the inputs as they are gathered."""
    crossbar = Crossbar(**SMALL, wires=Wires(2e-2, 3e-2), on_off=20, tolerance=1e-12)
    sliced, (tiles, _) = crossbar.map(layer())
    x, g = np.random.default_rng(1).random(19), crossbar.conductances(tiles)
    v = np.where(tiles.inputs < 0, 0, x[tiles.inputs])
    currents = solve(jnp.asarray(g), jnp.asarray(v), crossbar.wires, iterations=iterations_for(1e-13, 60)).currents
    out = np.zeros(5)
    for t, (i, own) in enumerate(zip(np.asarray(currents), v, strict=True)):
        for k in np.flatnonzero(tiles.outputs[t] >= 0):
            worth = sliced.scale * tiles.signs[t, k] * 2.0 ** -tiles.levels[t, k]
            out[tiles.outputs[t, k]] += worth * (i[k] - crossbar.off * own.sum()) / (1 - crossbar.off)
    found = effective_weights(layer(), crossbar, dtype=jnp.float64)
    np.testing.assert_allclose(x @ found.weights, out, rtol=1e-9)
    assert (found.nf_total > 0.01).all() and found.index_bits == len(tiles.cells) * 8 * 3


def test_gains_bring_outputs_back():
    """The least squares of each output; a dead one keeps its 1."""
    wanted, effective = layer(), 0.7 * layer()
    effective[:, 2] = 0
    found = gains(effective, wanted)
    assert found[2] == 1 and np.allclose(np.delete(found, 2), 1 / 0.7)
    crossbar = Crossbar(wires=Wires(1e-3, 1e-3), on_off=10, tolerance=1e-9)
    weights = layer(3, 64, 8)
    made = effective_weights(weights, crossbar, dtype=jnp.float64).weights
    error = lambda w: np.linalg.norm(w - weights) / np.linalg.norm(weights)
    assert error(made * gains(made, weights)) < error(made) / 1.5


def test_the_noise_of_the_paper():
    """No distance counts at alpha = 0; else cells lose by theirs, more where they are far."""
    crossbar = Crossbar(**SMALL)
    plain = effective_weights(layer(), Crossbar(**SMALL, wires=Wires(0.0, 0.0)), dtype=jnp.float64).quantised
    np.testing.assert_allclose(distance_noise(layer(), crossbar, 0.0), plain, atol=1e-12)
    lost = np.abs(plain) - np.abs(distance_noise(layer(), crossbar, 1e-3))
    assert (lost[plain != 0] > 0).all()
    one = distance_noise(layer(), crossbar, 1e-3, rng=np.random.default_rng(0))
    assert not np.allclose(one, distance_noise(layer(), crossbar, 1e-3, rng=np.random.default_rng(1)))


def test_what_will_not_do():
    for fields, words in (
        (dict(rows=0), "rows=0"), (dict(on_off=1), r"on_off=1\): R_off / R_on must be above 1"),
        (dict(wires=Wires(-1.0, 0.0)), "must be finite and not negative"),
        (dict(wires=Wires(0.0, math.nan)), "must be finite"), (dict(tolerance=0), "tolerance=0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Crossbar(**fields)
    hard = Crossbar(wires=Wires(1.0, 1.0), tolerance=1e-12)
    with pytest.raises(NotConverged, match="tile 0: the residual is"):
        effective_weights(layer(0, 64, 8), hard)  # in float32
    nothing = effective_weights(np.zeros((4, 3)), Crossbar(**SMALL))
    assert not nothing.weights.any() and not nothing.nf_total.any()
