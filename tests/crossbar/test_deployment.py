"""Layers on crossbars: without resistance they are what was quantised, with it they are what every solve says."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.crossbar import (
    FLOWS,
    KEYS,
    LAYOUTS,
    SCOPES,
    Crossbar,
    NotConverged,
    Wires,
    distance_noise,
    effective_weights,
    gains,
    iterations_for,
    solve,
    varied,
)

pytestmark = pytest.mark.usefixtures("x64")
SMALL = dict(rows=8, columns=12, bits=4)


def layer(seed=0, inputs=19, outputs=5):
    return np.random.default_rng(seed).normal(size=(inputs, outputs))


@pytest.mark.parametrize("on_off, pad", [(10, "absent"), (10, "off"), (math.inf, "absent")])
@pytest.mark.parametrize("layout, flow, key, scope", list(itertools.product(LAYOUTS, FLOWS, KEYS, SCOPES)))
def test_without_resistance_it_is_what_was_quantised(on_off, pad, layout, flow, key, scope):
    made = dict(on_off=on_off, pad=pad, layout=layout, flow=flow, key=key, scope=scope)
    crossbar = Crossbar(**SMALL, wires=Wires(0.0, 0.0), **made)
    found = effective_weights(layer(), crossbar, dtype=jnp.float64, chunk=3)
    np.testing.assert_allclose(found.weights, found.quantised, atol=1e-12)
    assert np.abs(found.nf_total).max() < 1e-12 and np.abs(found.mac).max() < 1e-12 and found.residual == 0
    assert np.abs(found.quantised - layer()).max() < 2 * np.abs(layer()).max() / 16


@pytest.mark.parametrize("activity", [None, np.arange(19.0)])
@pytest.mark.parametrize(
    "name, value", [("flow", "conventional"), ("key", "none"), ("key", "column"), ("scope", "bus")]
)
def test_another_mapping_has_other_weights(name, value, activity):
    """Every choice gets as far as the solve: the weights differ, what is written without resistance does not."""
    crossbar = Crossbar(**SMALL, wires=Wires(1e-2, 1e-2), on_off=20)
    one, other = (
        effective_weights(layer(), c, activity=activity, dtype=jnp.float64)
        for c in (crossbar, dataclasses.replace(crossbar, **{name: value}))
    )
    np.testing.assert_array_equal(one.quantised, other.quantised)
    assert not np.allclose(one.weights, other.weights, rtol=1e-6) and not np.allclose(one.nf_total, other.nf_total)


def test_every_input_gives_the_currents_of_its_tiles():
    """x @ W_eff against one solve of every tile with the inputs as they are gathered."""
    crossbar = Crossbar(**SMALL, wires=Wires(2e-2, 3e-2), on_off=20, tolerance=1e-12)
    sliced, tiles, g, _ = crossbar.map(layer())
    x = np.random.default_rng(1).random(19)
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


@pytest.mark.parametrize(
    "fields, orders",
    [(dict(key="none"), 0), (dict(), 12), (dict(scope="bus"), 3), (dict(key="none", swaps=1), 12)],
)  # 3 tile-rows, 2 columns of tiles, 2 signs
def test_what_the_orders_cost(fields, orders):
    found = Crossbar(**SMALL, **fields).map(layer())
    assert len(found.tiles.cells) == 12 and found.index_bits == orders * 8 * 3


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
        (dict(bits=17), r"bits=17\): must be in 1..16"), (dict(bits=5, columns=4), r"bits=5\): must be in 1..4"),
        (dict(layout="rows"), r"layout='rows'\): choose one of planes, words"), (dict(pad="on"), "pad='on'"),
        (dict(rounding="up"), "rounding='up'"), (dict(flow="up"), "flow='up'"), (dict(key="size"), "key='size'"),
        (dict(scope="chip"), "scope='chip'"), (dict(variation=-1), "variation=-1"), (dict(swaps=-1), "swaps=-1"),
        (dict(wires=Wires(0.0, math.nan)), "must be finite"), (dict(tolerance=0), "tolerance=0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Crossbar(**fields)
    hard = Crossbar(**SMALL, wires=Wires(1.0, 1.0), tolerance=1e-12)
    with pytest.raises(NotConverged, match="tile .: the residual is"):
        effective_weights(layer(0), hard)  # in float32
    with pytest.raises(ValueError, match="all 12 weights are 0 in 4 bits"):
        effective_weights(np.zeros((4, 3)), Crossbar(**SMALL))
    with pytest.raises(ValueError, match=r"variation=0\.1: devices that vary need a key"):
        effective_weights(layer(), Crossbar(**SMALL, variation=0.1))
    with pytest.raises(ValueError, match=r"activity of shape \(3,\): must be 19 numbers"):
        effective_weights(layer(), Crossbar(**SMALL), activity=np.ones(3))
    with pytest.raises(ValueError, match="chunk=0: must be a multiple of 1"):
        effective_weights(layer(), Crossbar(**SMALL), chunk=0)


def test_a_tile_that_draws_nothing_has_no_nonideality():
    """The negative part of a layer without negative weights is empty: its NF is no number, and not a 0 in a mean."""
    found = effective_weights(np.abs(layer(0, 8, 3)), Crossbar(**SMALL), dtype=jnp.float64)
    assert np.isnan(found.nf_total[1]) and np.isnan(found.mac[1]) and found.nf_total[0] > 0
    np.testing.assert_allclose(found.weights, found.quantised, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("on_off", [10, math.inf])
def test_cells_without_a_weight(on_off):
    """Off devices at the far end carry currents where they conduct, and change nothing where they do not."""
    wires = Wires(1e-2, 2e-2)
    make = lambda pad: effective_weights(
        layer(0, 5, 2), Crossbar(**SMALL, wires=wires, on_off=on_off, pad=pad, tolerance=1e-10), dtype=jnp.float64
    )
    absent, off = make("absent"), make("off")
    same = np.allclose(absent.weights, off.weights, rtol=1e-9, atol=1e-12)
    assert same == (on_off == math.inf)


def test_devices_that_vary():
    """Means stay, every key has its own devices, and a tile's do not depend on how many there are."""
    crossbar = Crossbar(**SMALL, wires=Wires(0.0, 0.0), variation=0.2)
    make = lambda key: effective_weights(layer(0, 16, 3), crossbar, key=jax.random.key(key), dtype=jnp.float64)
    found = np.stack([make(key).weights for key in range(200)])
    exact = make(0).quantised
    error = np.abs(found.mean(0) - exact) / (0.2 * np.abs(exact).max() / math.sqrt(200))
    assert error.max() < 5 and found.std(0).max() > 0.05 * np.abs(exact).max()
    first = crossbar.map(layer(0, 16, 3))
    same = lambda conductance: varied(conductance, 0.2, jax.random.key(1), 0)[:2]
    np.testing.assert_array_equal(same(first.conductance), same(first.conductance[:2]))
    other = varied(first.conductance, 0.2, jax.random.key(1), 1)[:2]
    assert abs(np.corrcoef(np.log(other[other > 0]), np.log(same(first.conductance)[other > 0]))[0, 1]) < 0.3


