"""A cache of token streams: each a flat file that is memory-mapped, and a JSON index that says what is in it.

`KEY.tokens` holds the ids, little-endian, one split after the other. `KEY.json` holds the dtype, the extent of each
split, the size and SHA-256 of the tokens, and what the caller wants to remember. Both are written under another name
and renamed, so a reader sees a whole file or none. Of the processes that need an entry at once one makes it and the
others wait for it at `KEY.lock`; where there are no locks they all write the same bytes, whichever comes last. What
does not match its index counts as absent, and is made again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

_FORMAT = 2  # raised when the same key would stand for other tokens
_STALE_SECONDS = 3600  # an unfinished file that nobody has written to for so long was left by a killed process

Pieces = Iterable[tuple[str, int, np.ndarray]]  # (split, characters, ids), the pieces of one split in a row


def cache_directory(directory: str | os.PathLike | None = None) -> pathlib.Path:
    """The argument, else $MDMJAX_CACHE, else ~/.cache/mdmjax."""
    return pathlib.Path(directory or os.environ.get("MDMJAX_CACHE") or "~/.cache/mdmjax").expanduser()


def cache_key(**parts: Any) -> str:
    """A file name for the JSON-able parts that determine the tokens."""
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def token_dtype(size: int) -> np.dtype:
    """The smallest of uint8, uint16, uint32 that holds the ids 0..size-1."""
    return np.dtype(np.uint8 if size <= 2**8 else np.uint16 if size <= 2**16 else np.uint32).newbyteorder("<")


def load(key: str, directory: str | os.PathLike | None = None) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The memory-mapped tokens of an entry and its index; None where the entry is absent or damaged."""
    folder = cache_directory(directory)
    try:
        stored = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        index = stored["index"]
        if stored["sha256"] != _index_hash(index):
            return None
        with open(folder / f"{key}.tokens", "rb") as file:
            if os.fstat(file.fileno()).st_size != index["bytes"]:
                return None
            if hashlib.file_digest(file, "sha256").hexdigest() != index["sha256"]:
                return None
            return np.memmap(file, np.dtype(index["dtype"]), mode="r"), index
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_or_make(
    key: str,
    make: Callable[[], tuple[np.dtype, Pieces, dict[str, Any]]],
    directory: str | os.PathLike | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The entry, which is stored first where it is absent: `make` gives its dtype, pieces and info.

    Raises OSError where the directory cannot be written (in one line: where it is and how to choose another), and
    whatever `make` and the pieces raise. Neither leaves a trace.
    """
    found = load(key, directory)
    if found is None:
        with _lock(cache_directory(directory), key):
            found = load(key, directory) or store(key, *make(), directory)
    return found


def store(
    key: str, dtype: np.dtype, pieces: Pieces, info: dict[str, Any], directory: str | os.PathLike | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Writes an entry and loads it.

    The index is {dtype, bytes, sha256, splits: {split: {start, stop, characters}}, info}; start and stop count tokens.
    Raises as `load_or_make`.
    """
    folder = cache_directory(directory)
    reading = []  # an error of the pieces is none of the cache

    def read():
        try:
            yield from pieces
        except OSError as error:
            reading.append(error)
            raise

    splits: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256()
    count = 0
    temporary = folder / f"{key}.{uuid.uuid4().hex}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with open(temporary, "xb") as file:
            for split, characters, ids in read():
                extent = splits.setdefault(split, {"start": count, "stop": count, "characters": 0})
                data = ids.astype(dtype)
                file.write(data)
                digest.update(data)
                count += len(ids)
                extent["stop"] = count
                extent["characters"] += characters
        index = {
            "dtype": dtype.str,
            "bytes": count * dtype.itemsize,
            "sha256": digest.hexdigest(),
            "splits": splits,
            "info": info,
        }
        if count == 0:
            raise ValueError("there is nothing to tokenise: the text is empty")
        tokens = np.memmap(temporary, dtype, mode="r")  # of what was just written, whatever other processes do
        os.replace(temporary, folder / f"{key}.tokens")
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump({"sha256": _index_hash(index), "index": index}, file)
        os.replace(temporary, folder / f"{key}.json")
        return tokens, json.loads(json.dumps(index))
    except OSError as error:
        if error in reading:
            raise
        raise OSError(
            f"cannot write the token cache in {str(folder)!r} ({error.strerror or error}): free space there or "
            "choose another directory, by argument or by MDMJAX_CACHE"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is not there, nor is perhaps the folder
            temporary.unlink()


@contextlib.contextmanager
def _lock(folder: pathlib.Path, key: str) -> Iterator[None]:
    """One process at a time, where the folder can be written and its file system has locks."""
    path = folder / f"{key}.lock"
    file = None
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if file is not None:
            with file, contextlib.suppress(OSError):
                path.unlink()  # who waits for it finds the entry, and who comes later too


def _remove_stale(folder: pathlib.Path) -> None:
    for path in folder.glob("*.unfinished"):
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _index_hash(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
