"""TensorBoard logs of a live run, where tensorboard is installed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asgrad.errors import AsgradError

__all__ = ["logged"]

OnEvaluation = Callable[[int, float, float, float], None] | None


@contextmanager
def logged(folder: str | Path, on_evaluation: OnEvaluation = None) -> Iterator[OnEvaluation]:
    """Give an `on_evaluation` for `train` that logs to a folder and calls the one given here.

    Logged at every evaluation: loss, gradient norm, and steps a second since the one before.
    Without tensorboard it is the one given here.

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
    from tensorboard.summary import Writer

    writer: Any = Writer(str(folder))
    before = [0, 0.0]

    def log(step: int, now: float, loss: float, norm: float) -> None:
        writer.add_scalar("loss", loss, step)
        if not math.isnan(norm):
            writer.add_scalar("gradient norm", norm, step)
        if now > before[1]:
            writer.add_scalar("steps a second", (step - before[0]) / (now - before[1]), step)
        before[:] = step, now
        if on_evaluation:
            on_evaluation(step, now, loss, norm)

    try:
        yield log
    finally:
        writer.close()
