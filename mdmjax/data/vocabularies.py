"""Vocabularies: text to token ids 0..V-1 and back. `encode` never produces the mask (id V) or PAD (id V + 1)."""

import csv
import dataclasses
import functools
import io
import os
import pathlib
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int32, Integer

MASK_GLYPH = "▒"


@runtime_checkable
class Vocabulary(Protocol):
    """What the library asks of a vocabulary. `from_dict(vocabulary.to_dict())` rebuilds it, from a checkpoint say."""

    @property
    def size(self) -> int:
        """V, the number of tokens without the mask."""
        ...

    def encode(self, text: str) -> Int32[np.ndarray, "n"]:
        """The ids of a text. Raises ValueError where the text cannot be written in this vocabulary."""
        ...

    def decode(self, ids: Integer[np.ndarray, "n"], mask: str = MASK_GLYPH) -> str:
        """The text of ids; each mask (V) becomes the glyph `mask`, PAD (V + 1) nothing. ValueError for any other id."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description."""
        ...


class UnknownCharacter(ValueError):
    """A character that a character vocabulary does not have. Says where it is, and what is known."""

    def __init__(self, character: str, position: int, line: int, known: str, where: str = ""):
        self.character, self.position, self.line, self.known = character, position, line, known
        shown = repr(known if len(known) <= 100 else known[:100] + "…")
        super().__init__(
            f"character {character!r} (U+{ord(character):04X}) at position {position} (line {line}){where} is not "
            f"among the {len(known)} characters of the vocabulary, {shown}: remove it from the text, or train with "
            "data.vocabulary='bytes', which can write any text"
        )

    def after(self, characters: int, lines: int, where: str = "") -> "UnknownCharacter":
        """The same complaint about a text that has `characters` characters and `lines` line ends before this one."""
        return UnknownCharacter(self.character, self.position + characters, self.line + lines, self.known, where)


