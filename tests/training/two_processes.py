"""One of two processes with two CPU devices each: two_processes.py RANK PORT FOLDER. Rank 0 writes the results."""

import json
import pathlib
import sys

import jax

rank, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_default_matmul_precision", "highest")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)

import numpy as np  # noqa: E402
import toys  # noqa: E402

from mdmjax.training import Checkpoints, MeshLayout, PmapLayout, make_mesh, restore  # noqa: E402

assert jax.process_count() == 2 and jax.device_count() == 4
results = {}
layouts = dict(mesh=MeshLayout(make_mesh(1, 4, 1)), pmap=PmapLayout())
for name, layout in layouts.items():
    losses, scored, _, state = toys.run(layout, micro=2, rank=rank, ranks=2)
    estimate = toys.bound(layout, state.average, 8, rank, 2)
    results[name] = dict(
        losses=losses.tolist(),
        scored=scored.tolist(),
        bound=[estimate.per_token.mean, estimate.per_token.standard_error, estimate.monte_carlo],
    )
    if name == "pmap":
        continue  # orbax does not take its host-local state: the programs refuse it with several processes
    # What one run of these processes saves, the next one reads.
    checkpoints = Checkpoints(folder / name, keep=2)
    for step in (4, 8):
        checkpoints.save(step, state, {"data": {}}, bound=estimate.per_token.mean)
    checkpoints.wait()
    checkpoints.close()
    if rank == 0:
        files = [file for file in (folder / name / "8" / "state").rglob("*") if file.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    jax.experimental.multihost_utils.sync_global_devices("damaged")
    checkpoints = Checkpoints(folder / name, keep=2)
    said = []
    restored = restore(layout, toys.make_state, checkpoints, said.append)
    same = jax.tree.map(
        lambda a, b: all(
            np.array_equal(np.asarray(x.data), np.asarray(y.data))
            for x, y in zip(a.addressable_shards, b.addressable_shards, strict=False)
        ),
        restored.state.params,
        state.params,
    )
    results[name] |= dict(restored=restored.step, same=all(jax.tree.leaves(same)), said=said)
    checkpoints.close()
if rank == 0:
    (folder / "results.json").write_text(json.dumps(results))
