"""The fit of a law during a run, laid out over devices, and with the packed readout."""

import dataclasses

import jax
import numpy as np
import pytest
import toys

from mdmjax import variance
from mdmjax.objectives import Packed
from mdmjax.process import use_key
from mdmjax.training import MeshLayout, PmapLayout, init_state, make_mesh
from mdmjax.training.state import REFIT

LAW = variance.starting_law(0.05, 4)
FIT = variance.Refit(toys.VOCAB, rows=8, masks=2)


def make_state():
    return init_state(toys.MODEL.init, toys.OPTIMIZER, jax.random.key(7), LAW)


@pytest.fixture(scope="module")
def batch():
    rows = toys.make_batches()
    first = next(rows)
    rows.close()
    return first


@pytest.fixture(scope="module")
def fit(batch):
    """`fit(**changes of the Refit) -> the masses of its density`, as the first step has them, on one device."""
    state = jax.jit(make_state)()

    def call(**changes):
        refit = dataclasses.replace(FIT, **changes)
        key = use_key(state.key, 0, REFIT)
        run = jax.jit(lambda params, batch: refit(toys.MODEL.bind, params, batch, key, LAW).density.mass)
        found = np.asarray(run(state.params, batch))
        assert np.abs(found - LAW.density.mass).max() > 0.02  # there is something to agree on
        return found

    return call


def test_a_mesh_of_eight_devices_fits_the_same_law(batch, fit):
    """Whichever devices have the rows that it is fitted to."""
    layout = MeshLayout(make_mesh(2, 2, 2))
    step = dataclasses.replace(toys.make_step(layout), refit=FIT)
    state = layout.init(make_state)
    after, _ = layout.step(step, state)(state, layout.put(batch))
    np.testing.assert_allclose(after.law.density.mass, fit(), rtol=1e-5)
    assert after.law.density.mass.sharding.is_fully_replicated


def test_the_devices_of_a_pmap_hold_one_law(batch, fit):
    """It is that of the mean of their moments, of rows of their own each: so it depends on how many devices there are.

    The eight of four rows each have those of the whole batch together.
    """
    layout = PmapLayout()
    step = dataclasses.replace(toys.make_step(layout), refit=dataclasses.replace(FIT, rows=4, axis=layout.axis))
    every = jax.pmap(step, axis_name=layout.axis, in_axes=(None, 0))  # all devices' states, not one for all
    after, metrics = every(layout.init(make_state), layout.put(batch))
    mass = np.asarray(after.law.density.mass)
    assert mass.shape == (8, 4) and (mass == mass[0]).all() and np.isfinite(metrics["loss"]).all()
    np.testing.assert_allclose(mass[0], fit(rows=toys.BATCH), rtol=1e-5)
    assert np.abs(mass[0] - fit(rows=4)).max() > 1e-3


@pytest.mark.parametrize("gradient", [False, True])
def test_the_packed_readout_fits_the_same_law(fit, gradient):
    """Where some rows have more than there is room for, too."""
    packed = fit(gradient=gradient, nll=Packed(capacity=0.3, chunk=16))
    np.testing.assert_allclose(packed, fit(gradient=gradient), rtol=1e-5)
