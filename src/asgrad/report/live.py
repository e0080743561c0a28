"""A line on the terminal that follows a live run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["live_line"]


@dataclass
class _Line:
    """What the line says; its methods are callbacks of a live run."""

    title: str
    show: Callable[[str], None]
    first_step: int = -1
    first_time: float = 0.0
    n_steps: int = 0
    n_jobs: int = 0
    delay: int = 0
    total_delay: int = 0
    values: str = ""

    def on_arrival(self, job: Any) -> None:
        """Count a delay."""
        self.delay = self.n_steps - job.read_step
        self.total_delay += self.delay
        self.n_jobs += 1

    def on_step(self, step: int, now: float) -> None:
        """Count a step, and show the line now and then."""
        if self.first_step < 0:
            self.first_step, self.first_time = step, now
        self.n_steps = step + 1
        if step % 64 == 0:
            speed = (step - self.first_step) / max(now - self.first_time, 1e-9)
            mean = self.total_delay / max(self.n_jobs, 1)
            self.show(
                f"{self.title}: step {step}, {speed:.0f} steps/s, delay {self.delay} "
                f"(average {mean:.1f}){self.values}"
            )

    def on_evaluation(self, step: int, now: float, loss: float, norm: float) -> None:
        """Remember the newest values."""
        self.n_steps = max(self.n_steps, step)
        self.values = f", ‖∇f‖ {norm:.2e}, loss {loss:.4g}"


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
