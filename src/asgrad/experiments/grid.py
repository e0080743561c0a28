"""The outcome of every method, stepsize and seed of a comparison, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = ["RULE", "Cell", "Line", "choose", "summarize_method"]

RULE = (
    "For each method, the stepsize with the lowest median over seeds of the final gradient norm, "
    "among stepsizes of which no seed diverged."
)


@dataclass(frozen=True)
class Cell:
    """One method, stepsize and seed.

    Gradient norm, loss and accuracy are those of the last model; times are in seconds. A time to
    target of infinity says that it was not reached.
    """

    method: str
    stepsize: float
    seed: int
    status: str
    chosen: bool
    gradient_norm: float
    loss: float
    accuracy: float
    time_to_target: float
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

    method: str
    stepsize: float
    at_edge: bool
    """The chosen stepsize is the smallest or the largest of the grid."""
    n_steps: float
    time_to_target: float
    gradient_norm: float
    loss: float
    accuracy: float
    n_computed: float
    wasted: float
    """Share of the judged jobs that were dropped or cancelled."""
    tau_avg: float
    tau_max: float


def choose(stepsizes: np.ndarray, norms: np.ndarray, diverged: np.ndarray) -> int | None:
    """Return the index of the best stepsize by `RULE`; None if a seed diverged at each of them.

    Parameters
    ----------
    stepsizes : numpy.ndarray, shape (n_stepsizes,)
    norms : numpy.ndarray, shape (n_seeds, n_stepsizes)
        Final gradient norms.
    diverged : numpy.ndarray of bool, shape (n_seeds, n_stepsizes)
    """
    eligible = ~diverged.any(axis=0)
    if not eligible.any():
        return None
    median = np.where(eligible, np.median(np.where(diverged, np.inf, norms), axis=0), np.inf)
    return int(np.argmin(median))


def summarize_method(cells: list[Cell]) -> Line:
    """Return the line of one method from its cells."""
    grid = sorted({cell.stepsize for cell in cells})
    chosen = [cell for cell in cells if cell.chosen]
    shown = chosen or cells[:1]

    def median(name: str) -> float:
        return float(np.median([getattr(cell, name) for cell in shown]))

    nothing = float("nan")
    return Line(
        method=cells[0].method,
        stepsize=chosen[0].stepsize if chosen else nothing,
        at_edge=bool(chosen) and len(grid) > 1 and chosen[0].stepsize in (grid[0], grid[-1]),
        n_steps=median("n_steps"),
        time_to_target=median("time_to_target") if chosen else float("inf"),
        gradient_norm=median("gradient_norm") if chosen else nothing,
        loss=median("loss") if chosen else nothing,
        accuracy=median("accuracy") if chosen else nothing,
        n_computed=median("n_computed"),
        wasted=median("wasted"),
        tau_avg=median("tau_avg"),
        tau_max=median("tau_max"),
    )


def columns(rows: list[Any], kind: type) -> dict[str, list[Any]]:
    """Return dataclass rows as columns."""
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(kind)}
