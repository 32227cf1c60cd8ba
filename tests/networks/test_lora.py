"""Adapters: nothing at first, the sum of both afterwards, and alone in what is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.networks import LoRA, TransformerConfig, parameter_count, transformer
from mdmjax.objectives import MaskedDiffusion
from mdmjax.training import Step, adamw, init_state

V, L = 7, 6


@pytest.fixture(scope="module", params=[True, False], ids=["scan", "blocks"])
def base(request):
    model = transformer(TransformerConfig(V, L, width=32, depth=2, heads=2, scan=request.param))
    return model, jax.jit(model.init)(jax.random.key(0))


def test_nothing_is_changed_at_first_and_the_sum_is_taken_afterwards(base):
    model, params = base
    lora = LoRA(3, alpha=6.0)
    adapters = lora.init(params, jax.random.key(1))
    first = lora.merged(params, adapters)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), first, params)))
    moved = jax.tree.map(lambda x: x + 0.1, adapters)
    after, paths = lora.merged(params, moved), dict(jax.tree_util.tree_leaves_with_path(params))
    changed = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        name, before = jax.tree_util.keystr(path, simple=True, separator="/"), paths[path]
        if name in moved:
            a, b = (np.asarray(moved[name][x], np.float64) for x in "ab")
            np.testing.assert_allclose(leaf, np.asarray(before) + 2 * a @ b, rtol=1e-5, atol=1e-6)
            changed += before.size
        else:
            assert (leaf == before).all()
    c = model.config
    assert changed == c.depth * (4 * c.width**2 + 3 * c.width * c.hidden)  # all kernels of the blocks
    assert parameter_count(adapters) < 0.3 * changed


def test_only_adapters_are_trained(base):
    """Through the one step, the base as `frozen`: the loss falls, and the merged network is the trained one."""
    model, params = base
    lora, (optimizer, rate) = LoRA(2), adamw(learning_rate=1e-2, steps=40)
    bind = lambda adapters, base: model.bind(lora.merged(base, adapters))
    step = jax.jit(Step(bind, MaskedDiffusion(V), optimizer, rate, 16))
    state = init_state(lambda key: lora.init(params, key), optimizer, jax.random.key(2))
    tokens = (np.arange(16)[:, None] + np.arange(L)) % V
    losses = []
    for k in range(40):
        batch = {"tokens": jnp.asarray(tokens), "ids": jnp.arange(16) + 16 * k}
        state, metrics = step(state, batch, params)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    same = model.bind(lora.merged(params, state.params))(jnp.asarray(tokens))
    np.testing.assert_allclose(same, bind(state.params, params)(jnp.asarray(tokens)), atol=1e-6)
    assert parameter_count(state.params) < parameter_count(params) / 4


def test_what_is_refused(base):
    with pytest.raises(ValueError, match="rank=0"):
        LoRA(0)
    with pytest.raises(ValueError, match="no parameter has such a path"):
        LoRA(2, kernels="nothing").init(base[1], jax.random.key(0))
