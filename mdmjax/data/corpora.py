"""Corpora: text tokenised once, in splits, with a record of where it came from.

A text is opened as often as needed and read in pieces of about 1 MB, so a corpus may be larger than memory. Tables are
in `mdmjax.data.tables`.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mdmjax.data import cache, files
from mdmjax.data.vocabularies import Characters, UnknownCharacter, Vocabulary, code_points, from_dict

SPLITS = {"train": 0.9, "validation": 0.05, "test": 0.05}

Text = Callable[[], Iterator[str]]  # opens a text at its beginning and yields it in pieces


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokens by split, what they mean, and where they came from.

    splits: name -> unsigned ids, [N] memory-mapped for a text, [rows, L] for a table.
    meta: JSON-able. `name`; `sha256` of the content; `split_by` ("position" or "source"); `splits`: name -> `tokens`
    and, for a text, `characters`, `characters_per_token` (so bits/char = bits/token / characters_per_token) and
    `start`, `stop`, its place in the text in characters (rows for a table).
    """

    splits: dict[str, np.ndarray]
    vocabulary: Vocabulary
    meta: dict[str, Any]
    eligible: dict[str, np.ndarray] | None = None  # of rows with prompts: name -> bool [rows, L], False for those
    segments: np.ndarray | None = None  # of the rows to train on, where several texts stand in one: their numbers


def python_docs(
    vocabulary: Vocabulary | None = None,
    splits: Mapping[str, float] = SPLITS,
    cache_dir: str | os.PathLike | None = None,
) -> Corpus:
    """The language reference that comes with Python: the topics of `pydoc_data.topics`, sorted by name.

    About 465,000 characters of English, on any machine and without a download. The text depends on the version of
    Python: `meta` has its SHA-256 and the version. `vocabulary`: the characters of the text by default.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise FileNotFoundError(
            "this Python lacks pydoc_data.topics (on Debian it is in libpython3-stdlib): use a text file instead"
        ) from None
    text = "\n\n".join(topics[name] for name in sorted(topics))
    meta = {
        "name": "python_docs",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "source": f"pydoc_data.topics of Python {platform.python_version()}",
    }
    return _corpus({"": lambda: iter([text])}, meta, None, vocabulary, splits, cache_dir)


def text_files(
    path: str | os.PathLike | Mapping[str, str | os.PathLike],
    vocabulary: Vocabulary | None = None,
    splits: Mapping[str, float] = SPLITS,
    cache_dir: str | os.PathLike | None = None,
) -> Corpus:
    """A UTF-8 text file, or all *.txt files below a folder in the order of their paths, joined at line ends.

    `path` may instead map split names to files or folders: these are then the splits. Otherwise they are consecutive
    parts of the text, by `splits` (fractions of its characters). `vocabulary`: by default the characters of the whole
    text, all splits. The `sha256` is that of the file, or for several of `sha256sum`'s listing of them.

    Raises FileNotFoundError (no such path, no text files in the folder), ValueError (empty, not UTF-8, a character
    that the vocabulary lacks, a file that changes meanwhile).
    """
    if isinstance(path, Mapping):
        source, given = {split: os.fspath(p) for split, p in path.items()}, dict(path)
        if not given:
            raise ValueError("no files given: map split names to paths, such as {'train': ..., 'validation': ...}")
    else:
        source, given = os.fspath(path), {"": path}
    groups = {split: files.hashed(files.list_files(pathlib.Path(p))) for split, p in given.items()}
    meta = {
        "name": pathlib.Path(next(iter(given.values()))).stem,
        "sha256": files.content_hash([file for group in groups.values() for file in group]),
        "source": source,
    }
    texts = {split: (lambda group=group: files.read_files(group)) for split, group in groups.items()}
    reading = [[split, len(group)] for split, group in groups.items()] if isinstance(path, Mapping) else None
    return _corpus(texts, meta, reading, vocabulary, splits, cache_dir)


def tfds(
    name: str,
    vocabulary: Vocabulary | None = None,
    splits: Mapping[str, str] | None = None,
    *,
    feature: str = "text",
    separator: str = "\n",
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> Corpus:
    """Any text data set of TensorFlow Datasets, read as array_record without TensorFlow.

    name: as in TFDS, e.g. "lm1b" or "wiki40b/en:1.3.0". `feature` names the text feature; each document is followed by
    `separator`, which counts as text. splits: our name -> TFDS split, e.g. {"train": "train[:99%]", "validation":
    "train[99%:]"}; by default the data set's own splits under their own names. download: prepare the data set if it is
    not there yet (about half of the builders in TFDS need TensorFlow for that step; reading never does).

    Raises FileNotFoundError where the data set is not prepared, OSError where that fails; ValueError for an unknown
    name, version, feature or split.
    """
    from mdmjax.data import tfds_text

    builder = tfds_text.open_builder(name, data_dir, download)
    own = tfds_text.choose_splits(builder, splits, feature)
    texts = {ours: (lambda s=s: tfds_text.documents(builder, s, feature, separator)) for ours, s in own.items()}
    meta = {
        "name": builder.info.full_name,
        "sha256": files.content_hash(files.hashed(tfds_text.files(builder))),
        "source": {"tfds": name, "feature": feature, "separator": separator, "splits": own},
    }
    return _corpus(texts, meta, meta["source"], vocabulary, SPLITS, cache_dir)


def _corpus(
    texts: Mapping[str, Text],
    meta: dict[str, Any],
    reading: Any,
    vocabulary: Vocabulary | None,
    fractions: Mapping[str, float],
    cache_dir: str | os.PathLike | None,
) -> Corpus:
    """Tokenises `texts` (split -> text; the single key "" means: cut by `fractions`), or finds them in the cache.

    `reading`, JSON-able, tells apart the ways in which the same content can be read.
    """
    by_position = list(texts) == [""]
    if by_position:
        check_fractions(fractions)
    names = list(fractions if by_position else texts)

    def key(described: Any) -> str:
        splits = list(fractions.items()) if by_position else list(texts)
        return cache.cache_key(content=meta["sha256"], reading=reading, vocabulary=described, splits=splits)

    def make() -> tuple[np.dtype, cache.Pieces, dict[str, Any]]:
        total, characters = _scan(texts) if by_position or vocabulary is None else (0, "")
        chosen = Characters(characters) if vocabulary is None else vocabulary
        pieces = ((split, piece) for split, text in texts.items() for piece in _at_line_ends(text()))
        if by_position:
            pieces = _cut(pieces, position_cuts(total, fractions))
        return cache.token_dtype(chosen.size), _encode(pieces, chosen, one_text=by_position), chosen.to_dict()

    found = None
    if isinstance(vocabulary, Characters):  # as a checkpoint's: most often those of this very text
        found = cache.load(key("characters"), cache_dir)
    if found is None or found[1]["info"] != vocabulary.to_dict():
        described = "characters" if vocabulary is None else vocabulary.to_dict()
        found = cache.load_or_make(key(described), make, cache_dir)
    tokens, index = found
    parts, record, start = {}, {}, 0
    for split in names:
        extent = index["splits"].get(split, {"start": 0, "stop": 0, "characters": 0})  # absent where it is empty
        parts[split] = tokens[extent["start"] : extent["stop"]]
        record[split] = {
            "tokens": len(parts[split]),
            "characters": extent["characters"],
            "characters_per_token": extent["characters"] / max(len(parts[split]), 1),
            "start": start,
            "stop": start + extent["characters"],
        }
        start = record[split]["stop"] if by_position else 0
    meta = {**meta, "split_by": "position" if by_position else "source", "splits": record}
    return Corpus(splits=parts, vocabulary=from_dict(index["info"]), meta=meta)


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises ValueError unless these are positive fractions that sum to 1."""
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(
            f"the splits {dict(fractions)} should be positive fractions that sum to 1, such as {dict(SPLITS)}"
        )


