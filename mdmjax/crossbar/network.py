"""A network on crossbars: which of its parameters are matrices, and what becomes of all of them at once."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mdmjax.crossbar.deployment import Crossbar, Deployed, decode, deployed, gains, programmed, solve_tiles, varied
from mdmjax.crossbar.solver import NotConverged, require_residual


class Network(NamedTuple):
    """Parameters as crossbars have them."""

    raw: Any  # like the parameters that were given
    calibrated: Any  # with a digital gain for each output
    layers: dict[str, list[Deployed]]  # by path, one for each matrix of a stack


def _names(axes: str, shape: tuple[int, ...], path: str) -> str:
    """What each axis is: s (of a stack), i (inputs) or o (outputs)."""
    found = axes or "s" * (len(shape) - 2) + "io"
    if len(found) != len(shape) or set(found) - set("sio") or not {"i", "o"} <= set(found):
        raise ValueError(
            f"{path} of shape {shape}: axes={axes!r} must name each of its axes s (stack), i (inputs) or o (outputs)"
        )
    return found


def _order(names: str) -> list[int]:
    """The axes as they stand in a stack of matrices."""
    return sorted(range(len(names)), key=lambda n: "sio".index(names[n]))


def to_matrices(kernel: Float[np.ndarray, "..."], axes: str = "", path: str = "kernel") -> Float[np.ndarray, "S I O"]:
    """A kernel as a stack of matrices. `axes` names each axis s, i or o, such as "ioo" for inputs by heads by their
    width; by default the last two are inputs and outputs, and all before them a stack. ValueError for other axes."""
    names = _names(axes, kernel.shape, path)
    order = _order(names)
    size = lambda name: int(np.prod([n for n, its in zip(kernel.shape, names, strict=True) if its == name]))
    return kernel.transpose(order).reshape(size("s"), size("i"), size("o"))


def from_matrices(
    matrices: Float[np.ndarray, "S I O"], shape: tuple[int, ...], axes: str = "", path: str = "kernel"
) -> Float[np.ndarray, "..."]:
    """The kernel of that shape again."""
    names = _names(axes, shape, path)
    order = _order(names)
    return matrices.reshape([shape[n] for n in order]).transpose(np.argsort(order))


def named_leaves(params: Any) -> dict[str, Any]:
    """{path: leaf} in the order of the tree; the parts of a path are joined by /."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def select(params: Any, where: Mapping[str, str]) -> dict[str, str]:
    """{path: axes} of the leaves that a regular expression is found in, such as {"kernel$": ""}; paths are joined by /.

    ValueError for a pattern that is none or finds nothing.
    """
    paths = list(named_leaves(params))
    found: dict[str, str] = {}
    for pattern, axes in where.items():
        try:
            hit = [path for path in paths if re.search(pattern, path)]
        except re.error as error:
            raise ValueError(f"where={pattern!r} is no regular expression: {error}") from None
        if not hit:
            raise ValueError(f"where={pattern!r} finds no parameter; there are {', '.join(paths)}")
        found |= {path: axes for path in hit if path not in found}
    return found


def deploy(
    params: Any,
    crossbar: Crossbar,
    *,
    where: Mapping[str, str] = {"kernel$": ""},
    activity: Mapping[str, Float[np.ndarray, "I"]] | None = None,
    key: Key[Array, ""] | None = None,
    read_noise: float = 0.0,
    chunk: int = 32,
    dtype=jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int], None] = lambda tiles: None,
) -> Network:
    """Puts the selected parameters on crossbars, all of their tiles through one compiled solve.

    `where` maps regular expressions to axes (`select`, `to_matrices`); `activity` gives E[x^2] of the inputs of a path;
    with `read_noise`, the deviation of ln G from read to read, parameters are those of one read, and gains those of the
    devices as they were written; the others are those of `effective_weights` and `solve_tiles`. Other parameters stay
    as they are. ValueError as `Crossbar.map`, for a path that is not selected, parameters that are no floats, and noise
    without a key; NotConverged as `effective_weights`, with the path.
    """
    if not 0 <= read_noise < math.inf or (read_noise and key is None):
        raise ValueError(f"read_noise={read_noise}: must be at least 0, and above 0 it needs a key to be drawn by")
    leaves, treedef = named_leaves(params), jax.tree.structure(params)
    axes = select(params, where)
    if unknown := set(activity or {}) - set(axes):
        raise ValueError(f"activity of {min(unknown)}: is not on crossbars; there are {', '.join(axes)}")
    given, written, keys = {}, {}, {}
    for n, path in enumerate(axes):
        if not jnp.issubdtype(leaves[path].dtype, jnp.floating):
            raise ValueError(f"{path} is {leaves[path].dtype}: weights must be floats")
        for s, matrix in enumerate(to_matrices(np.asarray(leaves[path], np.float64), axes[path], path)):
            at = path, s
            given[at], keys[at] = matrix, None if key is None else jax.random.fold_in(jax.random.fold_in(key, n), s)
            try:
                mapped = crossbar.map(matrix, activity=(activity or {}).get(path))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            written[at] = programmed(mapped, crossbar, keys[at])

    cuts = np.cumsum([len(w.conductance) for w in written.values()])[:-1]

    def solved(conductance, progress):
        found = solve_tiles(conductance, crossbar, chunk=chunk, dtype=dtype, mesh=mesh, progress=progress)
        effective, residuals = (np.split(x, cuts) for x in found)
        for (path, s), left in zip(written, residuals, strict=True):
            try:
                require_residual(left, crossbar.tolerance)
            except NotConverged as error:
                raise NotConverged(f"{path}, matrix {s}, {error}") from None
        return dict(zip(written, effective, strict=True)), dict(zip(written, residuals, strict=True))

    effective, residuals = solved(np.concatenate([w.conductance for w in written.values()]), progress)
    found = {at: deployed(written[at], crossbar, effective[at], residuals[at]) for at in written}
    weights = {at: one.weights for at, one in found.items()}
    if read_noise:
        reads = [varied(w.conductance, read_noise, keys[at], 1) for at, w in written.items()]
        for at, one in solved(np.concatenate(reads), lambda tiles: None)[0].items():
            sliced, tiles, *_ = written[at]
            weights[at] = decode(one, tiles, crossbar.off, sliced.scale, sliced.q.shape)

    def with_kernels(matrices: Mapping[tuple[str, int], np.ndarray]) -> Any:
        made = dict(leaves)
        for path in axes:
            stack, leaf = np.stack([x for at, x in matrices.items() if at[0] == path]), leaves[path]
            made[path] = jnp.asarray(from_matrices(stack, leaf.shape, axes[path], path), leaf.dtype)
        return jax.tree_util.tree_unflatten(treedef, list(made.values()))

    return Network(
        with_kernels(weights),
        with_kernels({at: x * gains(found[at].weights, given[at]) for at, x in weights.items()}),
        {path: [one for at, one in found.items() if at[0] == path] for path in axes},
    )
