"""Reading text files: UTF-8 in pieces, and what they hash to."""

import codecs
import hashlib
import pathlib
from collections.abc import Iterator

PIECE = 1 << 20  # bytes read at a time


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


def content_hash(files: list[pathlib.Path]) -> str:
    """SHA-256 of a file; of several the SHA-256 of their hashes and names, as `sha256sum` lists them."""
    hashes = []
    for path in files:
        with open(path, "rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(files) == 1:
        return hashes[0]
    listing = "".join(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def read_files(files: list[pathlib.Path]) -> Iterator[str]:
    """The text of UTF-8 files in pieces. A file that does not end a line is followed by a line end before the next."""
    last = "\n"
    for path in files:
        if last != "\n":
            yield "\n"
        for piece in read_utf8(path):
            yield piece
            last = piece[-1]


def read_utf8(path: pathlib.Path) -> Iterator[str]:
    """The text of a UTF-8 file in pieces, without its byte order mark. ValueError names the byte that is not text."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    done = 0
    with open(path, "rb") as file:
        while True:
            data = file.read(PIECE)
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
