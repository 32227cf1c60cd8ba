"""The same config gives the same losses, however it is laid out over devices, processes and micro-batches."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import ports
import pytest
import toys
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mdmjax.networks import transformer
from mdmjax.objectives import Packed, dense
from mdmjax.training import MeshLayout, PmapLayout, infer_sharding, make_mesh

HERE = pathlib.Path(__file__).parent


def mesh_layout(*sizes: int) -> MeshLayout:
    return MeshLayout(make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]))


@pytest.fixture(scope="module")
def one_device():
    return toys.run(mesh_layout(1, 1, 1))


def assert_same(run, reference):
    losses, scored, norms, state = run
    assert scored.tolist() == reference[1].tolist()
    np.testing.assert_allclose(losses, reference[0], rtol=3e-6)
    np.testing.assert_allclose(norms, reference[2], rtol=3e-5)
    for ours, theirs in ((state.params, reference[3].params), (state.average, reference[3].average)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-5), ours, theirs)


@pytest.mark.parametrize("sizes,micro,packed", [((8, 1, 1), 1, False), ((2, 4, 1), 4, True), ((2, 2, 2), 2, False)])
def test_a_mesh_of_eight_devices_changes_nothing(one_device, sizes, micro, packed):
    """Nor do micro-batches and the packed readout on it; by themselves, on one device, they are in test_step."""
    layout = mesh_layout(*sizes)
    nll = Packed(groups=layout.shards, chunk=16) if packed else dense
    assert_same(toys.run(layout, micro, nll), one_device)


def test_pmap_changes_nothing(one_device):
    assert_same(toys.run(PmapLayout(), 2), one_device)


def test_there_is_something_to_agree_on(one_device):
    """The reference moves its parameters, and its losses and counts are not the same at every step."""
    losses, scored, _, state = one_device
    start = jax.jit(toys.make_state)().params
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, start)
    assert min(jax.tree.leaves(moved)) > 1e-2
    assert len(set(losses.tolist())) == len(losses) and len(set(scored.tolist())) > 1


def test_parameters_and_moments_are_sharded():
    layout = mesh_layout(2, 2, 2)
    state = layout.init(toys.make_state)
    moments = state.optimizer[1][0].mu
    for tree in (state.params, state.average, moments):
        leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree.leaves_with_path(tree)}
        down = next(x for name, x in leaves.items() if name.endswith("down/kernel"))
        up = next(x for name, x in leaves.items() if name.endswith("up/kernel"))
        assert down.sharding.spec == P("tensor", "fsdp") and up.sharding.spec == P("fsdp", "tensor")
        assert down.addressable_shards[0].data.size == down.size // 4
    assert state.step.sharding.is_fully_replicated


@pytest.mark.parametrize("scan", [False, True])
def test_a_block_gathers_its_parameters_along_fsdp_and_not_along_tensor(scan):
    layout, seen = mesh_layout(2, 2, 2), []
    jitted = jax.jit(layout.gather)

    def gather(params):
        seen.append(jitted.lower(params).compile().output_shardings)
        return layout.gather(params)

    model = transformer(dataclasses.replace(toys.CONFIG, scan=scan, gather=gather))
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((8, toys.LENGTH), np.int32)
    jax.eval_shape(lambda params, tokens: model.bind(params)(tokens), params, tokens)
    (shardings,) = seen
    placed = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree.leaves_with_path(shardings)}
    for end, axes in (("down/kernel", ("tensor", None)), ("up/kernel", (None, "tensor"))):
        (found,) = (sharding for name, sharding in placed.items() if name.endswith(end))
        assert found.is_equivalent_to(NamedSharding(layout.mesh, P(*axes)), 2)


def test_rules_are_data():
    mesh = make_mesh(2, 2, 2)
    tree = {
        "a": {"kernel": np.zeros((3, 8, 6)), "bias": np.zeros(8)},
        "b": {"kernel": np.zeros((5, 4))},
        "c": {"kernel": np.zeros(4)},
    }
    placed = infer_sharding(tree, mesh, [(r"^a/kernel$", ("fsdp", "tensor")), (r"kernel$", ("fsdp", None))])
    assert placed["a"]["kernel"].spec == P(None, "fsdp", "tensor")  # the rule is about the last dimensions
    assert placed["a"]["bias"].spec == P()  # no rule
    assert placed["b"]["kernel"].spec == P(None, None)  # 2 does not divide 5
    assert placed["c"]["kernel"].spec == P()  # fewer dimensions than the rule has


def test_a_mesh_fits_the_devices_or_says_what_would():
    assert dict(make_mesh(-1, 2, 2).shape) == dict(data=2, fsdp=2, tensor=2)
    assert dict(make_mesh(8).shape) == dict(data=8, fsdp=1, tensor=1)
    with pytest.raises(ValueError, match="there are 8: choose sizes whose product is 8"):
        make_mesh(3, 1, 1)
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(-1, 3, 1)
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(2, 2, 1)
    with pytest.raises(ValueError, match="at most one is -1"):
        make_mesh(-1, -1, 1)
    with pytest.raises(ValueError, match="sizes are >= 1"):
        make_mesh(8, 0, 1)


def test_the_processes_of_a_stream_share_its_batches():
    whole, parts = toys.make_batches(), [toys.make_batches(rank, 2) for rank in range(2)]
    for _ in range(3):
        batch, shares = next(whole), [next(part) for part in parts]
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([share[name] for share in shares]))
    for stream in (whole, *parts):
        stream.close()


@pytest.mark.slow
def test_two_processes_of_two_devices_change_nothing(one_device, tmp_path):
    port = str(ports.free_port())
    paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    commands = [[sys.executable, str(HERE / "two_processes.py"), str(rank), port, str(tmp_path)] for rank in range(2)]
    with open(tmp_path / "log", "w") as log:
        children = [subprocess.Popen(c, env=environment, stdout=log, stderr=log) for c in commands]
        try:
            one, expected = mesh_layout(1, 1, 1), {}  # while they run
            first = toys.numbers(toys.bound(one, one.init(toys.make_state).average, 32))
            for name, model in (("mesh", toys.MODEL), ("pmap", toys.LINEAR)):
                losses, scored, _, state = one_device if name == "mesh" else toys.run(one, model=model)
                last = toys.numbers(toys.bound(one, state.average, 32, model=model))
                expected[name] = losses, scored, last, toys.monitored(one, state, model)
            codes = [child.wait(timeout=240) for child in children]
        finally:
            for child in children:
                child.kill()
    assert codes == [0, 0], (tmp_path / "log").read_text()[-3000:]

    for rank in range(2):
        found = json.loads((tmp_path / f"results{rank}.json").read_text())
        shares = dict(mesh=[1 - rank, 2], pmap=[rank, 2], tensor=[0, 1])
        assert {name: found[name]["share"] for name in shares} == shares
        np.testing.assert_allclose(found["tensor"]["bound"], first, rtol=3e-5)
        for name in ("mesh", "pmap"):
            result, (losses, scored, last, variance) = found[name], expected[name]
            np.testing.assert_allclose(result["losses"], losses, rtol=3e-6)
            assert result["scored"] == scored.tolist()
            np.testing.assert_allclose(result["bound"], last, rtol=3e-5)
            assert result["variance"] == pytest.approx(variance, rel=1e-3, abs=1e-5)
            assert (result["restored"], result["same"], result["left"], len(result["said"])) == (4, True, [4], 1)
        reason = ["another process cannot read it", "the disk is away"][rank]
        assert reason in found["pmap"]["said"][0]
        assert "rows of a batch that a process holds must be one run" in found["mixed"]
        assert "step 2 is nan (examples 32..63)" in found["spoiled"]  # those of both processes
