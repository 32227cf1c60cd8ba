"""The real training, evaluation and sampling steps, compiled for TPU pods on this host (`make test-tpu`).

A program that compiles here is laid out, scheduled and given its memory by the compiler that a pod would use. What it
computes is the business of the other tests; these look at what it takes and what it sends.
"""

import functools

import jax
import pytest

from experiments import build, plan
from mdmjax.training.plan import GIB, footprint, hbm

OWT = "experiments/configs/owt_small.py"
# A small network with everything the large one has: a packed readout, remat, bfloat16.
SMALL = "network.width=256 network.heads=4 network.depth=2 data.length=256 sample.steps=4"
DEEP = "network.width=512 network.heads=4 network.depth=12 network.scan=True data.length=128 train.batch=64"


@functools.cache
def experiment(topology, change, vocab):
    config = plan.training_config(OWT, change)
    return build.Experiment(config, vocab, config.data.length, tuple(plan.devices_of(topology)))


@functools.cache
def programs(topology, change="", vocab=50257):
    return plan.programs(experiment(topology, change, vocab))


@functools.cache
def compiled(name, topology, change="", vocab=50257):
    function, arguments = programs(topology, change, vocab)[name]
    return footprint(function, *arguments)


def size(tree):
    return sum(
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


def check(capsys, name, topology, change="", vocab=50257):
    """What holds of every program, and a line that says what it takes."""
    found = compiled(name, topology, change, vocab)
    with capsys.disabled():
        sent = ", ".join(f"{count} {kind}" for kind, count in found.collectives.items() if count)
        print(
            f"\n{name} on {topology} {change or '(owt_small)'}: {found.total / GIB:.3f} GiB a chip = "
            f"{found.arguments / GIB:.3f} arguments + {found.temporaries / GIB:.3f} temporaries + "
            f"{(found.outputs - found.aliased) / GIB:.3f} outputs + {found.code / GIB:.3f} code; "
            f"{sent or 'no collectives'}; compiled in {found.seconds:.0f} s"
        )
    assert "f64[" not in found.text
    assert found.total <= hbm(plan.devices_of(topology))
    # A gather brings together one sharded parameter, never the tree, nor the activations or logits of several chips.
    params = programs(topology, change, vocab)["train"][1][0].params
    largest = max(size(x) for x in jax.tree.leaves(params))
    assert found.gathered <= largest, (
        f"an all-gather of {found.gathered:,} bytes; the largest parameter has {largest:,}"
    )
    return found


def test_owt_small_trains_on_a_pod(capsys):
    found = check(capsys, "train", "v5e:16x16")
    state = programs("v5e:16x16")["train"][1][0]
    assert found.arguments < 1.02 * size(state) / 4  # fsdp=4 shares out the parameters, their average and both moments
    assert found.aliased > 0.99 * (found.outputs - 4096)  # the state is donated, so there is one
    assert found.collectives["all-gather"] > 0


def test_splash_attention_of_owt_small(capsys):
    """The kernel compiles at the pod's own shapes; two layers tell as much as twelve."""
    found = check(capsys, "train", "v5e:16x16", "network.depth=2 network.attention=splash")
    assert "tpu_custom_call" in found.text


@pytest.mark.parametrize("name", plan.PROGRAMS)
def test_small_programs_on_one_host(capsys, name):
    change = f"{SMALL} mesh.fsdp=2 train.batch=16 evaluate.batch=16"
    found = check(capsys, name, "v5e:2x2", change, 2048)
    assert "tpu_custom_call" not in found.text


@pytest.mark.parametrize("name", ["evaluate", "sample"])
def test_splash_attention_evaluates_and_samples(capsys, name):
    """Also with fewer rows to sample than there are chips."""
    change = f"{SMALL} network.attention=splash mesh.fsdp=16 train.batch=64 evaluate.batch=64"
    assert "tpu_custom_call" in check(capsys, name, "v5p:4x4x4", change, 2048).text


def test_layers_are_gathered_one_at_a_time(capsys):
    """Over 64 chips hardly anything of the state is on one, and the step never has all parameters there at once."""
    found = check(capsys, "train", "v5p:4x4x4", f"{DEEP} mesh.fsdp=64 evaluate.batch=64", 2048)
    params = programs("v5p:4x4x4", f"{DEEP} mesh.fsdp=64 evaluate.batch=64", 2048)["train"][1][0].params
    # Small shares are gathered by an all-reduce, so memory is what tells: a whole tree would be at least all of it.
    assert found.temporaries < size(params) / 3


@pytest.mark.parametrize("name", ["v5e:3x5", "v9z:2x2", "pod"])
def test_unknown_topologies(name):
    with pytest.raises(ValueError, match="choose"):
        plan.devices_of(name)


def test_mesh_that_does_not_fit():
    with pytest.raises(ValueError, match="mesh .* 3"):
        experiment("v5e:2x2", "mesh.fsdp=3", 2048)
    with pytest.raises(ValueError, match="wiring"):  # 64 = 8 x 8 chips, but 8 is no product of 4, 4, 4
        experiment("v5p:4x4x4", "mesh.fsdp=8 train.batch=64 evaluate.batch=64", 2048)
