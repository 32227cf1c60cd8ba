"""Where the numbers of a run go: JSON lines, and TensorBoard."""

import json
import pathlib

from tensorboardX import SummaryWriter


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
        self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step + 1, max_queue=100)

    def write(self, step: int, **numbers: float) -> None:
        """One row: the step and its numbers."""
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)

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
