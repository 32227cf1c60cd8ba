"""Time of the currents of crossbar tiles, against badcrossbar, which solves Kirchhoff's laws at every node.

    python -m benchmarks.crossbar_solve [--tiles 256 --chunk 64] [--out results/benchmarks/crossbar_solve.json]

Square tiles of random cells, of which a fifth conduct, R_off infinite, V = 1; float64 to a relative residual of 1e-10,
float32 to 1e-6, by as many iterations as the bound says. A batch is solved whole and `chunk` tiles at a time, which a
cache holds. Peers take one tile at a time: badcrossbar's `compute`, with all that it can leave out left out, and a
sparse LU of the same nodal equations (SciPy), both on one core. All of them take turns in each round, and a ratio is
that of one round.
The effective conductance is that of `effective` tiles, against badcrossbar's run of all unit inputs at once.
badcrossbar is not needed: without it (`pip install badcrossbar`) the result says so, and its numbers are missing.
"""

import argparse
import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import distributions

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from benchmarks.common import interleaved, memory, write
from mdmjax.crossbar import Wires, condition, effective_conductance, inverse_path_matrix, iterations_for, solve
from mdmjax.reports import environment

PRECISIONS = {"float64": 1e-10, "float32": 1e-6}  # relative residual


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(size=64, tiles=256, chunk=64, effective=64, peers=4, rounds=10).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--density", type=float, default=0.2, help="share of the cells that conduct")
    parser.add_argument("--rho", type=float, nargs="+", default=[2.5e-4, 5e-3], help="segment resistance over R_on")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def badcrossbar() -> Callable | None:
    """Its `compute`, silenced, or None where it is not installed. It sets up the root logger when imported."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        with warnings.catch_warnings(record=True):  # of its plotting, which needs cairo
            from badcrossbar import compute
    except ImportError:
        return None
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    return functools.partial(compute, node_voltages=False, all_currents=False)


def installed() -> str:
    """The version of badcrossbar."""
    return next((found.version for found in distributions(name="badcrossbar")), "unknown")


def by_peer(compute: Callable, conductance: np.ndarray, inputs: np.ndarray, rho: float) -> np.ndarray:
    """Currents [p, N] for inputs [M, p]. badcrossbar's bit lines end at the other row, so rows are turned around."""
    with np.errstate(divide="ignore"):
        return compute(inputs[::-1], 1 / conductance[::-1], r_i=rho).currents.output


def by_sparse_lu(conductance: np.ndarray, inputs: np.ndarray, rho: float) -> np.ndarray:
    """Currents [N] by the nodal equations of `mdmjax.crossbar.nodal`, sparse."""
    rows, columns = conductance.shape
    gamma = sp.diags(conductance.ravel())
    word = sp.kron(sp.eye(rows), inverse_path_matrix(columns)) / rho + gamma
    bit = sp.kron(inverse_path_matrix(rows), sp.eye(columns)) / rho + gamma
    source = np.zeros((2, rows, columns))
    source[0, :, 0] = inputs / rho
    nodes = spsolve(sp.bmat([[word, -gamma], [-gamma, bit]]).tocsc(), source.ravel())
    return nodes[rows * columns :][:columns] / rho


def needed(conductance: jax.Array, inputs: jax.Array, wires: Wires, bound: int, tolerance: float) -> int:
    """The fewest iterations after which no tile is above the tolerance; bound + 1 where the bound is not enough."""
    residual = jax.jit(lambda g, v, n: solve(g, v, wires, iterations=n).residual.max(), static_argnums=2)
    enough = lambda n: residual(conductance, inputs, n) <= tolerance
    return next((n for n in range(1, bound + 1) if enough(n)), bound + 1)


