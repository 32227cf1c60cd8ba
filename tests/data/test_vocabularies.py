"""Vocabularies write any text of theirs and read it back."""

import builtins
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.data import Bytes, Characters, Columns, HuggingFace, UnknownCharacter, vocabulary_from_dict

ALPHABET = "\n abcé▒𝔘中"


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    """A byte-level BPE tokenizer.json, trained on a few lines."""
    tokenizers = pytest.importorskip("tokenizers", reason="the extra 'hf' is not installed")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat\n", "that is that"], trainer)
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@given(st.text(ALPHABET))
def test_characters_round_trip(text):
    vocabulary = Characters.of(ALPHABET)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int32 and len(ids) == len(text)
    assert [vocabulary.characters[i] for i in ids] == list(text)
    assert vocabulary.decode(ids) == text


@given(st.text())
def test_bytes_round_trip(text):
    ids = Bytes().encode(text)
    assert ids.dtype == np.int32 and ids.tolist() == list(text.encode())
    assert Bytes().decode(ids) == text


@given(st.text())
def test_huggingface_round_trip(byte_pairs, text):
    vocabulary = HuggingFace.from_file(byte_pairs)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int32 and (ids < vocabulary.size).all()
    assert vocabulary.decode(ids) == text


def test_huggingface_keeps_special_tokens_and_merges(byte_pairs):
    vocabulary = HuggingFace.from_file(byte_pairs)
    text = "that cat<|end|>the"
    ids = vocabulary.encode(text)
    assert 0 in ids and len(ids) < len(text) - len("<|end|>")
    assert vocabulary.decode(ids) == text


def test_huggingface_neither_truncates_nor_pads(byte_pairs, tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="the extra 'hf' is not installed")
    tokenizer = tokenizers.Tokenizer.from_file(str(byte_pairs))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = HuggingFace.from_file(tmp_path / "tokenizer.json")
    text = "a " * 100
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary.encode("a")) == 1


def test_masks_and_pads_in_decoding(byte_pairs):
    for vocabulary in Characters.of("abc"), Bytes(), HuggingFace.from_file(byte_pairs):
        a, b = vocabulary.encode("a"), vocabulary.encode("b")
        mask, pad = np.array([vocabulary.size]), np.array([vocabulary.size + 1])
        ids = np.concatenate([mask, a, mask, mask, b, b, mask, pad, pad])
        assert vocabulary.decode(ids) == "▒a▒▒bb▒"
        assert vocabulary.decode(ids, mask="[?]") == "[?]a[?][?]bb[?]"
        assert vocabulary.decode(ids[:0]) == ""
        for wrong in -1, vocabulary.size + 2:
            with pytest.raises(ValueError, match=f"id {wrong} is no token: ids are 0..{vocabulary.size - 1}, the mask"):
                vocabulary.decode(np.array([0, wrong]))


def test_bytes_cut_inside_a_character_show_the_replacement():
    assert Bytes().decode(np.array([0xC3, 256, 0x61])) == "\ufffd▒a"


@pytest.mark.parametrize("text", ["zé", "ab\nc𝔘", "ab\nc\U0010ffff"])
def test_unknown_character_is_named_with_its_place(text):
    with pytest.raises(UnknownCharacter) as caught:
        Characters("\nabcz").encode(text)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError) and "\n" not in message
    assert repr(text[-1]) in message and f"U+{ord(text[-1]):04X}" in message
    assert f"position {len(text) - 1} (line {1 + text.count(chr(10))})" in message
    assert "5 characters" in message and "data.vocabulary='bytes'" in message


def test_a_character_vocabulary_has_each_character_once():
    for characters in "", "aba":
        with pytest.raises(ValueError, match="each given once"):
            Characters(characters)


def test_description_rebuilds_the_vocabulary(byte_pairs):
    columns = Columns(("a", "b"), (("x", "y"), ("1", "2..3", "")), (None, (1.5,)))
    for vocabulary in Characters.of(ALPHABET), Bytes(), HuggingFace.from_file(byte_pairs), columns:
        again = vocabulary_from_dict(json.loads(json.dumps(vocabulary.to_dict())))
        assert again == vocabulary and again.size == vocabulary.size
    with pytest.raises(ValueError, match="'morse': one of characters, bytes"):
        vocabulary_from_dict({"kind": "morse"})


def test_huggingface_without_the_package(byte_pairs, monkeypatch):
    real = builtins.__import__

    def no_tokenizers(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "tokenizers", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_tokenizers)
    with pytest.raises(ModuleNotFoundError, match=r"^a Hugging Face vocabulary needs .* pip install 'mdmjax\[hf\]'"):
        HuggingFace.from_file(byte_pairs)


def test_huggingface_from_a_wrong_file(tmp_path):
    pytest.importorskip("tokenizers", reason="the extra 'hf' is not installed")
    with pytest.raises(FileNotFoundError, match="give the path of a tokenizer.json"):
        HuggingFace.from_file(tmp_path / "none.json")
    for content in b'{"a": 1}', b"\xff\xfe":
        (tmp_path / "wrong.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"^[^\n]*wrong.json' is not a Hugging Face tokenizer.json[^\n]*$"):
            HuggingFace.from_file(tmp_path / "wrong.json")
