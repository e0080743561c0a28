"""What the commands print."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asgrad.progress import progress_bar as progress

__all__ = [
    "label",
    "live_line",
    "print_failures",
    "print_lanes",
    "print_notes",
    "print_summary",
    "print_table",
    "print_times",
    "print_training",
    "progress",
]


def label(problem: Any) -> str:
    """Return a problem in a few words."""
    return str(getattr(problem, "label", problem.name))


def print_notes(*built: Any) -> None:
    """Print what was chosen for the user when problems were built, and why; each note once."""
    for note in dict.fromkeys(note for problem in built for note in problem.notes):
        print(f"note: {note}")


def print_times(times: Any) -> None:
    """Print how long the jobs of every worker took."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in (
        "worker",
        "jobs",
        "median s",
        "mean s",
        "deviation",
        "slowest 1%",
        "times slower",
    ):
        table.add_column(title, justify="right")
    medians = [float(np.median(took)) if took.size else np.nan for took in times]
    for worker, took in enumerate(times):
        numbers = (medians[worker], took.mean(), took.std(), np.quantile(took, 0.99),
                   medians[worker] / np.nanmin(medians)) if took.size else ()  # fmt: skip
        table.add_row(str(worker), str(took.size), *(f"{number:.3g}" for number in numbers))
    Console().print(table)


def share(accuracy: float) -> str:
    """Return an accuracy as a text; there is none where there are no labels."""
    return "-" if math.isnan(accuracy) else f"{accuracy:.1%}"


def print_training(title: str, run: Any) -> None:
    """Print how a stored training ended."""
    names = "gradient_norm", "loss", "accuracy", "test_loss"
    norm, loss, accuracy, test_loss = (run.metrics[name] for name in names)
    print(f"{title}: stopped by {run.facts['status']}")
    print_summary(run.trace)
    if run.facts["n_refused"]:
        print(f"refused {run.facts['n_refused']} gradients that held NaN or infinity")
    if loss.size == 0:
        print("nothing was evaluated")
        return
    fall = "" if math.isnan(norm[0]) else f"‖∇f‖ {norm[0]:.3e} → {norm[-1]:.3e}, "
    if not math.isnan(test_loss[0]):
        tested = f", test loss {test_loss[0]:.5g} → {test_loss[-1]:.5g}"
    else:
        tested = ""
    print(f"{fall}loss {loss[0]:.5g} → {loss[-1]:.5g}{tested}, accuracy {share(accuracy[-1])}")


def print_failures(done: Any) -> None:
    """Print how many jobs of a live run failed, if any, and how the first did."""
    if done.failures:
        print(f"{len(done.failures)} jobs failed, first: {done.failures[0]}")


def print_lanes(result: Any) -> None:
    """Print how every lane of a replay ended."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    tested = not math.isnan(result.test_loss[0, 0])
    for title in ("stepsize", "status", "final ‖∇f‖", "loss", *["test loss"] * tested, "accuracy"):
        table.add_column(title, justify="right")
    for lane, stepsize in enumerate(result.stepsizes):
        table.add_row(
            f"{stepsize:.4g}",
            result.status[lane],
            _norm(result.gradient_norm[-1, lane]),
            f"{result.loss[-1, lane]:.5g}",
            *[f"{result.test_loss[-1, lane]:.5g}"] * tested,
            share(result.accuracy[-1, lane]),
        )
    Console().print(table)


def _norm(value: float) -> str:
    """Return a gradient norm as text, a dash where there is none."""
    return "—" if math.isnan(value) else f"{value:.3e}"


def print_table(comparison: Any) -> None:
    """Print the tables of a comparison, as wide as they need where nobody watches."""
    from rich.console import Console

    from asgrad.report import print_comparison

    console = Console() if sys.stdout.isatty() else Console(width=160)
    print_comparison(console, comparison)


def print_summary(trace: Any) -> None:
    """Print what can be read off a trace."""
    summary = trace.summary
    print(f"{trace.header.recipe}, times {trace.header.times}, {trace.n_workers} workers")
    print(f"steps {summary.n_steps} in {summary.end_time:g} s")
    lost = f"lost {summary.n_lost}, " if summary.n_lost else ""
    print(f"jobs {summary.n_jobs}: applied {summary.n_applied}, dropped {summary.n_dropped}, "
          f"cancelled {summary.n_cancelled}, {lost}in flight {summary.n_in_flight}")  # fmt: skip
    print(f"delay: average {summary.tau_avg:.2f}, largest {summary.tau_max}; "
          f"concurrency {summary.tau_c}")  # fmt: skip
    idle = summary.idle_times.sum() / max(summary.end_time * trace.n_workers, 1e-300)
    print(f"idle {idle:.1%} of all workers' time; largest share of the work "
          f"{summary.work_shares.max():.1%}, smallest {summary.work_shares.min():.1%}")  # fmt: skip


@contextmanager
def live_line(title: str) -> Iterator[dict[str, Any]]:
    """Follow a live run on a terminal; stay quiet elsewhere."""
    if not sys.stderr.isatty():
        yield {}
        return
    from asgrad.report.live import live_line

    with live_line(title) as callbacks:
        yield callbacks
