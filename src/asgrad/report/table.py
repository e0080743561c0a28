"""The table of a comparison, for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["print_comparison", "table_text"]


_COLUMNS = (
    "steps", "time", "final ‖∇f‖", "loss", "accuracy", "gradients", "wasted", "τ_avg", "τ_max",
)  # fmt: skip
_LEAST_MISSED = ("gradients", "τ_avg", "wasted", "τ_max", "steps", "loss")


def print_comparison(console: Any, lines: Sequence[Any], target: float, smoothness: float) -> None:
    """Print the table of a comparison, best method first, and what its marks mean.

    Parameters
    ----------
    console : rich.console.Console
        A narrow one gets fewer columns.
    lines : sequence of Line
    target : float
        Gradient norm of "time to target".
    smoothness : float
        L, in whose inverse the stepsizes are shown; NaN shows them plainly.
    """
    from rich.measure import measure_renderables

    hidden: list[str] = []
    table = _table(lines, target, smoothness, hidden)
    wide = console.options.update(width=1000)
    while measure_renderables(console, wide, [table]).maximum > console.width and len(hidden) < len(
        _LEAST_MISSED
    ):
        hidden.append(_LEAST_MISSED[len(hidden)])
        table = _table(lines, target, smoothness, hidden)
    console.print(table)
    notes = ["τ counts gradients applied and those still in flight at the end."]
    if any(line.at_edge for line in lines):
        notes.append(
            "* smallest or largest stepsize of the grid: a wider grid may do better, or every step "
            "does harm."
        )
    diverged = [line.method for line in lines if math.isnan(line.stepsize)]
    if diverged:
        notes.append(f"Diverged at every stepsize: {', '.join(diverged)}.")
    if hidden:
        notes.append(f"Not shown in this width: {', '.join(hidden)}.")
    for note in notes:
        console.print(note, style="dim", highlight=False)


def table_text(lines: Sequence[Any], target: float, smoothness: float) -> str:
    """Return the table as plain text."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    print_comparison(Console(file=text, width=160), lines, target, smoothness)
    return text.getvalue().rstrip()


def _table(lines: Sequence[Any], target: float, smoothness: float, hidden: Sequence[str]) -> Any:
    """Return the table without some columns."""
    from rich.table import Table

    known = math.isfinite(smoothness)
    shown = [column for column in _COLUMNS if column not in hidden]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("stepsize·L" if known else "stepsize", justify="right", no_wrap=True)
    reach = "time to target" if math.isnan(target) else f"time to ‖∇f‖≤{target:.2g}"
    for column in shown:
        table.add_column(reach if column == "time" else column, justify="right", no_wrap=True)
    for line in sorted(
        lines, key=lambda line: line.gradient_norm if line.gradient_norm >= 0 else math.inf
    ):
        unit = smoothness if known else 1.0
        edge = "*" if line.at_edge else ""
        cells = {
            "steps": f"{line.n_steps:.0f}",
            "time": _seconds(line.time_to_target),
            "final ‖∇f‖": _number(line.gradient_norm, ".2e"),
            "loss": _number(line.loss, ".4g"),
            "accuracy": _number(line.accuracy, ".1%"),
            "gradients": f"{line.n_computed:.0f}",
            "wasted": f"{line.wasted:.0%}",
            "τ_avg": f"{line.tau_avg:.1f}",
            "τ_max": f"{line.tau_max:.0f}",
        }
        table.add_row(
            line.method,
            "diverged" if math.isnan(line.stepsize) else f"{line.stepsize * unit:.3g}{edge}",
            *(cells[column] for column in shown),
        )
    return table


def _seconds(value: float) -> str:
    """Return a time as text to three digits or whole seconds, a dash for never."""
    if not math.isfinite(value):
        return "—"
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def _number(value: float, form: str) -> str:
    """Return a number as text, a dash for NaN."""
    return "—" if math.isnan(value) else format(value, form)
