"""Corpora, tables, tasks, vocabularies, and resumable batches of them."""

from mdmjax.data import sudoku, sudoku_puzzles
from mdmjax.data.answers import (
    Layout,
    PairSource,
    Record,
    answers,
    characters_of,
    content_hash,
    preference_pairs,
    read_records,
)
from mdmjax.data.arithmetic import Sums, Workings, carry_slips, sums, workings
from mdmjax.data.corpora import Corpus, python_docs, text_files, tfds
from mdmjax.data.countdown import Countdown, countdown, reaches
from mdmjax.data.pipeline import Batches, RowSource, Source, WindowSource, batches, evaluation_windows
from mdmjax.data.tables import table
from mdmjax.data.vocabularies import Bytes, Characters, Columns, HuggingFace, UnknownCharacter, Vocabulary
from mdmjax.data.vocabularies import from_dict as vocabulary_from_dict

__all__ = [
    "Batches",
    "Bytes",
    "Characters",
    "Columns",
    "Corpus",
    "Countdown",
    "HuggingFace",
    "Layout",
    "PairSource",
    "Record",
    "RowSource",
    "Source",
    "Sums",
    "UnknownCharacter",
    "Vocabulary",
    "WindowSource",
    "Workings",
    "answers",
    "batches",
    "carry_slips",
    "characters_of",
    "content_hash",
    "countdown",
    "evaluation_windows",
    "preference_pairs",
    "python_docs",
    "reaches",
    "read_records",
    "sudoku",
    "sudoku_puzzles",
    "sums",
    "table",
    "text_files",
    "tfds",
    "vocabulary_from_dict",
    "workings",
]
