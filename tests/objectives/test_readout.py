"""The packed readout against the dense one: same numbers, same gradients, less work."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.objectives import Packed, dense, independent_share, systematic_share
from mdmjax.process import ExactCount, iid, systematic

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


def test_chunks_hold_few_logits_at_once():
    """Compiled memory: all logits for the dense readout, at most `chunk` rows of them, twice, for the packed one."""
    denoiser = Linear(jnp.zeros((1001, 64)), jnp.zeros((64, 1000)))
    tokens, where = jnp.zeros((8, 64), jnp.int32), jnp.zeros((8, 64), bool)

    def memory(nll):
        loss = lambda d: nll(d, tokens, None, tokens, where).sum()
        return jax.jit(jax.grad(loss)).lower(denoiser).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * 512 * 1000
    assert memory(dense) > logits
    assert memory(Packed(1.0, chunk=32)) < 0.6 * logits


@dataclasses.dataclass(frozen=True)
class Counted:
    """A toy that says how many rows of logits it computes, whenever it does."""

    say: Callable

    def __call__(self, tokens, t=None, *, at=None):
        return self.readout(self.features(tokens, t))

    def features(self, tokens, t=None):
        return tokens[:, :, None].astype(jnp.float32)

    def readout(self, features):
        jax.debug.callback(self.say, math.prod(features.shape[:-1]))
        return jnp.broadcast_to(features, (*features.shape[:-1], V))


def rows_read(packed, draw, calls):
    """Rows of logits computed in each of `calls` calls, on the masks that `draw(call)` gives."""
    read = []
    denoiser = Counted(lambda rows: read.append(int(rows)))

    @jax.jit
    def score(call):
        where = draw(call)
        tokens = jnp.zeros(where.shape, jnp.int32)
        return packed(denoiser, tokens, None, tokens, where)

    work = []
    for call in range(calls):
        jax.block_until_ready(score(call))
        jax.effects_barrier()
        work.append(sum(read))
        read.clear()
    return np.array(work)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_systematic_exact_count_is_read_within_the_capacity(groups):
    """In every call, whatever the offset: no more rows than the capacity, rounded up to whole chunks."""
    ones = jnp.ones((16, 32), bool)
    draw = lambda call: ExactCount(systematic).draw(jax.random.key(call), jnp.arange(16), ones, batch=16).masks
    work = rows_read(Packed(groups=groups, chunk=8), draw, 40)
    room = math.ceil(systematic_share(16 // groups, 32) * 512 / groups)
    chunks = math.ceil(room / 8)
    assert (work == groups * chunks * math.ceil(room / chunks)).all() and work[0] < 0.75 * 512


def test_independent_rows_are_read_within_their_capacity_and_all_where_it_is_exceeded():
    """As the calls of a scorer: the share for independent rows suffices, that for systematic ones often does not."""
    ones = jnp.ones((16, 32), bool)
    draw = lambda call: ExactCount(iid).draw(jax.random.key(call), jnp.arange(16), ones, batch=16).masks
    hidden = np.array([int(draw(call).sum()) for call in range(40)])
    for share in systematic_share, independent_share:
        room = math.ceil(share(16, 32) * 512)
        work = rows_read(Packed(share, chunk=512), draw, 40)
        np.testing.assert_array_equal(work, np.where(hidden <= room, room, 512))
        assert (work == 512).any() == (share is systematic_share)


@pytest.mark.parametrize("nll", [dense, Packed(1.0, chunk=16)])
def test_logits_of_few_digits_are_summed_in_float32(nll):
    """The cross-entropy of bfloat16 logits is that of the same numbers in float32."""
    _, tokens, _, where = problem(0.7)
    labels = jax.random.randint(jax.random.key(9), (B, L), 0, 1000)
    table = jax.random.normal(jax.random.key(8), (V, L, 1000))

    @dataclasses.dataclass(frozen=True)
    class Table:
        dtype: type

        def features(self, tokens, t=None):
            return table.astype(jnp.bfloat16)[tokens, jnp.arange(L)[None]].astype(self.dtype)

        def readout(self, features):
            return features

        def __call__(self, tokens, t=None, *, at=None):
            return self.features(tokens)

    few, many = (nll(Table(dtype), tokens, None, labels, where) for dtype in (jnp.bfloat16, jnp.float32))
    assert few.dtype == jnp.float32
    np.testing.assert_allclose(few, many, rtol=1e-6)


@pytest.mark.parametrize(
    ("packed", "name"), [(Packed(groups=3), "groups"), (Packed(capacity=0.0), "capacity"), (Packed(1.5), "capacity")]
)
def test_bad_arguments_are_named(packed, name):
    with pytest.raises(ValueError, match=name):
        value_and_gradient(packed, 0.5)