def speed(seconds: np.ndarray, peer: np.ndarray) -> dict:
    """The median of peer / seconds over rounds, and its quartiles."""
    times = peer / seconds
    return {"times": float(np.median(times)), "quartiles": np.quantile(times, [0.25, 0.75]).tolist()}


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of currents, relative to the expected one; columns without a cell carry none."""
    there = expected > 0
    return float(np.abs(found[there] / expected[there] - 1).max())


def measure_rho(args: argparse.Namespace, rho: float, compute: Callable | None) -> list[dict]:
    """A row for each precision."""
    wires, one = Wires(rho, rho), np.ones(args.size)
    cells = np.random.default_rng(0).random((args.tiles, args.size, args.size)) < args.density
    tiles = cells.astype(np.float64)
    kappa, first = condition(1.0, args.size, args.size, wires), tiles[: args.peers]
    expected = np.stack([by_sparse_lu(g, one, rho) for g in first])

    rows, whole, parts, effective = [], [], [], []
    for name, tolerance in PRECISIONS.items():
        n, g = iterations_for(tolerance, kappa), jnp.asarray(tiles, name)
        v, few = jnp.ones(g.shape[:-1], name), g[: args.effective]
        run = functools.partial(solve, wires=wires, iterations=n)
        compiled = jax.jit(run).lower(g, v).compile()
        half = jax.jit(run).lower(g[: args.tiles // 2], v[: args.tiles // 2]).compile()
        chunked = jax.jit(lambda g, v, run=run: jax.lax.map(lambda gv: run(*gv), (g, v), batch_size=args.chunk))
        of_all = jax.jit(functools.partial(effective_conductance, wires=wires, iterations=n))
        found, (conductance, worst) = chunked(g, v), of_all(few)
        currents = np.asarray(found.currents[: args.peers], np.float64)
        used, used_half = memory(compiled), memory(half)
        rows.append(
            {
                "rho": rho,
                "precision": name,
                "tolerance": tolerance,
                "iterations": n,
                "iterations_needed": needed(g, v, wires, n, tolerance),
                "residual": float(jnp.maximum(found.residual.max(), worst.max())),
                "from_sparse_lu": apart(currents, expected),
                "superposition": apart(np.asarray(conductance.sum(-1)), np.asarray(found.currents[: len(few)])),
                "memory_bytes": used,
                "memory_of_half": used and used_half["peak"] / used["peak"],
            }
        )
        if compute:
            peer = np.stack([by_peer(compute, tile, one[:, None], rho)[0] for tile in first])
            rows[-1]["from_badcrossbar"] = apart(currents, peer)
        whole.append(functools.partial(compiled, g, v))
        parts.append(functools.partial(chunked, g, v))
        effective.append(functools.partial(of_all, few))

    peers = [lambda: [by_sparse_lu(g, one, rho) for g in first]]
    peers += [lambda: [by_peer(compute, g, one[:, None], rho) for g in first]] if compute else []
    # whole in float64, float32; in parts; peers
    seconds = interleaved(*whole, *parts, *peers, rounds=args.rounds)
    seconds /= [args.tiles] * 4 + [len(first)] * len(peers)
    units = [lambda: by_peer(compute, first[0], np.eye(args.size), rho)] if compute else []
    of_units = interleaved(*effective, *units, rounds=max(1, args.rounds // 2)) / (
        [args.effective] * 2 + [1] * len(units)
    )
    for i, row in enumerate(rows):
        row |= {
            "seconds": float(np.median(seconds[:, 2 + i])),
            "seconds_whole": float(np.median(seconds[:, i])),
            "seconds_sparse_lu": float(np.median(seconds[:, 4])),
            "than_sparse_lu": speed(seconds[:, 2 + i], seconds[:, 4]),
            "effective_seconds": float(np.median(of_units[:, i])),
        }
        if compute:
            row |= {
                "seconds_badcrossbar": float(np.median(seconds[:, 5])),
                "than_badcrossbar": speed(seconds[:, 2 + i], seconds[:, 5]),
                "effective_seconds_badcrossbar": float(np.median(of_units[:, 2])),
                "effective_than_badcrossbar": speed(of_units[:, i], of_units[:, 2]),
            }
    return rows


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON; seconds are those of a tile."""
    compute = badcrossbar()
    with jax.enable_x64(True):
        runs = [row for rho in args.rho for row in measure_rho(args, rho, compute)]
    return {
        "benchmark": "crossbar_solve",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "badcrossbar": installed() if compute else "not installed",
        "runs": runs,
    }


def main() -> None:
    args = arguments()
    write(measure(args), args.out)


if __name__ == "__main__":
    main()
