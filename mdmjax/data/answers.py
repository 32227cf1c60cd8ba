"""Prompts with their answers, from JSON lines: rows for fine-tuning, and pairs of answers for preferences.

A row is the prompt, what stands `between`, the answer and the `end`, then padding. The answer and the end are eligible;
the prompt never is.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer

from mdmjax.data import files
from mdmjax.data.corpora import SPLITS, Corpus, check_fractions, position_cuts
from mdmjax.data.pipeline import Fields, RowSource
from mdmjax.data.vocabularies import Characters, Vocabulary

END = "\0"


class Record(NamedTuple):
    """A line of a file of JSON lines."""

    path: str
    line: int  # from 1
    fields: Mapping[str, str]

    def error(self, what: str) -> ValueError:
        """A ValueError that begins with where this is."""
        return ValueError(f"{self.path}, line {self.line}: {what}")


def read_records(path: str | os.PathLike, fields: Sequence[str]) -> list[Record]:
    """The records of a UTF-8 file with a JSON object on each line, of which `fields` are texts that are not empty.

    Lines without anything are passed over. FileNotFoundError; ValueError, naming the file, the line and the field, for
    what is not JSON or not an object, for a field that is missing, empty or no text, for a file without records, and
    for a field that is asked for twice.
    """
    path = pathlib.Path(path)
    if len(set(fields)) < len(fields):
        raise ValueError(f"fields {tuple(fields)}: each must be another one")
    if not path.is_file():
        raise FileNotFoundError(f"no such file {str(path)!r}: give a file with a JSON object on each line")
    records = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            record = Record(str(path), number, {})
            try:
                found = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise record.error(f"byte {error.start} is not UTF-8; give a text file") from None
            except json.JSONDecodeError as error:
                raise record.error(f"no JSON ({error.msg} at column {error.colno}); an object is needed") from None
            if not isinstance(found, dict):
                raise record.error(f"a {type(found).__name__}, and an object with {', '.join(fields)} is needed")
            for field in fields:
                if field not in found:
                    raise record.error(f"the field {field!r} is missing; there are {', '.join(found) or 'none'}")
                if not isinstance(found[field], str) or not found[field].strip():
                    raise record.error(f"the field {field!r} is {json.dumps(found[field])}: a text is needed")
            records.append(Record(str(path), number, {field: found[field] for field in fields}))
    if not records:
        raise ValueError(f"{str(path)!r} holds no record: a JSON object on each line is needed")
    return records


def content_hash(path: str | os.PathLike) -> str:
    """The SHA-256 of a file."""
    return files.content_hash(files.hashed([pathlib.Path(path)]))


def characters_of(records: Iterable[Record], *more: str) -> Characters:
    """The characters of all fields, and of some more texts."""
    return Characters.of("".join([*more, *(text for record in records for text in record.fields.values())]))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a prompt and its answer become a row of `length` tokens.

    fill: the rest of a row is the end again and again, and eligible (as LLaDA is fine-tuned, arXiv 2502.09992), so that
    a model learns where an answer ends in a canvas that is too long; it then counts in the bound of the answer. Else
    the rest is PAD, which is not eligible, and the network must not attend to it (`TransformerConfig.pads`).
    ValueError for length < 1 and an empty end.
    """

    vocabulary: Vocabulary
    length: int
    between: str = "\n"
    end: str = END
    fill: bool = False

    def __post_init__(self):
        if self.length < 1 or not self.end:
            raise ValueError(f"Layout(length={self.length}, end={self.end!r}): a length of at least 1 and an end")

    def encoded(self, record: Record, prompt: str, answer: str) -> list[np.ndarray]:
        """The tokens of two fields with what follows each. ValueError that names the record and the field, for a text
        that the vocabulary cannot write."""
        texts = {prompt: record.fields[prompt] + self.between, answer: record.fields[answer] + self.end}
        parts = []
        for field, text in texts.items():
            try:
                parts.append(self.vocabulary.encode(text))
            except ValueError as error:
                raise record.error(f"the field {field!r}: {error}") from None
        return parts

    def row(self, record: Record, prompt: str, answer: str) -> tuple[Int32[np.ndarray, "L"], Bool[np.ndarray, "L"]]:
        """(tokens, eligible) of two fields of a record. ValueError as `encoded`, and where both are longer than a
        row."""
        parts = self.encoded(record, prompt, answer)
        size = sum(map(len, parts))
        if size > self.length:
            raise record.error(
                f"{prompt!r} and {answer!r} have {size} tokens with what ends them, and the length is {self.length}: "
                "use a greater length, or leave the record out"
            )
        rest = self.length - size
        end = self.vocabulary.encode(self.end)
        tail = np.resize(end, rest) if self.fill else np.full(rest, self.vocabulary.size + 1)
        eligible = np.arange(self.length) >= len(parts[0])
        if not self.fill:
            eligible &= np.arange(self.length) < size
        return np.concatenate([*parts, tail]).astype(np.int32), eligible

    def rows(self, records: Sequence[Record], prompt: str, answer: str) -> RowSource:
        """All records. ValueError as `row`, for the first that does not fit."""
        return RowSource(*map(np.stack, zip(*(self.row(r, prompt, answer) for r in records), strict=True)))

    def packed(self, records: Sequence[Record], prompt: str, answer: str) -> RowSource:
        """The records one after the other in as few rows as the order allows, each a segment of its row (from 1 on; 0
        is padding), no record cut. With `fill` a record ends with one end, and padding follows the last one all the
        same. ValueError as `row`."""
        alone = dataclasses.replace(self, fill=False)
        rows, room = [], 0
        for record in records:
            tokens, eligible = alone.row(record, prompt, answer)
            size = int((tokens != self.vocabulary.size + 1).sum())
            if size > room:
                rows.append(
                    [
                        np.full(self.length, self.vocabulary.size + 1),
                        np.zeros(self.length, bool),
                        np.zeros(self.length, int),
                    ]
                )
                room = self.length
            place, number = slice(self.length - room, self.length - room + size), rows[-1][2].max() + 1
            for whole, part in zip(rows[-1], (tokens[:size], eligible[:size], number), strict=True):
                whole[place] = part
            room -= size
        tokens, eligible, segments = map(np.stack, zip(*rows, strict=True))
        return RowSource(tokens.astype(np.int32), eligible, segments=segments)

    def text(self, tokens: Integer[np.ndarray, "L"], eligible: Bool[np.ndarray, "L"]) -> str:
        """What stands in the eligible positions, up to the first end."""
        return self.vocabulary.decode(tokens[eligible]).partition(self.end)[0]


