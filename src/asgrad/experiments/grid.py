"""The outcome of every method, stepsize and seed of a comparison, and what it comes to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asgrad.experiments.choice import MEASURES, Rule, choose, gains, windowed
from asgrad.numerics import Status
from asgrad.numerics.plan import model_times

if TYPE_CHECKING:
    from asgrad.experiments.work import Horizon, Key
    from asgrad.numerics import Result
    from asgrad.trace import Trace

__all__ = ["Cell", "Found", "Line", "Panel", "cells_of", "choice_among", "lines_of"]


@dataclass(frozen=True)
class Panel:
    """One of the problems on which the methods are compared."""

    name: str
    problem: str
    """The problem in a few words."""
    smoothness: float
    """L; NaN where it is not known."""
    smoothness_source: str
    """How L was got."""
    in_units: bool
    """Whether stepsizes are shown in units of 1/L: not those that the user gave."""
    start: dict[str, float]
    """The value of every measure at the start."""
    targets: list[float]
    """The easiest first."""
    target_source: str
    """How the targets were got."""


@dataclass(frozen=True)
class Cell:
    """One method, stepsize and seed on one panel's problem.

    Gradient norm, losses and accuracy are medians over the last window of evaluations; times are in
    seconds. A time to target of infinity says that it was not reached.
    """

    panel: str
    method: str
    stepsize: float
    seed: int
    status: str
    chosen: bool
    gradient_norm: float
    loss: float
    test_loss: float
    accuracy: float
    times_to_target: list[float]
    n_steps: int
    end_time: float
    n_computed: int
    wasted: float
    tau_avg: float
    tau_max: int
    tau_c: int


@dataclass(frozen=True)
class Line:
    """A method at its chosen stepsize: medians over the seeds. NaN stepsize: every one diverged."""

    panel: str
    method: str
    stepsize: float
    edge: str
    """"smallest" or "largest" if the chosen stepsize is that of its grid, else empty."""
    helps: bool
    """Whether the method ends better than it began."""
    n_steps: float
    times_to_target: list[tuple[float, float, float]]
    """For every target the median over the seeds, the least and the most."""
    gradient_norm: float
    loss: float
    test_loss: float
    accuracy: float
    n_computed: float
    wasted: float
    """Share of the judged jobs that were dropped or cancelled."""
    tau_avg: float
    tau_max: float


@dataclass(frozen=True, eq=False)
class Found:
    """What a comparison came to: all that is kept of it. `Comparison` says what it is."""

    panels: list[Panel]
    cells: list[Cell]
    results: dict[Key, Result]
    traces: Mapping[tuple[str, int], Trace]
    rule: Rule
    horizon: Horizon
    notes: list[str]
    origin: dict[str, Any]
    complete: bool


def choice_among(
    results: Sequence[Result],
    traces: Sequence[Trace],
    rule: Rule,
    targets: Sequence[float],
) -> int | None:
    """Return which of a method's stepsizes is best by the rule; None if every one diverged.

    `results` and `traces` have one element a seed; targets matter where time decides.
    """
    diverged = np.array([[s == Status.DIVERGED for s in result.status] for result in results])
    sign = rule.judged.sign
    scores = [np.array([sign * windowed(getattr(r, rule.measure), rule.window) for r in results])]
    if rule.by_time and targets:
        reach = [
            [_time_to(rule, r, trace, lane, targets[0]) for lane in range(r.stepsizes.size)]
            for r, trace in zip(results, traces, strict=True)
        ]
        scores.insert(0, np.array(reach))
    return choose(diverged, *scores)


def cells_of(
    panel: Panel, method: str, seed: int, result: Result, trace: Trace, best: int | None, rule: Rule
) -> list[Cell]:
    """Return the cells of one method and seed."""
    summary = trace.summary
    last = {name: windowed(getattr(result, name), rule.window) for name in MEASURES}
    return [
        Cell(
            panel=panel.name,
            method=method,
            stepsize=float(stepsize),
            seed=seed,
            status=str(result.status[lane]),
            chosen=lane == best,
            **{name: float(values[lane]) for name, values in last.items()},
            times_to_target=[_time_to(rule, result, trace, lane, t) for t in panel.targets],
            n_steps=summary.n_steps,
            end_time=summary.end_time,
            n_computed=summary.n_computed,
            wasted=summary.wasted_share,
            tau_avg=summary.tau_avg,
            tau_max=summary.tau_max,
            tau_c=summary.tau_c,
        )
        for lane, stepsize in enumerate(result.stepsizes)
    ]


def _time_to(rule: Rule, result: Result, trace: Trace, lane: int, target: float) -> float:
    """Return when the first evaluated model that meets the target came to be, else infinity."""
    hit = rule.first(getattr(result, rule.measure)[:, lane], target)
    return math.inf if hit is None else float(model_times(trace, result.steps[hit : hit + 1])[0])


def lines_of(panel: Panel, cells: Sequence[Cell], rule: Rule) -> list[Line]:
    """Return a panel's lines, the best first; where every stepsize diverged, last."""
    mine = [cell for cell in cells if cell.panel == panel.name]
    names = dict.fromkeys(cell.method for cell in mine)
    lines = [_line(panel, [c for c in mine if c.method == name], rule) for name in names]
    sign = rule.judged.sign

    def rank(line: Line) -> tuple[float, float]:
        value = sign * getattr(line, rule.measure)
        time = line.times_to_target[0][0] if rule.by_time and line.times_to_target else 0.0
        return (math.inf, 0.0) if math.isnan(line.stepsize) else (time, value)

    return sorted(lines, key=rank)


def _line(panel: Panel, cells: Sequence[Cell], rule: Rule) -> Line:
    """Return the line of one method from its cells."""
    grid = sorted({cell.stepsize for cell in cells})
    chosen = [cell for cell in cells if cell.chosen]
    shown = chosen or cells[:1]

    def median(name: str) -> float:
        return float(np.median([getattr(cell, name) for cell in shown]))

    nothing = math.nan
    stepsize = chosen[0].stepsize if chosen else nothing
    ends = {} if len(grid) == 1 else {grid[0]: "smallest", grid[-1]: "largest"}
    measures = {name: median(name) if chosen else nothing for name in MEASURES}
    times = np.array([cell.times_to_target for cell in shown]).reshape(len(shown), -1)
    never = not chosen
    spread = [np.full(times.shape[1], math.inf)] * 3 if never else [
        np.median(times, axis=0), times.min(axis=0), times.max(axis=0)
    ]  # fmt: skip
    return Line(
        panel=panel.name,
        method=cells[0].method,
        stepsize=stepsize,
        edge=ends.get(stepsize, ""),
        helps=gains(rule.judged, panel.start[rule.measure], measures[rule.measure]),
        n_steps=median("n_steps"),
        times_to_target=[(float(m), float(a), float(b)) for m, a, b in zip(*spread, strict=True)],
        **measures,
        n_computed=median("n_computed"),
        wasted=median("wasted"),
        tau_avg=median("tau_avg"),
        tau_max=median("tau_max"),
    )


def columns(rows: Sequence[object], kind: type) -> dict[str, list[object]]:
    """Return dataclass rows as columns."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: [getattr(row, name) for row in rows] for name in names}
