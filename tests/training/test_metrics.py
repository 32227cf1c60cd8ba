"""Rows of numbers: what is on disk after a run, after a resume, and when the disk is full."""

import errno
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mdmjax import training


def events(path):
    """The events of a TensorBoard file: records of length, checksum, bytes, checksum."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("Q", data, at)
        found.append(Event.FromString(data[at + 12 : at + 12 + size]))
        at += 16 + size
    return found


def test_what_is_written_can_be_read_and_a_resume_replaces_what_came_after_it(tmp_path):
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = training.MetricWriter(tmp_path, start)
        for step in steps:
            writer.write(step, loss=step + start / 8, rate=0.5)
        writer.close()
    rows = training.read_rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1), (2, 2), (3, 3.25), (4, 4.25)]
    first, second = (
        events(tmp_path / "tensorboard" / path.name) for path in sorted((tmp_path / "tensorboard").iterdir())
    )
    for found, start, steps in ((first, 0, (1, 2, 3)), (second, 2, (3, 4))):
        assert found[0].file_version == "brain.Event:2"
        assert (found[1].step, found[1].session_log.status) == (start + 1, SessionLog.START)
        read = [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in found[2:]]
        assert read == [row for step in steps for row in ((step, "loss", step + start / 8), (step, "rate", 0.5))]


def test_a_full_disk_is_an_error_of_the_writer_and_of_nothing_else(tmp_path, capfd):
    """/dev/full takes no byte: the error comes from `close`, and no thread and no hook speaks of it again."""
    writer = training.MetricWriter(tmp_path)
    writer._board._py_recordio_writer._writer = open("/dev/full", "wb")
    writer.write(1, loss=1.0)
    with pytest.raises(OSError) as caught:
        writer.close()
    assert caught.value.errno == errno.ENOSPC and capfd.readouterr().err == ""