def answers(
    path: str | os.PathLike,
    vocabulary: Vocabulary | None = None,
    splits: Mapping[str, float] = SPLITS,
    *,
    length: int,
    fields: tuple[str, str] = ("prompt", "answer"),
    between: str = "\n",
    end: str = END,
    fill: bool = True,
    skip_longer: bool = False,
    pack: bool = False,
) -> Corpus:
    """The (prompt, answer) of each line of a file of JSON lines as rows of `length` (`Layout`), split by position.

    `vocabulary`: the characters of the file by default, with `between` and `end`. `meta` has, of each split, its
    place in the file, its rows, and the tokens that are eligible. With `skip_longer` records that are longer than a row
    are left out, and counted there. With `pack` several records of the split "train" stand in one row
    (`Layout.packed`), whose `segments` tell them apart. Errors as `read_records` and `Layout`; ValueError for a split
    that is empty, and for rows that are to be both packed and filled.
    """
    check_fractions(splits)
    if pack and fill:
        raise ValueError("pack=True and fill=True: rows that are packed are not filled up with ends; use fill=False")
    records = read_records(path, fields)
    layout = Layout(vocabulary or characters_of(records, between, end), length, between, end, fill)
    every = len(records)
    if skip_longer:
        records = [r for r in records if sum(map(len, layout.encoded(r, *fields))) <= length]
        if not records:
            raise ValueError(
                f"{str(path)!r}: all {every} records are longer than {length} tokens: use a greater length"
            )
    cuts = position_cuts(len(records), splits)
    if empty := [name for name, (start, stop) in cuts.items() if start == stop]:
        raise ValueError(f"{str(path)!r} has {len(records)} records, which leaves none for {empty[0]}: give more")
    made = {
        name: (layout.packed if pack and name == "train" else layout.rows)(records[start:stop], *fields)
        for name, (start, stop) in cuts.items()
    }
    meta = {
        "name": pathlib.Path(path).name,
        "source": str(path),
        "sha256": content_hash(path),
        "split_by": "position",
        "left out, for they are longer than a row": every - len(records),
        "splits": {
            name: {"start": start, "stop": stop, "rows": len(made[name]), "tokens": int(made[name].eligible.sum())}
            for name, (start, stop) in cuts.items()
        },
    }
    take = lambda field: {name: getattr(source, field) for name, source in made.items()}
    return Corpus(take("rows"), layout.vocabulary, meta, take("eligible"), take("segments").get("train"))


@dataclasses.dataclass(frozen=True)
class PairSource:
    """Pairs of answers: tokens and eligible [N, 2, L], the preferred one first; of pairs of a file also the `lines` [N]
    on which they stand, by which a person finds them. ValueError for other shapes."""

    tokens: np.ndarray
    eligible: np.ndarray
    lines: np.ndarray | None = None

    def __post_init__(self):
        shape = self.tokens.shape
        if len(shape) != 3 or shape[1] != 2 or not shape[0] or self.eligible.shape != shape:
            raise ValueError(f"tokens {shape} and eligible {self.eligible.shape}: both must be [N, 2, L], N >= 1")

    def __len__(self) -> int:
        return len(self.tokens)

    def gather(self, indices: Integer[np.ndarray, "b"]) -> Fields:
        """The pairs at `indices`, which are also their numbers `pair` [b]: draws that stay the same go by them."""
        found = {"tokens": self.tokens[indices].astype(np.int32), "eligible": self.eligible[indices]}
        line = {} if self.lines is None else {"line": self.lines[indices].astype(np.int32)}
        return found | {"pair": indices.astype(np.int32)} | line


def preference_pairs(
    records: Sequence[Record], layout: Layout, fields: tuple[str, str, str] = ("prompt", "chosen", "rejected")
) -> PairSource:
    """The pairs of records with (prompt, preferred answer, other answer).

    ValueError that names the record: as `Layout.row`, and for two answers that are the same.
    """
    prompt, chosen, rejected = fields
    rows = []
    for record in records:
        if record.fields[chosen] == record.fields[rejected]:
            raise record.error(f"{chosen!r} and {rejected!r} are the same: there is nothing to prefer")
        rows.append([layout.row(record, prompt, answer) for answer in (chosen, rejected)])
    tokens, eligible = (np.stack([np.stack([answer[k] for answer in row]) for row in rows]) for k in range(2))
    return PairSource(tokens, eligible, np.array([record.line for record in records]))
