"""Parameters as safetensors files, which any framework reads. Needs the `hf` extra."""

import os
from typing import Any

import jax
import numpy as np


def save_parameters(path: str | os.PathLike, params: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write nested parameters to one file; the leaf of `params["a"]["b"]` is the tensor `a/b`.

    Raises ValueError where safetensors, which comes with the `hf` extra, is not installed.
    """
    numpy = _safetensors().numpy
    leaves = jax.tree_util.tree_leaves_with_path(params)
    tensors = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(leaf) for p, leaf in leaves}
    numpy.save_file(tensors, path, metadata)


def load_parameters(path: str | os.PathLike) -> dict[str, Any]:
    """The nested parameters that `save_parameters` wrote, as NumPy arrays.

    Raises ValueError for a file of another kind, and where safetensors, which comes with the `hf` extra, is not
    installed; OSError for a file that is not there or may not be read.
    """
    safetensors = _safetensors()
    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}): give one that save_parameters wrote") from error
    params: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = tensor
    return params


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        raise ValueError("safetensors is not installed: pip install 'mdmjax[hf]'") from None
    return safetensors
