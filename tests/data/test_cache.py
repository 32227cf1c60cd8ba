"""The token cache: made once, checked on each use, and safe when several processes make it."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from mdmjax.data import Characters, cache, text_files


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be or not to be\n" * 100)
    return path


@pytest.fixture
def encodings(monkeypatch):
    """How often something was tokenised."""
    calls = []
    encode = Characters.encode

    def counted(self, text):
        if text:
            calls.append(text)
        return encode(self, text)

    monkeypatch.setattr(Characters, "encode", counted)
    return calls


def same(a, b):
    assert a.meta == b.meta and a.vocabulary == b.vocabulary and a.splits.keys() == b.splits.keys()
    for split in a.splits:
        np.testing.assert_array_equal(a.splits[split], b.splits[split])


def test_a_second_use_does_not_tokenise(text, tmp_path, encodings):
    first = text_files(text, cache_dir=tmp_path / "c")
    made = len(encodings)
    assert made
    same(first, text_files(text, cache_dir=tmp_path / "c"))
    assert len(encodings) == made
    text.rename(tmp_path / "b.txt")  # the key is the content
    text_files(tmp_path / "b.txt", cache_dir=tmp_path / "c")
    assert len(encodings) == made


def test_what_changes_the_tokens_changes_the_key(text, tmp_path, encodings):
    text_files(text, cache_dir=tmp_path / "c")
    for vocabulary, splits in [
        (Characters("\n abcdefghijklmnopqrstuvwxyz"), {"train": 0.9, "validation": 0.05, "test": 0.05}),
        (None, {"train": 0.5, "test": 0.5}),
        (None, {"test": 0.5, "train": 0.5}),
    ]:
        made = len(encodings)
        text_files(text, vocabulary, splits, cache_dir=tmp_path / "c")
        assert len(encodings) > made
    made = len(encodings)
    text.write_text("to be or not to bE\n" * 100)
    text_files(text, cache_dir=tmp_path / "c")
    assert len(encodings) > made


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["tokens", "json"])
@pytest.mark.parametrize("damage", [flip, lambda p: os.truncate(p, 10), lambda p: os.truncate(p, 0), os.unlink])
def test_a_damaged_entry_is_made_again(text, tmp_path, encodings, suffix, damage):
    first = text_files(text, cache_dir=tmp_path / "c")
    values = {k: np.array(v) for k, v in first.splits.items()}
    (path,) = (tmp_path / "c").glob(f"*.{suffix}")
    path.write_bytes(path.read_bytes())
    del first
    damage(path)
    made = len(encodings)
    again = text_files(text, cache_dir=tmp_path / "c")
    assert len(encodings) > made
    for split in values:
        np.testing.assert_array_equal(again.splits[split], values[split])
    made = len(encodings)
    text_files(text, cache_dir=tmp_path / "c")
    assert len(encodings) == made


def test_processes_that_race(tmp_path):
    """Four processes tokenise the same text at once, while the entry is being damaged; all see the right tokens."""
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(97 + i * i % 23) for i in range(20_000)))
    program = textwrap.dedent("""
        import pathlib, sys, time, zlib
        from mdmjax.data import text_files
        path, folder, start = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
        time.sleep(max(0, start - time.time()))
        text = path.read_text()
        for i in range(30):
            corpus = text_files(path, splits={"all": 1.0}, cache_dir=folder)
            assert corpus.vocabulary.decode(corpus.splits["all"]) == text
            for file in folder.glob("*.*") if i % 3 == 0 else []:
                file.unlink(missing_ok=True) if not file.name.endswith(".unfinished") else None
    """)
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "c"), str(time.time() + 1)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert not list((tmp_path / "c").glob("*.unfinished"))


def test_leftovers_of_a_killed_process_are_removed(text, tmp_path):
    text_files(text, cache_dir=tmp_path / "c")
    (path,) = (tmp_path / "c").glob("*.json")
    old, new = path.with_suffix(".1.unfinished"), path.with_suffix(".2.unfinished")
    for file in old, new:
        file.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    path.unlink()
    text_files(text, cache_dir=tmp_path / "c")
    assert not old.exists() and new.exists()  # the new one may belong to a process at work


def test_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MDMJAX_CACHE", raising=False)
    assert cache.cache_directory() == tmp_path / ".cache/mdmjax"
    monkeypatch.setenv("MDMJAX_CACHE", str(tmp_path / "env"))
    assert cache.cache_directory() == tmp_path / "env"
    assert cache.cache_directory("given") == cache.pathlib.Path("given")


def test_a_directory_that_cannot_be_written(text, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"^cannot write the token cache in [^\n]*/file/c' .*MDMJAX_CACHE$"):
        text_files(text, cache_dir=tmp_path / "file/c")


def test_a_full_disk(text, tmp_path):
    """A file size limit stands for the full disk: one line, and nothing is left behind."""
    program = textwrap.dedent("""
        import resource, signal, sys
        from mdmjax.data import text_files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            text_files(sys.argv[1], cache_dir=sys.argv[2])
        except OSError as error:
            sys.exit(str(error))
    """)
    command = [sys.executable, "-c", program, str(text), str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("cannot write the token cache"), done.stderr
    assert "free space" in done.stderr and done.stderr.count("\n") == 1
    assert not list((tmp_path / "c").iterdir())


def test_dtypes():
    sizes = {2: "u1", 256: "u1", 257: "<u2", 65536: "<u2", 65537: "<u4"}
    assert {size: cache.token_dtype(size) for size in sizes} == {k: np.dtype(v) for k, v in sizes.items()}
