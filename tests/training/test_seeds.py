"""Many runs as one program are the runs one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from mdmjax.networks import LinearConfig, linear
from mdmjax.objectives import MaskedDiffusion
from mdmjax.training import MeshLayout, Seeds, init_state, make_mesh
from mdmjax.variance import Refit, starting_law

SEEDS, STEPS = 2, 3
REFIT = Refit(toys.VOCAB, rows=2, masks=1)
LAW = starting_law(1e-2, bins=3)


MODEL = linear(LinearConfig(toys.VOCAB, toys.LENGTH))  # quick to compile


def first(key):
    return init_state(MODEL.init, toys.OPTIMIZER, key, LAW)


@pytest.fixture(scope="module")
def step():
    """One whose law is fitted at steps 0 and 2."""
    one = toys.make_step(MeshLayout(make_mesh(devices=jax.devices()[:1])))
    objective = MaskedDiffusion(toys.VOCAB)
    return dataclasses.replace(one, bind=MODEL.bind, objective=objective, refit=REFIT, refit_every=2)


@pytest.fixture(scope="module")
def batches():
    """[STEPS, SEEDS, B, ...]: other rows for each run, the same ids."""
    rows = toys.make_batches()
    found = [[next(rows) for _ in range(SEEDS)] for _ in range(STEPS)]
    rows.close()
    for n, of_step in enumerate(found):
        for one in of_step:
            one["ids"] = np.arange(n * toys.BATCH, (n + 1) * toys.BATCH, dtype=np.int32)
    return jax.tree.map(lambda *x: np.stack(x), *(jax.tree.map(lambda *x: np.stack(x), *s) for s in found))


def test_each_run_is_what_it_is_alone(step, batches):
    """Loss, gradient and the fitted density, step by step: at step 1 the density of step 0 is kept, at 2 it is new."""
    keys = jax.random.split(jax.random.key(3), SEEDS)
    states, alone = jax.jit(jax.vmap(first))(keys), [jax.jit(first)(key) for key in keys]
    together, one = jax.jit(Seeds(step)), jax.jit(step)
    densities = []
    for n in range(STEPS):
        states, metrics = together(states, jax.tree.map(lambda x: x[n], batches))
        densities.append(np.asarray(states.law.density.mass[0]))
        for s in range(SEEDS):
            alone[s], expected = one(alone[s], jax.tree.map(lambda x: x[n, s], batches))
            for name in ("loss", "grad_norm"):
                np.testing.assert_allclose(metrics[f"{name}/{s}"], expected[name], rtol=1e-4)
            np.testing.assert_allclose(states.law.density.mass[s], alone[s].law.density.mass, rtol=1e-4)
        np.testing.assert_allclose(metrics["loss"], np.mean([metrics[f"loss/{s}"] for s in range(SEEDS)]), rtol=1e-6)
    assert (densities[0] == densities[1]).all() and (densities[1] != densities[2]).any()
    assert (states.step == jnp.full(SEEDS, STEPS)).all()
