"""Tables: rows of discrete tokens with bins that know the training rows only."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmjax.data import table, tables, vocabulary_from_dict


def write(path, rows, header="x,kind,n"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_columns_have_ids_of_their_own(tmp_path):
    path = write(tmp_path / "a.csv", [f'{i / 10},"{"ab"[i % 2]}, {i % 3}",{i % 4 or ""}' for i in range(100)])
    corpus = table(path, bins=8)
    x, kind, n = corpus.meta["columns"]
    assert [c["kind"] for c in (x, kind, n)] == ["numeric", "categorical", "numeric"]
    assert [c["cardinality"] for c in (x, kind, n)] == [8, 6, 4]  # n: 1, 2, 3 and empty
    assert [c["first_id"] for c in (x, kind, n)] == [0, 8, 14] and corpus.vocabulary.size == 18
    assert {k: v.shape for k, v in corpus.splits.items()} == {"train": (90, 3), "validation": (5, 3), "test": (5, 3)}
    rows = np.concatenate(list(corpus.splits.values()))
    assert (rows.min(axis=0) == [0, 8, 14]).all() and (rows.max(axis=0) == [7, 13, 17]).all()
    assert corpus.vocabulary.decode(rows[4]) == '0..1,"a, 1",\n'
    assert json.loads(json.dumps(corpus.meta)) == corpus.meta
    again = vocabulary_from_dict(json.loads(json.dumps(corpus.vocabulary.to_dict())))
    np.testing.assert_array_equal(again.encode('0.4,"a, 1",\n0.0,"a, 0",2'), [*rows[4], *rows[6] * 0 + [0, 8, 15]])


def test_only_line_ends_end_a_row(tmp_path):
    odd = ["a\u2028b", "c\x85d", "e\x0bf\x0cg", "h\x1ci"]
    path = tmp_path / "a.csv"
    rows = [*(f"{i},{kind}" for i, kind in enumerate(odd)), '4,"j\nk"']
    path.write_bytes("\r\n".join(["x,kind", *rows]).encode())
    corpus = table(path, {"train": 1.0})
    assert corpus.splits["train"].shape == (5, 2)
    assert corpus.vocabulary.labels[1] == (*odd, "j\nk")


def test_a_vocabulary_of_another_table(tmp_path):
    """The rows of a second file in the tokens of the first: the header is no row, and the bins stay."""
    first = table(write(tmp_path / "a.csv", [f"{i},{'ab'[i % 2]},1" for i in range(100)]), bins=4)
    path = write(tmp_path / "b.csv", ["3,b,1", "1000,a,1"])
    second = table(path, {"text": 1.0}, vocabulary=first.vocabulary)
    assert second.vocabulary == first.vocabulary and list(second.splits) == ["text"]
    np.testing.assert_array_equal(second.splits["text"].reshape(-1), first.vocabulary.encode("3,b,1\n1000,a,1\n"))
    with pytest.raises(ValueError, match="row 1, column 'kind': 'c' should be one of 'a', 'b'"):
        table(write(path, ["3,c,1"]), {"text": 1.0}, vocabulary=first.vocabulary)
    with pytest.raises(ValueError, match=r"b.csv' has the columns .*'m'.*the vocabulary has .*'n'"):
        table(write(path, ["3,b,1"], "x,kind,m"), {"text": 1.0}, vocabulary=first.vocabulary)


def test_the_hash_is_one_text_for_one_file_and_for_several(tmp_path):
    a, b = write(tmp_path / "a.csv", ["1,a,1"] * 9), write(tmp_path / "b.csv", ["1,a,1"])
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (a, b)]
    assert table(a).meta["sha256"] == hashes[0]
    listing = f"{hashes[0]}  a.csv\n{hashes[1]}  b.csv\n"
    assert table({"train": a, "test": b}).meta["sha256"] == hashlib.sha256(listing.encode()).hexdigest()


def test_bins_come_from_the_training_rows_only(tmp_path):
    rng = np.random.default_rng(0)
    train = [f"{v},a,1" for v in rng.normal(size=900)]
    edges = []
    for shift in 0, 1000:
        rest = [f"{v + shift},a,1" for v in rng.normal(size=100)]
        corpus = table(write(tmp_path / "a.csv", train + rest))
        edges.append(corpus.meta["columns"][0]["edges"])
        counts = np.bincount(corpus.splits["train"][:, 0])
        assert len(counts) == 32 and counts.min() >= 26 and counts.max() <= 31  # 900 / 32 = 28.1
    assert edges[0] == edges[1]
    assert (corpus.splits["test"][:, 0] == 31).all()


@given(st.lists(st.integers(-5, 30), min_size=1, max_size=200), st.integers(2, 16))
def test_a_bin_is_where_its_label_says(values, bins):
    labels, edges = tables._column([str(v) for v in values], slice(None), bins, bins)
    assert len(labels) == len(edges) + 1 <= bins
    found = np.searchsorted(edges, values, side="right")
    assert set(found) == set(range(len(labels)))  # no bin is empty
    for value, b in zip(values, found, strict=True):
        low, _, high = labels[b].partition("..")
        assert int(low) <= value <= int(high or low)
    if len(set(values)) <= bins:
        assert labels == tuple(str(v) for v in sorted(set(values)))


def test_few_values_are_categories(tmp_path):
    """Up to 64 by default, whatever the number of bins; one more, and there are bins."""
    for values, tokens in ((64, 64), (65, 8)):
        corpus = table(write(tmp_path / "a.csv", [f"{i % values},a,1" for i in range(1000)]), bins=8)
        assert len(corpus.vocabulary.labels[0]) == tokens


def test_a_value_that_fills_a_quantile_is_alone():
    """As capital gains are: mostly zero."""
    labels, edges = tables._column(["-1", *["0"] * 100, *map(str, range(1, 41))], slice(None), 16, 16)
    assert labels[:2] == ("-1", "0") and labels[2].startswith("1..") and edges[:2] == (0.0, 1.0)


def test_values_between_few_values_count_as_the_nearest(tmp_path):
    train, test = write(tmp_path / "a", ["1,a,1", "5,a,"]), write(tmp_path / "b", ["2,a,nan", "4,a,1", "9,a,"])
    corpus = table({"train": train, "test": test})
    assert corpus.splits["test"][:, 0].tolist() == [0, 1, 1] and corpus.meta["split_by"] == "source"
    assert corpus.splits["test"][:, 2].tolist() == [4, 3, 4]  # nan counts as empty


def test_rows_of_a_sorted_file_can_be_shuffled(tmp_path):
    path = write(tmp_path / "a.csv", [f"{i},a,{i // 50}" for i in range(100)])
    plain, shuffled, again = table(path), table(path, shuffle_rows=1), table(path, shuffle_rows=1)
    assert len(set(plain.splits["test"][:, 2])) == 1 and len(set(shuffled.splits["test"][:, 2])) == 2
    for split in shuffled.splits:
        np.testing.assert_array_equal(shuffled.splits[split], again.splits[split])
    assert shuffled.meta["shuffle_rows"] == 1


def test_validation_rows_held_out_of_a_training_file_make_no_bins(tmp_path):
    train = write(tmp_path / "train.csv", [f"{i},a,{i}" for i in range(90)] + [f"{i},b,{i}" for i in range(1000, 1010)])
    test = write(tmp_path / "test.csv", ["5,a,1"])
    paths = {"train": train, "test": test}
    t, whole = table(paths, held_out=0.1, bins=4), table(paths, bins=4)
    assert {name: len(rows) for name, rows in t.splits.items()} == {"train": 90, "test": 1, "validation": 10}
    assert t.meta["splits"]["validation"] == {"tokens": 30, "start": 90, "stop": 100}
    rest = table({"train": write(tmp_path / "rest.csv", [f"{i},a,{i}" for i in range(90)])}, bins=4)
    edges = [columns.meta["columns"][0]["edges"] for columns in (t, rest, whole)]
    assert edges[0] == edges[1] != edges[2]

    mixed = table(paths, held_out=0.1, bins=1000, shuffle_rows=1)
    last = t.splits["validation"][:, 1]
    assert len(set(last)) == 1 and (mixed.splits["validation"][:, 1] != last).any()
    assert len(np.unique(np.concatenate([mixed.splits["train"], mixed.splits["validation"]])[:, 2])) == 90
    assert len(mixed.splits["test"]) == 1
    for wrong, where in (0.1, train), (1.0, paths), (0.1, paths | {"validation": test}), (0.1, {"fit": train}):
        with pytest.raises(ValueError, match="held_out=.*for a training file"):
            table(where, held_out=wrong)


def test_numbers_are_drawn_back_from_bins(tmp_path):
    values = [-1.5, -0.25, 0, 0, 0, 0, 0, 3, 4.5, 1e-7]
    path = write(tmp_path / "a.csv", [f"{x},a,{n}" for x in values for n in ("", 1, 2)] * 4)
    t = table(path, {"train": 1.0}, bins=4, categories=4)
    ids = np.repeat(t.splits["train"][:, 0].astype(np.int32), 20)
    drawn = t.vocabulary.draw_column(0, ids, np.random.default_rng(0))
    np.testing.assert_array_equal(t.vocabulary.encode_column(0, [repr(float(x)) for x in drawn]), ids)
    zero = t.vocabulary.encode_column(0, ["0"])
    assert (drawn[ids == zero] == 0).all() and len(np.unique(drawn[ids != zero])) == (ids != zero).sum()
    empty = t.vocabulary.encode_column(2, [""])
    assert np.isnan(t.vocabulary.draw_column(2, empty, np.random.default_rng(0))).all()
    of_bin = t.vocabulary.draw_column(0, ids, np.random.default_rng(0), np.array([*values, np.nan]))
    np.testing.assert_array_equal(t.vocabulary.encode_column(0, [repr(float(x)) for x in of_bin]), ids)
    assert set(of_bin) == set(values)
    assert np.isnan(t.vocabulary.draw_column(2, empty, np.random.default_rng(0), np.array([1.0, 2]))).all()
    with pytest.raises(ValueError, match=r"column 'x': none of the 5 values lies in \['"):
        t.vocabulary.draw_column(0, ids, np.random.default_rng(0), np.zeros(5))
    with pytest.raises(ValueError, match="'kind' is categorical"):
        t.vocabulary.draw_column(1, ids, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'x' has the ids 0"):
        t.vocabulary.draw_column(0, empty, np.random.default_rng(0))


def test_bad_tables_are_named_in_one_line(tmp_path):
    path = tmp_path / "t.csv"
    for content, words in [
        (b"", "is empty: a header"),
        (b"a,b\n", "header and no rows"),
        (b"a,b\n1,2\n\n1,2,3\n", r"line 4: 3 cells where the header has 2; every row"),
        (b"1.5,x\n2.5,y\n", "no header: its first line holds the number '1.5'; the first line should be"),
        (b"a,a\n1,2\n", "each differently"),
        (b"a,\n1,2\n", "should name each column"),
        (b"a,b\n1,\xff\n", "byte 6 is 0xFF"),
        (b'a,b\n1,"x"y\n', r"line 2: .* comma-separated table is needed"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words) as caught:
            table(path)
        assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such table .* CSV file with a header"):
        table(tmp_path / "none.csv")
    good = write(path, ["1,a,1"] * 9)
    with pytest.raises(ValueError, match="split 'train', which is not among"):
        table(good, {"fit": 0.5, "test": 0.5})
    with pytest.raises(ValueError, match="leaves none for training"):
        table(good, {"train": 0.01, "test": 0.99})
    with pytest.raises(ValueError, match="they should agree"):
        table({"train": good, "test": write(tmp_path / "o.csv", ["1,a,1"], "x,kind,m")})
    (tmp_path / "pandas.csv").write_text("0,1\n5,6\n")
    assert table(tmp_path / "pandas.csv", {"train": 1.0}).vocabulary.names == ("0", "1")


def test_bad_cells_are_named(tmp_path):
    vocabulary = table(write(tmp_path / "a.csv", [f"{i},{'ab'[i % 2]},1" for i in range(10)])).vocabulary
    with pytest.raises(ValueError, match="row 2, column 'kind': 'c' should be one of 'a', 'b'"):
        vocabulary.encode("1,a,1\n1,c,1")
    with pytest.raises(ValueError, match="row 1, column 'x': 'many' should be a number"):
        vocabulary.encode("many,a,1")
    with pytest.raises(ValueError, match="row 1, column 'x': '' should be a number"):
        vocabulary.encode(",a,1")
    with pytest.raises(ValueError, match="row 1 has 2 cells where the table has 3 columns"):
        vocabulary.encode("1,a")


@pytest.mark.parametrize("name, shape", [("adult.csv", (30162, 15)), ("magic.train.csv", (15216, 11))])
def test_real_tables(real_data, name, shape):
    path = real_data(name)
    corpus = table(path, {"train": 1.0})
    assert corpus.splits["train"].shape == shape
    assert np.unique(corpus.splits["train"]).tolist() == list(range(corpus.vocabulary.size))  # every token occurs
    lines = path.read_text().splitlines()[1:101]
    np.testing.assert_array_equal(corpus.vocabulary.encode("\n".join(lines)), corpus.splits["train"][:100].reshape(-1))
    text = corpus.vocabulary.decode(corpus.splits["train"][:100].reshape(-1))
    np.testing.assert_array_equal(corpus.vocabulary.encode(text), corpus.splits["train"][:100].reshape(-1))
