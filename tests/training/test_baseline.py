"""The baseline of the logged loss: less variance, the same mean in the long run, and a training that knows nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from jax.interpreters import partial_eval

from mdmjax.objectives import Autoregressive, MaskedDiffusion, Terms
from mdmjax.process import Complementary, ExactCount, iid, mirror
from mdmjax.training import Checkpoints, MeshLayout, PmapLayout, Step, init_state, make_mesh, restore
from mdmjax.variance import Baseline

V, L, B = 5, 8, 32
OPTIMIZER, LAW = optax.sgd(0.1), ExactCount(iid)


def bind(params):
    """A denoiser that knows how often each token is seen, and not where: quick to compile."""

    def denoiser(tokens, t=None, *, at=None):
        seen = jax.nn.one_hot(tokens, V).sum(1)
        return jnp.broadcast_to((seen @ params["kernel"])[:, None], (*tokens.shape, V))

    return denoiser


def make_state():
    init = lambda key: {"kernel": jax.random.normal(key, (V, V))}
    return init_state(init, OPTIMIZER, jax.random.key(0), baseline=Baseline.start(4, rate=0.3))


def batches(count):
    for k in range(count):
        rows = np.random.default_rng(k).integers(0, V, (B, 1)) * np.ones((1, L), int)
        yield {"tokens": rows.astype(np.int32), "ids": np.arange(k * B, (k + 1) * B, dtype=np.int32)}


def run(layout, micro=1, state=None, steps=range(6)):
    """(losses, adjusted losses, last state) of these steps."""
    step = Step(bind, MaskedDiffusion(V, LAW), OPTIMIZER, lambda step: 0.1, B, 0.9, micro, layout.shards, layout.axis)
    state = layout.init(make_state) if state is None else state
    taken, metrics = layout.step(step, state), []
    for number, batch in enumerate(batches(max(steps) + 1)):
        if number in steps:
            state, numbers = taken(state, layout.put(batch))
            metrics.append([float(numbers["loss"]), float(numbers["loss_adjusted"])])
    return *np.array(metrics).T, state


ONE = MeshLayout(make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def one_device():
    return run(ONE)


@pytest.mark.parametrize("layout, micro", [(ONE, 4), (MeshLayout(make_mesh(4, 2)), 2), (PmapLayout(), 1)])
def test_the_layout_changes_nothing(one_device, layout, micro):
    losses, adjusted, state = run(layout, micro)
    np.testing.assert_allclose(losses, one_device[0], rtol=3e-6)
    np.testing.assert_allclose(adjusted, one_device[1], rtol=2e-5)
    theirs = one_device[2].baseline
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), state.baseline, theirs)
    np.testing.assert_array_equal(state.baseline.seen, theirs.seen)
    different = np.abs(adjusted - losses)
    assert different[2:].min() > 1e-3 and not different[:2].any()  # the first tells b, the second c


@pytest.mark.parametrize("micro", [1, 2])
def test_what_is_trained_is_the_same_program(micro):
    """What the next parameters need of a step is the same, equation by equation, with it and without."""
    step = Step(bind, MaskedDiffusion(V, LAW), OPTIMIZER, lambda step: 0.1, B, 0.9, micro)
    batch, texts = next(batches(1)), []
    for state in (make_state(), dataclasses.replace(make_state(), baseline=None)):
        trained = lambda *inputs: dataclasses.replace(step(*inputs)[0], baseline=None)
        jaxpr = jax.make_jaxpr(trained)(state, batch).jaxpr
        texts.append(str(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]))
    assert texts[0] == texts[1] and "optimization_barrier" in texts[0]


def test_the_parameters_are_bitwise_those_of_a_run_without_it():
    batch = next(toys.make_batches())
    plain = jax.jit(toys.make_state)()
    with_it = dataclasses.replace(plain, baseline=Baseline.start())
    step = jax.jit(toys.make_step(ONE))
    for _ in range(3):
        (plain, metrics), (with_it, more) = step(plain, batch), step(with_it, batch)
    for name in ("params", "average", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(plain, name), getattr(with_it, name))
    assert all(metrics[name] == more[name] for name in metrics)
    assert set(more) - set(metrics) == {"loss_adjusted"} and more["loss_adjusted"] != more["loss"]


def test_a_resumed_run_goes_on_bitwise(one_device, tmp_path):
    state = run(ONE, steps=range(3))[2]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, {"data": {}})
    checkpoints.wait()
    restored = restore(ONE, make_state, checkpoints, print)
    checkpoints.close()
    _, adjusted, last = run(ONE, state=restored.state, steps=range(3, 6))
    np.testing.assert_array_equal(adjusted, one_device[1][3:])
    jax.tree.map(np.testing.assert_array_equal, last.baseline, one_device[2].baseline)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Older:
    """The state as it was before it could have a baseline."""

    step: Any
    params: Any
    average: Any
    optimizer: Any
    key: Any
    law: Any = None


def test_a_checkpoint_without_the_field_restores(tmp_path):
    plain = lambda: dataclasses.replace(make_state(), baseline=None)
    state = jax.jit(plain)()
    checkpoints, said = Checkpoints(tmp_path), []
    fields = [field.name for field in dataclasses.fields(Older)]
    checkpoints.save(7, Older(*(getattr(state, name) for name in fields)), {"data": {}})
    checkpoints.wait()
    restored = restore(ONE, plain, checkpoints, said.append)
    checkpoints.close()
    assert restored is not None and said == [] and restored.state.baseline is None
    jax.tree.map(np.testing.assert_array_equal, restored.state.params, state.params)


# ---- what it is ------------------------------------------------------------------------------------------------------


def terms(hidden, nats, tokens=L):
    hidden = jnp.asarray(hidden, jnp.int32)
    return Terms(jnp.asarray(nats, jnp.float32), jnp.full_like(hidden, tokens), hidden, hidden)


def test_two_batches_by_hand():
    """Bins are (0, 1/2], (1/2, 1]; a row with nothing hidden is in the first. The second batch has no row in it."""
    state = Baseline.start(2, rate=0.25)
    tokens, nats = state.sums(terms([0, 4, 5, 8], [1.0, 3.0, 10.0, 14.0]))
    assert tokens.tolist() == [2 * L, 2 * L] and nats.tolist() == [4, 24]
    state, taken = state.step((tokens, nats))
    assert taken == 0 and state.means.tolist() == [4 / 16, 24 / 16] and state.shares.tolist() == [0.5, 0.5]
    state = dataclasses.replace(state, moments=jnp.array([0.2, 0.5]), batches=jnp.int32(10))
    after, taken = state.step(state.sums(terms([8, 8], [8.0, 24.0])))
    level = (0.25 + 1.5) / 2
    assert float(taken) == pytest.approx(0.2 / (0.5 + 1e-6) * (1.5 - level))
    np.testing.assert_allclose(after.means, [0.25, 1.5 + 0.5 * (2.0 - 1.5)])  # the second that this bin has seen
    np.testing.assert_allclose(after.shares, [0.375, 0.625])
    moments = np.array([(2.0 - level) * (1.5 - level), (1.5 - level) ** 2])
    np.testing.assert_allclose(after.moments, 0.75 * state.moments + 0.25 * moments, rtol=1e-6)
    assert after.seen.tolist() == [1, 2] and after.batches == 11
    fixed = dataclasses.replace(state, coefficient=1.0)
    assert float(fixed.step(fixed.sums(terms([8], [8.0])))[1]) == pytest.approx(1.5 - level)


@jax.jit
def logged(state, slope, key):
    """(losses, adjusted) of 4,000 batches of 8 rows: a loss that rises with what is hidden, and falls in time."""

    def one(state, t):
        key_count, key_noise = jax.random.split(jax.random.fold_in(key, t))
        hidden = jax.random.randint(key_count, (8,), 1, L + 1)
        loss = 2 + slope * hidden / L + 0.3 * jax.random.normal(key_noise, (8,)) + jnp.exp(-t / 500)
        state, taken = state.step(state.sums(terms(hidden, L * loss)))
        return state, (loss.mean(), loss.mean() - taken)

    state, found = jax.lax.scan(one, state, jnp.arange(4000))
    return state, *found


@pytest.mark.parametrize("coefficient", [None, 1.0])
def test_less_variance_and_the_same_mean(coefficient):
    """What is left is the noise at one rate. The mean differs by as little as the telescoping sum says."""
    state, losses, adjusted = logged(Baseline.start(8, coefficient=coefficient), 3.0, jax.random.key(0))
    losses, adjusted = (np.asarray(x, np.float64) for x in (losses, adjusted))
    assert losses[2000:].var() > 8 * adjusted[2000:].var()
    assert adjusted[2000:].var() == pytest.approx(0.3**2 / 8, rel=0.15)
    # sum_t (f - p) is within 1 in each bin, over a rate of 0.01: their mean is by far less than the loss's own error
    assert abs((adjusted - losses).mean()) < 0.2 * losses[2000:].std() / np.sqrt(4000)


def test_a_loss_that_does_not_depend_on_the_rate_is_left_alone():
    """A fitted c is small, where c = 1 takes off the noise of the means themselves."""
    taken = []
    for coefficient in (None, 1.0):
        _, losses, adjusted = logged(Baseline.start(8, coefficient=coefficient), 0.0, jax.random.key(1))
        taken.append(np.var(adjusted[500:] - losses[500:]))
    assert taken[0] < 0.2 * taken[1]


@pytest.mark.parametrize("law", [ExactCount(ways=mirror), Complementary(1e-3, iid)])
def test_of_several_ways_the_first_tells_the_share(law):
    batch = {"tokens": jnp.zeros((64, L), jnp.int32), "ids": jnp.arange(64)}
    params = {"kernel": jnp.ones((V, V))}
    found = jax.jit(lambda key: MaskedDiffusion(V, law)(bind(params), batch, key, 64))(jax.random.key(0))
    assert 0 <= found.hidden.min() <= 1 and found.hidden.max() == L and len(set(found.hidden.tolist())) >= L


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Baseline.start(1), "bins=1: must be at least 2"),
        (lambda: Baseline.start(rate=0.0), r"rate=0.0: must be in \(0, 1\]"),
        (lambda: Baseline.start().sums(_plain()), "does not say how much of a row is hidden"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def _plain():
    batch = {"tokens": jnp.zeros((2, L), jnp.int32), "ids": jnp.arange(2)}
    return Autoregressive()(bind({"kernel": jnp.ones((V, V))}), batch, jax.random.key(0), 2)
