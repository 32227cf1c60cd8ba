"""Corpora: what is in the splits, what is recorded of them, and what is said of files that are no text."""

import hashlib
import json

import numpy as np
import pytest

from mdmjax.data import Bytes, Characters, HuggingFace, corpora, files, python_docs, table, text_files


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMJAX_CACHE", str(tmp_path / "cache"))


def whole(corpus):
    return "".join(corpus.vocabulary.decode(part) for part in corpus.splits.values())


def test_python_docs_are_this_pythons_topics():
    from pydoc_data.topics import topics

    corpus = python_docs()
    text = whole(corpus)
    assert text == "\n\n".join(topics[name] for name in sorted(topics))
    assert corpus.meta["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.vocabulary == Characters.of(text)
    record = corpus.meta["splits"]
    assert list(record) == ["train", "validation", "test"] and corpus.meta["split_by"] == "position"
    assert record["train"]["stop"] == round(0.9 * len(text)) == record["validation"]["start"]
    assert record["validation"]["stop"] == round(0.95 * len(text)) and record["test"]["stop"] == len(text)
    assert isinstance(corpus.splits["train"], np.memmap) and corpus.splits["train"].dtype == np.uint8
    assert json.loads(json.dumps(corpus.meta)) == corpus.meta


def test_split_boundaries_are_characters_and_tokens_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("éé中中ab\n" * 10)
    corpus = text_files(tmp_path / "a.txt", Bytes(), {"train": 0.5, "test": 0.5})
    assert whole(corpus) == "éé中中ab\n" * 10
    assert corpus.vocabulary.decode(corpus.splits["train"]) == "éé中中ab\n" * 5
    expected = {"tokens": 65, "characters": 35, "characters_per_token": 35 / 65}
    assert corpus.meta["splits"]["train"] == {**expected, "start": 0, "stop": 35}
    assert corpus.meta["splits"]["test"] == {**expected, "start": 35, "stop": 70}
    assert corpus.meta["sha256"] == hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()


def test_folder_is_read_in_order_and_joined_at_line_ends(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfthird\r\n")  # with a byte order mark
    (tmp_path / "d.md").write_text("not read")
    assert whole(text_files(tmp_path)) == "first\nsecond\nthird\r\n"


def test_own_splits(tmp_path):
    for name, text in ("x", "aab\n" * 3), ("y", "bc\n"):
        (tmp_path / name).write_text(text)
    corpus = text_files({"train": tmp_path / "x", "test": tmp_path / "y"})
    assert {k: corpus.vocabulary.decode(v) for k, v in corpus.splits.items()} == {"train": "aab\n" * 3, "test": "bc\n"}
    assert corpus.meta["split_by"] == "source" and corpus.vocabulary.characters == "\nabc"
    assert corpus.meta["splits"]["test"]["start"] == 0 and corpus.meta["splits"]["test"]["stop"] == 3
    with pytest.raises(ValueError, match=r"'c' .* at position 1 \(line 1\) of the split 'test'"):
        text_files({"train": tmp_path / "x", "test": tmp_path / "y"}, Characters("\nab"))


def test_which_file_is_in_which_split_matters_to_the_cache(tmp_path):
    for name in "12":
        (tmp_path / name).mkdir()
    for name, text in ("1/a.txt", "a\n"), ("1/b.txt", "b\n"), ("2/c.txt", "c\n"):
        (tmp_path / name).write_text(text)
    first = text_files({"train": tmp_path / "1", "test": tmp_path / "2"})
    (tmp_path / "1/b.txt").rename(tmp_path / "2/b.txt")
    second = text_files({"train": tmp_path / "1", "test": tmp_path / "2"})
    assert [len(v) for v in first.splits.values()] == [4, 2] and [len(v) for v in second.splits.values()] == [2, 4]


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_pieces_do_not_show(tmp_path, monkeypatch, piece):
    """Whatever the size of the pieces a text is read in, the tokens are those of the whole text."""
    monkeypatch.setattr(files, "PIECE", piece)
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ab é中𝔘\n"), 400))
    (tmp_path / "a.txt").write_text(text)
    for vocabulary in None, Bytes():
        corpus = text_files(tmp_path / "a.txt", vocabulary, cache_dir=tmp_path / str(piece))
        assert whole(corpus) == text
        assert len(corpus.vocabulary.decode(corpus.splits["train"])) == 360


def test_pieces_do_not_show_to_a_tokenizer_that_joins_white_space(tmp_path, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers", reason="the extra 'hf' is not installed")
    text = "one two\nthree\n\n  four\n \nfive\nsix\n\n\nseven eight\nnine\n" * 20
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    vocabulary = HuggingFace(tokenizer.to_str())
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr(files, "PIECE", 50)
    corpus = text_files(tmp_path / "a.txt", vocabulary, {"train": 1.0})
    np.testing.assert_array_equal(corpus.splits["train"], vocabulary.encode(text))
    assert corpus.splits["train"].dtype == np.uint16
    assert corpus.meta["splits"]["train"]["characters_per_token"] == len(text) / len(corpus.splits["train"]) > 2


def test_unknown_character_far_into_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 10)
    (tmp_path / "a.txt").write_text("abc\nab\n" * 20 + "ab€")
    with pytest.raises(ValueError, match=r"'€' \(U\+20AC\) at position 142 \(line 41\) is not among"):
        text_files(tmp_path / "a.txt", Characters("abc\n"), {"all": 1.0})
    assert not list((tmp_path / "cache").glob("*"))  # a failure leaves nothing behind


def test_a_tiny_text_has_all_splits(tmp_path):
    (tmp_path / "a.txt").write_text("ab")
    corpus = text_files(tmp_path / "a.txt")
    assert {k: len(v) for k, v in corpus.splits.items()} == {"train": 2, "validation": 0, "test": 0}


def test_bad_files_are_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 16)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"a" * 100 + "é".encode("latin-1") + b"a" * 50)
    (tmp_path / "cut.txt").write_bytes(b"\xef\xbb\xbf" + b"a" * 12 + "中".encode()[:2])
    (tmp_path / "nul.txt").write_bytes(b"a" * 33 + b"\0")
    (tmp_path / "folder").mkdir()
    for name, error, words in [
        ("empty.txt", ValueError, "is empty: a UTF-8 text with at least one character"),
        ("latin.txt", ValueError, "byte 100 is 0xE9 .* give a text file, converted to UTF-8"),
        ("cut.txt", ValueError, "byte 15 is 0xE4"),
        ("nul.txt", ValueError, "byte 33 is zero"),
        ("none.txt", FileNotFoundError, "no such file or folder .* give the path"),
        ("folder", FileNotFoundError, r"holds no \*.txt file: put"),
    ]:
        with pytest.raises(error, match=words) as caught:
            text_files(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="map split names to paths"):
        text_files({})


