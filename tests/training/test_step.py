"""One step of training, by hand and by its properties."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from mdmjax.objectives import Packed
from mdmjax.process import ExactCount, use_key
from mdmjax.training import MeshLayout, PmapLayout, Seeds, adamw, decay_mask, make_mesh
from mdmjax.training.state import DRAWS, NONE


@pytest.fixture(scope="module")
def layout():
    return MeshLayout(make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def state():
    state = jax.jit(toys.make_state)()
    return dataclasses.replace(state, step=jnp.int32(3))


@pytest.fixture(scope="module")
def batch():
    rows = toys.make_batches()
    first = {name: jnp.asarray(value) for name, value in next(rows).items()}
    rows.close()
    return first


@pytest.fixture(scope="module")
def step(layout):
    return jax.jit(toys.make_step(layout))


@pytest.fixture(scope="module")
def taken(step, state, batch):
    """(state, metrics) after the step."""
    return step(state, batch)


@jax.jit
def loss_and_gradient(state, batch):
    """The mean negative ELBO in nats/token, written out from the draws."""
    eligible = jnp.ones(batch["tokens"].shape, bool)
    draws = ExactCount().draw(use_key(state.key, state.step, DRAWS), batch["ids"], eligible, batch=toys.BATCH)

    def loss(params):
        logits = toys.MODEL.bind(params)(jnp.where(draws.masks, toys.VOCAB, batch["tokens"]))
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["tokens"][:, :, None], 2)[:, :, 0]
        nats = -(draws.weights * jnp.where(draws.masks, log_p, 0).sum(1))
        return nats.sum() / batch["tokens"].size

    value, gradient = jax.value_and_grad(loss)(state.params)
    return value, gradient, draws.masks.sum()


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_the_step_is_adamw_on_the_mean_bound(taken, state, batch):
    after, metrics = taken
    loss, gradient, scored = loss_and_gradient(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-5)
    assert metrics["scored"] == scored
    assert metrics["learning_rate"] == pytest.approx(float(toys.RATE(3)))
    updates, _ = jax.jit(toys.OPTIMIZER.update)(gradient, state.optimizer, state.params)
    assert_close(after.params, optax.apply_updates(state.params, updates), atol=1e-5)
    assert after.step == 4
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(state.key))


@pytest.mark.parametrize("change", [dict(micro=4), dict(nll=Packed(chunk=16)), dict(nll=Packed(capacity=0.2))])
def test_cutting_the_work_up_changes_nothing(taken, layout, state, batch, change):
    """Micro-batches; the packed readout, and its way out when the capacity is exceeded."""
    after, metrics = jax.jit(toys.make_step(layout, **change))(state, batch)
    assert metrics["scored"] == taken[1]["scored"]
    np.testing.assert_allclose(metrics["loss"], taken[1]["loss"], rtol=2e-6)
    np.testing.assert_allclose(metrics["grad_norm"], taken[1]["grad_norm"], rtol=1e-5)
    assert_close(after.params, taken[0].params, atol=1e-5)
    assert_close(after.optimizer[1][0].mu, taken[0].optimizer[1][0].mu, atol=1e-7)


@pytest.mark.parametrize("number,decay", [(0, 1 / 10), (3, 4 / 13), (1000, 0.9)])
def test_the_average_has_a_short_memory_at_first(step, state, batch, number, decay):
    before = dataclasses.replace(state, step=jnp.int32(number), average=jax.tree.map(lambda p: p + 1, state.params))
    after, _ = step(before, batch)
    expected = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, before.average, after.params)
    assert_close(after.average, expected, atol=1e-6)


def test_only_kernels_decay(state):
    params = {"embed": {"embedding": 1}, "norm": {"scale": 1}, "up": {"kernel": 1, "bias": 1}, "kernel": {"scale": 1}}
    assert decay_mask(params) == {
        "embed": {"embedding": False},
        "norm": {"scale": False},
        "up": {"kernel": True, "bias": False},
        "kernel": {"scale": False},
    }
    names = [path[-1].key for path, on in jax.tree.leaves_with_path(decay_mask(state.params)) if on]
    assert len(names) > 5 and set(names) == {"kernel"}


def test_weight_decay_pulls_on_kernels_alone():
    params = {"kernel": jnp.ones(3), "scale": jnp.ones(3)}
    optimizer, rate = adamw(learning_rate=0.1, steps=10, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["scale"], 0)


def test_the_norm_of_the_whole_gradient_is_clipped():
    """Not each element: Adam is blind to the scale of a gradient, so its first moment is looked at."""
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    optimizer, _ = adamw(learning_rate=0.1, steps=10, clip=1.0, b1=0.9)
    big, small = {"a": jnp.array([3.0, 0]), "b": jnp.array([4.0])}, {"a": jnp.array([0.3, 0]), "b": jnp.array([0.4])}
    for gradient, expected in ((big, {"a": [0.6, 0], "b": [0.8]}), (small, {"a": [0.3, 0], "b": [0.4]})):
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        for name, value in expected.items():
            np.testing.assert_allclose(state[1][0].mu[name], 0.1 * np.array(value), rtol=1e-5)


def test_the_rate_warms_up_and_falls_as_a_cosine():
    _, rate = adamw(learning_rate=0.4, steps=110, warmup=10, final=0.1)
    values = np.array([float(rate(i)) for i in range(111)])
    np.testing.assert_allclose(values[:11], 0.04 * np.arange(11), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(values[[60, 110]], [0.04 + 0.36 / 2, 0.04], rtol=1e-4)
    assert (np.diff(values[10:]) < 0).all()
    assert float(adamw(learning_rate=0.4, steps=110)[1](0)) == pytest.approx(0.4)


@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_a_warm_up_longer_than_the_training_is_refused(warmup):
    with pytest.raises(ValueError, match=f"warmup={warmup}: must be at least 0 and less than steps=10"):
        adamw(learning_rate=0.1, steps=10, warmup=warmup)


@pytest.mark.parametrize("kind", ["one device", "micro-batches", "mesh", "pmap", "seeds"])
def test_the_first_example_whose_loss_is_not_finite_is_named(kind, batch):
    """By its pair where the batch has pairs; NONE where all are finite."""
    one = MeshLayout(make_mesh(devices=jax.devices()[:1]))
    layout = dict(mesh=MeshLayout(make_mesh()), pmap=PmapLayout()).get(kind, one)
    step = toys.make_step(layout, 2 if kind == "micro-batches" else 1, model=toys.LINEAR)

    def spoiling(denoiser, batch, key, size):
        terms = step.objective(denoiser, batch, key, size)
        bad = (batch["ids"] == 9) | (batch["ids"] == 5)
        return terms._replace(nats=jnp.where(bad & (batch["spoil"] > 0), jnp.inf, terms.nats))

    spoiled = dataclasses.replace(step, objective=spoiling)
    make = functools.partial(toys.make_state, toys.LINEAR)
    if kind == "seeds":  # the second of two runs has it
        spoiled, single = Seeds(spoiled), make
        make = lambda: jax.tree.map(lambda x: jnp.stack([x, x]), single())
    for pairs, spoil, expected in [(False, 0, NONE), (False, 1, 5), (True, 1, 91)]:
        state = layout.init(make)
        given = {name: np.asarray(x) for name, x in batch.items()} | {"spoil": np.full(toys.BATCH, spoil, np.int32)}
        if pairs:
            given["pair"] = 100 - given["ids"].astype(np.int32)
        if kind == "seeds":
            given = {name: np.stack([0 * x if name == "spoil" else x, x]) for name, x in given.items()}
        _, metrics = layout.step(spoiled, state)(state, layout.put(given))
        assert int(metrics["spoiled"]) == expected
