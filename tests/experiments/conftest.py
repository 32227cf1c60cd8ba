"""A small text and a run that is trained on it, for the tests of programs."""

import programs
import pytest

from experiments import train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    programs.write_text(folder / "text.txt")
    (folder / "other.txt").write_text("the dog that sat on the mat. " * 9)
    (folder / "foreign.txt").write_text("the cat sat\non the Ж; " * 9)
    (folder / "short.txt").write_text("the cat")
    (folder / "empty.txt").write_text("")
    (folder / "binary.bin").write_bytes(b"\x7fELF\x02\x01\x01\x00\xff\xfe" * 50)
    return folder


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(program, *flags) -> (exit code, standard output, standard error)` in this process, on its 8 devices."""

    def call(program, *arguments):
        capfd.readouterr()
        code = programs.run_here(program.main, [str(a) for a in arguments], monkeypatch)
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(place):
    with pytest.MonkeyPatch.context() as patch:
        assert programs.run_here(train.main, programs.arguments(place, "trained"), patch) == 0
    return place / "trained"
