import dataclasses

import numpy as np
import pytest
from traces import MASK, PAD, edited

from mdmjax.base import INSERT, KEEP, REMASK, UNMASK, Trace
from mdmjax.reports import provenance


@pytest.mark.parametrize("seed", range(20))
def test_slots_follow_tokens_as_lists_do(seed):
    rng = np.random.default_rng(seed)
    trace, states, orders = edited(rng, calls=12, size=int(rng.integers(4, 16)))
    got = provenance(trace, 0)
    for name, key in (("slots", "slot"), ("written", "written"), ("operations", "did"), ("confidence", "sure")):
        for c, state in enumerate(states):
            expected = np.full(trace.tokens.shape[-1], 0 if key == "sure" else -1, float)
            expected[: len(state)] = [cell[key] for cell in state]
            np.testing.assert_array_equal(getattr(got, name)[c], expected, f"{name}, state {c}")
    assert [order.tolist() for order in got.orders] == orders
    assert got.calls.tolist() == list(range(12))


def test_random_traces_do_everything():
    """Else the test above could pass without having met a deletion or a full canvas."""
    full = moved = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        trace, states, _ = edited(rng, calls=12, size=int(rng.integers(4, 16)))
        full += (trace.lengths == trace.tokens.shape[-1]).any()
        moved += any(
            [cell["slot"] for cell in state] != list(range(len(state))) and state[-1]["did"] == UNMASK
            for state in states
        )
    assert full >= 3 and moved >= 10


def test_without_insertions_a_slot_is_its_position():
    tokens = np.array([[MASK, MASK, 1, PAD], [2, MASK, 1, PAD], [2, MASK, 1, PAD], [MASK, 3, 1, PAD]])[:, None]
    operations = np.full((3, 1, 4), KEEP)
    operations[0, 0, 0], operations[2, 0, :2] = UNMASK, [REMASK, UNMASK]
    confidence = np.where(operations == UNMASK, 0.5, 0.0)
    steps = np.array([[0], [-1], [4]])  # the call between served other rows
    got = provenance(Trace(tokens, confidence, operations, steps, steps / 4), 0)
    assert got.slots.tolist() == [[0, 1, 2, 3]] * 3
    assert got.written.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 2, 0, 0]]
    assert got.operations[-1].tolist() == [REMASK, UNMASK, KEEP, KEEP]
    assert got.confidence[-1].tolist() == [0, 0.5, 0, 0] and got.calls.tolist() == [0, 2]


def test_lengths_must_be_there_and_right():
    trace, _, _ = edited(np.random.default_rng(0), calls=6, size=30)
    with pytest.raises(ValueError, match="has no lengths"):
        provenance(dataclasses.replace(trace, lengths=None), 0)
    with pytest.raises(ValueError, match=r"row 0, call 2 leads to .* lengths\[3\]"):
        provenance(dataclasses.replace(trace, lengths=trace.lengths + (np.arange(7) == 3)[:, None]), 0)


def test_a_change_without_an_operation_is_seen():
    tokens = np.array([[0, 1, 2], [0, 3, 4]])[:, None]
    operations = np.array([[[INSERT, KEEP, INSERT]]])  # INSERT says nothing of the position itself
    zero = np.zeros((1, 1))
    got = provenance(Trace(tokens, zero[..., None] + np.zeros(3), operations, zero.astype(int), zero), 0)
    assert got.written[1].tolist() == [0, 1, 1] and got.operations[1].tolist() == [KEEP] * 3
