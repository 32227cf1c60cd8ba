"""How a step is laid out over devices: jit over a mesh (the default), or pmap. Both run the same functions."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

BATCH_AXES = ("data", "fsdp")

# (regular expression over the parameter's path, mesh axis of each of its last dimensions). The first match counts.
RULES = (
    (r"embed/embedding$", ("tensor", "fsdp")),
    (r"(query|key|value|qkv|gate|up|readout)/kernel$", ("fsdp", "tensor")),
    (r"(out|down)/kernel$", ("tensor", "fsdp")),
    (r"kernel$", ("fsdp", None)),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence | None = None) -> Mesh:
    """A mesh with axes data, fsdp, tensor; one size may be -1: all devices that are left.

    Raises ValueError where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    known = int(np.prod([s for s in sizes if s != -1]))
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise ValueError(f"mesh (data={data}, fsdp={fsdp}, tensor={tensor}): sizes are >= 1, and at most one is -1")
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if int(np.prod(sizes)) != len(devices):
        raise ValueError(
            f"mesh (data={data}, fsdp={fsdp}, tensor={tensor}) needs {known} devices or a multiple that -1 fills; "
            f"there are {len(devices)}: choose sizes whose product is {len(devices)}"
        )
    try:
        return jax.make_mesh(sizes, (*BATCH_AXES, "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices)
    except NotImplementedError:  # an axis that would run along a part of a torus dimension
        raise ValueError(
            f"mesh (data={sizes[0]}, fsdp={sizes[1]}, tensor={sizes[2]}) does not fit the wiring of these TPUs: each "
            "size must be a product of dimensions of the topology, as 4 and 16 are on 4x4x4"
        ) from None


def infer_sharding(tree: Any, mesh: Mesh, rules: Sequence = RULES) -> Any:
    """The NamedSharding of every leaf, by the first rule whose expression is found in its path; else replicated.

    A rule names the mesh axes of the last dimensions. An axis that does not divide its dimension is left out.
    """

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axes in rules:
            if re.search(pattern, name) and leaf.ndim >= len(axes):
                sizes = leaf.shape[leaf.ndim - len(axes) :]
                kept = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, sizes, strict=True)]
                return NamedSharding(mesh, P(*[None] * (leaf.ndim - len(axes)), *kept))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(place, tree)


