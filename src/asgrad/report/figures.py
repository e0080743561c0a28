"""The figures of a comparison."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asgrad.trace import Fate, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["write_figures"]

# Okabe and Ito's colours, told apart by most colour-blind readers, then again dashed.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")
_FATES = {
    Fate.APPLIED: ("#0072B2", "applied"),
    Fate.DROPPED: ("#D55E00", "dropped"),
    Fate.CANCELLED: ("#CC79A7", "cancelled"),
    Fate.IN_FLIGHT: ("#BBBBBB", "in flight"),
}


def write_figures(comparison: Any, folder: Path) -> None:
    """Write gradient_norm.png, delays.png and gantt.png of a `Comparison` into `folder`."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True)
    chosen = {cell.method: cell.stepsize for cell in comparison.cells if cell.chosen}
    styles = _styles(list(dict.fromkeys(cell.method for cell in comparison.cells)))
    first = {method: trace for (method, _), trace in reversed(list(comparison.traces.items()))}
    first = {method: first[method] for method in styles}
    for name, figure in {
        "gradient_norm": _gradient_norm(Figure, comparison, chosen, styles),
        "delays": _delays(Figure, first, styles),
        "gantt": _gantt(Figure, first),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=150)


def _styles(methods: list[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a line style for every method."""
    pairs = ((color, dash) for dash in cycle(_DASHES) for color in _COLORS)
    return {
        method: {"color": color, "linestyle": dash}
        for method, (color, dash) in zip(methods, pairs, strict=False)
    }


def _gradient_norm(
    figure_class: Any, comparison: Any, chosen: Mapping[str, float], styles: Mapping[str, Any]
) -> Any:
    """‖∇f‖ by step and by time at the chosen stepsizes: median over seeds, band from min to max."""
    figure = figure_class(figsize=(11, 4.6), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for method, stepsize in chosen.items():
        runs = [r for (name, _), r in comparison.results.items() if name == method]
        # Seeds may differ in length and pace: all are read off on one grid.
        for axes, abscissa in ((by_step, "steps"), (by_time, "times")):
            last = max(getattr(run, abscissa)[-1] for run in runs)
            first = min(run.steps[min(1, run.steps.size - 1)] for run in runs)
            grid = (
                np.geomspace(max(first, 1), max(last, 2), 200)
                if axes is by_step
                else np.linspace(0, last, 200)
            )
            curves = np.array([_curve(run, stepsize, abscissa, grid) for run in runs])
            with np.errstate(all="ignore"):
                middle = np.exp(np.median(np.log(curves), axis=0))
            axes.plot(grid, middle, label=method, linewidth=1.6, **styles[method])
            if len(runs) > 1:
                axes.fill_between(
                    grid,
                    curves.min(axis=0),
                    curves.max(axis=0),
                    color=styles[method]["color"],
                    alpha=0.12,
                    linewidth=0,
                )
    by_time.axhline(comparison.target, color="#777777", linewidth=0.8)
    by_time.annotate(
        "target", (1.0, comparison.target), xycoords=("axes fraction", "data"),
        ha="right", va="bottom", fontsize=8, color="#555555",
    )  # fmt: skip
    by_step.set(xlabel="server step", ylabel="‖∇f(x)‖", xscale="log", yscale="log", title="by step")
    by_time.set(xlabel="time (s)", title="by time")
    by_time.set_xlim(left=0)
    for axes in (by_step, by_time):
        axes.grid(alpha=0.25)
    figure.legend(*by_time.get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure


def _curve(run: Any, stepsize: float, abscissa: str, grid: np.ndarray) -> np.ndarray:
    """Return one seed's gradient norm on `grid`; NaN beyond its end."""
    lane = int(np.flatnonzero(run.stepsizes == stepsize)[0])
    at = getattr(run, abscissa)
    norm: np.ndarray = np.interp(grid, at, run.gradient_norm[:, lane], right=np.nan)
    norm[(grid > at[-1]) & (grid <= at[-1] * (1 + 1e-9))] = run.gradient_norm[-1, lane]
    return norm


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
            label=method,
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
    from matplotlib.patches import Patch

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
        jobs = trace.jobs
        end = np.where(np.isnan(jobs.arrival_time), trace.header.end_time, jobs.arrival_time)
        shown = ~np.isnan(jobs.start_time) & (jobs.start_time < window) & (jobs.worker < 30)
        for fate, (color, _) in _FATES.items():
            rows = np.flatnonzero(shown & (jobs.fate == fate))
            axes.barh(
                jobs.worker[rows],
                (end - jobs.start_time)[rows],
                left=jobs.start_time[rows],
                height=0.8,
                color=color,
                edgecolor="white",
                linewidth=0.5,
            )
        steps = trace.step_times[trace.step_times <= window]
        axes.plot(steps, np.full(steps.size, -0.9), "|", color="black", markersize=5)
        few = " (first 30 workers)" if trace.n_workers > 30 else ""
        axes.set_title(f"{method}{few}", fontsize=9)
        axes.set(xlim=(0, window), ylim=(min(n_workers, 30) - 0.4, -1.4))
    for column in panels.T:
        for lowest in [axes for axes in column if axes.get_visible()][-1:]:
            lowest.set_xlabel("time (s); ticks on top: server steps")
            lowest.tick_params(labelbottom=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("worker")
    handles = [Patch(color=color, label=label) for color, label in _FATES.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _window(trace: Trace) -> float:
    """Return a time in which the slowest worker ends about three jobs."""
    jobs = trace.jobs
    took = jobs.arrival_time - jobs.start_time
    longest = float(np.nanquantile(took, 0.99)) if np.isfinite(took).any() else 1.0
    return max(min(3.0 * longest, trace.header.end_time), 1e-9)
