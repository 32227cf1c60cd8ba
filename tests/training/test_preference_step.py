"""Preference pairs through the one training step: laid out as one likes, and against a reference that stays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import CONFIG, LENGTH, LINEAR, OPTIMIZER, RATE, VOCAB, make_state

from mdmjax.data import batches
from mdmjax.networks import TransformerConfig, transformer
from mdmjax.objectives import Against, Preference
from mdmjax.process import Allocation
from mdmjax.training import Checkpoints, MeshLayout, Plan, PmapLayout, Step, make_mesh, train

BATCH, OBJECTIVE = 16, Preference(VOCAB, allocation=Allocation(4, 1))


class Pairs:
    """Rows with a pattern against rows without one; a prompt of three tokens."""

    def __init__(self):
        rng = np.random.default_rng(0)
        start = rng.integers(0, VOCAB, (64, 1))
        good = (start + 3 * np.arange(LENGTH)) % VOCAB
        bad = np.where(np.arange(LENGTH) < 3, good, rng.integers(0, VOCAB, good.shape))
        self.tokens = np.stack([good, bad], 1).astype(np.int32)
        self.eligible = np.broadcast_to(np.arange(LENGTH) >= 3, self.tokens.shape)

    def __len__(self):
        return len(self.tokens)

    def gather(self, indices):
        return {"tokens": self.tokens[indices], "eligible": self.eligible[indices]}


def made(layout, micro=1, model=LINEAR, steps=3):
    """(metrics of each step, last state, reference after them)."""
    state = layout.init(functools.partial(make_state, model))
    frozen = layout.place(jax.device_get(state.params))
    bind = lambda params, frozen: Against(model.bind(params), model.bind(frozen))
    step = Step(bind, OBJECTIVE, OPTIMIZER, RATE, BATCH, 0.9, micro, layout.shards, layout.axis)
    compiled, rows, metrics = layout.step(step, state, frozen), batches(Pairs(), BATCH, 5), []
    for _ in range(steps):
        state, numbers = compiled(state, layout.put(next(rows)), frozen)
        metrics.append({name: float(x) for name, x in numbers.items()})
    rows.close()
    return metrics, state, frozen


@pytest.fixture(scope="module")
def one():
    return made(MeshLayout(make_mesh(devices=jax.devices()[:1])))


@pytest.mark.parametrize("layout, micro", [("mesh", 1), ("fsdp", 1), ("mesh", 2), ("pmap", 1)])
def test_any_layout_gives_the_same_steps(one, layout, micro):
    """Loss, gradient and diagnostics: 8 devices, the reference shared out like the policy, micro-batches, pmap."""
    layouts = dict(mesh=lambda: MeshLayout(make_mesh()), fsdp=lambda: MeshLayout(make_mesh(4, 2)), pmap=PmapLayout)
    model = transformer(CONFIG) if layout == "fsdp" else LINEAR
    alone = made(MeshLayout(make_mesh(devices=jax.devices()[:1])), model=model) if layout == "fsdp" else one
    other = made(layouts[layout](), micro, model)
    for mine, its in zip(alone[0], other[0], strict=True):
        assert mine.keys() == its.keys() >= {"loss", "accuracy", "margin", "drift", "score_variance"}
        np.testing.assert_allclose(list(its.values()), list(mine.values()), rtol=2e-4, atol=2e-5)
    if layout == "fsdp":
        places = [jax.tree.map(lambda x: x.sharding, x) for x in (other[1].params, other[2])]
        assert places[0] == places[1]
        assert any(not s.is_fully_replicated for s in jax.tree.leaves(places[1]))


def test_the_first_step_is_at_the_reference_and_the_next_ones_are_better(one):
    metrics, state, frozen = one
    first, last = metrics[0], metrics[-1]
    assert first["margin"] == first["accuracy"] == first["score_variance"] == 0
    assert abs(first["loss"] - np.log(2)) < 1e-6 and first["scored"] == 2 * 4 * BATCH
    assert last["loss"] < first["loss"] and last["margin"] > 0 and last["accuracy"] > 0.5
    start = make_state(LINEAR).params
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), frozen, start)


def test_the_loop_resumes_with_its_reference(tmp_path):
    """Killed after a checkpoint, which does not hold the reference, and gone on with it: as without."""
    layout = MeshLayout(make_mesh(devices=jax.devices()[:1]))
    make = functools.partial(make_state, LINEAR)
    bind = lambda params, frozen: Against(LINEAR.bind(params), LINEAR.bind(frozen))
    step = Step(bind, Preference(VOCAB, allocation=Allocation(2, 1)), OPTIMIZER, RATE, BATCH)
    frozen = jax.tree.map(jnp.copy, make().params)

    def run(folder, steps):
        checkpoints, rows = Checkpoints(tmp_path / folder), batches(Pairs(), BATCH, 5)
        try:
            return train(
                plan=Plan(steps, 2, 2), make_state=make, step=step, layout=layout, batches=rows,
                checkpoints=checkpoints, evaluate=lambda state: 0.0, write=lambda number, **numbers: None,
                frozen=layout.place(frozen),
            ).state  # fmt: skip
        finally:
            rows.close()
            checkpoints.close()

    whole, _ = run("whole", 4), run("parts", 2)
    parts = run("parts", 4)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), whole.params, parts.params)))
    saved = sum(f.stat().st_size for f in (tmp_path / "parts").rglob("*") if f.is_file())
    assert saved < 2 * 4 * 4 * sum(x.nbytes for x in jax.tree.leaves(frozen)) + 200_000


def test_memory_does_not_grow_with_the_draws():
    """Temporaries of the compiled gradient: in two passes n = 8 takes at most 1.3 times what n = 1 does."""
    config = TransformerConfig(VOCAB, 64, width=64, depth=2, heads=2)
    model = transformer(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = dict(
        tokens=jax.ShapeDtypeStruct((8, 2, 64), jnp.int32), eligible=jax.ShapeDtypeStruct((8, 2, 64), bool),
        ids=jax.ShapeDtypeStruct((8,), jnp.int32),
    )  # fmt: skip

    def temporaries(n, two_pass):
        objective = Preference(VOCAB, allocation=Allocation(n), two_pass=two_pass)

        def loss(policy, reference, batch):
            both = Against(model.bind(policy), model.bind(reference))
            return objective(both, batch, jax.random.key(0), 8).nats.sum()

        compiled = jax.jit(jax.grad(loss)).lower(params, params, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8, True) < 1.3 * temporaries(1, True)
    assert temporaries(8, False) > 3 * temporaries(1, False)
