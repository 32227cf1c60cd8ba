"""What the benchmarks share: the yardstick (a plain matmul), the machine's name, timing that resists noise."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


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


def matmul(n: int | None = None, dtype=jnp.float32) -> tuple[Callable[[], jax.Array], float]:
    """A plain [n, n] x [n, n] matmul on the first device, as a function without arguments, and its FLOPs: 2 n^3."""
    n = n or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, a), 2.0 * n**3


def matmul_rate(n: int | None = None, repeats: int = 10, dtype=jnp.float32) -> float:
    """FLOP/s of a plain matmul: the median over `repeats`. Where noise matters, interleave `matmul` with the rest."""
    run, flops = matmul(n, dtype)
    return flops / float(np.median(interleaved(run, rounds=repeats, warmup=2)))


def machine() -> dict:
    """What the numbers were measured on."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "device": _processor() if devices[0].platform == "cpu" else devices[0].device_kind,
        "devices": len(devices),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def memory(compiled) -> dict | None:
    """Bytes that a compiled program needs on one device, None where the backend does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return {"peak": held + analysis.temp_size_in_bytes, "arguments": held, "temporaries": analysis.temp_size_in_bytes}


def write(result: dict, path: str | None) -> None:
    """Print the result, and write it as JSON where a path is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text + "\n")


def _processor() -> str:
    """The name and size of the CPU, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
