"""Prompts and answers: what becomes of a record, and what is said of one that will not do."""

import json
from pathlib import Path

import numpy as np
import pytest

from mdmjax.data import Bytes, Characters, Layout, PairSource, answers, characters_of, preference_pairs, read_records

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k.test.jsonl"
PAIR = dict(prompt="1+1", chosen="2", rejected="3")


def written(tmp_path, *lines):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def pairs_of(path, length=12, **choices):
    records = read_records(path, ("prompt", "chosen", "rejected"))
    return preference_pairs(records, Layout(characters_of(records, "\n\0"), length, **choices))


def test_a_row_is_prompt_answer_end_and_padding(tmp_path):
    """Only the answer and its end may be hidden; filled up with ends, those too."""
    records = read_records(written(tmp_path, dict(q="ab", a="c", other=1), "", dict(q="a", a="cc")), ("q", "a"))
    assert [r.line for r in records] == [1, 3]
    vocabulary = characters_of(records, "\n\0")
    assert vocabulary == Characters("\0\nabc")
    layout = Layout(vocabulary, 7)
    source = layout.rows(records, "q", "a")
    pad = vocabulary.size + 1
    assert source.rows.tolist() == [[2, 3, 1, 4, 0, pad, pad], [2, 1, 4, 4, 0, pad, pad]]
    assert source.eligible.tolist() == [[False] * 3 + [True] * 2 + [False] * 2, [False] * 2 + [True] * 3 + [False] * 2]
    filled = Layout(vocabulary, 7, fill=True).rows(records, "q", "a")
    assert filled.rows.tolist() == [[2, 3, 1, 4, 0, 0, 0], [2, 1, 4, 4, 0, 0, 0]]
    assert filled.eligible[:, 2:].tolist() == [[False] + [True] * 4, [True] * 5]
    for made in (source, filled):
        assert [layout.text(*row) for row in zip(made.rows, made.eligible, strict=True)] == ["c", "cc"]
    longer = Layout(vocabulary, 8, between="\n\n", end="\0\0", fill=True).rows(records, "q", "a")
    assert longer.rows[0].tolist() == [2, 3, 1, 1, 4, 0, 0, 0]


def test_pairs_have_the_preferred_answer_first(tmp_path):
    source = pairs_of(written(tmp_path, PAIR, dict(prompt="2+9", chosen="11", rejected="1")))
    assert len(source) == 2 and source.tokens.shape == source.eligible.shape == (2, 2, 12)
    batch = source.gather(np.array([1, 0]))
    assert batch["tokens"].dtype == np.int32 and batch["pair"].tolist() == [1, 0]
    assert (batch["eligible"].sum(2) == [[3, 2], [2, 2]]).all()


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: a list, and an object with prompt, chosen, rejected is needed"),
        (dict(prompt="1+1", chosen="2"), "line 2: the field 'rejected' is missing; there are prompt, chosen"),
        (PAIR | dict(chosen=""), "line 2: the field 'chosen' is \"\": a text is needed"),
        (PAIR | dict(chosen=2), "line 2: the field 'chosen' is 2: a text is needed"),
        (PAIR | dict(rejected="2"), "line 2: 'chosen' and 'rejected' are the same"),
        (PAIR | dict(prompt="1+1111111"), "line 2: 'prompt' and 'chosen' have 12 tokens"),
        (PAIR | dict(rejected="2 or so"), "line 2: 'prompt' and 'rejected' have 12 tokens"),
    ],
)
def test_a_record_that_will_not_do_is_named(tmp_path, line, words):
    path = written(tmp_path, PAIR, line)
    with pytest.raises(ValueError) as error:
        pairs_of(path, length=11)
    assert str(error.value).startswith(f"{path}, ") and words in str(error.value), error.value


def test_other_mistakes(tmp_path):
    records = read_records(written(tmp_path, PAIR), ("prompt", "chosen", "rejected"))
    with pytest.raises(ValueError, match="line 1: the field 'chosen': character '2'"):
        preference_pairs(records, Layout(Characters("1+3\n\0"), 12))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_records(tmp_path / "none", ("a",))
    with pytest.raises(ValueError, match="holds no record"):
        read_records(written(tmp_path, ""), ("a",))
    (tmp_path / "bytes").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="line 1: byte 7 is not UTF-8"):
        read_records(tmp_path / "bytes", ("a",))
    with pytest.raises(ValueError, match="a length of at least 1 and an end"):
        Layout(Bytes(), 4, end="")
    with pytest.raises(ValueError, match=r"both must be \[N, 2, L\]"):
        PairSource(np.zeros((2, 4), int), np.ones((2, 4), bool))


