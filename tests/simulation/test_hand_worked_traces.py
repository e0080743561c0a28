"""Whole traces of small runs, worked out by hand from the rules of the methods.

Three workers take the fixed times named in each test, in seconds. Beside every job stands what
becomes of it: "t=8 step 6" says that it arrives at second 8 and that step 6 uses it. Read down a
test's comment for the events in order: the time, the worker that arrives, and the server's answer.
"w1→j4" says that worker 1 gets job 4, at the model that is current then.

The common rules: a worker does its jobs one after the other in the order of assignment; what
arrives at one moment is taken in the order in which the jobs started, and the next job in the queue
of the worker that delivered starts before those that the server assigns in answer.

Where a method draws its workers, the draws are read off the library's trace and only checked
against the method's rule; all else is worked out from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from asgrad import methods, times
from asgrad.simulation import simulate
from asgrad.trace.tables import COLUMNS, Contributions, Fate, Jobs

F, A, D, C = Fate.IN_FLIGHT, Fate.APPLIED, Fate.DROPPED, Fate.CANCELLED
NAN = np.nan
STEPS = 10


def run(method: methods.Method, job_times: Sequence[float], *, steps: int = STEPS, **options):
    """Return the trace of a method on workers of fixed speeds."""
    return simulate(
        method, times.Fixed(tuple(job_times)), n_workers=len(job_times), steps=steps, **options
    )


def single_steps(batches: Sequence[Sequence[int]]) -> list[tuple]:
    """Return the contributions of steps that use each batch of jobs once, with equal weights."""
    return [
        (job, -1, step, step + 1, 1 / len(batch))
        for step, batch in enumerate(batches)
        for job in batch
    ]


def assert_trace(
    trace, jobs: Sequence[tuple], contributions: Sequence[tuple], step_times: Sequence[float]
) -> None:
    """Compare all three tables, types included; weights to the last few bits."""
    assert_table("jobs", trace.jobs, jobs, Jobs)
    assert_array_equal(trace.step_times, np.array(step_times, float))
    assert trace.step_times.dtype == COLUMNS["steps"]["time"]
    assert_table("contributions", trace.contributions, contributions, Contributions)


def assert_table(name: str, table, rows: Sequence[tuple], kind: type) -> None:
    """Compare a table column by column."""
    assert isinstance(table, kind)
    for column, expected in zip(COLUMNS[name], zip(*rows, strict=True), strict=True):
        actual = getattr(table, column)
        assert actual.dtype == COLUMNS[name][column], column
        assert actual.shape == (len(rows),), column
        if column == "weight":
            assert_allclose(actual, expected, rtol=1e-15, err_msg=column)
        else:
            assert_array_equal(actual, np.array(expected, actual.dtype), err_msg=column)


class Dealt(methods.Method):
    """One step an arrival; the next job goes to the next worker of a fixed list, busy or not."""

    def __init__(self, workers: Sequence[int]) -> None:
        """Keep the list."""
        self.workers = workers

    def start(self, server: methods.Server) -> None:
        """Every worker begins at x_0."""
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server: methods.Server, worker: int, read_step: int) -> None:
        """Step, and assign what the list says."""
        server.apply(1.0)
        server.take_step()
        server.assign(self.workers[server.step - 1])


def test_pure():
    """Each arrival is a step and its worker gets the new model; times 2, 3, 7."""
    # t=2  w0 j0  step 0, w0→j3        t=7  w2 j2 step 5, w2→j8
    # t=3  w1 j1  step 1, w1→j4        t=8  w0 j7 step 6, w0→j9
    # t=4  w0 j3  step 2, w0→j5        t=9  w1 j6 step 7, w1→j10
    # t=6  w1 j4 (began at 3)          t=10 w0 j9 step 8, w0→j11
    #             step 3, w1→j6        t=12 w1 j10 (began at 9) step 9, w1→j12, and the run is over
    #      w0 j5 (began at 4)               before w0 j11 (began at 10), due at 12 too
    #             step 4, w0→j7
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, A),  # j2: step 5
        (0, 1, 1, 2, 2, 4, A),  # j3: step 2
        (1, 2, 1, 3, 3, 6, A),  # j4: step 3
        (0, 3, 2, 4, 4, 6, A),  # j5: step 4
        (1, 4, 2, 6, 6, 9, A),  # j6: step 7
        (0, 5, 3, 6, 6, 8, A),  # j7: step 6
        (2, 6, 1, 7, 7, NAN, F),  # j8: due at 14
        (0, 7, 4, 8, 8, 10, A),  # j9: step 8
        (1, 8, 3, 9, 9, 12, A),  # j10: step 9
        (0, 9, 5, 10, 10, NAN, F),  # j11: due at 12, one arrival too late
        (1, 10, 4, 12, 12, NAN, F),  # j12
    ]
    used = single_steps([[0], [1], [3], [4], [5], [2], [7], [6], [9], [10]])
    step_times = [2, 3, 4, 6, 6, 7, 8, 9, 10, 12]
    assert_trace(run(methods.Pure(), (2, 3, 7)), jobs, used, step_times)


def test_pure_with_waiting():
    """Two arrivals make a step, then both workers get the new model; times 2, 3, 7."""
    # t=2  w0 j0  kept                         t=16 w1 j12 kept
    # t=3  w1 j1  step 0, w0→j3, w1→j4         t=17 w0 j14 step 6, w1→j15, w0→j16
    # t=5  w0 j3  kept                         t=19 w0 j16 kept
    # t=6  w1 j4  step 1, w0→j5, w1→j6         t=20 w1 j15 step 7, w0→j17, w1→j18
    # t=7  w2 j2  kept                         t=22 w2 j13 (began at 15) kept
    # t=8  w0 j5  step 2, w2→j7, w0→j8              w0 j17 (began at 20) step 8, w2→j19, w0→j20
    # t=9  w1 j6  kept                         t=23 w1 j18 kept
    # t=10 w0 j8  step 3, w1→j9, w0→j10        t=24 w0 j20 step 9, w1→j21, w0→j22
    # t=12 w0 j10 kept
    # t=13 w1 j9  step 4, w0→j11, w1→j12
    # t=15 w2 j7  (began at 8) kept
    #      w0 j11 (began at 13) step 5, w2→j13, w0→j14
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 0
        (2, 0, 0, 0, 0, 7, A),  # j2: step 2
        (0, 1, 1, 3, 3, 5, A),  # j3: step 1
        (1, 1, 1, 3, 3, 6, A),  # j4: step 1
        (0, 2, 2, 6, 6, 8, A),  # j5: step 2
        (1, 2, 2, 6, 6, 9, A),  # j6: step 3
        (2, 3, 1, 8, 8, 15, A),  # j7: step 5
        (0, 3, 3, 8, 8, 10, A),  # j8: step 3
        (1, 4, 3, 10, 10, 13, A),  # j9: step 4
        (0, 4, 4, 10, 10, 12, A),  # j10: step 4
        (0, 5, 5, 13, 13, 15, A),  # j11: step 5
        (1, 5, 4, 13, 13, 16, A),  # j12: step 6
        (2, 6, 2, 15, 15, 22, A),  # j13: step 8
        (0, 6, 6, 15, 15, 17, A),  # j14: step 6
        (1, 7, 5, 17, 17, 20, A),  # j15: step 7
        (0, 7, 7, 17, 17, 19, A),  # j16: step 7
        (0, 8, 8, 20, 20, 22, A),  # j17: step 8
        (1, 8, 6, 20, 20, 23, A),  # j18: step 9
        (2, 9, 3, 22, 22, NAN, F),  # j19: due at 29
        (0, 9, 9, 22, 22, 24, A),  # j20: step 9
        (1, 10, 7, 24, 24, NAN, F),  # j21
        (0, 10, 10, 24, 24, NAN, F),  # j22
    ]
    batches = [[0, 1], [3, 4], [2, 5], [6, 8], [10, 9], [7, 11], [12, 14], [16, 15], [13, 17]]
    used = single_steps([*batches, [18, 20]])
    step_times = [3, 6, 8, 10, 13, 15, 17, 20, 22, 24]
    assert_trace(run(methods.Pure(wait=2), (2, 3, 7)), jobs, used, step_times)


def test_a_gradient_kept_for_a_step_that_never_comes_is_in_flight():
    """Pure with waiting 2 as above, ended by its third arrival."""
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 0
        (2, 0, 0, 0, 0, NAN, F),  # j2: due at 7
        (0, 1, 1, 3, 3, 5, F),  # j3: arrives third, at 5, and waits for a second one
        (1, 1, 1, 3, 3, NAN, F),  # j4: due at 6
    ]
    trace = run(methods.Pure(wait=2), (2, 3, 7), jobs=3)
    assert_trace(trace, jobs, single_steps([[0, 1]]), [3])


def test_jobs_assigned_in_one_answer_start_in_the_order_of_assignment():
    """Pure with waiting 2 on two workers of equal speed: ties all along; times 2, 2."""
    # Both workers begin at 0, worker 0 first. t=2: j0, then j1, step 0; the answer is w0→j2, then
    # w1→j3, and both begin at 2, j2 first. So it goes on: worker 0 is always the first to arrive.
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 2, A),  # j1: step 0
        (0, 1, 1, 2, 2, 4, A),  # j2: step 1
        (1, 1, 1, 2, 2, 4, A),  # j3: step 1
        (0, 2, 2, 4, 4, 6, A),  # j4: step 2
        (1, 2, 2, 4, 4, 6, A),  # j5: step 2
        (0, 3, 3, 6, 6, NAN, F),  # j6
        (1, 3, 3, 6, 6, NAN, F),  # j7
    ]
    trace = run(methods.Pure(wait=2), (2, 2), steps=3)
    assert_trace(trace, jobs, single_steps([[0, 1], [2, 3], [4, 5]]), [2, 4, 6])


def test_queues_of_assigned_jobs():
    """A fixed list of workers, busy or not: worker 2's queue grows to two; times 2, 3, 7."""
    # t=2  w0 j0 step 0, w2→j3 waits for j2          w0 has nothing to do
    # t=3  w1 j1 step 1, w2→j4 waits for j2, j3      w1 has nothing to do
    # t=7  w2 j2 step 2, begins j3; w0→j5
    # t=9  w0 j5 step 3, w0→j6
    # t=11 w0 j6 step 4, w1→j7
    # t=14 w2 j3 (began at 7) step 5, begins j4; w0→j8
    #      w1 j7 (began at 11) step 6, w0→j9 waits for j8
    # t=16 w0 j8 step 7, begins j9; w1→j10
    # t=18 w0 j9 step 8, w1→j11 waits for j10
    # t=19 w1 j10 step 9, begins j11; w1→j12 waits
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, A),  # j2: step 2
        (2, 1, 1, 2, 7, 14, A),  # j3: step 5
        (2, 2, 2, 3, 14, NAN, F),  # j4: due at 21
        (0, 3, 1, 7, 7, 9, A),  # j5: step 3
        (0, 4, 2, 9, 9, 11, A),  # j6: step 4
        (1, 5, 1, 11, 11, 14, A),  # j7: step 6
        (0, 6, 3, 14, 14, 16, A),  # j8: step 7
        (0, 7, 4, 14, 16, 18, A),  # j9: step 8
        (1, 8, 2, 16, 16, 19, A),  # j10: step 9
        (1, 9, 3, 18, 19, NAN, F),  # j11: due at 22
        (1, 10, 4, 19, NAN, NAN, F),  # j12: never began
    ]
    used = single_steps([[0], [1], [2], [5], [6], [3], [7], [8], [9], [10]])
    step_times = [2, 3, 7, 9, 11, 14, 14, 16, 18, 19]
    trace = run(Dealt([2, 2, 0, 0, 1, 0, 0, 1, 1, 1]), (2, 3, 7))
    assert_trace(trace, jobs, used, step_times)