@dataclasses.dataclass(frozen=True)
class MeshLayout:
    """jit over a mesh: global-batch code, arrays placed by rules, XLA inserts the communication.

    Of `runs` of one program (`Seeds`), batches [S, B, ...], it is the rows of each run that the devices share.
    """

    mesh: Mesh
    rules: Sequence = RULES
    runs: bool = False

    @property
    def shards(self) -> int:
        """Number of device shares of a batch."""
        return int(np.prod([self.mesh.shape[a] for a in BATCH_AXES]))

    axis = None  # the mapped axis that a step reduces over

    @functools.cached_property
    def share(self) -> tuple[int, int]:
        """(rank, ranks): a global batch is cut into `ranks` equal runs of rows, and this process feeds run `rank`.

        Processes whose devices hold the same rows feed the same run. Raises ValueError where the rows of a process are
        no such run.
        """
        held = {}  # of each process: the device shares of a batch that its devices hold
        for device, (rows,) in NamedSharding(self.mesh, P(BATCH_AXES)).devices_indices_map((self.shards,)).items():
            held.setdefault(device.process_index, set()).add(rows.indices(self.shards)[0])
        size = len(held[jax.process_index()])
        if any(sorted(h) != list(range(min(h) // size * size, min(h) // size * size + size)) for h in held.values()):
            raise ValueError(
                f"mesh {dict(self.mesh.shape)}: the rows of a batch that a process holds must be one run, as long "
                "as every other's: choose a size of tensor that divides the devices of a process, or a multiple of them"
            )
        return min(held[jax.process_index()]) // size, self.shards // size

    def init(self, make: Callable) -> Any:
        """`make()`, jitted, with every leaf placed by the rules."""
        return jax.jit(make, out_shardings=self.shardings(make))()

    def shardings(self, make: Callable) -> Any:
        """Where each leaf of `make()` goes."""
        return infer_sharding(jax.eval_shape(make), self.mesh, self.rules)

    def constrain(self, x: jax.Array) -> jax.Array:
        """[B, ...] with its rows shared out as the batch is, where they are a multiple of the devices."""
        if x.shape[0] % self.shards:
            return x
        free = [P.UNCONSTRAINED] * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(BATCH_AXES, *free)))

    def gather(self, params: Any) -> Any:
        """Parameters whole along fsdp; what the tensor axis shares out stays so."""
        whole = tuple((pattern, tuple(None if a == "fsdp" else a for a in axes)) for pattern, axes in self.rules)
        return jax.lax.with_sharding_constraint(params, infer_sharding(params, self.mesh, whole))

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's share of a global batch, as global arrays."""
        rows, (_, ranks), at = self._rows, self.share, int(self.runs)
        whole = lambda x: (*x.shape[:at], ranks * x.shape[at], *x.shape[at + 1 :])
        return {k: jax.make_array_from_process_local_data(rows, v, whole(v)) for k, v in batch.items()}

    def fetch(self, tree: Any) -> Any:
        """Global arrays as NumPy arrays, on every process."""
        return multihost_utils.process_allgather(tree, tiled=True)

    def shared(self, state: Any) -> Any:
        """The state as arrays of all processes, which is what a checkpoint holds."""
        return state

    def local(self, state: Any) -> Any:
        """The inverse of `shared`."""
        return state

    def place(self, tree: Any) -> Any:
        """Arrays of the host, every leaf placed by the rules."""
        return jax.device_put(tree, infer_sharding(tree, self.mesh, self.rules))

    def step(self, function: Callable, state: Any, frozen: Any = None) -> Callable:
        """`(state, batch) -> (state, metrics)` compiled, or `(state, batch, frozen)`; the state is donated."""
        where = lambda tree: jax.tree.map(lambda x: x.sharding, tree)
        placed = where(state)
        return jax.jit(
            function,
            in_shardings=(placed, self._rows, *(() if frozen is None else (where(frozen),))),
            out_shardings=(placed, self._everywhere),
            donate_argnames=("state",),
        )

    def map(self, function: Callable) -> Callable:
        """`(params, batch) -> per-row results` compiled; every process gets the results of all rows."""
        return jax.jit(function, in_shardings=(None, self._rows), out_shardings=self._everywhere)

    @property
    def _rows(self) -> NamedSharding:
        return NamedSharding(self.mesh, P(None, BATCH_AXES) if self.runs else P(BATCH_AXES))

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, P())


@dataclasses.dataclass(frozen=True)
class PmapLayout:
    """pmap over all devices, the state replicated, the gradient summed over the mapped axis."""

    axis: str = "devices"

    shards = 1  # a step sees one device's share

    @property
    def share(self) -> tuple[int, int]:
        """(rank, ranks): every process feeds its own devices."""
        return jax.process_index(), jax.process_count()

    def init(self, make: Callable) -> Any:
        return jax.jit(make)()

    def shardings(self, make: Callable) -> Any:
        """Where each leaf of the shared `make()` goes: to every device."""
        return jax.tree.map(lambda _: NamedSharding(self._everywhere, P()), jax.eval_shape(make))

    def shared(self, state: Any) -> Any:
        return multihost_utils.host_local_array_to_global_array(state, self._everywhere, P())

    def local(self, state: Any) -> Any:
        return multihost_utils.global_array_to_host_local_array(state, self._everywhere, P())

    @property
    def _everywhere(self) -> Mesh:
        return Mesh(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)), "devices")

    def fetch(self, tree: Any) -> Any:
        """What a process has computed by itself, as NumPy arrays."""
        return jax.device_get(tree)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        devices = jax.local_device_count()
        return {k: v.reshape(devices, v.shape[0] // devices, *v.shape[1:]) for k, v in batch.items()}

    def place(self, tree: Any) -> Any:
        return jax.tree.map(jnp.asarray, tree)

    def step(self, function: Callable, state: Any, frozen: Any = None) -> Callable:
        donated = (0,) if jax.process_count() == 1 else ()  # over processes a donated state would be gone afterwards
        axes = (None, 0) if frozen is None else (None, 0, None)
        return jax.pmap(function, axis_name=self.axis, in_axes=axes, out_axes=None, donate_argnums=donated)

    def map(self, function: Callable) -> Callable:
        mapped = jax.pmap(function, axis_name=self.axis, in_axes=(None, 0))

        def run(params, batch):
            rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped(params, batch))
            if jax.process_count() == 1:
                return rows
            return multihost_utils.process_allgather(rows, tiled=True)

        return run
