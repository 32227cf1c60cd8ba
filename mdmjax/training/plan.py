"""What a compiled step needs of a device, read off the compiler: nothing runs and no array is made.

Programs are compiled ahead of time, for the devices that are present or for a TPU topology that is not: `topology`.
"""

import collections
import dataclasses
import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

GIB = 2**30
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# GiB of HBM of one chip, by JAX's device_kind. "System architecture" pages of Google's Cloud TPU documentation:
# https://cloud.google.com/tpu/docs/v5e, .../v5p, .../v4, .../v6e (which say GB). The compiler keeps a little of it.
HBM = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What one compiled program takes on each device. Memory in bytes."""

    arguments: int
    outputs: int
    aliased: int  # of the outputs, written over donated arguments
    temporaries: int
    code: int
    flops: float  # as XLA counts: the body of a loop once, a custom call (splash attention) not at all
    collectives: dict[str, int]  # number of instructions of each kind
    gathered: int  # bytes of the largest result of an all-gather
    seconds: float  # to compile
    text: str = dataclasses.field(repr=False)  # the optimised module

    @property
    def total(self) -> int:
        """Bytes of a device while the program runs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def topology(name: str) -> list:
    """The devices of a TPU topology such as v5e:16x16, to compile for on a host that has none.

    Raises ModuleNotFoundError where libtpu is not installed, ValueError for a name that it does not know.
    """
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(
            f"topology {name}: compiling for a TPU needs libtpu, which is not installed: in an environment of its own, "
            "pip install '.[tpu]' (make .venv-tpu/.ready does)"
        )
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # libtpu's own, of several types
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"topology {name!r}: libtpu has none ({reason}): choose one such as v5e:2x2, v5e:16x16, v5p:4x4x4, v6e:8x8"
        ) from error


def abstract(make: Callable[[], Any], layout: Any) -> Any:
    """The shapes of `make()`, each placed where the layout wants it: a state to compile for, without its numbers."""
    shapes, places = jax.eval_shape(make), layout.shardings(make)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)


def footprint(step: Callable, *arguments: Any) -> Footprint:
    """Compile a jitted function for abstract arguments, and measure the result."""
    began = time.monotonic()
    compiled = step.lower(*arguments).compile()
    seconds = time.monotonic() - began
    memory, text = compiled.memory_analysis(), compiled.as_text()
    counts, largest = collectives(text)
    return Footprint(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        float((compiled.cost_analysis() or {}).get("flops", float("nan"))),
        counts,
        largest,
        seconds,
        text,
    )


_CALL = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\((.*)")
_FUSED = re.compile(r"fusion\(.*calls=%all-reduce-scatter")  # how the TPU compiler writes a reduce-scatter
_SCATTER = re.compile(r"^\s*%all-reduce-scatter\S* \(")
_SHAPE = re.compile(r"\b(pred|[a-z]+?)(\d*)(?:e\d\w*)?\[([\d,]*)\]")


def collectives(text: str) -> tuple[dict[str, int], int]:
    """(number of each kind of collective, bytes of the largest all-gather's result) in an optimised module.

    The TPU compiler cuts an asynchronous collective into many instructions that share a channel, which count once. A
    collective in a loop counts once, as its instruction does.
    """
    seen: dict[str, set] = collections.defaultdict(set)
    largest, inside = 0, False
    for number, line in enumerate(text.splitlines()):
        if _SCATTER.match(line):
            inside = True  # its all-reduce is counted where the fusion is called
        elif line.startswith("}"):
            inside = False
        if _FUSED.search(line):
            seen["reduce-scatter"].add(number)
        match = _CALL.search(line)
        if match is None or inside:
            continue
        shape, kind, rest = match.groups()
        channel = re.search(r"channel_id=(\d+)", rest)
        seen[kind].add(f"channel {channel[1]}" if channel else number)
        if kind == "all-gather":
            largest = max(largest, _bytes(shape))
    return {kind: len(seen[kind]) for kind in COLLECTIVES}, largest


def _bytes(shape: str) -> int:
    total = 0
    for kind, bits, sizes in _SHAPE.findall(shape):
        count = 1
        for size in filter(None, sizes.split(",")):
            count *= int(size)
        total += count * (8 if kind == "pred" or not bits else int(bits)) // 8
    return total


def hbm(devices: Sequence[Any]) -> int | None:
    """Bytes of memory of one of these devices, None where that is not known (a CPU)."""
    kind = devices[0].device_kind
    if kind in HBM:
        return HBM[kind] * GIB
    try:
        return (devices[0].memory_stats() or {}).get("bytes_limit")
    except Exception:  # a device that is a description only
        return None
