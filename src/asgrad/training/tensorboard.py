"""TensorBoard logs of a live run, where tensorboard is installed."""

from __future__ import annotations

import math
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from asgrad.errors import AsgradError, AsgradWarning, in_one_line
from asgrad.training.evaluation import OnEvaluation, taking_all

__all__ = ["logged"]


@contextmanager
def logged(
    folder: str | Path, on_evaluation: OnEvaluation | None = None
) -> Iterator[OnEvaluation | None]:
    """Give an `on_evaluation` for `train` that logs to a folder and calls the one given here.

    Logged at every evaluation: loss, gradient norm, accuracy and test loss, what there is of them,
    and steps a second since the one before. Without tensorboard it is the one given here.

    Raises
    ------
    AsgradError
        If there is a file where the folder is to be.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise AsgradError(f"logged: {folder} is a file; give the name of a folder.")
    if find_spec("tensorboard") is None:
        yield on_evaluation
        return
    file, before, tell = _File(Path(folder)), [0, 0.0], taking_all(on_evaluation)

    def log(
        step: int,
        now: float,
        loss: float,
        norm: float,
        accuracy: float = math.nan,
        test_loss: float = math.nan,
    ) -> None:
        numbers = {"loss": loss}
        more = {"gradient norm": norm, "accuracy": accuracy, "test loss": test_loss}
        numbers.update((name, number) for name, number in more.items() if not math.isnan(number))
        if now > before[1]:
            numbers["steps a second"] = (step - before[0]) / (now - before[1])
        before[:] = step, now
        file.write(step, numbers)
        if tell:
            tell(step, now, loss, norm, accuracy, test_loss)

    yield log


class _File:
    """A file of events. If it cannot be written, that is said once and costs the logs only.

    TensorBoard's own writer has a thread, in which errors are printed with their traceback.
    """

    def __init__(self, folder: Path):
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._fails = False

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Add numbers by name."""
        if self._fails:
            return
        try:
            self._append(step, numbers)
        except Exception as error:  # of TensorBoard, of what it imports, of the disk
            self._fails = True
            text = f"logs for TensorBoard are given up, the run goes on: {in_one_line(error)}."
            with suppress(AsgradWarning):  # where warnings are errors
                warnings.warn(text, AsgradWarning, stacklevel=1)

    def _append(self, step: int, numbers: dict[str, float]) -> None:
        """Add an event to the file; folder and file are made where they are not there."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        values = [Summary.Value(tag=name, simple_value=n) for name, n in numbers.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab") as file:
            writer = RecordWriter(file)
            if file.tell() == 0:
                head = Event(wall_time=time.time(), file_version="brain.Event:2")
                writer.write(head.SerializeToString())
            writer.write(event.SerializeToString())
