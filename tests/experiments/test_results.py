"""From what was measured and drawn to what a report shows."""

import numpy as np
import pytest

from experiments import results
from mdmjax.base import Estimate
from mdmjax.data import Bytes, Characters, HuggingFace


def word_pieces():
    """A WordPiece tokenizer: pieces of words join, and words are apart, only where they are decoded together."""
    tokenizers = pytest.importorskip("tokenizers")
    pieces = {piece: i for i, piece in enumerate(["[UNK]", "the", "cat", "##s", "sat"])}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(pieces))
    model.pre_tokenizer, model.decoder = tokenizers.pre_tokenizers.Whitespace(), tokenizers.decoders.WordPiece()
    return HuggingFace(model.to_str())


@pytest.mark.parametrize(
    "vocabulary, text, given, pieces",
    [
        (Characters("ab"), "abab", [1, 1, 0, 0], [("ab", True), ("ab", False)]),
        (Bytes(), "né–日", [0] + [1] * 2 + [0] * 6, [("n", False), ("é", True), ("–日", False)]),
        (Bytes(), "日", [0, 0, 0], [("日", False)]),
        (word_pieces(), "the cats sat", [0, 1, 0, 0], [("the", False), (" cat", True), ("s sat", False)]),
    ],
    ids=["characters", "bytes", "one-character", "word-pieces"],
)
def test_texts_are_cut_where_given_meets_generated(vocabulary, text, given, pieces):
    row = vocabulary.encode(text)
    canvas = np.where(given, row, vocabulary.size)
    (sample,) = results.texts(vocabulary, canvas[None], row[None])
    assert sample.pieces == pieces and sample.text == text


def test_bytes_that_are_no_text_still_are_cut():
    """Half a character before a prompt: one sign for it, and the prompt whole."""
    row = np.concatenate([[0xE2, 0x82], Bytes().encode("aé")]).astype(np.int32)
    canvas = np.where([0, 0, 1, 1, 1], row, 256)
    (sample,) = results.texts(Bytes(), canvas[None], row[None])
    assert sample.pieces == [("\ufffd", False), ("aé", True)]


def test_a_note_goes_to_every_estimator():
    estimate = Estimate(1.0, 0.1, "bits/char", 4, "order-1 n-gram")
    assert results.noted({"a": estimate}, "all rows")["a"].estimator == "order-1 n-gram, all rows"
