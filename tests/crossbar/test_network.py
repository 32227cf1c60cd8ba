"""Networks on crossbars: every matrix of a pytree as it would be alone, whatever its axes, and errors with its path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.crossbar import (
    Crossbar,
    NotConverged,
    Wires,
    deploy,
    effective_weights,
    from_matrices,
    gains,
    select,
    to_matrices,
    varied,
)

pytestmark = pytest.mark.usefixtures("x64")
CROSSBAR = Crossbar(rows=8, columns=12, bits=4, wires=Wires(1e-2, 1e-2), on_off=20, tolerance=1e-9)


def params(seed=0):
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape))
    return {
        "blocks": {"query": {"kernel": make(2, 6, 2, 3)}, "mlp": {"kernel": make(2, 6, 4)}, "norm": {"scale": make(6)}},
        "head": {"kernel": make(6, 3), "bias": make(3)},
    }


WHERE = {"query": "sioo", "kernel$": ""}


def test_every_matrix_is_as_it_would_be_alone():
    given, told = params(), []
    found = deploy(given, CROSSBAR, where=WHERE, dtype=jnp.float64, chunk=5, progress=told.append)
    assert set(found.layers) == {"blocks/query/kernel", "blocks/mlp/kernel", "head/kernel"}
    query = given["blocks"]["query"]["kernel"]
    for s in range(2):
        alone = effective_weights(query[s].reshape(6, 6), CROSSBAR, dtype=jnp.float64)
        np.testing.assert_allclose(
            found.raw["blocks"]["query"]["kernel"][s].reshape(6, 6), alone.weights, rtol=1e-12, atol=1e-15
        )
        g = gains(alone.weights, np.asarray(query[s]).reshape(6, 6))
        calibrated = found.calibrated["blocks"]["query"]["kernel"][s].reshape(6, 6)
        np.testing.assert_allclose(calibrated, alone.weights * g, rtol=1e-12, atol=1e-15)
    head = effective_weights(given["head"]["kernel"], CROSSBAR, dtype=jnp.float64)
    np.testing.assert_allclose(found.raw["head"]["kernel"], head.weights, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found.layers["head/kernel"][0].nf_total, head.nf_total)
    for path in (("head", "bias"), ("blocks", "norm")):
        kept, old = found.raw[path[0]][path[1]], given[path[0]][path[1]]
        assert all(a is b for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(old), strict=True))
    assert told[-1] == sum(len(one.nf_total) for layer in found.layers.values() for one in layer)


SHAPES = [("", (4, 3)), ("", (2, 4, 3)), ("ioo", (4, 3, 2)), ("soi", (2, 4, 3)), ("iio", (2, 3, 5))]


@pytest.mark.parametrize("axes, shape", SHAPES)
def test_kernels_are_matrices_and_back(axes, shape):
    kernel = np.random.default_rng(0).normal(size=shape)
    matrices = to_matrices(kernel, axes)
    np.testing.assert_array_equal(from_matrices(matrices, shape, axes), kernel)
    if axes == "ioo":
        x = np.random.default_rng(1).normal(size=4)
        np.testing.assert_allclose((x @ matrices[0]).reshape(3, 2), np.einsum("i,ihd->hd", x, kernel))
    if axes == "soi":
        np.testing.assert_array_equal(matrices[1], kernel[1].T)


def test_activities_are_those_of_a_path():
    """Another order of the rows, and so other weights, in that layer only."""
    plain = deploy(params(), CROSSBAR, where=WHERE, dtype=jnp.float64)
    told = deploy(params(), CROSSBAR, where=WHERE, dtype=jnp.float64, activity={"head/kernel": np.arange(6.0)})
    assert not np.allclose(plain.raw["head"]["kernel"], told.raw["head"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(plain.raw["blocks"]["mlp"]["kernel"], told.raw["blocks"]["mlp"]["kernel"])


def test_reads_differ_from_one_another():
    """Their mean is the devices' own; the gains are those of the devices, not of the read."""
    at = dict(where={"head/kernel": ""}, dtype=jnp.float64)
    still = deploy(params(), CROSSBAR, **at)
    reads = [deploy(params(), CROSSBAR, **at, key=jax.random.key(i), read_noise=0.1) for i in range(60)]
    weights = np.stack([np.asarray(r.raw["head"]["kernel"]) for r in reads])
    own = np.asarray(still.raw["head"]["kernel"])
    error = np.abs(weights.mean(0) - own) / (weights.std(0) / np.sqrt(60) + 1e-9)
    assert error.max() < 4.5 and weights.std(0).max() > 0.02 * np.abs(own).max()
    one = reads[0]
    np.testing.assert_array_equal(one.layers["head/kernel"][0].weights, still.layers["head/kernel"][0].weights)
    ratio = one.calibrated["head"]["kernel"] / one.raw["head"]["kernel"]
    np.testing.assert_allclose(ratio, still.calibrated["head"]["kernel"] / own, rtol=1e-9)


def test_reads_and_devices_are_drawn_apart():
    """The factor of a read is not that of a device, nor of the next tile's."""
    one = np.ones((3, 4, 5))
    device, read = (np.log(varied(one, 0.1, jax.random.key(0), use)) for use in (0, 1))
    for a, b in ((device, read), (device[1:], read[:2]), (device[:2], read[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.45


def test_what_will_not_do():
    for kwargs, words in (
        (dict(where={"nothing": ""}), "where='nothing' finds no parameter; there are blocks/mlp/kernel"),
        (dict(where={"(": ""}), r"where='\(' is no regular expression"),
        (dict(where={"query": "io"}), r"blocks/query/kernel of shape \(2, 6, 2, 3\): axes='io' must name each"),
        (dict(where={"scale": ""}), r"blocks/norm/scale of shape \(6,\)"),
        (dict(where={"head/kernel": "ss"}), "axes='ss' must name each"),
        (dict(activity={"head": np.ones(6)}), "activity of head: is not on crossbars; there are"),
        (dict(read_noise=0.1), "read_noise=0.1: must be at least 0, and above 0 it needs a key"),
        (dict(read_noise=float("nan")), "read_noise=nan: must be at least 0"),
        (dict(activity={"head/kernel": np.ones(2)}), r"head/kernel: activity of shape \(2,\): must be 6"),
    ):
        with pytest.raises(ValueError, match=words):
            deploy(params(), CROSSBAR, **dict(where=WHERE) | kwargs)
    whole = params()
    whole["head"]["kernel"] = jnp.arange(18).reshape(6, 3)
    with pytest.raises(ValueError, match="head/kernel is int.*: weights must be floats"):
        deploy(whole, CROSSBAR)
    broken = params()
    broken["head"]["kernel"] = broken["head"]["kernel"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="head/kernel: 1 weights are not finite"):
        deploy(broken, CROSSBAR)
    hard = Crossbar(rows=8, columns=12, bits=4, wires=Wires(1.0, 1.0), tolerance=1e-12)
    with pytest.raises(NotConverged, match="head/kernel, matrix 0, tile .: the residual is"):
        deploy(params(), hard, where={"head/kernel": ""})  # in float32
    assert select(params(), {"kernel$": ""}) == dict.fromkeys(
        ("blocks/mlp/kernel", "blocks/query/kernel", "head/kernel"), ""
    )
