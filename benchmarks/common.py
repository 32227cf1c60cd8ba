"""What the benchmarks share: the yardstick (a plain matmul), timing that resists noise, FLOPs, memory."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mdmjax.networks import parameter_count
from mdmjax.reports import to_json, write_atomic


def interleaved(*runs: Callable[[], object], rounds: int = 10, warmup: int = 1) -> np.ndarray:
    """Seconds of each of `runs` (functions without arguments), [rounds, len(runs)], one after the other in each round.

    On a machine that others use too, compare within a round and take the median over rounds: a slow minute then slows
    both sides. Whatever a run returns is waited for.
    """
    seconds = np.zeros((warmup + rounds, len(runs)))
    for row in seconds:
        for i, run in enumerate(runs):
            began = time.perf_counter()
            jax.block_until_ready(run())
            row[i] = time.perf_counter() - began
    return seconds[warmup:]


def matmul(devices: Sequence[jax.Device], dtype: Any, n: int | None = None) -> tuple[Callable[[], jax.Array], float]:
    """A plain [n, n] x [n, n] matmul on each of the devices at once, as a function without arguments, and its FLOPs.

    All at once, because devices may share what they run on, as several of one CPU do. By default n = 2048 on CPU, 8192
    elsewhere; the FLOPs are 2 n^3 a device.
    """
    n = n or (2048 if devices[0].platform == "cpu" else 8192)
    mesh = Mesh(np.array(devices), ("rows",))
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, P(*axes)))
    b = jax.random.normal(jax.random.key(0), (n, n), dtype)
    rows, b = place(jnp.tile(b, (len(devices), 1)), "rows"), place(b)
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(rows, b), 2.0 * len(devices) * n**3


def forward_matmuls(params: dict[str, Any], tokens: int, read: int) -> float:
    """FLOPs of the parameters of a transformer in a forward pass over `tokens`, with logits at `read` of them.

    Two for each parameter that multiplies and each token that it multiplies: the readout those that are read, the
    embedding, which is looked up, none. Attention's own products are not counted (`forward_flops` has them).
    """
    body = parameter_count({name: x for name, x in params.items() if name not in ("embed", "readout")})
    readout = parameter_count(params.get("readout", params["embed"]))
    return 2.0 * (body * tokens + readout * read)


def memory(compiled) -> dict | None:
    """Bytes that a compiled program needs on one device by the compiler's account, None where it keeps none.

    `held` are arguments and outputs, what is donated once; `peak` is that and the temporaries.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {"peak": held + analysis.temp_size_in_bytes, "held": held, "temporaries": analysis.temp_size_in_bytes}


def measured_peak() -> dict:
    """The most bytes in use so far: of the first device where it counts them, else of this whole process.

    Of a process that is everything: the yardstick, the compiler, Python. Call it when the work is done.
    """
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {"bytes": stats["peak_bytes_in_use"], "of": "device"}
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return {"bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "of": "process"}


def write(result: dict, path: str | None) -> None:
    """Print the result, and write it as JSON where a path is given."""
    text = to_json(result)
    print(text, end="")
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
