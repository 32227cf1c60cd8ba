"""From a config to the library's objects."""

from experiments import build
from experiments.configs.base import base


def test_a_table_given_at_evaluation_is_read_as_the_table_of_training(tmp_path):
    """With its header, in whole rows, in the tokens that the model was trained with."""
    train, other = tmp_path / "train.csv", tmp_path / "other.csv"
    train.write_text("size,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60)))
    other.write_text("size,kind\n7,b\n59,a\n")
    config = base()
    config.data.source, config.data.path = "table", str(train)
    trained = build.corpus(config)
    corpus = build.corpus(config, trained.vocabulary, str(other))
    assert corpus.vocabulary == trained.vocabulary and list(corpus.splits) == ["text"]
    assert corpus.splits["text"].shape == (2, 2)
    config.data.path = str(other)  # the file of the config may change too
    assert build.corpus(config, trained.vocabulary).vocabulary == trained.vocabulary