def test_a_queued_job_starts_before_those_assigned_at_the_same_moment():
    """Ties between a job from a queue and a job newly assigned; times 2, 2, 5; five steps."""
    # t=2 w0 j0 step 0, w1→j3 waits for j1, which is due now but comes second
    #     w1 j1 step 1, begins j3; then w0→j4 begins
    # t=4 w1 j3 step 2, because j3 began before j4; w2→j5 waits for j2
    #     w0 j4 step 3, w2→j6 waits for j2, j5
    # t=5 w2 j2 step 4, begins j5; w0→j7
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 2, A),  # j1: step 1
        (2, 0, 0, 0, 0, 5, A),  # j2: step 4
        (1, 1, 1, 2, 2, 4, A),  # j3: step 2
        (0, 2, 1, 2, 2, 4, A),  # j4: step 3
        (2, 3, 1, 4, 5, NAN, F),  # j5: due at 10
        (2, 4, 2, 4, NAN, NAN, F),  # j6: never began
        (0, 5, 2, 5, 5, NAN, F),  # j7: due at 7
    ]
    trace = run(Dealt([1, 0, 2, 2, 0]), (2, 2, 5), steps=5)
    assert_trace(trace, jobs, single_steps([[0], [1], [3], [4], [2]]), [2, 2, 4, 4, 5])


def test_random_with_a_queue():
    """Each arrival is a step, the next job goes to a drawn worker; times 2, 3, 7."""
    trace = run(methods.Random(), (2, 3, 7), seed=8)
    # Under seed 8 the slow worker is drawn so often that two jobs wait in its queue.
    assert trace.jobs.worker[3:].tolist() == [2, 1, 2, 2, 0, 1, 2, 2, 1, 2]
    # t=2  w0 j0 step 0, w2→j3 waits for j2
    # t=3  w1 j1 step 1, w1→j4
    # t=6  w1 j4 step 2, w2→j5 waits for j2, j3
    # t=7  w2 j2 step 3, begins j3; w2→j6 waits for j3, j5
    # t=14 w2 j3 step 4, begins j5; w0→j7
    # t=16 w0 j7 step 5, w1→j8
    # t=19 w1 j8 step 6, w2→j9 waits for j5, j6
    # t=21 w2 j5 step 7, begins j6; w2→j10 waits for j6, j9
    # t=28 w2 j6 step 8, begins j9; w1→j11
    # t=31 w1 j11 step 9, w2→j12 waits for j9, j10
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, A),  # j2: step 3
        (2, 1, 1, 2, 7, 14, A),  # j3: step 4
        (1, 2, 1, 3, 3, 6, A),  # j4: step 2
        (2, 3, 2, 6, 14, 21, A),  # j5: step 7
        (2, 4, 3, 7, 21, 28, A),  # j6: step 8
        (0, 5, 1, 14, 14, 16, A),  # j7: step 5
        (1, 6, 2, 16, 16, 19, A),  # j8: step 6
        (2, 7, 4, 19, 28, NAN, F),  # j9: due at 35
        (2, 8, 5, 21, NAN, NAN, F),  # j10: never began
        (1, 9, 3, 28, 28, 31, A),  # j11: step 9
        (2, 10, 6, 31, NAN, NAN, F),  # j12: never began
    ]
    used = single_steps([[0], [1], [4], [2], [3], [7], [8], [5], [6], [11]])
    step_times = [2, 3, 6, 7, 14, 16, 19, 21, 28, 31]
    assert_trace(trace, jobs, used, step_times)