@dataclasses.dataclass(frozen=True)
class Characters:
    """One token per Unicode character; the id is the rank in `characters`."""

    characters: str

    def __post_init__(self):
        if not self.characters or len(set(self.characters)) != len(self.characters):
            raise ValueError("a character vocabulary needs at least one character, each given once")

    @classmethod
    def of(cls, text: str) -> "Characters":
        """The characters of a text, sorted by code point."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        """The id of each code point, -1 where unknown; the last entry stands for all higher code points."""
        codes = code_points(self.characters)
        ids = np.full(int(codes.max()) + 2, -1, np.int32)
        ids[codes] = np.arange(len(codes))
        return ids

    def encode(self, text: str) -> Int32[np.ndarray, "n"]:
        """One id per character. Raises UnknownCharacter, a ValueError, at the first character that is not in it."""
        ids = self._ids[np.minimum(code_points(text), len(self._ids) - 1)]
        if ids.size and ids.min() < 0:
            position = int(np.argmax(ids < 0))
            raise UnknownCharacter(text[position], position, text.count("\n", 0, position) + 1, self.characters)
        return ids

    def decode(self, ids: Integer[np.ndarray, "n"], mask: str = MASK_GLYPH) -> str:
        return decode_runs(ids, self.size, mask, lambda run: _from_code_points(code_points(self.characters)[run]))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": self.characters}


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The 256 bytes of UTF-8: writes any text."""

    @property
    def size(self) -> int:
        return 256

    def encode(self, text: str) -> Int32[np.ndarray, "n"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

    def decode(self, ids: Integer[np.ndarray, "n"], mask: str = MASK_GLYPH) -> str:
        """As in the protocol; bytes that are not UTF-8 become U+FFFD."""
        return decode_runs(ids, 256, mask, lambda run: run.astype(np.uint8).tobytes().decode("utf-8", errors="replace"))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bytes"}


@dataclasses.dataclass(frozen=True)
class HuggingFace:
    """A tokenizer of Hugging Face `tokenizers`, held by its definition: the text of a tokenizer.json.

    No special tokens are added. A tokenizer that normalises its input or has an <unk> writes an altered text: its bits
    per character are those of the altered text.
    """

    definition: str

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "HuggingFace":
        """Reads a tokenizer.json. Raises FileNotFoundError, ValueError, or ModuleNotFoundError without `tokenizers`."""
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {str(path)!r}: give the path of a tokenizer.json")
        try:
            vocabulary = cls(path.read_text(encoding="utf-8"))
            vocabulary._tokenizer  # noqa: B018  parse it now, so that a wrong file is named here
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not a Hugging Face tokenizer.json ({_one_line(error)})") from None
        return vocabulary

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            import tokenizers
        except ImportError:
            raise ModuleNotFoundError(
                "a Hugging Face vocabulary needs the package 'tokenizers', which is not installed: "
                "pip install 'mdmjax[hf]', or use data.vocabulary='bytes'"
            ) from None
        try:
            tokenizer = tokenizers.Tokenizer.from_str(self.definition)
        except Exception as error:  # the binding raises bare Exception
            raise ValueError(_one_line(error)) from None
        tokenizer.no_truncation()  # a definition may ask for both, meant for the input of the model it came with
        tokenizer.no_padding()
        return tokenizer

    @functools.cached_property
    def size(self) -> int:
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1  # ids may have gaps

    def encode(self, text: str) -> Int32[np.ndarray, "n"]:
        # The batch form, for it alone releases the GIL: corpora are tokenised by several threads.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.asarray(encoding.ids, np.int32)

    def decode(self, ids: Integer[np.ndarray, "n"], mask: str = MASK_GLYPH) -> str:
        def text(run: np.ndarray) -> str:
            return self._tokenizer.decode(run.tolist(), skip_special_tokens=False)

        return decode_runs(ids, self.size, mask, text)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "huggingface", "definition": self.definition}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The vocabulary of a table: column c owns the ids offsets[c] .. offsets[c] + len(labels[c]) - 1.

    A categorical column has edges None and a label for each value. A numeric column has inner bin edges, and the value
    x falls in bin #{edges <= x}; its labels are "low..high", the range of the training values in the bin, and a last
    label "" where cells may be empty.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[float, ...] | None, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.labels))

    @property
    def offsets(self) -> Int32[np.ndarray, "L"]:
        """The first id of each column."""
        return np.cumsum([0, *map(len, self.labels[:-1])], dtype=np.int32)

    def encode_column(self, column: int, cells: list[str]) -> Int32[np.ndarray, "N"]:
        """Ids of the cells of one column, each a value or a label. ValueError names the first cell that is neither."""
        labels, edges = self.labels[column], self.edges[column]
        index = {label: i for i, label in enumerate(labels)}
        ids = np.array([index.get(cell, -1) for cell in cells], np.int32)
        rest = np.flatnonzero(ids < 0)
        if edges is not None and rest.size:
            values = [number(cells[i]) for i in rest]
            found = np.searchsorted(edges, [np.nan if v is None else v for v in values], side="right")
            missing = index.get("", -1)
            ids[rest] = [-1 if v is None else missing if v != v else f for v, f in zip(values, found, strict=True)]
        if ids.size and ids.min() < 0:
            row = int(np.argmax(ids < 0))
            right = "a number" if edges is not None else "one of " + ", ".join(map(repr, labels[:10]))
            more = ", …" if edges is None and len(labels) > 10 else ""
            raise ValueError(
                f"row {row + 1}, column {self.names[column]!r}: {cells[row]!r} should be {right}{more}, as in the "
                "table that the vocabulary was made from"
            )
        return ids + self.offsets[column]

    def encode(self, text: str) -> Int32[np.ndarray, "n"]:
        """Ids of CSV lines without a header, row after row. ValueError for a ragged row or an unknown value."""
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) if row]
        for i, row in enumerate(rows):
            if len(row) != len(self.names):
                raise ValueError(f"row {i + 1} has {len(row)} cells where the table has {len(self.names)} columns")
        columns = [self.encode_column(c, [row[c] for row in rows]) for c in range(len(self.names))]
        return np.stack(columns, axis=1).reshape(-1)

    def decode(self, ids: Integer[np.ndarray, "n"], mask: str = MASK_GLYPH) -> str:
        """CSV lines of labels, one per row. A token in the wrong column shows as its own label."""
        check_ids(ids, self.size)
        texts = [label for column in self.labels for label in column] + [mask, ""]
        cells = [texts[i] for i in ids]
        out = io.StringIO()
        width = len(self.names)
        csv.writer(out, lineterminator="\n").writerows(cells[i : i + width] for i in range(0, len(cells), width))
        return out.getvalue()

    def draw_column(
        self,
        column: int,
        ids: Int32[np.ndarray, "N"],
        generator: np.random.Generator,
        values: Float64[np.ndarray, "M"] | None = None,
    ) -> Float64[np.ndarray, "N"]:
        """Numbers in place of the bins of a numeric column: uniform in the range of the bin's training values.

        With `values`, the column's numbers in the training rows, one of those in the bin in place of that: the law
        inside a bin is then the data's. nan where the cell is empty. ValueError for a categorical column, for an id
        that is not the column's, and for `values` of which a bin asked for has none.
        """
        labels, local = self.labels[column], np.asarray(ids) - self.offsets[column]
        if self.edges[column] is None:
            raise ValueError(f"column {self.names[column]!r} is categorical: its values are not numbers to draw")
        if local.size and not (0 <= local.min() and local.max() < len(labels)):
            raise ValueError(f"column {self.names[column]!r} has the ids {self.offsets[column]}..+{len(labels) - 1}")
        if values is not None:
            return self._draw_values(column, local, generator, np.sort(values[~np.isnan(values)]))
        ends = [label.partition("..")[::2] if label else ("nan", "nan") for label in labels]
        low, high = np.array([(float(a), float(b or a)) for a, b in ends]).T
        return low[local] + (high - low)[local] * generator.random(len(local))

    def _draw_values(self, column: int, local: np.ndarray, generator: np.random.Generator, values: np.ndarray):
        """One of the sorted `values` that lie in the bin."""
        ends = np.concatenate([[0], np.searchsorted(values, self.edges[column]), [len(values)]])
        empty = np.array([not label for label in self.labels[column]])[local]
        chosen = np.where(empty, 0, local)
        count = np.diff(ends)[chosen]
        if (count[~empty] == 0).any():
            bins = sorted({self.labels[column][i] for i in chosen[~empty & (count == 0)]})
            raise ValueError(f"column {self.names[column]!r}: none of the {len(values)} values lies in {bins}")
        place = ends[chosen] + (generator.random(len(local)) * count).astype(int)
        return np.where(empty, np.nan, values[np.minimum(place, len(values) - 1)])

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "columns", **dataclasses.asdict(self)}


