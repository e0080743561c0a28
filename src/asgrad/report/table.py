"""The table of a comparison, for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["comparison_table", "table_text"]


def comparison_table(lines: Sequence[Any], target: float, smoothness: float) -> Any:
    """Return the table as something rich can print: one line a method, best first.

    Parameters
    ----------
    lines : sequence of Line
    target : float
        Gradient norm of "time to target".
    smoothness : float
        L, in whose inverse the stepsizes are shown; NaN shows them plainly.
    """
    from rich.table import Table

    known = math.isfinite(smoothness)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method", no_wrap=True)
    for title in (
        "stepsize·L" if known else "stepsize",
        "steps",
        "time to target" if math.isnan(target) else f"time to ‖∇f‖≤{target:.2g}",
        "final ‖∇f‖",
        "loss",
        "accuracy",
        "gradients",
        "wasted",
        "τ_avg",
        "τ_max",
    ):
        table.add_column(title, justify="right")
    worst = math.inf
    for line in sorted(
        lines, key=lambda line: line.gradient_norm if line.gradient_norm >= 0 else worst
    ):
        unit = smoothness if known else 1.0
        edge = "*" if line.at_edge else ""
        table.add_row(
            line.method,
            "diverged" if math.isnan(line.stepsize) else f"{line.stepsize * unit:.3g}{edge}",
            f"{line.n_steps:.0f}",
            _seconds(line.time_to_target),
            _number(line.gradient_norm, ".2e"),
            _number(line.loss, ".4g"),
            _number(line.accuracy, ".1%"),
            f"{line.n_computed:.0f}",
            f"{line.wasted:.0%}",
            f"{line.tau_avg:.1f}",
            f"{line.tau_max:.0f}",
        )
    return table


def table_text(lines: Sequence[Any], target: float, smoothness: float) -> str:
    """Return the table as plain text."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    Console(file=text, width=160).print(comparison_table(lines, target, smoothness))
    return text.getvalue().rstrip()


def _seconds(value: float) -> str:
    """Return a time as text to three digits or whole seconds, a dash for never."""
    if not math.isfinite(value):
        return "—"
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def _number(value: float, form: str) -> str:
    """Return a number as text, a dash for NaN."""
    return "—" if math.isnan(value) else format(value, form)
