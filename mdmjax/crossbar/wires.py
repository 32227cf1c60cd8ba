"""The wires of a crossbar: which segments two cells share, how far a cell is, and what a drop along them is.

A tile has M word lines (rows, inputs) and N bit lines (columns, outputs). (0, 0) is the corner next to both rails:
drivers are at the column-0 end of each row, virtual grounds at the row-0 end of each column; all other ends are open.
Resistances are in units of R_on, conductances and currents in units of 1 / R_on, so that only ratios matter.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int


class Wires(NamedTuple):
    """The resistance of one segment, in units of R_on; the first is that from the driver, or the last to the ADC."""

    word: float | Float[Array, ""]
    bit: float | Float[Array, ""]


def check_wires(wires: Wires, name: str = "wires") -> None:
    """ValueError for a resistance that is negative or not finite."""
    if not all(0 <= float(r) < math.inf for r in wires):
        raise ValueError(f"{name}={tuple(map(float, wires))}: resistances must be finite and not negative")


def path_matrix(n: int) -> Float64[np.ndarray, "n n"]:
    """P_n[i, i'] = min(i, i') + 1, the segments that the ways from two cells of a line to its rail have in common."""
    steps = np.arange(n)
    return np.minimum(steps[:, None], steps[None]) + 1.0


def inverse_path_matrix(n: int) -> Float64[np.ndarray, "n n"]:
    """T_n = P_n^-1: tridiagonal -1, 2, -1, with 1 at the open end."""
    found = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    found[-1, -1] = 1
    return found


def largest_eigenvalue(n: int) -> float:
    """Of P_n: 1 / (4 sin^2(pi / (4 n + 2))), about (2 n + 1)^2 / pi^2."""
    return 1 / (4 * math.sin(math.pi / (4 * n + 2)) ** 2)


def distances(rows: int, columns: int, origin: int = 1) -> Int[np.ndarray, "M N"]:
    """The Manhattan distance (j + origin) + (k + origin) of each cell from the corner, in segments."""
    return np.arange(rows)[:, None] + np.arange(columns)[None] + 2 * origin


def drop(flows: Float[Array, "*b M N"], wires: Wires, *, sums: bool = False) -> Float[Array, "*b M N"]:
    """L(Z) = r_w Z P_N + r_b P_M Z: the voltage that the device currents Z lose on the way to each cell.

    By two products with path matrices, at the highest precision (bfloat16 or TF32 would ruin a residual), or with
    `sums` by cumulative sums from the open ends and back.
    """
    if sums:
        along = lambda z, axis: jnp.cumsum(jnp.flip(jnp.cumsum(jnp.flip(z, axis), axis), axis), axis)
        return wires.word * along(flows, -1) + wires.bit * along(flows, -2)
    rows, columns = flows.shape[-2:]
    multiply = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    of = lambda n: jnp.asarray(path_matrix(n), flows.dtype)
    return wires.word * multiply(flows, of(columns)) + wires.bit * multiply(of(rows), flows)