def from_dict(description: dict[str, Any]) -> Vocabulary:
    """The vocabulary that `to_dict` described. Raises ValueError for a description of no known kind."""
    fields = {key: value for key, value in description.items() if key != "kind"}
    kind = description.get("kind")
    if kind == "columns":
        fields = {key: tuple(tuple(v) if isinstance(v, list | tuple) else v for v in fields[key]) for key in fields}
    kinds = {"characters": Characters, "bytes": Bytes, "huggingface": HuggingFace, "columns": Columns}
    if kind not in kinds:
        raise ValueError(f"unknown kind of vocabulary {kind!r}: one of {', '.join(kinds)} is expected")
    return kinds[kind](**fields)


def number(cell: str) -> float | None:
    """The number that a cell holds, None where it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text, uint32 [n]."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def _from_code_points(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", errors="surrogatepass")


def check_ids(ids: np.ndarray, size: int) -> None:
    """Raises ValueError unless all ids are tokens, the mask (V) or PAD (V + 1)."""
    if ids.size and not (0 <= ids.min() and ids.max() <= size + 1):
        wrong = ids[(ids < 0) | (ids > size + 1)][0]
        raise ValueError(f"id {wrong} is no token: ids are 0..{size - 1}, the mask {size} and PAD {size + 1}")


def decode_runs(ids: np.ndarray, size: int, mask: str, text) -> str:
    """Decodes each run of tokens between masks by `text(run)`, and puts the glyph `mask` for every mask."""
    check_ids(ids, size)
    ids = ids[ids != size + 1]
    runs = np.split(ids, np.flatnonzero(ids == size))  # every run but the first begins with its mask
    return mask.join(text(run[i > 0 :]) for i, run in enumerate(runs))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
