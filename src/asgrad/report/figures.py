"""The figures of a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.trace import Fate, Trace

__all__ = ["convergence", "write_figures"]

# Okabe and Ito's colours, told apart by most colour-blind readers.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_FATES = {
    Fate.APPLIED: ("#0072B2", "applied"),
    Fate.DROPPED: ("#D55E00", "dropped"),
    Fate.CANCELLED: ("#CC79A7", "cancelled"),
    Fate.IN_FLIGHT: ("#BBBBBB", "in flight"),
    Fate.LOST: ("#000000", "lost"),
}
_SENDING: dict[str, Any] = {"alpha": 0.45, "hatch": "////", "edgecolor": "white", "linewidth": 0.0}
_AWAY: dict[str, Any] = {
    "facecolor": "none", "hatch": "xxxx", "edgecolor": "#999999", "linewidth": 0.0,
}  # fmt: skip


def write_figures(comparison: Any, folder: Path) -> None:
    """Write convergence.png, delays.png and gantt.png of a `Comparison` into `folder`."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True)
    styles = _styles(list(dict.fromkeys(cell.method for cell in comparison.cells)))
    first = {method: trace for (method, _), trace in reversed(list(comparison.traces.items()))}
    first = {method: first[method] for method in styles}
    for name, figure in {
        "convergence": convergence(comparison),
        "delays": _delays(Figure, first, styles),
        "gantt": _gantt(Figure, first),
    }.items():
        with warnings.catch_warnings():  # a sign that the font lacks is drawn as a box
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(folder / f"{name}.png", dpi=150)