def test_random_with_waiting():
    """Two arrivals make a step, then two workers are drawn; times 2, 3, 7."""
    trace = run(methods.Random(wait=2), (2, 3, 7), seed=0)
    drawn = [[2, 1], [2, 0], [2, 1], [1, 0], [1, 2], [2, 1], [2, 1], [2, 0], [2, 0], [0, 1]]
    assert trace.jobs.worker[3:].reshape(STEPS, 2).tolist() == drawn
    # t=2  w0 j0  kept              t=24 w1 j9  step 4, w1→j11, w2→j12 waits for j7
    # t=3  w1 j1  step 0,           t=27 w1 j11 kept
    #      w2→j3 waits, w1→j4       t=28 w2 j7  begins j12; step 5, w2→j13 waits, w1→j14
    # t=6  w1 j4  kept              t=31 w1 j14 kept
    # t=7  w2 j2  begins j3; step 1 t=35 w2 j12 begins j13; step 6, w2→j15 waits, w1→j16
    #      w2→j5 waits, w0→j6       t=38 w1 j16 kept
    # t=9  w0 j6  kept              t=42 w2 j13 begins j15; step 7, w2→j17 waits, w0→j18
    # t=14 w2 j3  begins j5; step 2 t=44 w0 j18 kept
    #      w2→j7 waits, w1→j8       t=49 w2 j15 begins j17; step 8, w2→j19 waits, w0→j20
    # t=17 w1 j8  kept              t=51 w0 j20 kept
    # t=21 w2 j5  begins j7; step 3 t=56 w2 j17 begins j19; step 9, w0→j21, w1→j22
    #      w1→j9, w0→j10
    # t=23 w0 j10 kept
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 0
        (2, 0, 0, 0, 0, 7, A),  # j2: step 1
        (2, 1, 1, 3, 7, 14, A),  # j3: step 2
        (1, 1, 1, 3, 3, 6, A),  # j4: step 1
        (2, 2, 2, 7, 14, 21, A),  # j5: step 3
        (0, 2, 1, 7, 7, 9, A),  # j6: step 2
        (2, 3, 3, 14, 21, 28, A),  # j7: step 5
        (1, 3, 2, 14, 14, 17, A),  # j8: step 3
        (1, 4, 3, 21, 21, 24, A),  # j9: step 4
        (0, 4, 2, 21, 21, 23, A),  # j10: step 4
        (1, 5, 4, 24, 24, 27, A),  # j11: step 5
        (2, 5, 4, 24, 28, 35, A),  # j12: step 6
        (2, 6, 5, 28, 35, 42, A),  # j13: step 7
        (1, 6, 5, 28, 28, 31, A),  # j14: step 6
        (2, 7, 6, 35, 42, 49, A),  # j15: step 8
        (1, 7, 6, 35, 35, 38, A),  # j16: step 7
        (2, 8, 7, 42, 49, 56, A),  # j17: step 9
        (0, 8, 3, 42, 42, 44, A),  # j18: step 8
        (2, 9, 8, 49, 56, NAN, F),  # j19: due at 63
        (0, 9, 4, 49, 49, 51, A),  # j20: step 9
        (0, 10, 5, 56, 56, NAN, F),  # j21
        (1, 10, 7, 56, 56, NAN, F),  # j22
    ]
    batches = [[0, 1], [4, 2], [6, 3], [8, 5], [10, 9], [11, 7], [14, 12], [16, 13], [18, 15]]
    used = single_steps([*batches, [20, 17]])
    step_times = [3, 7, 14, 21, 24, 28, 35, 42, 49, 56]
    assert_trace(trace, jobs, used, step_times)


def test_shuffled():
    """Each arrival is a step, the next worker is a permutation's next; times 2, 3, 7."""
    trace = run(methods.Shuffled(), (2, 3, 7), seed=4)
    # Three permutations and the beginning of a fourth, not all of them equal.
    assert trace.jobs.worker[3:].tolist() == [2, 0, 1, 2, 1, 0, 1, 0, 2, 2]
    # t=2  w0 j0 step 0, w2→j3 waits for j2
    # t=3  w1 j1 step 1, w0→j4
    # t=5  w0 j4 step 2, w1→j5
    # t=7  w2 j2 step 3, begins j3; w2→j6 waits
    # t=8  w1 j5 step 4, w1→j7
    # t=11 w1 j7 step 5, w0→j8
    # t=13 w0 j8 step 6, w1→j9
    # t=14 w2 j3 step 7, begins j6; w0→j10
    # t=16 w1 j9 (began at 13) step 8, w2→j11 waits for j6
    #      w0 j10 (began at 14) step 9, w2→j12 waits for j6, j11
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, A),  # j2: step 3
        (2, 1, 1, 2, 7, 14, A),  # j3: step 7
        (0, 2, 1, 3, 3, 5, A),  # j4: step 2
        (1, 3, 1, 5, 5, 8, A),  # j5: step 4
        (2, 4, 2, 7, 14, NAN, F),  # j6: due at 21
        (1, 5, 2, 8, 8, 11, A),  # j7: step 5
        (0, 6, 2, 11, 11, 13, A),  # j8: step 6
        (1, 7, 3, 13, 13, 16, A),  # j9: step 8
        (0, 8, 3, 14, 14, 16, A),  # j10: step 9
        (2, 9, 3, 16, NAN, NAN, F),  # j11: never began
        (2, 10, 4, 16, NAN, NAN, F),  # j12: never began
    ]
    used = single_steps([[0], [1], [4], [2], [5], [7], [8], [3], [9], [10]])
    step_times = [2, 3, 5, 7, 8, 11, 13, 14, 16, 16]
    assert_trace(trace, jobs, used, step_times)


def test_shuffled_once():
    """As shuffled, with one permutation for ever; times 2, 3, 7."""
    trace = run(methods.Shuffled(once=True), (2, 3, 7), seed=0)
    assert trace.jobs.worker[3:].tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    # t=2  w0 j0 step 0, w2→j3 waits for j2     t=10 w0 j7  step 5, w1→j8
    # t=3  w1 j1 step 1, w0→j4                  t=13 w1 j8  step 6, w2→j9 waits for j3, j6
    # t=5  w0 j4 step 2, w1→j5                  t=14 w2 j3  step 7, begins j6; w0→j10
    # t=7  w2 j2 step 3, begins j3; w2→j6 waits t=16 w0 j10 step 8, w1→j11
    # t=8  w1 j5 step 4, w0→j7                  t=19 w1 j11 step 9, w2→j12 waits for j6, j9
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, A),  # j2: step 3
        (2, 1, 1, 2, 7, 14, A),  # j3: step 7
        (0, 2, 1, 3, 3, 5, A),  # j4: step 2
        (1, 3, 1, 5, 5, 8, A),  # j5: step 4
        (2, 4, 2, 7, 14, NAN, F),  # j6: due at 21
        (0, 5, 2, 8, 8, 10, A),  # j7: step 5
        (1, 6, 2, 10, 10, 13, A),  # j8: step 6
        (2, 7, 3, 13, NAN, NAN, F),  # j9: never began
        (0, 8, 3, 14, 14, 16, A),  # j10: step 8
        (1, 9, 3, 16, 16, 19, A),  # j11: step 9
        (2, 10, 4, 19, NAN, NAN, F),  # j12: never began
    ]
    used = single_steps([[0], [1], [4], [2], [5], [7], [8], [3], [10], [11]])
    step_times = [2, 3, 5, 7, 8, 10, 13, 14, 16, 19]
    assert_trace(trace, jobs, used, step_times)


def test_reshuffling():
    """One job in flight, the workers in the order of a permutation an epoch; times 2, 3, 7."""
    trace = run(methods.Reshuffling(), (2, 3, 7), seed=0)
    assert trace.jobs.worker.tolist() == [2, 0, 1, 1, 2, 0, 0, 1, 2, 1, 2]
    # One after the other: a job begins when the one before it has arrived.
    jobs = [
        (2, 0, 0, 0, 0, 7, A),  # j0: step 0
        (0, 1, 0, 7, 7, 9, A),  # j1: step 1
        (1, 2, 0, 9, 9, 12, A),  # j2: step 2
        (1, 3, 1, 12, 12, 15, A),  # j3: step 3
        (2, 4, 1, 15, 15, 22, A),  # j4: step 4
        (0, 5, 1, 22, 22, 24, A),  # j5: step 5
        (0, 6, 2, 24, 24, 26, A),  # j6: step 6
        (1, 7, 2, 26, 26, 29, A),  # j7: step 7
        (2, 8, 2, 29, 29, 36, A),  # j8: step 8
        (1, 9, 3, 36, 36, 39, A),  # j9: step 9
        (2, 10, 3, 39, 39, NAN, F),  # j10
    ]
    used = single_steps([[job] for job in range(STEPS)])
    assert_trace(trace, jobs, used, [7, 9, 12, 15, 22, 24, 26, 29, 36, 39])