def test_a_corpus_of_answers(tmp_path):
    """Split by position; what is eligible beside it; records that are longer than a row left out, if that is wanted."""
    lines = [dict(q=f"{i}+1", a=str(i + 1) * (9 if i == 3 else 1)) for i in range(40)]
    path, how = written(tmp_path, *lines), dict(length=8, fields=("q", "a"))
    with pytest.raises(ValueError, match="line 4: 'q' and 'a' have 14 tokens"):
        answers(path, **how)
    found = answers(path, skip_longer=True, **how)
    assert {name: rows.shape for name, rows in found.splits.items()} == {
        "train": (35, 8), "validation": (2, 8), "test": (2, 8),
    }  # fmt: skip
    assert found.meta["left out, for they are longer than a row"] == 1
    assert found.eligible["train"].shape == (35, 8)
    assert found.meta["splits"]["test"]["tokens"] == found.eligible["test"].sum()
    layout = Layout(found.vocabulary, 8, fill=True)
    texts = [layout.text(*row) for row in zip(found.splits["train"], found.eligible["train"], strict=True)]
    assert texts[:4] == ["1", "2", "3", "5"]
    with pytest.raises(ValueError, match="which leaves none for validation"):
        answers(written(tmp_path, *lines[:2]), **how)
    with pytest.raises(ValueError, match="all 1 records are longer than 3 tokens"):
        answers(written(tmp_path, lines[0]), length=3, fields=("q", "a"), skip_longer=True)


def test_packed_rows(tmp_path):
    """Records one after the other, none cut, each with a number of its own; unpacked they are what they were."""
    lines = [dict(q="q" * (1 + i % 3), a="a" * (1 + i % 4)) for i in range(20)]
    records = read_records(written(tmp_path, *lines), ("q", "a"))
    layout = Layout(characters_of(records, "\n\0"), 16)
    alone, packed = layout.rows(records, "q", "a"), layout.packed(records, "q", "a")
    pad = layout.vocabulary.size + 1
    assert len(packed) < 12 and packed.rows.shape[1] == 16 and (packed.segments.max(1) >= 1).all()
    assert ((packed.rows == pad) == (packed.segments == 0)).all() and not packed.eligible[packed.segments == 0].any()
    found = [
        (row[s == k].tolist(), e[s == k].tolist())
        for row, e, s in zip(packed.rows, packed.eligible, packed.segments, strict=True)
        for k in range(1, s.max() + 1)
    ]
    cut = lambda row, e: (row[row != pad].tolist(), e[row != pad].tolist())
    assert found == [cut(*row) for row in zip(alone.rows, alone.eligible, strict=True)]
    assert packed.gather(np.array([0]))["segments"].tolist() == [packed.segments[0].tolist()]
    corpus = answers(tmp_path / "pairs.jsonl", length=16, fields=("q", "a"), fill=False, pack=True)
    assert corpus.segments.shape == corpus.splits["train"].shape and len(corpus.splits["train"]) < 18
    assert len(corpus.splits["test"]) == 1
    with pytest.raises(ValueError, match="pack=True and fill=True"):
        answers(tmp_path / "pairs.jsonl", length=16, fields=("q", "a"), pack=True)


@pytest.mark.skipif(not GSM8K.exists(), reason="needs gsm8k.test.jsonl beside the checkout")
def test_word_problems_of_primary_school():
    """Real records: all of them fit, and each answer reads back as it was."""
    records = read_records(GSM8K, ("question", "answer"))
    source = Layout(Bytes(), 2048).rows(records, "question", "answer")
    assert len(source) == 1319 and all("####" in r.fields["answer"] for r in records)
    for k in (0, 700, 1318):
        assert Layout(Bytes(), 1).text(source.rows[k], source.eligible[k]) == records[k].fields["answer"]
