"""A cache of token streams: each a flat file that is memory-mapped, and a JSON index that says what is in it.

`KEY.tokens` holds the ids, little-endian, one split after the other. `KEY.json` holds the dtype, the extent of each
split, the size and SHA-256 of the tokens, and what the caller wants to remember. Both are written under another name
and renamed, so a reader sees a whole file or none. Processes that make the same entry at once write the same bytes,
whichever comes last. What does not match its index counts as absent, and is made again.
"""

import hashlib
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

_FORMAT = 1
_STALE_SECONDS = 3600  # an unfinished file that nobody has written to for so long was left by a killed process


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


def store(
    key: str,
    dtype: np.dtype,
    pieces: Iterable[tuple[str, int, np.ndarray]],
    info: dict[str, Any],
    directory: str | os.PathLike | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Writes an entry and loads it. `pieces` are (split, characters, ids), the pieces of one split in a row.

    The index is {dtype, bytes, sha256, splits: {split: {start, stop, characters}}, info}; start and stop count tokens.
    Raises OSError, one line, where the directory cannot be written, and whatever `pieces` raises. Neither leaves a
    trace.
    """
    folder = cache_directory(directory)
    splits: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256()
    count = 0
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder, key)
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f"{key}.", suffix=".unfinished")
        with os.fdopen(descriptor, "wb") as file:
            for split, characters, ids in pieces:
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
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f"{key}.", suffix=".unfinished")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"sha256": _index_hash(index), "index": index}, file)
        os.replace(temporary, folder / f"{key}.json")
        return tokens, json.loads(json.dumps(index))
    except OSError as error:
        if temporary is None or error.filename is None or os.fspath(folder) in os.fspath(error.filename):
            raise OSError(
                f"cannot write the token cache in {str(folder)!r} ({error.strerror or error}): free space there or "
                "choose another directory, by argument or by MDMJAX_CACHE"
            ) from error
        raise
    finally:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)


def _remove_stale(folder: pathlib.Path, key: str) -> None:
    for path in folder.glob(f"{key}.*.unfinished"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            pass


def _index_hash(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