def test_minibatch():
    """Two different workers are drawn, the step waits for both; times 2, 3, 7."""
    trace = run(methods.Minibatch(batch=2), (2, 3, 7), seed=2)
    drawn = [[0, 1], [2, 1], [0, 1], [2, 0], [2, 0], [1, 0], [0, 1], [0, 1], [2, 1], [2, 1], [1, 2]]
    assert trace.jobs.worker.reshape(STEPS + 1, 2).tolist() == drawn
    # Every pair begins at the last step, which comes when the slower of the two is in.
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0
        (1, 0, 0, 0, 0, 3, A),  # j1, t=3: step 0
        (2, 1, 0, 3, 3, 10, A),  # j2, t=10: step 1
        (1, 1, 1, 3, 3, 6, A),  # j3
        (0, 2, 1, 10, 10, 12, A),  # j4
        (1, 2, 2, 10, 10, 13, A),  # j5, t=13: step 2
        (2, 3, 1, 13, 13, 20, A),  # j6, t=20: step 3
        (0, 3, 2, 13, 13, 15, A),  # j7
        (2, 4, 2, 20, 20, 27, A),  # j8, t=27: step 4
        (0, 4, 3, 20, 20, 22, A),  # j9
        (1, 5, 3, 27, 27, 30, A),  # j10, t=30: step 5
        (0, 5, 4, 27, 27, 29, A),  # j11
        (0, 6, 5, 30, 30, 32, A),  # j12
        (1, 6, 4, 30, 30, 33, A),  # j13, t=33: step 6
        (0, 7, 6, 33, 33, 35, A),  # j14
        (1, 7, 5, 33, 33, 36, A),  # j15, t=36: step 7
        (2, 8, 3, 36, 36, 43, A),  # j16, t=43: step 8
        (1, 8, 6, 36, 36, 39, A),  # j17
        (2, 9, 4, 43, 43, 50, A),  # j18, t=50: step 9
        (1, 9, 7, 43, 43, 46, A),  # j19
        (1, 10, 8, 50, 50, NAN, F),  # j20
        (2, 10, 5, 50, 50, NAN, F),  # j21
    ]
    batches = [[0, 1], [3, 2], [4, 5], [7, 6], [9, 8], [11, 10], [12, 13], [14, 15], [17, 16]]
    used = single_steps([*batches, [19, 18]])
    step_times = [3, 10, 13, 20, 27, 30, 33, 36, 43, 50]
    assert_trace(trace, jobs, used, step_times)


def test_sync():
    """Every step waits for all three; times 2, 3, 7."""
    # All begin at 7c, at x_c; they arrive 2, 3 and 7 seconds later, and the last makes step c.
    jobs = []
    for c in range(STEPS):
        jobs += [
            (0, c, c, 7 * c, 7 * c, 7 * c + 2, A),  # j(3c)
            (1, c, c, 7 * c, 7 * c, 7 * c + 3, A),  # j(3c + 1)
            (2, c, c, 7 * c, 7 * c, 7 * c + 7, A),  # j(3c + 2)
        ]
    jobs += [(worker, 10, 10, 70, 70, NAN, F) for worker in range(3)]
    used = single_steps([[3 * c, 3 * c + 1, 3 * c + 2] for c in range(STEPS)])
    step_times = [7 * (c + 1) for c in range(STEPS)]
    assert_trace(run(methods.Sync(), (2, 3, 7)), jobs, used, step_times)


def test_m_sync():
    """Every step waits for the first two of three and cancels the third; times 2, 3, 7."""
    # All begin at 3c, at x_c. Worker 0 arrives 2 seconds later; worker 1, 3 seconds later, makes
    # step c, and worker 2 is called off after 3 of its 7 seconds.
    jobs = []
    for c in range(STEPS):
        jobs += [
            (0, c, c, 3 * c, 3 * c, 3 * c + 2, A),  # j(3c)
            (1, c, c, 3 * c, 3 * c, 3 * c + 3, A),  # j(3c + 1)
            (2, c, c, 3 * c, 3 * c, 3 * c + 3, C),  # j(3c + 2)
        ]
    jobs += [(worker, 10, 10, 30, 30, NAN, F) for worker in range(3)]
    used = single_steps([[3 * c, 3 * c + 1] for c in range(STEPS)])
    step_times = [3 * (c + 1) for c in range(STEPS)]
    assert_trace(run(methods.MSync(2), (2, 3, 7)), jobs, used, step_times)


def test_m_sync_cancels_a_worker_that_would_finish_at_the_same_moment():
    """Workers 0 and 2 need the same time and only one of them is wanted; times 3, 2, 3."""
    # All begin at 3c, at x_c, worker 0 before worker 2. Worker 1 arrives 2 seconds later. After 3
    # seconds both others are done; worker 0 began first and makes step c, which cancels worker 2.
    jobs = []
    for c in range(STEPS):
        jobs += [
            (0, c, c, 3 * c, 3 * c, 3 * c + 3, A),  # j(3c)
            (1, c, c, 3 * c, 3 * c, 3 * c + 2, A),  # j(3c + 1)
            (2, c, c, 3 * c, 3 * c, 3 * c + 3, C),  # j(3c + 2)
        ]
    jobs += [(worker, 10, 10, 30, 30, NAN, F) for worker in range(3)]
    used = single_steps([[3 * c + 1, 3 * c] for c in range(STEPS)])
    step_times = [3 * (c + 1) for c in range(STEPS)]
    assert_trace(run(methods.MSync(2), (3, 2, 3)), jobs, used, step_times)


def test_ringmaster():
    """A step with every arrival of delay δ < 2, the others are dropped; times 2, 3, 7."""
    # t=2  w0 j0 δ=0 step 0, w0→j3        t=9  w1 j6  δ=6−4=2 dropped, w1→j10 at x_6
    # t=3  w1 j1 δ=1 step 1, w1→j4        t=10 w0 j9  δ=6−6=0 step 6, w0→j11
    # t=4  w0 j3 δ=2−1=1 step 2, w0→j5    t=12 w1 j10 (began at 9)  δ=7−6=1 step 7, w1→j12
    # t=6  w1 j4 (began at 3)                  w0 j11 (began at 10) δ=8−7=1 step 8, w0→j13
    #            δ=3−2=1 step 3, w1→j6    t=14 w2 j8  (began at 7)  δ=9−5=4 dropped, w2→j14 at x_9
    #      w0 j5 (began at 4)                  w0 j13 (began at 12) δ=9−9=0 step 9, w0→j15
    #            δ=4−3=1 step 4, w0→j7
    # t=7  w2 j2 δ=5 dropped, w2→j8 at x_5
    # t=8  w0 j7 δ=5−5=0 step 5, w0→j9
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 7, D),  # j2
        (0, 1, 1, 2, 2, 4, A),  # j3: step 2
        (1, 2, 1, 3, 3, 6, A),  # j4: step 3
        (0, 3, 2, 4, 4, 6, A),  # j5: step 4
        (1, 4, 2, 6, 6, 9, D),  # j6
        (0, 5, 3, 6, 6, 8, A),  # j7: step 5
        (2, 5, 1, 7, 7, 14, D),  # j8
        (0, 6, 4, 8, 8, 10, A),  # j9: step 6
        (1, 6, 3, 9, 9, 12, A),  # j10: step 7
        (0, 7, 5, 10, 10, 12, A),  # j11: step 8
        (1, 8, 4, 12, 12, NAN, F),  # j12: due at 15
        (0, 9, 6, 12, 12, 14, A),  # j13: step 9
        (2, 9, 2, 14, 14, NAN, F),  # j14
        (0, 10, 7, 14, 14, NAN, F),  # j15
    ]
    used = single_steps([[0], [1], [3], [4], [5], [7], [9], [10], [11], [13]])
    step_times = [2, 3, 4, 6, 6, 8, 10, 12, 12, 14]
    assert_trace(run(methods.Ringmaster(max_delay=2), (2, 3, 7)), jobs, used, step_times)


