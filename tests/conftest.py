"""Settings of every test. They must be made before JAX is first used, and before mdmjax is imported: the import hook of
jaxtyping (pyproject.toml) checks only what is imported after it."""

import gc
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# By the environment, so that programs started by tests inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Programs do not say which line of Python an operation is from: a sixth of the time of lowering and compiling them.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
TPU = importlib.util.find_spec("libtpu") is not None
if not TPU:  # most of the time here is compilation: with less effort, and fused loops the older way, a third of it
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    if os.environ["JAX_PLATFORMS"] == "cpu":  # the plugin of a GPU does not know this one, and would end the process
        quick += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

collect_ignore = [] if TPU else ["tpu"]  # compiled for TPU topologies by `make test-tpu`, in an environment of its own

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
if not TPU:  # where programs are compiled for a TPU they keep the precision that a run would have
    jax.config.update("jax_default_matmul_precision", "highest")

# Tracing makes many objects that live on, and looking through all of them is a 20th of the time here: more rarely.
gc.set_threshold(20_000, 25, 25)

# Examples are the same in every run, so that a red test is red again; the first call compiles, so no deadline.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def x64():
    """float64 inside the test: for oracles that hold to more digits than float32 has."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a public data file, by name, in the folder that $MDMJAX_TEST_DATA names; skips where it is not."""

    def path(name: str) -> Path:
        folder = os.environ.get("MDMJAX_TEST_DATA")
        if not folder:
            pytest.skip(f"MDMJAX_TEST_DATA is not set: it may name a folder that holds {name}")
        if not (Path(folder) / name).is_file():
            pytest.skip(f"the folder of MDMJAX_TEST_DATA, {folder}, holds no {name}")
        return Path(folder) / name

    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
