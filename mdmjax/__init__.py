"""Masked diffusion models in JAX: schedules, bounds, training, evaluation and sampling as pure functions.

The names a notebook needs are here; the rooms (`mdmjax.process`, `mdmjax.sampling`, ...) hold the rest. Everything is
imported when first used, so `import mdmjax` is quick and touches no device.
"""

import importlib

_ROOMS = {
    "base": ("Canvas", "Denoiser", "Draws", "Estimate", "Planner", "Schedule", "Trace"),
    "process": (
        "Continuous", "Cosine", "Discrete", "ExactCount", "Geometric", "Linear", "Polynomial", "SineSquared",
        "Tabulated",
    ),
    "networks": ("TransformerConfig", "transformer"),
    "data": ("batches", "evaluation_windows", "python_docs", "text_files"),
    "objectives": ("autoregressive", "negative_elbo"),
    "analysis": (),
    "variance": (),
    "sampling": ("Ancestral", "Confidence", "FirstHitting", "LeftToRight", "TokenDraw", "sample"),
    "anyprocess": (),
    "expressivity": (),
    "training": ("MeshLayout", "PmapLayout", "Step", "adamw", "init_state", "make_mesh", "train"),
    "evaluation": ("Scorer", "evaluate"),
    "interop": (),
    "reports": ("trace_html", "write_report"),
}  # fmt: skip
_ORIGIN = {name: room for room, names in _ROOMS.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted([*_ROOMS, *_ORIGIN])


def __getattr__(name: str):
    if name in _ORIGIN:
        return getattr(importlib.import_module(f"{__name__}.{_ORIGIN[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
