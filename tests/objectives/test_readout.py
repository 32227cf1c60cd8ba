"""The packed readout against the dense one: same numbers, same gradients, less work."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.objectives import Packed, dense

B, L, D, V = 8, 16, 5, 11


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Linear:
    """A SplitDenoiser: one embedding, one readout."""

    embedding: jax.Array
    kernel: jax.Array

    def features(self, tokens, t=None):
        return jnp.tanh(self.embedding[tokens])

    def readout(self, features):
        return features @ self.kernel

    def __call__(self, tokens, t=None, *, at=None):
        return self.readout(self.features(tokens, t))


def problem(rate):
    keys = jax.random.split(jax.random.key(0), 5)
    denoiser = Linear(jax.random.normal(keys[0], (V + 1, D)), jax.random.normal(keys[1], (D, V)))
    tokens, targets = (jax.random.randint(k, (B, L), 0, V) for k in keys[2:4])
    return denoiser, tokens, targets, jax.random.uniform(keys[4], (B, L)) < rate


def value_and_gradient(nll, rate):
    denoiser, tokens, targets, where = problem(rate)
    weights = jnp.arange(1.0, B + 1)
    loss = lambda d: (weights[:, None] * nll(d, tokens, None, targets, where)).sum()
    return jax.jit(lambda d: (nll(d, tokens, None, targets, where), jax.grad(loss)(d)))(denoiser)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    "packed", [Packed(), Packed(0.4, groups=2), Packed(0.4, groups=4, chunk=7), Packed(1.0, chunk=1)]
)
def test_packed_is_dense(packed, rate):
    """Within capacity and over it, whatever the groups and chunks, zeros where nothing is asked."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value_and_gradient(packed, rate),
        value_and_gradient(dense, rate),
    )


def test_work_is_that_of_the_capacity():
    """Compiled FLOPs of the readout fall with the capacity, and at most `chunk` rows of logits are held at once."""
    denoiser = Linear(jnp.zeros((1001, 64)), jnp.zeros((64, 1000)))
    tokens, where = jnp.zeros((8, 64), jnp.int32), jnp.zeros((8, 64), bool)

    def memory(nll):
        loss = lambda d: nll(d, tokens, None, tokens, where).sum()
        return jax.jit(jax.grad(loss)).lower(denoiser).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * 512 * 1000
    assert memory(dense) > logits
    assert memory(Packed(1.0, chunk=32)) < 0.6 * logits


@pytest.mark.parametrize(
    ("packed", "name"), [(Packed(groups=3), "groups"), (Packed(capacity=0.0), "capacity"), (Packed(1.5), "capacity")]
)
def test_bad_arguments_are_named(packed, name):
    with pytest.raises(ValueError, match=name):
        value_and_gradient(packed, 0.5)
