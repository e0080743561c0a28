"""What all replays of one trace on one problem have in common, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from asgrad.errors import (
    AsgradError,
    TraceError,
    check_choice,
    check_integer,
    check_kind,
    n_axes,
    shown,
)
from asgrad.numerics.plan import Plan, count_gradients, model_times, plan_replay
from asgrad.problems.base import Packed, Problem, check_problem
from asgrad.trace import Trace

__all__ = ["Prepared", "checked_dtype", "listed", "prepare"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A trace and a problem, made ready for replays of it on several threads, as they were then.

    Attributes
    ----------
    trace : Trace
    problem : Problem
    dtype : str
    plan : Plan
    n_slots, n_entries : int
        Model versions that are kept, and entries of the table.
    packed : Packed
        The problem's data.
    times, gradients : numpy.ndarray
        Of the evaluated models, of shape (n_evaluations,), as in `Result`.
    """

    trace: Trace
    problem: Problem
    dtype: str
    plan: Plan
    n_slots: int
    n_entries: int
    packed: Packed
    times: np.ndarray
    gradients: np.ndarray

    @cached_property
    def remembering(self) -> tuple[Plan, int, int]:
        """Plan, versions and entries for an encoder that remembers; made when one asks first."""
        return plan_replay(self.trace, self.plan.evaluated, remembers=True)


def prepare(
    trace: Trace,
    problem: Problem,
    evaluations: int | Sequence[int] = 100,
    dtype: str | None = None,
) -> Prepared:
    """Plan the replays of a trace on a problem, with arguments as of `replay`."""
    check_kind("replay", "trace", trace, Trace, "ag.Trace.load(path)")
    check_problem("replay", problem)
    if not trace.n_workers == problem.n_workers:
        raise TraceError(
            f"replay: the trace has {trace.n_workers} workers and the problem "
            f"{problem.n_workers}; they must agree."
        )
    kind = checked_dtype(problem, dtype)
    steps = _evaluated_steps(trace.n_steps, evaluations)
    plan, n_slots, n_entries = plan_replay(trace, steps)
    return Prepared(
        trace=trace,
        problem=problem,
        dtype=kind,
        plan=plan,
        n_slots=n_slots,
        n_entries=n_entries,
        packed=problem.packed(np.dtype(kind)),
        times=model_times(trace, steps),
        gradients=count_gradients(trace, steps),
    )


def checked_dtype(problem: Problem, dtype: str | None) -> str:
    """Return the name of the dtype to compute in; by default the problem's own."""
    if dtype is None:
        try:
            dtype = np.dtype(problem.dtype).name
        except TypeError:  # torch's types are none of NumPy's
            dtype = str(problem.dtype).removeprefix("torch.")
    return check_choice("dtype", dtype, ("float64", "float32"))


def listed(values: Any) -> list[Any]:
    """Return one value, or several, as a list."""
    if isinstance(values, str) or n_axes(values) == 0:
        return [values]
    return list(values.tolist() if isinstance(values, np.ndarray) else values)


def _evaluated_steps(n_steps: int, evaluations: int | Sequence[int]) -> np.ndarray:
    """Return the steps whose models are evaluated, int64, rising.

    For a number above 0 these are 0, n_steps and evenly spread steps between.
    """
    if n_axes(evaluations) == 1 and not isinstance(evaluations, str):
        steps = [
            check_integer("replay", "an evaluated step", step, minimum=0, maximum=n_steps)
            for step in listed(evaluations)
        ]
        if sorted({0, *steps}) != steps:
            raise AsgradError(
                f"replay: the steps to evaluate must begin with 0 and rise, got {shown(steps)}."
            )
        return np.array(steps, np.int64)
    count = check_integer("replay", "evaluations", evaluations, minimum=0)
    if count == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, n_steps, min(count, n_steps) + 1).round().astype(np.int64))
