"""The monitor: what it measures, whatever the layout is, and that it is of the run's own law and parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax.objectives import MaskedDiffusion
from mdmjax.process import ExactCount, use_key
from mdmjax.training import MeshLayout, Monitor, PmapLayout, Step, init_state, make_mesh
from mdmjax.training.state import MONITOR
from mdmjax.variance import DrawStatistic, nested, parts, starting_law

V, L, N = 5, 8, 16
ROWS = {"tokens": np.random.default_rng(0).integers(0, V, (N, L)).astype(np.int32)}
ONE, MESH, PMAP = MeshLayout(make_mesh(devices=jax.devices()[:1])), MeshLayout(make_mesh(4, 2)), PmapLayout()
LAW, GRADIENT = ExactCount(), {"bias": "bias", "rest": "kernel"}


def bind(params):
    """A denoiser that knows how often each token is seen, and not where: quick to compile."""

    def denoiser(tokens, t=None, *, at=None):
        seen = jax.nn.one_hot(tokens, V).sum(1)
        logits = seen @ params["kernel"] + params["bias"][None]
        return jnp.broadcast_to(logits[:, None], (*tokens.shape, V))

    return denoiser


def make_state(law=None):
    init = lambda key: {"kernel": jax.random.normal(key, (V, V)), "bias": jnp.ones(V)}
    state = init_state(init, optax.sgd(0.1), jax.random.key(0), law)
    return dataclasses.replace(state, step=jnp.int32(6), average=jax.tree.map(lambda x: 0 * x, state.params))


def measured(layout=ONE, groups=None, law=LAW, of_state=None, bind=bind):
    make = lambda: make_state(of_state)
    monitor = Monitor(DrawStatistic(bind, law, V, groups or {}), layout, ROWS, every=3, rates=2, masks=3)
    state = layout.init(make)
    assert monitor(5, state) is None
    return monitor(6, state)()


def by_hand(groups, law):
    """{group: A, B, C, total} without a layout."""
    state = jax.jit(make_state)()
    statistic = DrawStatistic(bind, law, V, groups)
    of = lambda *draw: statistic(state.params, *draw)
    key = use_key(state.key, state.step, MONITOR)
    moments = jax.jit(lambda x: nested(of, x, jnp.arange(N), key, rates=2, masks=3))(ROWS)
    return parts(moments, sums={"gradient": list(groups)} if groups else {})


def assert_same(numbers, expected, groups):
    assert len(numbers) == 8 * len(groups)
    for group in groups:
        for part, estimate in zip(("A", "B", "C", "total"), expected[group], strict=True):
            assert numbers[f"variance/{group}_{part}"] == pytest.approx(estimate.mean, rel=1e-4, abs=1e-6)
            assert numbers[f"variance/{group}_{part}_error"] == pytest.approx(estimate.standard_error, rel=1e-4)


@pytest.fixture(scope="module")
def expected():
    found = by_hand(GRADIENT, LAW)
    assert len({round(estimate.mean, 4) for group in ("loss", "gradient") for estimate in found[group]}) == 8
    return found


CASES = {"one": (ONE, {}), "mesh": (MESH, {}), "gradient, mesh": (MESH, GRADIENT), "gradient, pmap": (PMAP, GRADIENT)}


@pytest.mark.parametrize("layout, groups", CASES.values(), ids=CASES)
def test_the_parts_are_those_of_the_analysis_on_every_layout(expected, layout, groups):
    assert_same(measured(layout, groups), expected, ["loss", *["gradient"][: len(groups)]])


def test_a_law_of_the_state_is_the_one_that_is_drawn_from():
    law = starting_law(0.05, 4)
    assert_same(measured(PMAP, of_state=law), by_hand({}, law), ["loss"])


def test_a_network_that_draws_nothing_has_data_noise_alone():
    causal = lambda params: lambda tokens, t=None, *, at=None: bind(params)(tokens * 0)  # sees nothing
    numbers = measured(law=None, bind=causal)
    assert numbers["variance/loss_A"] == pytest.approx(0, abs=1e-5) == numbers["variance/loss_B"]
    assert numbers["variance/loss_C"] == pytest.approx(numbers["variance/loss_total"], abs=1e-5) != 0


def test_draws_are_new_at_each_step_and_the_same_at_the_same_one():
    monitor = Monitor(DrawStatistic(bind, LAW, V), ONE, ROWS, every=1, rates=2, masks=3)
    states = [dataclasses.replace(jax.jit(make_state)(), step=jnp.int32(step)) for step in (6, 6, 7)]
    first, again, later = (monitor(int(state.step), state)() for state in states)
    assert first == again != later


@pytest.mark.parametrize("layout", [MESH, PMAP], ids=["mesh", "pmap"])
def test_a_run_is_not_changed(layout):
    """To the bit, where steps take the memory of the state before them, and what was measured is fetched at the end."""
    step = Step(bind, MaskedDiffusion(V, LAW), optax.sgd(0.1), lambda step: 0.1, N, axis=layout.axis)
    batch = layout.put(ROWS | {"ids": np.arange(N, dtype=np.int32)})
    monitor = Monitor(DrawStatistic(bind, LAW, V, GRADIENT), layout, ROWS, every=2, rates=2, masks=3)
    ended, found = [], []
    for watch in (monitor, lambda step, state: None):
        state = layout.init(make_state)
        taken = layout.step(step, state)
        for number in range(1, 6):
            state, _ = taken(state, batch)
            found.append(watch(number, state))
        ended.append(state)
    values = [fetch() for fetch in found if fetch is not None]
    assert len(values) == 2 and values[0] != values[1]
    jax.tree.map(np.testing.assert_array_equal, ended[0].params, ended[1].params)
    jax.tree.map(np.testing.assert_array_equal, ended[0].average, ended[1].average)