def position_cuts(total: int, fractions: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """Split name -> (start, stop): consecutive parts of `total` things, rounded to whole things."""
    ends = [round(total * share) for share in np.cumsum(list(fractions.values()))]
    return {
        split: (start, stop) for split, start, stop in zip(fractions, [0, *ends[:-1]], [*ends[:-1], total], strict=True)
    }


def _scan(texts: Mapping[str, Text]) -> tuple[int, str]:
    """The number of characters of all texts, and the sorted set of them."""
    total, seen = 0, np.zeros(0x110000, bool)
    for text in texts.values():
        for piece in text():
            total += len(piece)
            seen[code_points(piece)] = True
    if total == 0:
        raise ValueError("there is nothing to tokenise: the text is empty")
    return total, "".join(map(chr, np.flatnonzero(seen)))


def _at_line_ends(pieces: Iterator[str]) -> Iterator[str]:
    """The same text, cut between lines without other white space, where no usual tokeniser joins anything."""
    rest = ""
    for piece in pieces:
        rest += piece
        end = len(rest)
        while (end := rest.rfind("\n", 1, max(end - 1, 0))) > 0:
            if not rest[end - 1].isspace() and not rest[end + 1].isspace():
                break
        if end > 0:
            yield rest[: end + 1]
            rest = rest[end + 1 :]
        elif len(rest) > 4 * files.PIECE:  # no such place: cut anywhere rather than hold it all
            yield rest
            rest = ""
    if rest:
        yield rest


def _cut(pieces: Iterator[tuple[str, str]], cuts: dict[str, tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Names the pieces of one text by the split that they lie in, cutting at the boundaries."""
    position = 0
    for _, piece in pieces:
        for split, (start, stop) in cuts.items():
            part = piece[max(start - position, 0) : max(stop - position, 0)]
            if part:
                yield split, part
        position += len(piece)


def _encode(
    pieces: Iterator[tuple[str, str]], vocabulary: Vocabulary, one_text: bool
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(split, characters, ids) of each piece in order, a few pieces at a time on threads."""
    workers = min(os.cpu_count() or 1, 16)
    pending = collections.deque()
    current, characters, lines = None, 0, 0  # where the next result begins, for complaints
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for split, piece in itertools.chain(pieces, [(None, "")] * workers):  # the padding drains the queue
            pending.append((split, piece, pool.submit(vocabulary.encode, piece)))
            if len(pending) <= workers:
                continue
            split, piece, future = pending.popleft()
            if split != current and not one_text:
                characters = lines = 0
            current = split
            try:
                ids = future.result()
            except UnknownCharacter as error:
                raise error.after(characters, lines, "" if one_text else f" of the split {split!r}") from None
            yield split, len(piece), ids
            characters, lines = characters + len(piece), lines + piece.count("\n")
