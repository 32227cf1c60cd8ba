"""The circumstances of a run: commit, versions, devices, machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    *("mdmjax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("numpy", "chex", "jaxtyping", "ml-collections", "tokenizers"),
)
VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "GLIBC_TUNABLES")  # they change how fast the same program runs


def environment() -> dict[str, Any]:
    """`{commit, dirty, python, platform, packages, devices, machine, variables}` of this process.

    `variables` are those environment variables that are set and change the speed. Starts JAX's devices.
    """
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "devices": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "machine": machine(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def machine() -> dict[str, Any]:
    """`{cpu, cores, memory_gib}`: the processor's name, the cores this process may use, the memory in GiB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": cores, "memory_gib": _memory_gib()}


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not said on this system
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


CODE = (":(top)", ":(top,exclude)results")  # what makes a checkout dirty: results are what programs write


def _commit() -> tuple[str | None, bool | None]:
    """The commit that holds this very file, and whether its code was changed since; None where git cannot say."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy inside someone's repository has no commit
        return git("rev-parse", "HEAD"), git("status", "--porcelain", "--", *CODE) != ""
    except (OSError, subprocess.SubprocessError):
        return None, None
