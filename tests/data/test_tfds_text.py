"""Data sets of TFDS are read without TensorFlow."""

import subprocess
import sys
import textwrap

import pytest

from mdmjax.data import Bytes, tfds

PREPARE = textwrap.dedent("""
    import sys
    import tensorflow_datasets as tfds

    class TinyText(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"text": tfds.features.Text(), "title": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 25)}

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                yield i, {"text": f"document {i} é", "title": f"t{i}"}

    TinyText(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
""")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set made by another process, so that this one knows nothing of its builder."""
    folder = tmp_path_factory.mktemp("tfds")
    subprocess.run([sys.executable, "-c", PREPARE, str(folder)], check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMJAX_CACHE", str(tmp_path / "cache"))


def test_documents_are_joined_and_splits_kept(data_dir):
    corpus = tfds("tiny_text", data_dir=data_dir)
    assert list(corpus.splits) == ["train", "test"] and corpus.meta["split_by"] == "source"
    texts = {split: corpus.vocabulary.decode(ids) for split, ids in corpus.splits.items()}
    assert texts["train"].endswith("\n")  # a separator follows each document
    assert sorted(texts["train"].split("\n")[:-1]) == sorted(f"document {i} é" for i in range(20))
    assert sorted(texts["test"].split("\n")[:-1]) == sorted(f"document {i} é" for i in range(20, 25))
    assert corpus.meta["name"] == "tiny_text/1.0.0" and len(corpus.meta["sha256"]) == 64
    record = corpus.meta["splits"]["test"]
    assert record["characters"] == 5 * len("document 20 é\n") and record["characters_per_token"] == 1
    assert "tensorflow" not in sys.modules


def test_parts_of_splits_features_and_separators(data_dir):
    parts = {"train": "train[:15]", "validation": "train[15:]", "test": "test"}
    corpus = tfds("tiny_text", Bytes(), parts, feature="title", separator="|", data_dir=data_dir)
    documents = {split: Bytes().decode(ids).split("|")[:-1] for split, ids in corpus.splits.items()}
    assert {split: len(d) for split, d in documents.items()} == {"train": 15, "validation": 5, "test": 5}
    assert sorted(documents["train"] + documents["validation"]) == sorted(f"t{i}" for i in range(20))
    assert corpus.meta["source"]["splits"] == parts
    other = tfds("tiny_text", Bytes(), parts, feature="title", separator="||", data_dir=data_dir)
    assert len(other.splits["test"]) == len(corpus.splits["test"]) + 5


def test_bad_requests_are_one_line(data_dir, tmp_path):
    for error, words, arguments in [
        (ValueError, "no feature 'body': it has", {"name": "tiny_text", "feature": "body"}),
        (ValueError, "no split 'dev': it has .'train', 'test'.", {"name": "tiny_text", "splits": {"v": "dev"}}),
        (ValueError, "no split 'train.:%.': it has", {"name": "tiny_text", "splits": {"v": "train[:%]"}}),
        (ValueError, "TFDS has no data set 'no_such_text'.*list_builders", {"name": "no_such_text"}),
        (ValueError, "TFDS has no data set 'lm1b:9.9.9': .*only: 1.1.0", {"name": "lm1b:9.9.9"}),
        (ValueError, "TFDS has no data set 'lm1b/xx': .*BuilderConfig xx not found", {"name": "lm1b/xx"}),
    ]:
        with pytest.raises(error, match=words) as caught:
            tfds(data_dir=data_dir, **arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        FileNotFoundError, match="'lm1b' is not prepared .* download=True, or run .*array_record"
    ) as caught:
        tfds("lm1b", data_dir=tmp_path)
    assert "\n" not in str(caught.value) and f"data_dir={str(tmp_path)!r}" in str(caught.value)
    assert "tensorflow" not in sys.modules and not list(tmp_path.rglob("lm1b"))  # and nothing was downloaded


def test_download_that_needs_tensorflow(tmp_path, monkeypatch):
    import tensorflow_datasets

    def fail(self, **options):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(
        ModuleNotFoundError, match="needs the package 'tensorflow', reading it does not: prepare it once"
    ):
        tfds("lm1b", data_dir=tmp_path, download=True)


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets

    def fail(self, **options):
        raise RuntimeError("Failed to get url\nhttp://nowhere")

    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(OSError, match=r"^TFDS could not prepare 'lm1b': Failed to get url http://nowhere$"):
        tfds("lm1b", data_dir=tmp_path, download=True)


def test_tfrecords_are_refused(data_dir, tmp_path):
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    for file in folder.rglob("*.json"):
        file.write_text(file.read_text().replace("array_record", "tfrecord"))
    for file in folder.rglob("*.array_record-*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(
        ValueError, match="prepared as tfrecord, which only TensorFlow reads: prepare it as array_record"
    ):
        tfds("tiny_text", data_dir=folder)