def test_ringmaster_that_stops_stale_jobs():
    """As Ringmaster, but a running job is called off when its delay reaches 2; times 2, 3, 7."""
    # t=2  w0 j0  step 0, w0→j3
    # t=3  w1 j1  step 1, w1→j4; j2 (read x_0, now x_2) is cancelled, w2→j5
    # t=4  w0 j3  step 2, w0→j6
    # t=6  w1 j4  (began at 3) step 3, w1→j7; j5 (read x_2, now x_4) is cancelled, w2→j8
    #      w0 j6  (began at 4) step 4, w0→j9
    # t=8  w0 j9  step 5, w0→j10; j7 and j8 (read x_4, now x_6) are cancelled, w1→j11, w2→j12
    # t=10 w0 j10 step 6, w0→j13
    # t=11 w1 j11 step 7, w1→j14; j12 (read x_6, now x_8) is cancelled, w2→j15
    # t=12 w0 j13 step 8, w0→j16
    # t=14 w1 j14 (began at 11) step 9, w1→j17; j15 (read x_8, now x_10) is cancelled, w2→j18;
    #      the run is over before w0 j16 (began at 12), due at 14 too
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 1
        (2, 0, 0, 0, 0, 3, C),  # j2
        (0, 1, 1, 2, 2, 4, A),  # j3: step 2
        (1, 2, 1, 3, 3, 6, A),  # j4: step 3
        (2, 2, 1, 3, 3, 6, C),  # j5
        (0, 3, 2, 4, 4, 6, A),  # j6: step 4
        (1, 4, 2, 6, 6, 8, C),  # j7
        (2, 4, 2, 6, 6, 8, C),  # j8
        (0, 5, 3, 6, 6, 8, A),  # j9: step 5
        (0, 6, 4, 8, 8, 10, A),  # j10: step 6
        (1, 6, 3, 8, 8, 11, A),  # j11: step 7
        (2, 6, 3, 8, 8, 11, C),  # j12
        (0, 7, 5, 10, 10, 12, A),  # j13: step 8
        (1, 8, 4, 11, 11, 14, A),  # j14: step 9
        (2, 8, 4, 11, 11, 14, C),  # j15
        (0, 9, 6, 12, 12, NAN, F),  # j16: due at 14, one arrival too late
        (1, 10, 5, 14, 14, NAN, F),  # j17
        (2, 10, 5, 14, 14, NAN, F),  # j18
    ]
    used = single_steps([[0], [1], [3], [4], [6], [9], [10], [11], [13], [14]])
    step_times = [2, 3, 4, 6, 6, 8, 10, 11, 12, 14]
    trace = run(methods.Ringmaster(max_delay=2, stop_stale=True), (2, 3, 7))
    assert_trace(trace, jobs, used, step_times)


def test_buffered():
    """Two arrivals make a step, and whoever delivered goes on at once; times 2, 3, 7."""
    # t=2  w0 j0 kept, w0→j3 at x_0              t=7  w2 j2 (x_0) step 2, w2→j8 at x_3
    # t=3  w1 j1 step 0, w1→j4 at x_1            t=8  w0 j7 (x_2) kept, w0→j9 at x_3
    # t=4  w0 j3 (x_0) kept, w0→j5 at x_1        t=9  w1 j6 (x_2) step 3, w1→j10 at x_4
    # t=6  w1 j4 (began at 3) step 1, w1→j6      t=10 w0 j9 (x_3) kept, w0→j11 at x_4
    #      w0 j5 (began at 4) kept, w0→j7        t=12 w1 j10 (began at 9) step 4, w1→j12, and the
    #                                                 run is over before w0 j11 (began at 10)
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 0
        (2, 0, 0, 0, 0, 7, A),  # j2: step 2, two steps late
        (0, 0, 1, 2, 2, 4, A),  # j3: step 1
        (1, 1, 1, 3, 3, 6, A),  # j4: step 1
        (0, 1, 2, 4, 4, 6, A),  # j5: step 2
        (1, 2, 2, 6, 6, 9, A),  # j6: step 3
        (0, 2, 3, 6, 6, 8, A),  # j7: step 3
        (2, 3, 1, 7, 7, NAN, F),  # j8
        (0, 3, 4, 8, 8, 10, A),  # j9: step 4
        (1, 4, 3, 9, 9, 12, A),  # j10: step 4
        (0, 4, 5, 10, 10, NAN, F),  # j11
        (1, 5, 4, 12, 12, NAN, F),  # j12
    ]
    used = single_steps([[0, 1], [3, 4], [5, 2], [7, 6], [9, 10]])
    trace = run(methods.Buffered(size=2), (2, 3, 7), steps=5)
    assert_trace(trace, jobs, used, [3, 6, 7, 9, 12])


def test_rennala():
    """Two gradients at x_k make step k, those at an older model are dropped; times 2, 3, 7."""
    # t=2  w0 j0 kept, w0→j3 at x_0              t=21 w2 j14 (began at 14, x_3) dropped, w2→j21
    # t=3  w1 j1 step 0, w1→j4                        w1 j18 (began at 18) step 5, w1→j22
    # t=4  w0 j3 (x_0, now x_1) dropped, w0→j5   t=22 w0 j20 (x_5) dropped, w0→j23
    # t=6  w1 j4 (began at 3) kept, w1→j6        t=24 w1 j22 (began at 21) kept, w1→j24
    #      w0 j5 (began at 4) step 1, w0→j7           w0 j23 (began at 22) step 6, w0→j25
    # t=7  w2 j2 (x_0) dropped, w2→j8            t=26 w0 j25 kept, w0→j26
    # t=8  w0 j7 kept, w0→j9                     t=27 w1 j24 (x_6) dropped, w1→j27
    # t=9  w1 j6 (x_1) dropped, w1→j10           t=28 w2 j21 (began at 21, x_5) dropped, w2→j28
    # t=10 w0 j9 step 2, w0→j11                       w0 j26 (began at 26) step 7, w0→j29
    # t=12 w1 j10 (began at 9, x_2) dropped,     t=30 w1 j27 (began at 27, x_7) dropped, w1→j30
    #             w1→j12                              w0 j29 (began at 28) kept, w0→j31
    #      w0 j11 (began at 10) kept, w0→j13     t=32 w0 j31 step 8, w0→j32
    # t=14 w2 j8 (began at 7, x_2) dropped,      t=33 w1 j30 (x_8) dropped, w1→j33
    #             w2→j14                         t=34 w0 j32 kept, w0→j34
    #      w0 j13 (began at 12) step 3, w0→j15   t=35 w2 j28 (x_7) dropped, w2→j35
    # t=15 w1 j12 (x_3) dropped, w1→j16          t=36 w1 j33 (began at 33) step 9, w1→j36, and the
    # t=16 w0 j15 kept, w0→j17                        run is over before w0 j34 (began at 34)
    # t=18 w1 j16 (began at 15) step 4, w1→j18
    #      w0 j17 (began at 16, x_4) dropped, w0→j19
    # t=20 w0 j19 kept, w0→j20
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0: step 0
        (1, 0, 0, 0, 0, 3, A),  # j1: step 0
        (2, 0, 0, 0, 0, 7, D),  # j2
        (0, 0, 1, 2, 2, 4, D),  # j3
        (1, 1, 1, 3, 3, 6, A),  # j4: step 1
        (0, 1, 2, 4, 4, 6, A),  # j5: step 1
        (1, 1, 2, 6, 6, 9, D),  # j6
        (0, 2, 3, 6, 6, 8, A),  # j7: step 2
        (2, 2, 1, 7, 7, 14, D),  # j8
        (0, 2, 4, 8, 8, 10, A),  # j9: step 2
        (1, 2, 3, 9, 9, 12, D),  # j10
        (0, 3, 5, 10, 10, 12, A),  # j11: step 3
        (1, 3, 4, 12, 12, 15, D),  # j12
        (0, 3, 6, 12, 12, 14, A),  # j13: step 3
        (2, 3, 2, 14, 14, 21, D),  # j14
        (0, 4, 7, 14, 14, 16, A),  # j15: step 4
        (1, 4, 5, 15, 15, 18, A),  # j16: step 4
        (0, 4, 8, 16, 16, 18, D),  # j17
        (1, 5, 6, 18, 18, 21, A),  # j18: step 5
        (0, 5, 9, 18, 18, 20, A),  # j19: step 5
        (0, 5, 10, 20, 20, 22, D),  # j20
        (2, 5, 3, 21, 21, 28, D),  # j21
        (1, 6, 7, 21, 21, 24, A),  # j22: step 6
        (0, 6, 11, 22, 22, 24, A),  # j23: step 6
        (1, 6, 8, 24, 24, 27, D),  # j24
        (0, 7, 12, 24, 24, 26, A),  # j25: step 7
        (0, 7, 13, 26, 26, 28, A),  # j26: step 7
        (1, 7, 9, 27, 27, 30, D),  # j27
        (2, 7, 4, 28, 28, 35, D),  # j28
        (0, 8, 14, 28, 28, 30, A),  # j29: step 8
        (1, 8, 10, 30, 30, 33, D),  # j30
        (0, 8, 15, 30, 30, 32, A),  # j31: step 8
        (0, 9, 16, 32, 32, 34, A),  # j32: step 9
        (1, 9, 11, 33, 33, 36, A),  # j33: step 9
        (0, 9, 17, 34, 34, NAN, F),  # j34: due at 36, one arrival too late
        (2, 9, 5, 35, 35, NAN, F),  # j35
        (1, 10, 12, 36, 36, NAN, F),  # j36
    ]
    batches = [[0, 1], [4, 5], [7, 9], [11, 13], [15, 16], [19, 18], [22, 23], [25, 26], [29, 31]]
    used = single_steps([*batches, [32, 33]])
    step_times = [3, 6, 10, 14, 18, 21, 24, 28, 32, 36]
    assert_trace(run(methods.Rennala(batch=2), (2, 3, 7)), jobs, used, step_times)