def _plain(text: str) -> str:
    """Return a text that matplotlib draws as it is: no formula, nor one that legends leave out.

    One that would leave no room for the axes is shortened.
    """
    if len(text) > 70:
        text = f"{text[:40]}…{text[-25:]}"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _styles(methods: list[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a line style for every method; no two have both in common."""
    styles = {}
    for i, method in enumerate(methods):
        turn, color = divmod(i, len(_COLORS))
        # Solid, dashed, dotted; then dashes with ever more dots between them.
        dash: Any = ("-", "--", ":")[turn] if turn < 3 else (0, (5, 1.5) + (1, 1.5) * (turn - 2))
        styles[method] = {"color": _COLORS[color], "linestyle": dash}
    return styles


def convergence(comparison: Any) -> Any:
    """Draw the measure by step and by time at the chosen stepsizes, a row a panel.

    Lines are medians over the seeds, bands go from the least to the most. Along the axis of the
    limit every method goes from the start to the horizon.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    panels, measure = comparison.panels, comparison.rule.judged
    styles = _styles(list(dict.fromkeys(cell.method for cell in comparison.cells)))
    figure = Figure(figsize=(11, 0.4 + 4.4 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), 2, sharey="row", squeeze=False)
    for panel, (by_step, by_time) in zip(panels, rows, strict=True):
        chosen = {
            c.method: c.stepsize for c in comparison.cells if c.chosen and c.panel == panel.name
        }
        for method, stepsize in chosen.items():
            runs = [r for key, r in comparison.results.items() if key[:2] == (panel.name, method)]
            for axes, abscissa in ((by_step, "steps"), (by_time, "times")):
                grid, curves = _curves(runs, stepsize, measure.name, abscissa)
                axes.plot(
                    grid, np.median(curves, axis=0), label=_plain(method), linewidth=1.6,
                    **styles[method],
                )  # fmt: skip
                if len(runs) > 1:
                    low, high = curves.min(axis=0), curves.max(axis=0)
                    color = styles[method]["color"]
                    axes.fill_between(grid, low, high, color=color, alpha=0.12, linewidth=0)
        for i, target in enumerate(panel.targets):
            by_time.axhline(target, color="#777777", linewidth=0.8)
            by_time.annotate(
                "target" if len(panel.targets) == 1 else f"target {i + 1}", (1.01, target),
                xycoords=("axes fraction", "data"), ha="left", va="center", fontsize=8,
                color="#555555",
            )  # fmt: skip
        title = f"{panel.name}: {panel.problem}" if panel.name else panel.problem
        by_step.set_title(f"{_plain(title)}\nby step", fontsize=10)
        by_time.set_title("by time", fontsize=10)
        by_step.set(xlabel="server step", ylabel=_axis_label(measure))
        by_step.set_xscale("symlog", linthresh=1.0)  # it begins at step 0
        by_time.set(xlabel="time (s)")
        # A loss may be negative, an accuracy is a share; within a decade logarithms have no ticks.
        drawn = [np.ravel(line.get_ydata()) for line in by_time.lines]
        heights = np.concatenate([*drawn, np.ravel(panel.start[measure.name])])
        spread = heights.min() > 0 and heights.max() > 10 * heights.min()
        for axes in (by_step, by_time):
            axes.set_xlim(left=0)
            axes.set_yscale("log" if measure.sign > 0 and spread else "linear")
            axes.grid(alpha=0.25)
    handles = {
        label: handle
        for axes in rows.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=9)
    return figure


def _axis_label(measure: Any) -> str:
    """Return the label of the measure's axis."""
    return "‖∇f(x)‖" if measure.name == "gradient_norm" else str(measure.words)


def _curves(
    runs: list[Any], stepsize: float, measure: str, abscissa: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid along an axis and the seeds' curves on it, each holding its last model.

    Where the seeds were looked at in common, that is the grid; else all places at which one was.
    """
    grid = np.unique(np.concatenate([getattr(run, abscissa) for run in runs]))
    curves = []
    for run in runs:
        lane = int(np.flatnonzero(np.isclose(run.stepsizes, stepsize, rtol=1e-12, atol=0))[0])
        at = np.searchsorted(getattr(run, abscissa), grid, side="right") - 1
        curves.append(getattr(run, measure)[at, lane])
    return grid, np.array(curves)


def _delays(figure_class: Any, traces: Mapping[str, Trace], styles: Mapping[str, Any]) -> Any:
    """The share of applied gradients whose delay is at least τ."""
    figure = figure_class(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    for method, trace in traces.items():
        delays = np.sort(trace.delays)
        if not delays.size:
            continue
        values, first = np.unique(delays, return_index=True)
        at_least = 1.0 - first / delays.size
        axes.step(
            np.append(0, values),
            np.append(1.0, at_least),
            where="pre",
            label=_plain(method),
            linewidth=1.6,
            marker="." if values.size == 1 else None,
            **styles[method],
        )
    axes.set(
        xlabel="delay τ (server steps)",
        ylabel="share of gradients with delay ≥ τ",
        xscale="symlog",
        yscale="log",
        title="delays of the applied gradients",
    )
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def _gantt(figure_class: Any, traces: Mapping[str, Trace]) -> Any:
    """Who worked when: every job of the first moments, coloured by its fate; ticks are steps."""
    n_columns = 2
    n_rows = -(-len(traces) // n_columns)
    n_workers = max(trace.n_workers for trace in traces.values())
    height = min(0.16 * min(n_workers, 30) + 0.7, 4.0)
    figure = figure_class(figsize=(11, n_rows * height + 0.5), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    window = max(_window(trace) for trace in traces.values())
    for axes in panels.flat[len(traces) :]:
        axes.set_visible(False)
    for axes, (method, trace) in zip(panels.flat, traces.items(), strict=False):
        _draw_jobs(axes, trace, window)
        steps = trace.step_times[trace.step_times <= window]
        axes.plot(steps, np.full(steps.size, -0.9), "|", color="black", markersize=5)
        few = " (first 30 workers)" if trace.n_workers > 30 else ""
        axes.set_title(f"{_plain(method)}{few}", fontsize=9)
        axes.set(xlim=(0, window), ylim=(min(n_workers, 30) - 0.4, -1.4))
    for column in panels.T:
        for lowest in [axes for axes in column if axes.get_visible()][-1:]:
            lowest.set_xlabel("time (s); ticks on top: server steps")
            lowest.tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("worker")
    handles = _gantt_legend(traces.values())
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    return figure


def _draw_jobs(axes: Any, trace: Trace, window: float) -> None:
    """Draw what every worker did: computing in full colour, then sending; and when it was away."""
    jobs, end_time = trace.jobs, trace.header.end_time
    end = np.where(np.isnan(jobs.arrival_time), end_time, jobs.arrival_time)
    computed = np.where(np.isnan(jobs.finish_time), end, jobs.finish_time)
    shown = ~np.isnan(jobs.start_time) & (jobs.start_time < window) & (jobs.worker < 30)
    for fate, (color, _) in _FATES.items():
        rows = np.flatnonzero(shown & (jobs.fate == fate))
        workers, begin = jobs.worker[rows], jobs.start_time[rows]
        axes.barh(workers, computed[rows] - begin, left=begin, height=0.8, color=color,
                  edgecolor="white", linewidth=0.5)  # fmt: skip
        sends = end[rows] > computed[rows]
        rows = rows[sends]
        axes.barh(jobs.worker[rows], end[rows] - computed[rows], left=computed[rows], height=0.4,
                  color=color, **_SENDING)  # fmt: skip
    gone = trace.absences
    rows = np.flatnonzero((gone.begin_time < window) & (gone.worker < 30))
    back = np.where(np.isnan(gone.end_time), end_time, gone.end_time)[rows]
    axes.barh(gone.worker[rows], back - gone.begin_time[rows], left=gone.begin_time[rows],
              height=0.8, **_AWAY)  # fmt: skip


def _gantt_legend(traces: Iterable[Trace]) -> list[Any]:
    """Return what the colours stand for, of those that every figure has and those that come up."""
    from matplotlib.patches import Patch

    traces = list(traces)
    fates: list[Fate] = [fate for fate in _FATES if fate != Fate.LOST]
    if any((trace.jobs.fate == Fate.LOST).any() for trace in traces):
        fates.append(Fate.LOST)
    handles = [Patch(color=_FATES[fate][0], label=_FATES[fate][1]) for fate in fates]
    if any(not np.isnan(trace.jobs.finish_time).all() for trace in traces):
        handles.append(Patch(facecolor="#0072B2", label="sending", **_SENDING))
    if any(trace.absences.worker.size for trace in traces):
        handles.append(Patch(label="away", **_AWAY))
    return handles


def _window(trace: Trace) -> float:
    """Return a time in which the slowest worker ends about three jobs."""
    jobs = trace.jobs
    took = jobs.arrival_time - jobs.start_time
    longest = float(np.nanquantile(took, 0.99)) if np.isfinite(took).any() else 1.0
    return max(min(3.0 * longest, trace.header.end_time), 1e-9)
