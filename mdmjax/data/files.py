"""Reading text files: what they hash to, then UTF-8 in pieces, and it must be the same content."""

import codecs
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PIECE = 1 << 20  # bytes read at a time


class Hashed(NamedTuple):
    """A file, and the SHA-256 that its content had."""

    path: pathlib.Path
    sha256: str


def list_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file, or the *.txt files below a folder in order. FileNotFoundError; ValueError if all are empty."""
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder {str(path)!r}: give the path of a UTF-8 text file or a folder")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.txt") if p.is_file())
        if not files:
            raise FileNotFoundError(f"the folder {str(path)!r} holds no *.txt file: put UTF-8 text files there")
    else:
        files = [path]
    if not any(file.stat().st_size for file in files):
        raise ValueError(f"{str(path)!r} is empty: a UTF-8 text with at least one character is needed")
    return files


def hashed(files: Sequence[pathlib.Path]) -> list[Hashed]:
    """The files with their hashes."""
    found = []
    for path in files:
        with open(path, "rb") as file:
            found.append(Hashed(path, hashlib.file_digest(file, "sha256").hexdigest()))
    return found


def content_hash(files: Sequence[Hashed]) -> str:
    """The hash of one file; of several the SHA-256 of their hashes and names, as `sha256sum` lists them."""
    if len(files) == 1:
        return files[0].sha256
    listing = "".join(f"{file.sha256}  {file.path.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def read_files(files: Sequence[Hashed]) -> Iterator[str]:
    """The text of UTF-8 files in pieces. A file that does not end a line is followed by a line end before the next."""
    last = "\n"
    for file in files:
        if last != "\n":
            yield "\n"
        for piece in read_utf8(file):
            yield piece
            last = piece[-1]


def read_utf8(file: Hashed) -> Iterator[str]:
    """The text of a UTF-8 file in pieces, without its byte order mark.

    ValueError names the byte that is not text, or says at the end that this is not the content that was hashed: a
    download still going on, say.
    """
    path, sha256 = file
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb") as file:
        while True:
            data = file.read(PIECE)
            digest.update(data)
            if not data and digest.hexdigest() != sha256:
                raise ValueError(f"{str(path)!r} changed while it was read: run again when it is complete")
            try:
                piece = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                offset = done + len(data) - len(error.object) + error.start
                raise ValueError(
                    f"{str(path)!r} is not UTF-8 text: byte {offset} is 0x{error.object[error.start]:02X} "
                    f"({error.reason}); give a text file, converted to UTF-8 if it is in another encoding"
                ) from None
            if (nul := data.find(b"\0")) >= 0:
                raise ValueError(
                    f"{str(path)!r} is not text: byte {done + nul} is zero; give a text file, converted to UTF-8 if it "
                    "is in another encoding"
                )
            if piece:
                yield piece
            if not data:
                return
            done += len(data)
