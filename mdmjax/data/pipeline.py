"""Batches for training and windows for evaluation.

The training stream is an endless sequence of examples: all examples of the source in a shuffled order, then all of them
in another order, and so on. Example n of the stream is known from n and the seed alone, so the position in the stream
is one number, and any process can read its own rows of any batch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Integer, Shaped

ID_LIMIT = 2**31  # ids are int32 and wrap around at the last whole batch below this

Fields = dict[str, Shaped[np.ndarray, "b ..."]]  # of a batch, by name


@runtime_checkable
class Source(Protocol):
    """Random access to examples of one length L."""

    def __len__(self) -> int: ...

    def gather(self, indices: Integer[np.ndarray, "b"]) -> Fields:
        """The examples at `indices`: `tokens` int32 [b, L] and, where only some of them are to be predicted, `eligible`
        bool [b, L], which is False for a prompt and for padding. Also `extra` bool [b, L], where an objective may
        predict some of those too (`MaskedDiffusion(extra=...)`)."""
        ...


@dataclasses.dataclass(frozen=True)
class WindowSource:
    """The windows tokens[i * stride : i * stride + length] of a text [N]; stride=1 gives all crops.

    With a larger stride the last tokens, too few for a window, are not seen in training.
    """

    tokens: np.ndarray
    length: int
    stride: int = 1

    def __post_init__(self):
        check_length(self.tokens, self.length)
        if self.stride < 1:
            raise ValueError(f"stride={self.stride} should be at least 1")

    def __len__(self) -> int:
        return (len(self.tokens) - self.length) // self.stride + 1

    def gather(self, indices: Integer[np.ndarray, "b"]) -> Fields:
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(self.tokens), self.length)
        return {"tokens": windows[:: self.stride][indices].astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class RowSource:
    """The rows of a table [N, L]; `eligible` bool [N, L] is False for prompts and padding. All is predicted if None.

    `extra` bool [N, L]: those of a prompt that an objective may take as eligible, now and then.
    `segments` int [N, L]: numbers of the texts that stand in a row, if there are several.
    """

    rows: np.ndarray
    eligible: np.ndarray | None = None
    extra: np.ndarray | None = None
    segments: np.ndarray | None = None

    def __post_init__(self):
        if self.rows.ndim != 2 or not len(self.rows):
            raise ValueError(f"rows of shape {self.rows.shape}: at least one row, [N, L], is needed")
        for name, where in self._marks.items():
            if (where.shape, where.dtype) != (self.rows.shape, bool):
                raise ValueError(
                    f"{name} of {where.dtype} {where.shape}: must be bool of the rows' shape {self.rows.shape}"
                )
        if self.segments is not None and self.segments.shape != self.rows.shape:
            raise ValueError(f"segments of shape {self.segments.shape}: must be of the rows' shape {self.rows.shape}")

    @property
    def _marks(self) -> Fields:
        marks = {"eligible": self.eligible, "extra": self.extra}
        return {name: where for name, where in marks.items() if where is not None}

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: Integer[np.ndarray, "b"]) -> Fields:
        marks = {name: where[indices] for name, where in self._marks.items()}
        if self.segments is not None:
            marks["segments"] = self.segments[indices].astype(np.int32)
        return {"tokens": self.rows[indices].astype(np.int32), **marks}


class Batches(Iterator[dict[str, np.ndarray]]):
    """The iterator that `batches` returns, with a position that can be saved and restored."""

    def __init__(self, source: Source, batch_size: int, seed: int, process_index: int, process_count: int, start: int):
        import grain  # here, for importing it takes a second

        if batch_size < 1 or batch_size % process_count:
            raise ValueError(
                f"a batch of {batch_size} cannot be shared by {process_count} processes: it should be a multiple of "
                f"{process_count}"
            )
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index={process_index} should lie in 0..{process_count - 1}")
        self._stream = {"batch_size": batch_size, "seed": seed, "examples": len(source)}
        self._grain = grain
        # grain shuffles epoch e by seed + e, so neighbouring seeds would go through the same orders.
        spread_out = int(np.random.SeedSequence(seed).generate_state(1)[0])
        order = grain.MapDataset.range(len(source)).shuffle(spread_out).repeat()
        share, limit = batch_size // process_count, ID_LIMIT // batch_size * batch_size

        def batch(k: int) -> dict[str, np.ndarray]:
            ids = range(k * batch_size + process_index * share, k * batch_size + (process_index + 1) * share)
            indices = np.fromiter((order[i] for i in ids), np.int64, share)
            return {**source.gather(indices), "ids": (np.asarray(ids) % limit).astype(np.int32)}

        self._batch = batch
        self._iterator = None
        self._seek(start)

    def _seek(self, position: int) -> None:
        self.close()
        self._position = position
        # One element a batch, made ahead of time on one thread, which suffices: a batch takes far less than a step.
        numbers = self._grain.MapDataset.range(position, ID_LIMIT * ID_LIMIT)
        options = self._grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        self._iterator = iter(numbers.map(self._batch).to_iter_dataset(options))

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._iterator)
        self._position += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """JSON-able: the number of the next global batch, and what identifies the stream."""
        return {"next_batch": self._position, **self._stream}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where `get_state` was taken, in any process of any process count. ValueError for another stream."""
        saved = {key: state.get(key) for key in self._stream}
        if saved != self._stream:
            raise ValueError(
                f"the saved position is of the stream {saved}, and this one is {self._stream}: use that data"
            )
        self._seek(int(state["next_batch"]))

    def close(self) -> None:
        """Stops the reading thread."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def batches(
    source: Source, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1, start: int = 0
) -> Batches:
    """An endless iterator over {"tokens": int32 [b, L], "ids": int32 [b]}, from global batch `start` on.

    Where the source says which tokens are `eligible`, so does the batch, bool [b, L]: `MaskedDiffusion` then never
    hides or counts the others, but for some that are `extra`, if it is told to. Global batch k has the examples
    k B .. k B + B - 1 of the stream (B = batch_size), and `ids` are these numbers, modulo the largest multiple of B up
    to 2^31. Process p yields rows p b .. p b + b - 1 of it, b = B / process_count, so all processes together have the
    same batch however many there are. The seed is at least 0. Raises ValueError where process_count does not divide B.
    """
    return Batches(source, batch_size, seed, process_index, process_count, start)


def evaluation_windows(tokens: np.ndarray, length: int) -> tuple[Int32[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """Windows of a text [N] that score every token exactly once: (tokens [N, L], scored [N, L]).

    The windows follow each other without overlap. Where a remainder is left, the last window ends with the text, and
    its tokens that the window before has scored are visible context (scored is False). ValueError for a text shorter
    than `length`.
    """
    check_length(tokens, length)
    starts = np.arange(0, len(tokens) - length + 1, length)
    scored = np.ones((len(starts), length), bool)
    remainder = len(tokens) - (starts[-1] + length)
    if remainder:
        starts = np.append(starts, len(tokens) - length)
        scored = np.concatenate([scored, (np.arange(length) >= length - remainder)[None]])
    return WindowSource(tokens, length).gather(starts)["tokens"], scored


def check_length(tokens: np.ndarray, length: int) -> None:
    """Raises ValueError unless the text [N] holds a window of `length`."""
    if length < 1:
        raise ValueError(f"length={length} should be at least 1")
    if len(tokens) < length:
        raise ValueError(
            f"a text of {len(tokens)} tokens is shorter than a window of length {length}: use a length of at most "
            f"{len(tokens)}, or a longer text"
        )
