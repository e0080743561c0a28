"""Whether the tables of a trace agree with each other."""

from __future__ import annotations

import numpy as np

from asgrad.errors import TraceError
from asgrad.trace.tables import Contributions, Fate, Tables

__all__ = ["check"]


def check(tables: Tables, n_workers: int, what: str) -> None:
    """Refuse tables that contradict each other.

    Raises
    ------
    TraceError
        Its text begins with `what` and names the rule and the row.
    """
    jobs, rows, step_times, absences = tables
    n_jobs, n_steps = tables.n_jobs, tables.n_steps
    known = (rows.job >= 0) & (rows.job < n_jobs)
    _require(what, "contributions: job must lie in [0, n_jobs)", known)
    contributes = np.bincount(rows.job, minlength=n_jobs) > 0
    arrived = np.isin(jobs.fate, (Fate.APPLIED, Fate.DROPPED))
    order = np.diff(rows.first_step)
    rules = {
        "jobs: worker must lie in [0, n_workers)": (jobs.worker >= 0) & (jobs.worker < n_workers),
        "jobs: fate must be a known one": np.isin(jobs.fate, list(Fate)),
        "jobs: read_step must lie in [0, n_steps]": (jobs.read_step >= 0)
        & (jobs.read_step <= n_steps),
        "jobs: draw must be >= 0": jobs.draw >= 0,
        "jobs: work must be >= 1": jobs.work >= 1,
        "jobs: fresh must be 0 or 1": (jobs.fresh == 0) | (jobs.fresh == 1),
        "jobs: finish_time must be NaN or lie between start_time and arrival_time": np.isnan(
            jobs.finish_time
        )
        | (jobs.finish_time >= jobs.start_time) & ~(jobs.finish_time > jobs.arrival_time),
        "jobs: assign_time must be finite": np.isfinite(jobs.assign_time),
        "jobs: start_time must be NaN or not before assign_time": np.isnan(jobs.start_time)
        | (jobs.start_time >= jobs.assign_time) & np.isfinite(jobs.start_time),
        "jobs: arrival_time must be NaN or not before start_time": np.isnan(jobs.arrival_time)
        | ~(jobs.arrival_time < jobs.start_time) & np.isfinite(jobs.arrival_time),
        "jobs: an applied or dropped job has a start_time and an arrival_time": ~arrived
        | ~np.isnan(jobs.arrival_time) & ~np.isnan(jobs.start_time),
        "jobs: the applied jobs, and no others, have contributions": contributes
        == (jobs.fate == Fate.APPLIED),
        "contributions: entry must be >= -1": rows.entry >= -1,
        "contributions: first_step < end_step <= n_steps": (rows.first_step < rows.end_step)
        & (rows.end_step <= n_steps),
        "contributions: rows must be sorted by first_step, then entry": np.append(
            True, (order > 0) | (order == 0) & (np.diff(rows.entry) >= 0)
        ),
        "contributions: a job cannot enter a step before the one it read": rows.first_step
        >= jobs.read_step[rows.job],
        "contributions: weight must be finite": np.isfinite(rows.weight),
        "absences: worker must lie in [0, n_workers)": (absences.worker >= 0)
        & (absences.worker < n_workers),
        "absences: begin_time must be finite, and not after end_time": np.isfinite(
            absences.begin_time
        )
        & ~(absences.end_time < absences.begin_time),
        "steps: time must be finite and never fall": np.isfinite(step_times)
        & (np.diff(step_times, prepend=0.0) >= 0),
    }
    for rule, holds in rules.items():
        _require(what, rule, holds)
    single = rows.entry < 0
    _require(
        what,
        "contributions: outside the table (entry -1) a row lasts one step",
        ~single | (rows.end_step == rows.first_step + 1),
    )
    if not single.all():
        _require(what, _TABLE_RULE, _table_holds(rows))


_TABLE_RULE = (
    "contributions: the gradients of an entry have one weight and leave together, and a job stays "
    "in its entry"
)


def _table_holds(rows: Contributions) -> np.ndarray:
    """Say of each row whether it is what holding, weighing and clearing an entry can give."""
    holds = np.ones(rows.job.size, bool)
    home: dict[int, int] = {}  # job → its entry
    members: dict[int, set[int]] = {}  # entry → jobs whose gradients its sum holds
    live: dict[int, dict[int, tuple[int, float]]] = {}  # entry → job → end and weight of its row
    table = np.flatnonzero(rows.entry >= 0)
    breaks = (np.diff(rows.entry[table]) != 0) | (np.diff(rows.first_step[table]) != 0)
    for group in np.split(table, np.flatnonzero(breaks) + 1):
        entry, step = int(rows.entry[group[0]]), int(rows.first_step[group[0]])
        held = members.get(entry, set())
        open_rows = {job: row for job, row in live.get(entry, {}).items() if row[0] > step}
        jobs = rows.job[group].tolist()
        new_rows = dict(
            zip(jobs, zip(rows.end_step[group].tolist(), rows.weight[group].tolist(), strict=True),
                strict=True)
        )  # fmt: skip
        stay = set(open_rows) | (held & set(jobs))
        holds[group] = (
            len(new_rows) == len(jobs)
            and not open_rows.keys() & new_rows.keys()
            and len({*open_rows.values(), *new_rows.values()}) == 1  # one end, one weight
            and (not stay or stay == held)
            and all(home.setdefault(job, entry) == entry for job in jobs)
        )
        members[entry] = stay | set(jobs)
        live[entry] = {**open_rows, **new_rows}
    return holds


def _require(what: str, rule: str, holds: np.ndarray) -> None:
    """Refuse a trace of which a row breaks a rule."""
    if not holds.all():
        row = int(np.argmin(holds))
        raise TraceError(f"{what}: {rule}; row {row} breaks this.")
