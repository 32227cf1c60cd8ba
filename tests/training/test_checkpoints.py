"""Checkpoints survive what happens to files: what is damaged is named, set aside, and the one before is taken."""

import dataclasses
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from mdmjax.training import Checkpoints, MeshLayout, NoIntactCheckpoint, make_mesh, restore


@pytest.fixture(scope="module")
def abstract():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0))


def state(step: int) -> dict:
    key = jax.random.key(step)
    return dict(
        key=key,
        params=dict(a=jax.random.normal(key, (64, 65)), half=jnp.arange(7, dtype=jnp.bfloat16) + step),
        step=jnp.int32(step),
        seen=jnp.array([True, False]),
    )


def assert_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"data": {"next_batch": step}})
    checkpoints.wait()
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def largest(folder, step):
    return max((f for f in (folder / str(step) / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder, step):
    file = largest(folder, step)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(folder, step):
    file = largest(folder, step)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_meta(folder, step):
    shutil.rmtree(folder / str(step) / "meta")


def change_a_digit(folder, step):
    """Elsewhere in the data than the state was."""
    file = folder / str(step) / "meta" / "metadata"
    text = file.read_text()
    assert text.count('"next_batch": 3') == 1
    file.write_text(text.replace('"next_batch": 3', '"next_batch": 7'))


def empty(folder, step):
    for file in (folder / str(step)).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def forge(folder, step):
    """Bits that read well and are others than were saved: those of another step."""
    shutil.rmtree(folder / str(step) / "state")
    shutil.copytree(folder / "1" / "state", folder / str(step) / "state")


def test_round_trip_to_the_bit(folder, abstract):
    said = []
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(abstract, said.append)
    assert restored.step == 3 and restored.meta["data"] == {"next_batch": 3} and not said
    assert_bits(restored.state, state(3))
    assert_bits(checkpoints.restore(abstract, said.append, step=2).state, state(2))
    checkpoints.close()


def test_a_checkpoint_of_a_state_without_a_law_is_read(tmp_path):
    """A run of before `TrainState` had one goes on, to the bit."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Before:
        step: Any
        params: Any
        average: Any
        optimizer: Any
        key: Any

    made = jax.jit(toys.make_state)()
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(Before)}
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, Before(**fields), {})
    checkpoints.wait()
    restored = restore(MeshLayout(make_mesh(1, devices=jax.devices()[:1])), toys.make_state, checkpoints, pytest.fail)
    checkpoints.close()
    assert restored.step == 1 and restored.state.law is None
    assert_bits(restored.state, made)


def test_a_saved_state_may_be_donated_at_once(tmp_path, abstract):
    change = jax.jit(lambda s: jax.tree.map(lambda x: x, s) | {"step": s["step"] + 1}, donate_argnums=0)
    checkpoints, now = Checkpoints(tmp_path / "c", keep=9), jax.jit(lambda: state(0))()
    for step in range(4):
        checkpoints.save(step, now, {})
        now = change(now)
    assert all(int(checkpoints.restore(abstract, print, step).state["step"]) == step for step in range(4))
    checkpoints.close()


def test_none_where_there_is_none(tmp_path, abstract):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore(abstract, print) is None and checkpoints.best_step() is None
    checkpoints.close()


@pytest.mark.parametrize("damage", [truncate, flip, lose_meta, change_a_digit, empty, forge])
def test_a_damaged_checkpoint_is_named_set_aside_and_passed_over(folder, abstract, damage):
    damage(folder, 3)
    said = []
    checkpoints = Checkpoints(folder, keep=3)
    restored = checkpoints.restore(abstract, said.append)
    assert restored.step == 2
    assert_bits(restored.state, state(2))
    assert len(said) == 1 and "\n" not in said[0]
    assert str(folder / "3") in said[0] and "trying the one before" in said[0]
    assert not (folder / "3").exists() and (folder.parent / "checkpoints-damaged" / "3").exists()

    checkpoints.save(3, state(3), {})  # its place is free again
    checkpoints.wait()
    assert_bits(checkpoints.restore(abstract, said.append).state, state(3))
    checkpoints.close()


def test_damage_twice_keeps_both(folder, abstract):
    for _ in range(2):
        flip(folder, 3)
        checkpoints = Checkpoints(folder, keep=3)
        assert checkpoints.restore(abstract, lambda line: None).step == 2
        checkpoints.save(3, state(3), {})
        checkpoints.wait()
        checkpoints.close()
    assert len(list((folder.parent / "checkpoints-damaged").iterdir())) == 2


def test_when_none_is_intact_it_says_so_and_changes_nothing(folder, abstract):
    for step in (1, 2, 3):
        truncate(folder, step)
    before = sorted(folder.parent.rglob("*"))
    for _ in range(2):  # the same command again does not start from the beginning
        said = []
        checkpoints = Checkpoints(folder)
        with pytest.raises(NoIntactCheckpoint, match=r"tried steps \[1, 2, 3\].*start again in another workdir"):
            checkpoints.restore(abstract, said.append)
        assert [line.endswith("trying the one before") for line in said] == [True, True, False]
        checkpoints.close()
        assert sorted(folder.parent.rglob("*")) == before


def test_where_the_fault_is_not_in_the_files_nothing_is_set_aside(folder, abstract):
    other = {**abstract, "more": abstract["step"]}  # another state than was saved
    checkpoints = Checkpoints(folder)
    with pytest.raises(NoIntactCheckpoint):
        checkpoints.restore(other, lambda line: None)
    checkpoints.close()

    checkpoints = Checkpoints(folder)
    assert checkpoints.restore(abstract, print).step == 3
    checkpoints.close()


def test_a_reader_touches_nothing(folder, abstract):
    flip(folder, 3)
    unfinished = folder / "4.orbax-checkpoint-tmp-1"
    unfinished.mkdir()
    before = sorted(folder.parent.rglob("*"))
    checkpoints = Checkpoints(folder, keep=1, read_only=True)
    assert checkpoints.restore(abstract, lambda line: None).step == 2
    checkpoints.close()
    assert sorted(folder.parent.rglob("*")) == before


def test_the_newest_and_the_best_are_kept_also_after_reopening(tmp_path):
    folder = tmp_path / "c"
    bounds = {1: 3.0, 2: 2.0, 3: 2.5, 4: None, 5: 2.25}
    checkpoints = Checkpoints(folder, keep=2)
    for step, bound in bounds.items():
        checkpoints.save(step, state(step), {}, bound)
    checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best_step()) == ([2, 4, 5], 2)
    checkpoints.close()

    checkpoints = Checkpoints(folder, keep=2)
    assert (checkpoints.steps(), checkpoints.best_step()) == ([2, 4, 5], 2)
    checkpoints.save(6, state(6), {}, None)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    checkpoints.save(7, state(7), {}, 1.0)  # a new best
    checkpoints.wait()
    assert (checkpoints.steps(), checkpoints.best_step()) == ([6, 7], 7)
    checkpoints.close()


def test_an_unfinished_save_is_no_checkpoint(folder, abstract):
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp-1")
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [1, 2, 3]
    assert checkpoints.restore(abstract, print).step == 3
    checkpoints.close()
