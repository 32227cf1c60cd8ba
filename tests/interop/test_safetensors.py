"""Parameters survive a round trip, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("safetensors")

from mdmjax.interop import load_parameters, save_parameters
from mdmjax.networks import TransformerConfig, transformer


def test_round_trip_is_exact(tmp_path):
    model = transformer(TransformerConfig(vocab=5, length=4, width=16, depth=1, heads=2))
    params = model.init(jax.random.key(0))
    save_parameters(tmp_path / "a.safetensors", params, {"vocabulary": "abcde"})
    back = load_parameters(tmp_path / "a.safetensors")
    jax.tree.map(np.testing.assert_array_equal, params, back)
    tokens = jnp.array([[0, 5, 2, 5]])
    restored = model.bind(jax.tree.map(jnp.asarray, back))
    np.testing.assert_array_equal(model.bind(params)(tokens), restored(tokens))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "b.safetensors").write_text("no tensors here")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_parameters(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError):
        load_parameters(tmp_path / "c.safetensors")
    with pytest.raises(OSError):  # not taken for a file of another kind
        load_parameters(tmp_path)