def test_rennala_that_stops_stale_jobs():
    """Four gradients at x_k make step k and call the rest off; times 2, 4, 7."""
    # A step stops every worker, so that each step is the first one over again, 6 seconds later.
    # Let a = 6c be the number of the first job at x_c. Counted from second 6c, where all begin:
    # t=2 w0 j(a) kept, w0→j(a + 3)
    # t=4 w1 j(a + 1) (began at 0) kept, w1→j(a + 4)
    #     w0 j(a + 3) (began at 2) kept, w0→j(a + 5)
    # t=6 w0 j(a + 5) step c; j(a + 2) of w2 and j(a + 4) of w1 are cancelled, all begin at x_{c+1}
    # In a step worker 0 gets three jobs, worker 1 two, worker 2 one.
    jobs = []
    for c in range(STEPS):
        t = 6 * c
        jobs += [
            (0, c, 3 * c, t, t, t + 2, A),  # j(a)
            (1, c, 2 * c, t, t, t + 4, A),  # j(a + 1)
            (2, c, c, t, t, t + 6, C),  # j(a + 2): 6 of 7 seconds done
            (0, c, 3 * c + 1, t + 2, t + 2, t + 4, A),  # j(a + 3)
            (1, c, 2 * c + 1, t + 4, t + 4, t + 6, C),  # j(a + 4): 2 of 4 seconds done
            (0, c, 3 * c + 2, t + 4, t + 4, t + 6, A),  # j(a + 5)
        ]
    jobs += [(0, 10, 30, 60, 60, NAN, F), (1, 10, 20, 60, 60, NAN, F), (2, 10, 10, 60, 60, NAN, F)]
    used = single_steps([[6 * c, 6 * c + 1, 6 * c + 3, 6 * c + 5] for c in range(STEPS)])
    step_times = [6 * (c + 1) for c in range(STEPS)]
    trace = run(methods.Rennala(batch=4, stop_stale=True), (2, 4, 7))
    assert_trace(trace, jobs, used, step_times)


def test_malenia():
    """Means of workers at one model, dropping what read an older one; times 1, 2, 5, S = n = 3."""
    # A step is due once all B_i >= 1 and 1/B_0 + 1/B_1 + 1/B_2 < n²/S = 3.
    # t=1  w0 j0 B0=1, w0→j3                    t=6  w1 j7 (began at 4) read x_0: dropped, w1→j11
    # t=2  w1 j1 (began at 0) B1=1, w1→j4            w0 j10 (began at 5) B0=1, w0→j12
    #      w0 j3 (began at 1) B0=2, w0→j5       t=7  w0 j12 B0=2, w0→j13
    # t=3  w0 j5 B0=3, w0→j6                    t=8  w1 j11 (began at 6) B1=1, w1→j14
    # t=4  w1 j4 (began at 2) B1=2, w1→j7            w0 j13 (began at 7) B0=3, w0→j15
    #      w0 j6 (began at 3) B0=4, w0→j8       t=9  w0 j15 B0=4, w0→j16
    # t=5  w2 j2 (began at 0) B2=1,             t=10 w2 j9 (began at 5) B2=1, 1/4 + 1 + 1 < 3:
    #      1/4 + 1/2 + 1 < 3: step 0, w2→j9          step 1, w2→j17, and the run is over before
    #      w0 j8 (began at 4) read x_0:              w1 j14 (began at 8) and w0 j16 (began at 9)
    #      dropped, w0→j10
    jobs = [
        (0, 0, 0, 0, 0, 1, A),  # j0: step 0
        (1, 0, 0, 0, 0, 2, A),  # j1: step 0
        (2, 0, 0, 0, 0, 5, A),  # j2: step 0
        (0, 0, 1, 1, 1, 2, A),  # j3: step 0
        (1, 0, 1, 2, 2, 4, A),  # j4: step 0
        (0, 0, 2, 2, 2, 3, A),  # j5: step 0
        (0, 0, 3, 3, 3, 4, A),  # j6: step 0
        (1, 0, 2, 4, 4, 6, D),  # j7
        (0, 0, 4, 4, 4, 5, D),  # j8
        (2, 1, 1, 5, 5, 10, A),  # j9: step 1
        (0, 1, 5, 5, 5, 6, A),  # j10: step 1
        (1, 1, 3, 6, 6, 8, A),  # j11: step 1
        (0, 1, 6, 6, 6, 7, A),  # j12: step 1
        (0, 1, 7, 7, 7, 8, A),  # j13: step 1
        (1, 1, 4, 8, 8, NAN, F),  # j14: due at 10
        (0, 1, 8, 8, 8, 9, A),  # j15: step 1
        (0, 1, 9, 9, 9, NAN, F),  # j16: due at 10
        (2, 2, 2, 10, 10, NAN, F),  # j17
    ]
    used = [
        *((job, 0, 0, 1, 1 / 12) for job in (0, 3, 5, 6)),
        *((job, 1, 0, 1, 1 / 6) for job in (1, 4)),
        (2, 2, 0, 1, 1 / 3),
        *((job, 0, 1, 2, 1 / 12) for job in (10, 12, 13, 15)),
        (11, 1, 1, 2, 1 / 3),
        (9, 2, 1, 2, 1 / 3),
    ]
    assert_trace(run(methods.Malenia(), (1, 2, 5), steps=2), jobs, used, [5, 10])


