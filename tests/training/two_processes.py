"""One of two processes with two CPU devices each: two_processes.py RANK PORT FOLDER. Each writes what it found."""

import functools
import json
import pathlib
import sys

import jax

rank, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_default_matmul_precision", "highest")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import toys  # noqa: E402

from mdmjax.training import (  # noqa: E402
    Checkpoints,
    MeshLayout,
    NonFiniteLoss,
    Plan,
    PmapLayout,
    make_mesh,
    restore,
    train,
)

assert jax.process_count() == 2 and jax.device_count() == 4


def saved_and_restored(layout, state, folder, damage, model) -> dict:
    """What one run of these processes saves, the next one reads; the newest checkpoint is damaged in between."""
    checkpoints = Checkpoints(folder, keep=2)
    for step in (4, 8):
        checkpoints.save(step, layout.shared(state), {"data": {}}, bound=1.0)
    checkpoints.wait()
    checkpoints.close()
    checkpoints = Checkpoints(folder, keep=2)
    damage(checkpoints)
    jax.experimental.multihost_utils.sync_global_devices("damaged")
    said = []
    restored = restore(layout, functools.partial(toys.make_state, model), checkpoints, said.append)
    same = jax.tree.map(
        lambda a, b: all(
            np.array_equal(np.asarray(x.data), np.asarray(y.data))
            for x, y in zip(a.addressable_shards, b.addressable_shards, strict=False)
        ),
        restored.state.params,
        state.params,
    )
    result = dict(restored=restored.step, same=all(jax.tree.leaves(same)), said=said, left=checkpoints.steps())
    checkpoints.close()
    return result


def cut_its_files(checkpoints):
    """All of them: which process wrote a leaf, and whether a file is read at all, is up to orbax."""
    if rank == 0:
        for file in (checkpoints.directory / "8" / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def hide_from_one(checkpoints):
    """One process alone cannot read it."""
    read = checkpoints._reader.restore

    def restore(directory, **choices):
        if rank == 1 and directory.name == "8":
            raise OSError("the disk is away")
        return read(directory, **choices)

    checkpoints._reader.restore = restore


def spoiled(layout) -> str:
    """What a run says whose second loss is not finite."""
    step = lambda state, batch: (state + 1, dict(loss=jnp.where(state == 1, jnp.nan, 1.0), grad_norm=jnp.ones(())))
    rows, checkpoints = toys.make_batches(*layout.share), Checkpoints(folder / "spoiled")
    try:
        train(
            plan=Plan(4, 4, 4), make_state=lambda: jnp.zeros(()), step=step, layout=layout, batches=rows,
            checkpoints=checkpoints, evaluate=lambda state: 1.0, write=lambda *a, **b: None,
        )  # fmt: skip
    except NonFiniteLoss as error:
        return str(error)
    finally:
        rows.close()
        checkpoints.close()
    return "nothing"


results = {}
turned = MeshLayout(make_mesh(2, 2, 1, devices=jax.devices()[::-1]))  # as make_mesh may order them on a pod
for name, layout, damage, model in (
    ("mesh", turned, cut_its_files, toys.MODEL),
    ("pmap", PmapLayout(), hide_from_one, toys.LINEAR),  # every device holds all of it, whatever it is
):
    losses, scored, _, state = toys.run(layout, micro=2, rank=layout.share[0], ranks=layout.share[1], model=model)
    results[name] = dict(
        share=layout.share,
        losses=losses.tolist(),
        scored=scored.tolist(),
        variance=toys.monitored(layout, state, model),
        bound=toys.numbers(toys.bound(layout, state.average, 8, *layout.share, model)),
        **saved_and_restored(layout, state, folder / name, damage, model),
    )
tensor = MeshLayout(make_mesh(1, 1, 4))  # both processes hold every row
start = toys.bound(tensor, tensor.init(toys.make_state).average, 8, *tensor.share)
results["tensor"] = dict(share=tensor.share, bound=toys.numbers(start))
try:
    MeshLayout(make_mesh(4, 1, 1, devices=np.array(jax.devices())[[0, 2, 1, 3]])).share  # noqa: B018
except ValueError as error:
    results["mixed"] = str(error)
results["spoiled"] = spoiled(turned)
(folder / f"results{rank}.json").write_text(json.dumps(results))
