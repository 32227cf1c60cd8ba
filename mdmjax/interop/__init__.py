"""Parameters to and from other software."""

from mdmjax.interop.safetensors import load_parameters, save_parameters

__all__ = ["load_parameters", "save_parameters"]
