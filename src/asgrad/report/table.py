"""The table of a comparison, for a terminal and for a notebook."""

from __future__ import annotations

import math
from html import escape
from typing import Any

__all__ = ["print_comparison", "table_html", "table_text"]

_LEAST_MISSED = (
    "gradients", "τ_avg", "wasted", "τ_max", "test loss", "steps", "loss", "accuracy",
)  # fmt: skip
_START = "(start)"
_BASELINE = "sync"  # which every asynchronous method has to beat


def print_comparison(console: Any, comparison: Any) -> None:
    """Print a table for every panel, best method first, and how its numbers came about.

    Parameters
    ----------
    console : rich.console.Console
        A narrow one gets fewer columns.
    comparison : Comparison
    """
    from rich.measure import measure_renderables

    lines = comparison.lines
    hidden: list[str] = []
    for panel in comparison.panels:
        mine = [line for line in lines if line.panel == panel.name]
        if not mine:
            continue
        # What is measured decides the order and the choice: it is never left out.
        kept = comparison.rule.judged.symbol
        optional = [column for column in _LEAST_MISSED if column != kept]
        table = _rich(_rows(comparison, panel, mine), hidden)
        wide = console.options.update(width=1000)
        while measure_renderables(console, wide, [table]).maximum > console.width and optional:
            hidden.append(optional.pop(0))
            table = _rich(_rows(comparison, panel, mine), hidden)
        if panel.name:
            _print(console, f"{panel.name}: {panel.problem}", style="bold")
        console.print(table)
        for note in _remarks(comparison, panel, mine):
            _print(console, note)
        if panel is not comparison.panels[-1]:
            console.print()
    notes = [*comparison.notes, "τ counts gradients applied and those still in flight at the end."]
    if hidden:
        notes.append(f"Not shown in this width: {', '.join(dict.fromkeys(hidden))}.")
    for note in notes:
        _print(console, note, style="dim")


def _print(console: Any, text: str, style: str | None = None) -> None:
    """Print a text as it is: names of methods and of files may look like markup."""
    console.print(text, style=style, highlight=False, markup=False, emoji=False)


def table_text(comparison: Any) -> str:
    """Return the tables as plain text."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    print_comparison(Console(file=text, width=160), comparison)
    return text.getvalue().rstrip()


def table_html(comparison: Any) -> str:
    """Return the tables as HTML, for notebooks."""
    parts = []
    for panel in comparison.panels:
        mine = [line for line in comparison.lines if line.panel == panel.name]
        header, *rows = _rows(comparison, panel, mine)
        caption = f"<caption>{escape(panel.name or panel.problem)}</caption>"
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        parts.append(
            f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + "".join(f"<p>{escape(note)}</p>" for note in _remarks(comparison, panel, mine))
        )
    return "".join(parts) + "".join(f"<p>{escape(note)}</p>" for note in comparison.notes)


def _rich(rows: list[list[str]], hidden: list[str]) -> Any:
    """Return a table without some columns."""
    from rich.table import Table
    from rich.text import Text

    shown = [i for i, title in enumerate(rows[0]) if title not in hidden]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i in shown:
        justify: Any = "right" if i else "left"
        table.add_column(rows[0][i], justify=justify, no_wrap=True)
    for row in rows[1:]:
        table.add_row(*(Text(row[i]) for i in shown), style="dim" if row[0] == _START else None)
    return table


def _rows(comparison: Any, panel: Any, lines: list[Any]) -> list[list[str]]:
    """Return the header and the rows of a panel's table; the start stands where it belongs."""
    rule, measure = comparison.rule, comparison.rule.judged
    unit = panel.smoothness if panel.in_units else 1.0
    shown = [m for m in comparison.measures if not math.isnan(panel.start[m.name])]
    header = ["method", "stepsize·L" if panel.in_units else "stepsize", "steps"]
    header += [_reach(measure, target) for target in panel.targets]
    header += [m.symbol for m in shown] + ["gradients", "wasted", "τ_avg", "τ_max"]
    start = [_START, "", "0", *("" for _ in panel.targets)]
    start += [m.text(panel.start[m.name]) for m in shown] + ["0", "", "", ""]
    rows = []
    for line in lines:
        stepsize = f"{line.stepsize * unit:.3g}{'*' if line.edge and line.helps else ''}"
        rows.append(
            [
                line.method,
                "diverged" if math.isnan(line.stepsize) else stepsize,
                f"{line.n_steps:.0f}",
                *(_spread(*times) for times in line.times_to_target),
                *(m.text(getattr(line, m.name)) for m in shown),
                f"{line.n_computed:.0f}",
                f"{line.wasted:.0%}",
                f"{line.tau_avg:.1f}",
                f"{line.tau_max:.0f}",
            ]
        )
    worse = [
        not measure.sign * getattr(line, measure.name) < measure.sign * panel.start[measure.name]
        for line in lines
    ]
    # Sorted by time the rows need not be sorted by the measure: then the start stands last.
    place = worse.index(True) if True in worse and not rule.by_time else len(rows)
    return [header, *rows[:place], start, *rows[place:]]


def _remarks(comparison: Any, panel: Any, lines: list[Any]) -> list[str]:
    """Return what a reader of a panel's table has to know: who is first, and what went wrong."""
    found = []
    if panel.targets:
        reach = _reach(comparison.rule.judged, panel.targets[0]).removeprefix("time to ")
        times = {line.method: line.times_to_target[0][0] for line in lines}
        soonest = min(times.values())
        if math.isfinite(soonest):
            first = [method for method, time in times.items() if time == soonest]
            said = f"First at {reach}: {', '.join(first)}, after {_seconds(soonest, ' s')}"
            base = times.get(_BASELINE, math.nan)
            if _BASELINE not in first and not math.isnan(base):
                late = f"after {_seconds(base, ' s')}" if math.isfinite(base) else "never"
                said += f"; {_BASELINE} {late}"
            found.append(f"{said}.")
    edges = {edge: [line.method for line in lines if line.edge == edge and line.helps]
             for edge in ("smallest", "largest")}  # fmt: skip
    tried = [f"{edge} stepsize tried ({', '.join(m)})" for edge, m in edges.items() if m]
    if tried:
        found.append(f"* {'; '.join(tried)}: one beyond it may do better.")
    settled = [line for line in lines if not math.isnan(line.stepsize)]
    stuck = [line.method for line in settled if not line.helps and line.n_steps]
    if stuck:
        found.append(
            f"No stepsize helps: {', '.join(stuck)}; at best {comparison.rule.judged.symbol} ends "
            "no better than it began."
        )
    idle = [line.method for line in settled if not line.n_steps]
    if idle:
        found.append(f"No step was taken within the horizon: {', '.join(idle)}.")
    diverged = [line.method for line in lines if math.isnan(line.stepsize)]
    if diverged:
        found.append(f"Diverged at every stepsize: {', '.join(diverged)}.")
    return found


def _reach(measure: Any, target: float) -> str:
    """Return the title of the column of a target."""
    sign = "≥" if measure.sign < 0 else "≤"
    text = f"{target:.3g}" if measure.name != "accuracy" else f"{target:.1%}"
    return f"time to {measure.symbol}{sign}{text}"


def _spread(median: float, least: float, most: float) -> str:
    """Return a time as text, with its range over the seeds; a dash for never."""
    if median == least == most:
        return _seconds(median, " s")
    return f"{_seconds(median, ' s')} ({_seconds(least)}–{_seconds(most)})"


def _seconds(value: float, unit: str = "") -> str:
    """Return a time as text to three digits or whole seconds, a dash for never."""
    if not math.isfinite(value):
        return "—"
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}"