def test_malenia_that_stops_stale_jobs():
    """As above until step 0; then all begin anew."""
    # t=5  w2 j2 step 0, j8 and j7 are called off, w0→j9, w1→j10, w2→j11
    # t=6  w0 j9 B0=1, w0→j12                   t=9  w1 j13 (began at 7) B1=2, w1→j16
    # t=7  w1 j10 (began at 5) B1=1, w1→j13          w0 j15 (began at 8) B0=4, w0→j17
    #      w0 j12 (began at 6) B0=2, w0→j14     t=10 w2 j11 B2=1, 1/4 + 1/2 + 1 < 3: step 1, j17
    # t=8  w0 j14 B0=3, w0→j15                       and j16 are called off, w0→j18, w1→j19, w2→j20
    jobs = [
        (0, 0, 0, 0, 0, 1, A),  # j0: step 0
        (1, 0, 0, 0, 0, 2, A),  # j1: step 0
        (2, 0, 0, 0, 0, 5, A),  # j2: step 0
        (0, 0, 1, 1, 1, 2, A),  # j3: step 0
        (1, 0, 1, 2, 2, 4, A),  # j4: step 0
        (0, 0, 2, 2, 2, 3, A),  # j5: step 0
        (0, 0, 3, 3, 3, 4, A),  # j6: step 0
        (1, 0, 2, 4, 4, 5, C),  # j7
        (0, 0, 4, 4, 4, 5, C),  # j8
        (0, 1, 5, 5, 5, 6, A),  # j9: step 1
        (1, 1, 3, 5, 5, 7, A),  # j10: step 1
        (2, 1, 1, 5, 5, 10, A),  # j11: step 1
        (0, 1, 6, 6, 6, 7, A),  # j12: step 1
        (1, 1, 4, 7, 7, 9, A),  # j13: step 1
        (0, 1, 7, 7, 7, 8, A),  # j14: step 1
        (0, 1, 8, 8, 8, 9, A),  # j15: step 1
        (1, 1, 5, 9, 9, 10, C),  # j16
        (0, 1, 9, 9, 9, 10, C),  # j17
        (0, 2, 10, 10, 10, NAN, F),  # j18
        (1, 2, 6, 10, 10, NAN, F),  # j19
        (2, 2, 2, 10, 10, NAN, F),  # j20
    ]
    used = [
        *((job, 0, 0, 1, 1 / 12) for job in (0, 3, 5, 6)),
        *((job, 1, 0, 1, 1 / 6) for job in (1, 4)),
        (2, 2, 0, 1, 1 / 3),
        *((job, 0, 1, 2, 1 / 12) for job in (9, 12, 14, 15)),
        *((job, 1, 1, 2, 1 / 6) for job in (10, 13)),
        (11, 2, 1, 2, 1 / 3),
    ]
    trace = run(methods.Malenia(stop_stale=True), (1, 2, 5), steps=2)
    assert_trace(trace, jobs, used, [5, 10])


def test_malenia_wants_more_than_one_gradient_of_each():
    """Equal workers, S = n = 3: after one each the sum of the 1/B_i is 3, not below it."""
    # t=1  w0 j0, w1 j1, w2 j2: B = 1, 1, 1; w0→j3, w1→j4, w2→j5
    # t=2  w0 j3 B0=2, 1/2 + 1 + 1 < 3: step 0, w0→j6, and the run is over
    jobs = [
        (0, 0, 0, 0, 0, 1, A),  # j0: step 0
        (1, 0, 0, 0, 0, 1, A),  # j1: step 0
        (2, 0, 0, 0, 0, 1, A),  # j2: step 0
        (0, 0, 1, 1, 1, 2, A),  # j3: step 0
        (1, 0, 1, 1, 1, NAN, F),  # j4
        (2, 0, 1, 1, 1, NAN, F),  # j5
        (0, 1, 2, 2, 2, NAN, F),  # j6
    ]
    used = [(0, 0, 0, 1, 1 / 6), (3, 0, 0, 1, 1 / 6), (1, 1, 0, 1, 1 / 3), (2, 2, 0, 1, 1 / 3)]
    assert_trace(run(methods.Malenia(), (1, 1, 1), steps=1), jobs, used, [2])


def test_ringleader():
    """A table of every worker's mean, three steps a round; times 2, 5, 6."""
    # Ei+ says that entry i gets the gradient; entries 0–2 and 3–5 are table and spare in turn.
    # Round 1: the table is E0–E2.
    # t=2  w0 j0  E0+, w0→j3
    # t=4  w0 j3  E0+, w0→j4
    # t=5  w1 j1  E1+, w1→j5
    # t=6  w2 j2  (began at 0) E2+, no entry is empty: step 0, w2→j6
    #      w0 j4  (began at 4) E0+, step 1, w0→j7
    # t=8  w0 j7  has had its step: E3+ (spare), w0→j8
    # t=10 w1 j5  (began at 5) E1+, step 2, w1→j9; end of the round, E0–E2 are emptied
    # Round 2: the table is E3–E5, and E3 holds j7 already.
    #      w0 j8  (began at 8) E3+, w0→j10
    # t=12 w2 j6  (began at 6) E5+, w2→j11
    #      w0 j10 (began at 10) E3+, w0→j12
    # t=14 w0 j12 E3+, w0→j13
    # t=15 w1 j9  E4+, no entry is empty: step 3, w1→j14
    # t=16 w0 j13 E3+, step 4, w0→j15
    # t=18 w2 j11 (began at 12) E5+, step 5, w2→j16; end of the round, E3–E5 are emptied
    # Round 3: the table is E0–E2.
    #      w0 j15 (began at 16) E0+, w0→j17
    # t=20 w1 j14 (began at 15) E1+, w1→j18
    #      w0 j17 (began at 18) E0+, w0→j19
    # t=22 w0 j19 E0+, w0→j20
    # t=24 w2 j16 (began at 18) E2+, no entry is empty: step 6, w2→j21
    #      w0 j20 (began at 22) E0+, step 7, w0→j22
    # t=25 w1 j18 E1+, step 8, w1→j23; end of the round, E0–E2 are emptied
    # Round 4: the table is E3–E5.
    # t=26 w0 j22 E3+, w0→j24
    # t=28 w0 j24 E3+, w0→j25
    # t=30 w2 j21 (began at 24) E5+, w2→j26
    #      w1 j23 (began at 25) E4+, no entry is empty: step 9, w1→j27, and the run is over
    #             before w0 j25 (began at 28), due at 30 too
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0
        (1, 0, 0, 0, 0, 5, A),  # j1
        (2, 0, 0, 0, 0, 6, A),  # j2
        (0, 0, 1, 2, 2, 4, A),  # j3
        (0, 0, 2, 4, 4, 6, A),  # j4
        (1, 0, 1, 5, 5, 10, A),  # j5
        (2, 1, 1, 6, 6, 12, A),  # j6
        (0, 2, 3, 6, 6, 8, A),  # j7
        (0, 2, 4, 8, 8, 10, A),  # j8
        (1, 3, 2, 10, 10, 15, A),  # j9
        (0, 3, 5, 10, 10, 12, A),  # j10
        (2, 3, 2, 12, 12, 18, A),  # j11
        (0, 3, 6, 12, 12, 14, A),  # j12
        (0, 3, 7, 14, 14, 16, A),  # j13
        (1, 4, 3, 15, 15, 20, A),  # j14
        (0, 5, 8, 16, 16, 18, A),  # j15
        (2, 6, 3, 18, 18, 24, A),  # j16
        (0, 6, 9, 18, 18, 20, A),  # j17
        (1, 6, 4, 20, 20, 25, A),  # j18
        (0, 6, 10, 20, 20, 22, A),  # j19
        (0, 6, 11, 22, 22, 24, A),  # j20
        (2, 7, 4, 24, 24, 30, A),  # j21
        (0, 8, 12, 24, 24, 26, A),  # j22
        (1, 9, 5, 25, 25, 30, A),  # j23
        (0, 9, 13, 26, 26, 28, A),  # j24
        (0, 9, 14, 28, 28, NAN, F),  # j25: due at 30, one arrival too late
        (2, 9, 5, 30, 30, NAN, F),  # j26
        (1, 10, 6, 30, 30, NAN, F),  # j27
    ]
    # An entry of b gradients gives each of them the weight 1/(3b). A row ends when b changes.
    used = [
        (0, 0, 0, 1, 1 / 6),  # step 0: E0 = j0, j3; E1 = j1; E2 = j2
        (3, 0, 0, 1, 1 / 6),
        (1, 1, 0, 2, 1 / 3),
        (2, 2, 0, 3, 1 / 3),
        (0, 0, 1, 3, 1 / 9),  # step 1: E0 = j0, j3, j4
        (3, 0, 1, 3, 1 / 9),
        (4, 0, 1, 3, 1 / 9),
        (1, 1, 2, 3, 1 / 6),  # step 2: E1 = j1, j5
        (5, 1, 2, 3, 1 / 6),
        (7, 3, 3, 4, 1 / 12),  # step 3: E3 = j7, j8, j10, j12; E4 = j9; E5 = j6
        (8, 3, 3, 4, 1 / 12),
        (6, 5, 3, 5, 1 / 3),
        (10, 3, 3, 4, 1 / 12),
        (12, 3, 3, 4, 1 / 12),
        (9, 4, 3, 6, 1 / 3),
        (7, 3, 4, 6, 1 / 15),  # step 4: E3 = j7, j8, j10, j12, j13
        (8, 3, 4, 6, 1 / 15),
        (10, 3, 4, 6, 1 / 15),
        (12, 3, 4, 6, 1 / 15),
        (13, 3, 4, 6, 1 / 15),
        (6, 5, 5, 6, 1 / 6),  # step 5: E5 = j6, j11
        (11, 5, 5, 6, 1 / 6),
        (15, 0, 6, 7, 1 / 9),  # step 6: E0 = j15, j17, j19; E1 = j14; E2 = j16
        (14, 1, 6, 8, 1 / 3),
        (17, 0, 6, 7, 1 / 9),
        (19, 0, 6, 7, 1 / 9),
        (16, 2, 6, 9, 1 / 3),
        (15, 0, 7, 9, 1 / 12),  # step 7: E0 = j15, j17, j19, j20
        (17, 0, 7, 9, 1 / 12),
        (19, 0, 7, 9, 1 / 12),
        (20, 0, 7, 9, 1 / 12),
        (14, 1, 8, 9, 1 / 6),  # step 8: E1 = j14, j18
        (18, 1, 8, 9, 1 / 6),
        (22, 3, 9, 10, 1 / 6),  # step 9: E3 = j22, j24; E4 = j23; E5 = j21
        (24, 3, 9, 10, 1 / 6),
        (21, 5, 9, 10, 1 / 3),
        (23, 4, 9, 10, 1 / 3),
    ]
    step_times = [6, 6, 10, 15, 16, 18, 24, 24, 25, 30]
    used.sort(key=lambda row: (row[2], row[1]))  # listed by arrival, kept by step and entry
    assert_trace(run(methods.Ringleader(), (2, 5, 6)), jobs, used, step_times)


