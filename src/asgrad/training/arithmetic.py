"""The numbers of a live run: the model's versions, and the steps from one to the next.

A step is the walk of `replay`, compiled once for both, over a plan that grows with the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asgrad.machine import check_memory
from asgrad.methods.base import Opening
from asgrad.numerics.blocks import bytes_of_blocks, new_blocks
from asgrad.numerics.plan import Plan
from asgrad.numerics.replay import bound_to, rules_of
from asgrad.numerics.walk import (
    N_CURSORS,
    PAUSE,
    STEP,
    bound,
    calls_of,
    compiled_walk,
    delivered,
)
from asgrad.problems.base import Packed, Problem
from asgrad.recipes import Parts
from asgrad.stepsizes import Constant
from asgrad.workers.base import Job

__all__ = ["ARITHMETIC", "Arithmetic"]

ARITHMETIC = 2
"""Raised whenever the same trace and problem give other bits than before, from whatever change."""
_MEMORY = ("table", "table_sum", "table_weights", "correction_memory", "optimizer_memory")
_NO_INDICES = np.zeros(1, np.int32)
_NO_LAYOUT = np.zeros(1, np.int64)


@dataclass
class _Sum:
    """Gradients that have been added up."""

    numbers: np.ndarray
    """float of shape (dim, 1)."""
    read_step: int
    """The oldest model at which one of them was taken."""


class Arithmetic:
    """Model versions, kept as long as a job may read them, and the arithmetic of the steps.

    Parameters
    ----------
    problem : Problem
    parts : Parts
        Of the recipe.
    opening : Opening
        Of the method: how many workers begin, and how large its table is.
    x0 : numpy.ndarray, shape (dim,)
    gamma : float
        The stepsize γ.
    dtype : str
    """

    def __init__(
        self,
        problem: Problem,
        parts: Parts,
        opening: Opening,
        x0: np.ndarray,
        gamma: float,
        dtype: str,
    ):
        self.n_steps = 0
        # Both have done their work where a gradient comes from.
        parts = replace(parts, encoder=None, work=None)
        self._calls = bound(calls_of(delivered, parts), dtype)
        self._walk = compiled_walk(dtype)
        # How many jobs will ever be in flight is not known yet: those at the start stand for them.
        self.bound = bound_to(problem, lambda: opening.workers.size, {})
        """What the parts have taken from the run, by name."""
        self._rules = rules_of(parts, self.bound, problem.n_workers)
        n_slots, lane = opening.workers.size + 2, np.array([gamma])
        check_memory(
            "train",
            f"{n_slots} models and {opening.n_entries} table entries of dimension {problem.dim}",
            bytes_of_blocks(problem, parts, 1, dtype, n_slots, opening.n_entries),
            "take fewer workers",
        )
        self._blocks = new_blocks(problem, parts, lane, np.dtype(dtype), n_slots, opening.n_entries)
        self._free = list(range(n_slots))
        self._readers = {0: 1}
        self._plan = _empty_plan(1024, 64)
        self._n_rows = 0
        self._gradients: list[np.ndarray] = []
        self.sums = isinstance(parts.stepsize, Constant) and parts.correction is None
        """Whether gradients that wait for a step are added up as they come."""
        self._waiting: dict[int, _Sum] = {}  # by table entry; at −1 for the coming step alone
        self._only_read = (
            isinstance(parts.stepsize, Constant)
            and parts.correction is None
            and opening.n_entries == 0
        )
        self._cursor = np.zeros(N_CURSORS, np.int64)
        self._cursor[PAUSE] = 1
        self._no_values = np.zeros(0, dtype)
        slot = self._free.pop()
        self._plan.slot[0] = slot
        self._blocks.models[slot, :, 0] = x0

    def model(self, step: int) -> np.ndarray:
        """Return x_step, of shape (dim, 1); a view that stays valid while the step is held."""
        block: np.ndarray = self._blocks.models[self._plan.slot[step]]
        return block

    def hold(self, step: int) -> None:
        """Keep x_step for one more reader. The newest version is kept without readers too."""
        self._readers[step] += 1

    def release(self, step: int) -> None:
        """Note that one reader less needs x_step."""
        self._readers[step] -= 1
        if self._readers[step] == 0:
            del self._readers[step]
            self._free.append(int(self._plan.slot[step]))

    def add_row(
        self,
        entry: int,
        weight: float,
        keeps: int = 0,
        worker: int = 0,
        read_step: int = 0,
        gradient: np.ndarray | None = None,
    ) -> None:
        """Write a row of the coming step, as `Plan` describes it.

        `gradient`, of shape (dim, 1), is None where its entry has it already.
        """
        row = self._n_rows
        if row >= self._plan.entry.size:
            self._plan = _resized(self._plan, self._plan.slot.size, 2 * row)
        plan = self._plan
        plan.entry[row], plan.weight[row], plan.keeps[row] = entry, weight, keeps
        plan.worker[row], plan.read_step[row] = worker, read_step
        plan.computes[row] = gradient is not None
        plan.draw[row] = len(self._gradients)
        if gradient is not None:
            self._gradients.append(gradient)
        self._n_rows = row + 1

    def apply(self, job: Job, weight: float) -> None:
        """Add a gradient, with its weight, to those that wait for the coming step."""
        if self.sums:
            self._add(-1, job, weight)

    def keep(self, job: Job, entry: int, used: bool) -> None:
        """Add a gradient to those that wait in a table entry for the first step that uses it.

        Where a step has `used` others of the entry, each is kept by itself: it is added to their
        sum then, one after the other, as in a replay.
        """
        if self.sums and not used:
            self._add(entry, job, 1.0)

    def clear(self, entry: int) -> None:
        """Forget the gradients that wait in a table entry."""
        self._waiting.pop(entry, None)

    def use(self, job: Job, entry: int, weight: float, keeps: int) -> None:
        """Write the row of a gradient that enters the coming step for the first time.

        One row stands for all that were added up.
        """
        if job.gradient is not None:
            self.add_row(entry, weight, keeps, job.worker, job.read_step, job.gradient)
        elif (total := self._waiting.pop(entry, None)) is not None:
            weight = 1.0 if entry < 0 else weight  # a single gradient has its weight already
            self.add_row(entry, weight, keeps, job.worker, total.read_step, total.numbers)

    def _add(self, entry: int, job: Job, weight: float) -> None:
        """Add a gradient to a sum, in the order and with the rounding of a replay."""
        assert job.gradient is not None
        g, total = job.gradient, self._waiting.get(entry)
        job.gradient = None
        if weight != 1.0:
            g = g * g.dtype.type(weight)
        if total is None:
            self._waiting[entry] = _Sum(g, job.read_step)
            return
        if not total.numbers.flags.writeable:
            total.numbers = total.numbers.copy()
        total.numbers += g
        total.read_step = min(total.read_step, job.read_step)

    def step(self) -> None:
        """Take the step whose rows have been written."""
        step = self.n_steps
        if step + 2 > self._plan.slot.size:
            self._plan = _resized(self._plan, 2 * self._plan.slot.size, self._plan.entry.size)
        if not self._free:
            self._grow_models()
        # Last readers may leave with this step: their slots are free only after it.
        self._plan.slot[step + 1] = self._free.pop()
        self._walk_one_step()
        self.n_steps = step + 1
        self._readers[step + 1] = 1
        self.release(step)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of all that `restore` needs."""
        steps = sorted(self._readers)
        sums = list(self._waiting.items())
        shape = (-1, *self._blocks.gradient.shape)
        return {
            "sum_entries": np.array([entry for entry, _ in sums], np.int64),
            "sum_steps": np.array([total.read_step for _, total in sums], np.int64),
            "sums": np.array(
                [total.numbers for _, total in sums], self._blocks.gradient.dtype
            ).reshape(shape),
            "model_steps": np.array(steps, np.int64),
            "models": self._blocks.models[self._plan.slot[steps]],
            **{name: getattr(self._blocks, name).copy() for name in _MEMORY},
        }

    def restore(self, arrays: dict[str, np.ndarray], n_steps: int, readers: dict[int, int]) -> None:
        """Read the numbers as they were after `n_steps`.

        Parameters
        ----------
        arrays : dict
        n_steps : int
        readers : dict of int to int
            How many readers each version has that is kept; the newest has one more.

        Raises
        ------
        ValueError
            If other versions are stored than have readers.
        """
        steps = arrays["model_steps"].tolist()
        if steps != sorted(readers):
            raise ValueError(f"versions {steps} are stored, {sorted(readers)} are held.")
        self.n_steps, self._readers = n_steps, readers
        if n_steps + 2 > self._plan.slot.size:
            self._plan = _resized(self._plan, 2 * n_steps + 2, self._plan.entry.size)
        self._free = list(range(self._blocks.models.shape[0]))
        for step in steps:
            if not self._free:
                self._grow_models()
            self._plan.slot[step] = self._free.pop()
        for step, model in zip(steps, arrays["models"], strict=True):
            self._blocks.models[self._plan.slot[step]] = model
        columns = (arrays["sum_entries"].tolist(), arrays["sum_steps"].tolist(), arrays["sums"])
        self._waiting = {
            entry: _Sum(total.copy(), read_step)
            for entry, read_step, total in zip(*columns, strict=True)
        }
        for name in _MEMORY:
            block = getattr(self._blocks, name)
            if block.size:  # what a run remembers nothing in, its checkpoint need not name
                block[:] = arrays[name]

    def _walk_one_step(self) -> None:
        """Let the walk compute the next version."""
        plan, blocks, values = self._plan, self._blocks, self._no_values
        step, gradients = self.n_steps, self._gradients
        plan.first_row[step], plan.first_row[step + 1] = 0, self._n_rows
        if len(gradients) == 1 and plan.entry[0] < 0 and self._may_stand(gradients[0]):
            blocks = blocks._replace(direction=gradients[0])
            plan.draw[0] = -1
        elif gradients:
            values = np.concatenate(gradients).reshape(-1)
        data = Packed(values, _NO_INDICES, _NO_LAYOUT)
        self._cursor[STEP] = step
        self._walk(self._calls, data, 0, plan, self._rules, blocks, self._cursor)
        self._n_rows = 0
        self._gradients = []

    def _may_stand(self, gradient: np.ndarray) -> bool:
        """Say whether a gradient may stand as the direction itself, without a copy.

        One that is read-only (Ray's object store) may if nothing will be written to it.
        """
        return gradient.flags.writeable or (self._only_read and self._plan.weight[0] == 1.0)

    def _grow_models(self) -> None:
        """Make room for more model versions; views that workers hold stay valid."""
        old = self._blocks.models
        grown = np.empty((2 * old.shape[0], *old.shape[1:]), old.dtype)
        grown[: old.shape[0]] = old
        self._free += range(old.shape[0], grown.shape[0])
        self._blocks = self._blocks._replace(models=grown)


def _empty_plan(n_steps: int, n_rows: int) -> Plan:
    """Return an empty plan with room for so many steps, and rows within one step."""
    row: dict[str, np.ndarray] = {name: np.zeros(n_rows, np.int64) for name in Plan._fields}
    row["weight"] = np.zeros(n_rows)
    row["first_row"], row["slot"] = np.zeros(n_steps, np.int64), np.zeros(n_steps, np.int64)
    row["evaluated"] = np.zeros(0, np.int64)
    return Plan(**row)


def _resized(plan: Plan, n_steps: int, n_rows: int) -> Plan:
    """Return a copy of the plan with more room."""
    grown: Any = _empty_plan(n_steps, n_rows)
    for name in Plan._fields:
        old = getattr(plan, name)
        getattr(grown, name)[: old.size] = old
    return grown  # type: ignore[no-any-return]
