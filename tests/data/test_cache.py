"""The token cache: made once, checked on each use, and safe when several processes make it."""

import os
import subprocess
import sys
import textwrap
import threading
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


def test_who_comes_while_an_entry_is_made_waits_for_it(text, tmp_path, encodings, monkeypatch):
    """Four users at once: each finds nothing, one tokenises, the others load what it made."""
    text_files(text, cache_dir=tmp_path / "alone")
    once = len(encodings)
    looked, everyone_came = threading.Semaphore(0), threading.Event()
    load, encode = cache.load, Characters.encode

    def counted(*arguments):
        found = load(*arguments)
        looked.release()
        return found

    def slow(self, text):
        everyone_came.wait(20)
        return encode(self, text)

    monkeypatch.setattr(cache, "load", counted)
    monkeypatch.setattr(Characters, "encode", slow)
    threads = [threading.Thread(target=text_files, args=(text,), kwargs={"cache_dir": tmp_path / "c"}) for _ in "1234"]
    for thread in threads:
        thread.start()
    for _ in range(5):  # each of them once, and the one that has the lock once more
        assert looked.acquire(timeout=20)
    everyone_came.set()
    for thread in threads:
        thread.join(20)
    assert len(encodings) == 2 * once
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".json", ".tokens"}


def test_a_texts_own_characters_need_no_second_entry(text, tmp_path, encodings):
    own = text_files(text, cache_dir=tmp_path / "c")
    made = len(encodings)
    same(own, text_files(text, own.vocabulary, cache_dir=tmp_path / "c"))  # as evaluation does, from a checkpoint
    assert len(encodings) == made
    larger = Characters(own.vocabulary.characters + "x")
    assert text_files(text, larger, cache_dir=tmp_path / "c").vocabulary == larger


def test_leftovers_of_killed_processes_are_removed(text, tmp_path):
    text_files(text, cache_dir=tmp_path / "c")
    (path,) = (tmp_path / "c").glob("*.json")
    old, new = path.with_suffix(".1.unfinished"), path.with_suffix(".2.unfinished")
    other = tmp_path / "c/another_text.1.unfinished"
    for file in old, new, other:
        file.write_text("half")
    for file in old, other:
        os.utime(file, (time.time() - 7200,) * 2)
    path.unlink()
    text_files(text, cache_dir=tmp_path / "c")
    assert not old.exists() and not other.exists() and new.exists()  # the new one may belong to a process at work


def test_others_may_read_an_entry_as_the_umask_says(text, tmp_path):
    before = os.umask(0o027)
    try:
        text_files(text, cache_dir=tmp_path / "c")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()} == {0o640}


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


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), FileNotFoundError(2, "No such file", "a.txt")])
def test_an_error_of_the_text_is_not_blamed_on_the_cache(tmp_path, error):
    def pieces():
        yield "train", 1, np.zeros(1, np.int32)
        raise error

    with pytest.raises(OSError) as caught:
        cache.store("key", np.dtype("u1"), pieces(), {}, tmp_path / "c")
    assert caught.value is error and not list((tmp_path / "c").iterdir())


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