def test_ringleader_that_ends_within_a_round():
    """As above until second 9: a gradient in the spare half has entered no step."""
    jobs = [
        (0, 0, 0, 0, 0, 2, A),  # j0
        (1, 0, 0, 0, 0, 5, A),  # j1
        (2, 0, 0, 0, 0, 6, A),  # j2
        (0, 0, 1, 2, 2, 4, A),  # j3
        (0, 0, 2, 4, 4, 6, A),  # j4
        (1, 0, 1, 5, 5, NAN, F),  # j5: due at 10
        (2, 1, 1, 6, 6, NAN, F),  # j6: due at 12
        (0, 2, 3, 6, 6, 8, F),  # j7: in E3, for the next round
        (0, 2, 4, 8, 8, NAN, F),  # j8: due at 10
    ]
    # What the table holds at the end has entered every step up to the last, step 1.
    used = [
        (0, 0, 0, 1, 1 / 6),  # step 0: E0 = j0, j3; E1 = j1; E2 = j2
        (3, 0, 0, 1, 1 / 6),
        (1, 1, 0, 2, 1 / 3),
        (2, 2, 0, 2, 1 / 3),
        (0, 0, 1, 2, 1 / 9),  # step 1: E0 = j0, j3, j4
        (3, 0, 1, 2, 1 / 9),
        (4, 0, 1, 2, 1 / 9),
    ]
    trace = run(methods.Ringleader(), (2, 5, 6), until_time=9.0)
    assert_trace(trace, jobs, used, [6, 6])
    assert trace.header.end_time == 9.0


def test_ace():
    """No step before all have answered, then one at each arrival; times 1, 2, 5."""
    # t=1 w0 j0 into E0, w0→j3                    t=4 w1 j4 (began at 2) replaces j1, w1→j7
    # t=2 w1 j1 (began at 0) into E1, w1→j4           w0 j6 (began at 3) replaces j5, w0→j8
    #     w0 j3 (began at 1) replaces j0, w0→j5   t=5 w2 j2 (began at 0) step 0, w2→j9
    # t=3 w0 j5 replaces j3, w0→j6                    w0 j8 (began at 4) step 1, w0→j10
    #                                             t=6 w1 j7 (began at 4) step 2, w1→j11
    #                                                 w0 j10 (began at 5) step 3, w0→j12
    jobs = [
        (0, 0, 0, 0, 0, 1, D),  # j0
        (1, 0, 0, 0, 0, 2, D),  # j1
        (2, 0, 0, 0, 0, 5, A),  # j2: from step 0
        (0, 0, 1, 1, 1, 2, D),  # j3
        (1, 0, 1, 2, 2, 4, A),  # j4: from step 0
        (0, 0, 2, 2, 2, 3, D),  # j5
        (0, 0, 3, 3, 3, 4, A),  # j6: from step 0
        (1, 0, 2, 4, 4, 6, A),  # j7: from step 2
        (0, 0, 4, 4, 4, 5, A),  # j8: from step 1
        (2, 1, 1, 5, 5, NAN, F),  # j9: due at 10
        (0, 2, 5, 5, 5, 6, A),  # j10: from step 3
        (1, 3, 3, 6, 6, NAN, F),  # j11
        (0, 4, 6, 6, 6, NAN, F),  # j12
    ]
    used = [
        (6, 0, 0, 1, 1 / 3),  # until j8, step 1
        (4, 1, 0, 2, 1 / 3),  # until j7, step 2
        (2, 2, 0, 4, 1 / 3),  # to the end
        (8, 0, 1, 3, 1 / 3),  # until j10, step 3
        (7, 1, 2, 4, 1 / 3),
        (10, 0, 3, 4, 1 / 3),
    ]
    assert_trace(run(methods.ACE(), (1, 2, 5), steps=4), jobs, used, [5, 5, 6, 6])


def test_ace_without_waiting():
    """A table of every worker's latest gradient, each arrival is a step; times 1, 2, 5."""
    # t=1 w0 j0 step 0, w0→j3                    t=4 w1 j4  (began at 2) step 4, w1→j7
    # t=2 w1 j1 (began at 0) step 1, w1→j4           w0 j6  (began at 3) step 5, w0→j8
    #     w0 j3 (began at 1) step 2, w0→j5       t=5 w2 j2  (began at 0) step 6, w2→j9
    # t=3 w0 j5 step 3, w0→j6                        w0 j8  (began at 4) step 7, w0→j10
    #                                            t=6 w1 j7  (began at 4) step 8, w1→j11
    #                                                w0 j10 (began at 5) step 9, w0→j12
    jobs = [
        (0, 0, 0, 0, 0, 1, A),  # j0: from step 0
        (1, 0, 0, 0, 0, 2, A),  # j1: from step 1
        (2, 0, 0, 0, 0, 5, A),  # j2: from step 6
        (0, 1, 1, 1, 1, 2, A),  # j3: from step 2
        (1, 2, 1, 2, 2, 4, A),  # j4: from step 4
        (0, 3, 2, 2, 2, 3, A),  # j5: from step 3
        (0, 4, 3, 3, 3, 4, A),  # j6: from step 5
        (1, 5, 2, 4, 4, 6, A),  # j7: from step 8
        (0, 6, 4, 4, 4, 5, A),  # j8: from step 7
        (2, 7, 1, 5, 5, NAN, F),  # j9: due at 10
        (0, 8, 5, 5, 5, 6, A),  # j10: from step 9
        (1, 9, 3, 6, 6, NAN, F),  # j11
        (0, 10, 6, 6, 6, NAN, F),  # j12
    ]
    # A gradient stays until the step that its worker's next one makes, the last ones to the end.
    used = [
        (0, 0, 0, 2, 1 / 3),  # until j3, step 2
        (1, 1, 1, 4, 1 / 3),  # until j4, step 4
        (3, 0, 2, 3, 1 / 3),  # until j5, step 3
        (5, 0, 3, 5, 1 / 3),  # until j6, step 5
        (4, 1, 4, 8, 1 / 3),  # until j7, step 8
        (6, 0, 5, 7, 1 / 3),  # until j8, step 7
        (2, 2, 6, 10, 1 / 3),  # to the end
        (8, 0, 7, 9, 1 / 3),  # until j10, step 9
        (7, 1, 8, 10, 1 / 3),  # to the end
        (10, 0, 9, 10, 1 / 3),  # to the end
    ]
    step_times = [1, 2, 2, 3, 4, 4, 5, 5, 6, 6]
    assert_trace(run(methods.ACE(wait=False), (1, 2, 5)), jobs, used, step_times)