@pytest.mark.parametrize(
    "read",
    [text_files, lambda path: text_files({"train": path}, Bytes()), lambda path: table(path, {"train": 1.0})],
    ids=["scanned", "tokenised", "table"],
)
def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch, read):
    """A download that goes on, say: tokens are kept under the hash of the content that they are the tokens of."""
    path, hashed = tmp_path / "a.txt", files.hashed
    path.write_text("word\nmore\n")

    def then_grows(paths):
        found = hashed(paths)
        with open(path, "a") as file:
            file.write("word\n")
        return found

    monkeypatch.setattr(files, "hashed", then_grows)
    with pytest.raises(ValueError, match=r"^[^\n]*a.txt' changed while it was read: run again"):
        read(path)
    assert not list((tmp_path / "cache").glob("*"))
    monkeypatch.undo()
    monkeypatch.setenv("MDMJAX_CACHE", str(tmp_path / "cache"))
    assert sum(map(len, read(path).splits.values()))


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_splits_are_fractions_of_the_whole(fractions):
    with pytest.raises(ValueError, match="positive fractions that sum to 1"):
        python_docs(splits=fractions)


def test_cuts_cover_everything():
    for total in range(50):
        cuts = list(corpora.position_cuts(total, {"a": 0.7, "b": 0.1, "c": 0.1, "d": 0.1}).values())
        assert cuts[0][0] == 0 and cuts[-1][1] == total
        assert all(a[1] == b[0] for a, b in zip(cuts, cuts[1:], strict=False))


def test_real_text(real_data):
    path = real_data("tinyshakespeare.txt")
    corpus = text_files(path)
    assert corpus.vocabulary.size == 65
    assert [len(v) for v in corpus.splits.values()] == [1_003_855, 55_769, 55_770]
    assert whole(corpus) == path.read_text()
