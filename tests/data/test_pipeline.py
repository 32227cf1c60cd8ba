"""The stream of training batches: the same for any number of processes, and from any position on."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.data import RowSource, WindowSource, batches, evaluation_windows

TEXT = (np.arange(300) * 7 % 251).astype(np.uint8)  # every position has its own token
WINDOWS = WindowSource(TEXT[:251], 8)


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


def gathered(source, *indices):
    return source.gather(np.array(indices))["tokens"]


def test_windows_are_crops_of_the_text():
    assert len(WINDOWS) == 244
    np.testing.assert_array_equal(gathered(WINDOWS, 243, 0, 243), [TEXT[243:251], TEXT[:8], TEXT[243:251]])
    spaced = WindowSource(TEXT[:251], 8, 5)
    assert len(spaced) == 49
    np.testing.assert_array_equal(gathered(spaced, 48), [TEXT[240:248]])
    rows = RowSource(TEXT.reshape(60, 5))
    assert len(rows) == 60 and gathered(rows, 1).dtype == gathered(WINDOWS, 0).dtype == np.int32
    np.testing.assert_array_equal(gathered(rows, 2, 0), [TEXT[10:15], TEXT[:5]])


def test_what_is_eligible_comes_with_its_row():
    rows, eligible = TEXT.reshape(60, 5), TEXT.reshape(60, 5) % 3 > 0
    for batch in take(batches(RowSource(rows, eligible), 8, seed=3), 10):
        assert batch["eligible"].dtype == bool
        np.testing.assert_array_equal(batch["eligible"], batch["tokens"] % 3 > 0)
    for batch in take(batches(RowSource(rows, extra=~eligible), 8, seed=3), 2):
        np.testing.assert_array_equal(batch["extra"], batch["tokens"] % 3 == 0)
        assert "eligible" not in batch
    for wrong in eligible[:3], eligible.astype(int):
        with pytest.raises(ValueError, match="must be bool of the rows' shape"):
            RowSource(rows, wrong)


def test_batches_number_the_stream():
    got = take(batches(WINDOWS, 16, seed=3), 20)
    assert all(b["tokens"].shape == (16, 8) and b["tokens"].dtype == b["ids"].dtype == np.int32 for b in got)
    np.testing.assert_array_equal(np.concatenate([b["ids"] for b in got]), np.arange(320))
    (late,) = take(batches(WINDOWS, 16, seed=3, start=2**27), 1)
    np.testing.assert_array_equal(late["ids"], np.arange(16))  # modulo 2^31
    (last, first) = take(batches(WINDOWS, 12, seed=3, start=2**31 // 12 - 1), 2)  # 12 does not divide 2^31
    np.testing.assert_array_equal(last["ids"] // 12, np.full(12, 2**31 // 12 - 1))
    np.testing.assert_array_equal(first["ids"], np.arange(12))


def places(tokens):
    """Where in the text each window starts."""
    starts = {tuple(window): i for i, window in enumerate(gathered(WINDOWS, *range(len(WINDOWS))).tolist())}
    return np.array([starts[tuple(t)] for t in tokens.tolist()])


def test_an_epoch_is_a_permutation_and_epochs_differ():
    tokens = np.concatenate([b["tokens"] for b in take(batches(WINDOWS, 4, seed=1), 122)])
    order = places(tokens)
    first, second = order[:244], order[244:]
    for epoch in first, second:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(244))
        assert (epoch != np.arange(244)).mean() > 0.9
    assert (first != second).mean() > 0.9
    assert abs(np.corrcoef(first, np.arange(244))[0, 1]) < 0.3


def test_the_seed_determines_the_order():
    a, b, c = (take(batches(WINDOWS, 8, seed=s), 5) for s in (7, 7, 8))
    equal(a, b)
    assert (a[0]["tokens"] != c[0]["tokens"]).any()


def test_seeds_share_no_order():
    """Two passes of seed 0 and of seed 1: four orders, no two of them alike."""
    passes = []
    for seed in range(2):
        tokens = np.concatenate([b["tokens"] for b in take(batches(WINDOWS, 4, seed), 122)])
        passes.extend(places(tokens).reshape(2, 244))
    for a, b in itertools.combinations(passes, 2):
        assert (a == b).mean() < 0.1


@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_processes_together_have_the_same_batch(count):
    whole = take(batches(WINDOWS, 12, seed=5), 30)
    parts = [take(batches(WINDOWS, 12, 5, process, count), 30) for process in range(count)]
    assert parts[0][0]["tokens"].shape == (12 // count, 8)
    union = [{key: np.concatenate([p[key] for p in step]) for key in step[0]} for step in zip(*parts, strict=True)]
    equal(union, whole)


@pytest.mark.parametrize("position", [0, 1, 9, 40])
def test_resumed_equals_unbroken(position):
    whole = take(batches(WINDOWS, 8, seed=2), 60)
    iterator = batches(WINDOWS, 8, seed=2)
    take(iterator, position)
    state = json.loads(json.dumps(iterator.get_state()))
    equal(take(iterator, 5), whole[position : position + 5])  # saving does not disturb
    for fresh in batches(WINDOWS, 8, seed=2), iterator:  # in another run, and back in the same
        fresh.set_state(state)
        equal(take(fresh, 60 - position), whole[position:])
    equal(take(batches(WINDOWS, 8, seed=2, start=position), 60 - position), whole[position:])


def test_resumed_with_another_number_of_processes():
    whole = take(batches(WINDOWS, 8, seed=2), 20)
    iterator = batches(WINDOWS, 8, 2, 1, 4)
    take(iterator, 7)
    fresh = batches(WINDOWS, 8, 2, 1, 2)
    fresh.set_state(iterator.get_state())
    equal(take(fresh, 13), [{k: v[4:] for k, v in b.items()} for b in whole[7:]])


def test_a_position_in_another_stream_is_refused():
    state = batches(WINDOWS, 8, seed=2).get_state()
    for other in batches(WINDOWS, 8, seed=3), batches(WINDOWS, 16, seed=2), batches(WindowSource(TEXT, 8), 8, seed=2):
        with pytest.raises(ValueError, match="the saved position is of the stream .* use that data"):
            other.set_state(state)


def test_bad_shares():
    with pytest.raises(ValueError, match="batch of 10 cannot be shared by 4 processes: .* multiple of 4"):
        batches(WINDOWS, 10, 0, 0, 4)
    with pytest.raises(ValueError, match=r"process_index=2 should lie in 0\.\.1"):
        batches(WINDOWS, 10, 0, 2, 2)
    with pytest.raises(ValueError, match="stride=0"):
        WindowSource(TEXT, 8, 0)
    with pytest.raises(ValueError, match="at least one row"):
        RowSource(np.zeros((0, 3), np.int32))


def test_a_failure_while_reading_reaches_the_caller():
    class Broken:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            raise OSError("the disk is gone")

        def gather(self, indices):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(batches(Broken(), 2, 0))


@given(st.integers(1, 40), st.integers(1, 40))
def test_evaluation_scores_every_token_once_with_full_context(n, length):
    text = np.arange(n)
    if n < length:
        with pytest.raises(ValueError, match=f"text of {n} tokens is shorter than a window of length {length}: use"):
            evaluation_windows(text, length)
        with pytest.raises(ValueError, match="shorter than a window"):
            WindowSource(text, length)
        return
    tokens, scored = evaluation_windows(text, length)
    assert tokens.shape == scored.shape == (-(-n // length), length) and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens[scored], text)
    np.testing.assert_array_equal(tokens, tokens[:, :1] + np.arange(length))
