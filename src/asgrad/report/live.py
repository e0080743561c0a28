"""A line on the terminal that follows a live run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["live_line"]

_BETWEEN = 0.1  # seconds


@dataclass
class _Line:
    """What the line says; its methods are callbacks of a live run."""

    title: str
    show: Callable[[str], None]
    shown_at: float = -math.inf
    first_step: int = -1
    first_time: float = 0.0
    n_steps: int = 0
    n_jobs: int = 0
    delay: int = 0
    total_delay: int = 0
    values: str = ""

    def on_arrival(self, job: Any) -> None:
        """Count a delay; how many steps a resumed run has taken shows with its first."""
        if job.read_step > self.n_steps:
            return
        self.delay = self.n_steps - job.read_step
        self.total_delay += self.delay
        self.n_jobs += 1

    def on_step(self, step: int, now: float) -> None:
        """Count a step."""
        if self.first_step < 0:
            self.first_step, self.first_time = step, now
        self.n_steps = step + 1
        self._update(now)

    def on_evaluation(
        self,
        step: int,
        now: float,
        loss: float,
        norm: float,
        accuracy: float = math.nan,
        test_loss: float = math.nan,
    ) -> None:
        """Remember the newest values."""
        self.n_steps = max(self.n_steps, step)
        self.values = "" if math.isnan(norm) else f", ‖∇f‖ {norm:.2e}"
        self.values += f", loss {loss:.4g}"
        self.values += "" if math.isnan(test_loss) else f", test loss {test_loss:.4g}"
        self.values += "" if math.isnan(accuracy) else f", accuracy {accuracy:.1%}"
        self._update(now)

    def _update(self, now: float) -> None:
        """Show the line, unless that has just been done."""
        if now - self.shown_at < _BETWEEN:
            return
        self.shown_at = now
        begun = self.first_step >= 0  # a resumed run is evaluated before its first step
        speed = (self.n_steps - 1 - self.first_step) / max(now - self.first_time, 1e-9) * begun
        form = ".0f" if speed >= 10 else ".2g"
        mean = self.total_delay / max(self.n_jobs, 1)
        self.show(
            f"{self.title}: step {self.n_steps}, {speed:{form}} steps/s, delay {self.delay} "
            f"(average {mean:.1f}){self.values}"
        )


@contextmanager
def live_line(title: str) -> Iterator[dict[str, Callable]]:
    """Give callbacks for `train` that show speed, delays and loss on the terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        line = _Line(title, lambda text: bar.update(task, description=text))
        yield {
            "on_step": line.on_step,
            "on_arrival": line.on_arrival,
            "on_evaluation": line.on_evaluation,
        }