def test_tiles_are_shared_out_over_a_mesh():
    """As on one device; a chunk that the devices do not divide is refused."""
    crossbar = Crossbar(**SMALL, tolerance=1e-10)
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    alone = effective_weights(layer(0, 40, 7), crossbar, dtype=jnp.float64, chunk=8)
    shared = effective_weights(layer(0, 40, 7), crossbar, dtype=jnp.float64, chunk=16, mesh=mesh)
    np.testing.assert_allclose(shared.weights, alone.weights, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="chunk=12: must be a multiple of 8, the number of devices"):
        effective_weights(layer(), crossbar, chunk=12, mesh=mesh)


def test_swaps_lower_the_error_of_what_is_written():
    """The weighted error at V = 1 falls, what is computed without resistance stays; not on a bus."""
    make = lambda swaps, wires: effective_weights(
        layer(0, 16, 3), Crossbar(**SMALL | dict(rows=16), wires=wires, on_off=10, swaps=swaps, tolerance=1e-9),
        dtype=jnp.float64,
    )  # fmt: skip
    plain, swapped = (make(swaps, Wires(1e-2, 1e-2)) for swaps in (0, 10))
    assert (swapped.mac <= plain.mac).all() and (swapped.mac < plain.mac).any()
    np.testing.assert_allclose(make(10, Wires(0.0, 0.0)).weights, plain.quantised, atol=1e-12)
    with pytest.raises(ValueError, match="swaps need tiles of their own order"):
        dataclasses.replace(Crossbar(**SMALL, swaps=1), scope="bus")
    with pytest.raises(ValueError, match="swaps=1: they look at all inputs alike"):
        Crossbar(**SMALL, swaps=1).map(layer(), activity=np.ones(19))
