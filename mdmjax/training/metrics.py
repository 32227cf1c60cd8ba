"""Where the numbers of a run go: JSON lines, and TensorBoard."""

import json
import pathlib
import time

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

FLUSH_SECONDS = 30  # between two flushes of the TensorBoard file, each of which waits for the disk


class MetricWriter:
    """Appends rows to `directory/metrics.jsonl` and writes their numbers to TensorBoard files beside it.

    Starting at `step` (a resume) drops the rows after it, so that the files of an interrupted run and of an unbroken
    one hold the same steps.
    """

    def __init__(self, directory: str | pathlib.Path, step: int = 0):
        self.path = pathlib.Path(directory) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_rows(self.path) if line["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self.path)
        self._file = self.path.open("a")
        board = self.path.parent / "tensorboard"
        board.mkdir(exist_ok=True)
        # No SummaryWriter: its thread and its hook at exit print tracebacks of their own when the disk is full.
        self._board = EventsWriter(str(board / "events"), f".{step}")
        self._flushed = time.time()
        self._event(
            step + 1, session_log=SessionLog(status=SessionLog.START)
        )  # hides what an earlier run wrote from here

    def write(self, step: int, **numbers: float) -> None:
        """One row: the step and its numbers."""
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._event(step, summary=summary.scalar(name, value))
        if time.time() - self._flushed > FLUSH_SECONDS:
            self._board.flush()
            self._flushed = time.time()

    def _event(self, step: int, **what) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, **what))

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_rows(path: str | pathlib.Path) -> list[dict]:
    """The rows of a metrics file; none if there is no file. A last line cut off by a kill is dropped."""
    rows = []
    if pathlib.Path(path).exists():
        for line in pathlib.Path(path).read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
