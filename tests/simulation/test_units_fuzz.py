"""The same workers on another clock: who computes what does not depend on the unit of time.

Compared with the event loop of `reference` on exact fractions, for times and limits that floating
point holds badly.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

import reference
from asgrad import methods, simulate, times
from asgrad.numerics.plan import count_gradients
from asgrad.trace import Trace
from asgrad.trace.tables import Fate

FATES = {
    reference.IN_FLIGHT: Fate.IN_FLIGHT,
    reference.APPLIED: Fate.APPLIED,
    reference.DROPPED: Fate.DROPPED,
    reference.CANCELLED: Fate.CANCELLED,
}


def drawn_method(r: random.Random, n: int) -> tuple[methods.Method, Callable[[list[int]], object]]:
    """A method for n workers, and its twin, given whom it drew."""
    k, m = r.randint(1, n), r.randint(1, 2 * n)
    return r.choice(
        [
            (methods.Pure(wait=k), lambda tape: reference.Pure(k)),
            (methods.Random(), lambda tape: reference.Taped(tape, n)),
            (methods.Random(k, n + k), lambda tape: reference.Taped(tape, n + k, k)),
            (methods.Shuffled(wait=k), lambda tape: reference.Taped(tape, n, k)),
            (methods.Reshuffling(), reference.Reshuffling),
            (methods.Minibatch(k), lambda tape: reference.Minibatch(tape, k)),
            (methods.MSync(k), lambda tape: reference.MSync(k)),
            (methods.Rennala(m), lambda tape: reference.Rennala(m)),
            (methods.Rennala(m, stop_stale=True), lambda tape: reference.Rennala(m, True)),
            (methods.Ringmaster(k), lambda tape: reference.Ringmaster(k)),
            (methods.Ringmaster(k, stop_stale=True), lambda tape: reference.Ringmaster(k, True)),
            (methods.Ringleader(), lambda tape: reference.Ringleader()),
            (methods.ACE(wait=k > 1), lambda tape: reference.ACE(k > 1)),
        ]
    )


def drawn_paces(r: random.Random, n: int) -> list[Fraction]:
    """How long every worker takes for a job, exactly: equal, few, many, zero or far apart."""
    parts = r.choice([1, 2, 3, 7, 10, 12, 60, 1000])
    few = [Fraction(r.randint(1, 9), parts) for _ in range(3)]
    return r.choice(
        [
            few[:1] * n,
            [r.choice(few) for _ in range(n)],
            [Fraction(r.randint(1, 40), r.choice([parts, 3, 10])) for _ in range(n)],
            [Fraction(r.randint(0, 3), parts) for _ in range(n)],
            [Fraction(r.choice([1, 2, 3, 1000, 10**6]), parts) for _ in range(n)],
        ]
    )


def exactly_played(method: object, paces: list[Fraction], jobs: int) -> reference.Run:
    """The reference's run until so many arrivals."""
    run = reference.Run(
        method,
        n_workers=len(paces),
        duration=lambda worker, draw: paces[worker],
        gradient=lambda x, worker, draw: np.zeros(1),
        x0=np.zeros(1),
    )
    run.method.start(run)
    while len(run.arrival_times) < jobs:
        run.now, _, job = heapq.heappop(run._events)
        if job.fate != reference.CANCELLED:
            run._finish(job)
            run.method.arrive(run, job)
    return run


def n_arrived(trace: Trace) -> int:
    """How many jobs arrived."""
    ended = ~np.isnan(trace.jobs.arrival_time) & (trace.jobs.fate != Fate.CANCELLED)
    return int(ended.sum())


def check_run(seed: int) -> None:
    """Draw a method, workers and a unit; compare, then scale, then end at an arrival."""
    r = random.Random(seed)
    n, jobs = r.choice([1, 2, 3, 5, 8, 17]), r.choice([20, 100, 400])
    method, twin = drawn_method(r, n)
    power = Fraction(10) ** r.randint(-99, 99)
    unit = r.choice([Fraction(1), Fraction(1, 3), Fraction(6577, 46189), power])
    paces = [pace * unit for pace in drawn_paces(r, n)]
    scale = np.array(list(map(float, paces)))

    def play(scale: np.ndarray, **limit) -> Trace:
        return simulate(method, times.Fixed(scale), n_workers=n, seed=seed, **limit)

    trace = play(scale, jobs=jobs)
    run = exactly_played(twin(play(scale, jobs=jobs + 3 * n).jobs.worker.tolist()), paces, jobs)
    mine = trace.jobs
    rows = [(job.worker, job.draw, job.read_step, FATES[job.fate]) for job in run.jobs]
    assert list(zip(mine.worker, mine.draw, mine.read_step, mine.fate, strict=True)) == rows
    moments = [float(job.arrival_time) for job in run.jobs]
    np.testing.assert_allclose(mine.arrival_time, moments, rtol=2.0**-43)
    counted = count_gradients(trace, np.arange(trace.n_steps + 1))
    np.testing.assert_array_equal(counted, [0, *run.delivered])

    factor = 2.0 ** r.randint(-200, 200)  # exact: the bits are those of the scaled times
    scaled = play(scale * factor, jobs=jobs).jobs
    np.testing.assert_array_equal(scaled.arrival_time, mine.arrival_time * factor)
    for factor in (1000.0, 0.1, 1 / 3, math.pi):
        other = play(scale * factor, jobs=jobs).jobs
        for name in ("worker", "draw", "read_step", "fate"):
            np.testing.assert_array_equal(getattr(other, name), getattr(mine, name))

    if all(paces):
        end = r.choice(run.arrival_times[: jobs // 2])
        stopped = play(scale, until_time=float(end))
        assert n_arrived(stopped) == sum(moment <= end for moment in run.arrival_times)
        assert stopped.header.end_time == float(end)
        earlier = play(scale, until_time=float(end) * (1 - 1e-11))
        assert n_arrived(earlier) == sum(moment < end for moment in run.arrival_times)


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_ties_and_limits_are_those_of_exact_times(first):
    for seed in range(first, first + 20):
        check_run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 11_000, 500))
def test_ties_and_limits_for_long(first):
    for seed in range(first, first + 500):
        check_run(seed)
