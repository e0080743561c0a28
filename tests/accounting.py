"""What workers were given and what came of it, noted beside a live run, independently of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgrad.trace import Fate
from asgrad.training import Training
from asgrad.workers.base import Job, Session


class Account:
    """Every job that is submitted, and every arrival; the server's fates must agree with it.

    Parameters
    ----------
    n_workers : int
    on_arrival : callable, optional
        Called as well.
    """

    def __init__(self, n_workers: int, on_arrival: Callable[[Job], None] | None = None):
        self.given: list[Job] = []
        self.refused: list[Job] = []
        self.arrived: list[Job] = []
        self._n_workers, self._then = n_workers, on_arrival

    def on_open(self, session: Session) -> None:
        """Listen to what is submitted; the callback of `train`."""
        self._submit = session.submit
        session.submit = self.submit  # type: ignore[method-assign]

    def submit(self, job: Job, x: Any) -> bool:
        """Note a job that is given out, and one that its worker does not take."""
        self.given.append(job)
        taken: bool = self._submit(job, x)
        if not taken:
            self.refused.append(job)
        return taken

    def on_arrival(self, job: Job) -> None:
        """Note an arrival; the callback of `train`."""
        self.arrived.append(job)
        if self._then:
            self._then(job)

    def check_now(self) -> int:
        """Check the fates in the middle of a run, in `on_step`; return how many jobs are lost."""
        keys = {(job.worker, job.draw) for job in self.given}
        assert len(keys) == len(self.given)
        assert len({id(job) for job in self.arrived}) == len(self.arrived)  # none enters twice
        arrived = {id(job) for job in self.arrived}
        ended = [job for job in self.given if id(job) not in arrived]
        assert all(job.fate in (Fate.APPLIED, Fate.DROPPED, Fate.IN_FLIGHT) for job in self.arrived)
        assert not {Fate.APPLIED, Fate.DROPPED} & {job.fate for job in ended}
        under_way = [job for job in ended if job.fate == Fate.IN_FLIGHT]
        assert len(under_way) <= self._n_workers  # one a worker, for every built-in method
        return sum(job.fate == Fate.LOST for job in ended)

    def check(self, run: Training, resumed: bool = False) -> None:
        """Check the trace of the ended run: each job's fate is what was seen of it.

        Of a resumed run, what was before is not known here.
        """
        n_lost = self.check_now()
        jobs = run.trace.jobs
        given = {job.row for job in self.given}
        n_never_given = 0
        for row in range(run.trace.n_jobs):
            if row not in given and not resumed:  # called off at once, or its worker was away
                assert jobs.fate[row] in (Fate.CANCELLED, Fate.LOST)
                n_never_given += jobs.fate[row] == Fate.LOST
        for job in self.given:
            assert (jobs.worker[job.row], jobs.draw[job.row]) == (job.worker, job.draw)
            assert jobs.fate[job.row] == job.fate or (  # held, and in the table of a step
                job.fate == Fate.IN_FLIGHT and jobs.fate[job.row] == Fate.APPLIED
            )
        if len(run.failures) < 100 and not resumed:
            said = {text.partition(":")[0] for text in run.failures if text.startswith("worker")}
            lost = [job for job in self.given if job.fate == Fate.LOST]
            silent = {id(job) for job in self.refused}
            seen = {f"worker {j.worker}, draw {j.draw}" for j in lost if id(j) not in silent}
            assert seen == said
        n_lost += n_never_given
        assert n_lost == int((jobs.fate == Fate.LOST).sum()) or resumed
