"""One random stream per worker, and times that a user writes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import asgrad as ag
from asgrad.methods import Pure, Random, Ringmaster
from asgrad.simulation import simulate
from asgrad.times import (
    Exponential,
    Fixed,
    HalfNormal,
    Linear,
    LogNormal,
    Normal,
    Poisson,
    Stragglers,
    Times,
    Uniform,
)
from asgrad.trace import Fate

RANDOM = [
    Poisson(),
    Normal(),
    Uniform(),
    Exponential(),
    LogNormal(),
    HalfNormal(),
    Stragglers(0.0, 2.0, Exponential()),
]
every_random = pytest.mark.parametrize("times", RANDOM, ids=lambda times: times.label)


def table(times: Times, n_workers: int, seed: int, n_draws: int = 30) -> np.ndarray:
    """The time of every draw of every worker, of shape (n_workers, n_draws)."""
    clock = times.begin(n_workers, seed)
    head = clock.scales, clock.shape, clock.key
    return np.array(
        [[clock.seconds(*head, i, d, 0.0) for d in range(n_draws)] for i in range(n_workers)]
    )


@every_random
def test_the_same_seed_worker_and_draw_have_the_same_time(times):
    first = table(times, 4, seed=9)
    np.testing.assert_array_equal(first, table(times, 4, seed=9))
    clock = times.begin(4, 9)
    for worker, draw in reversed(list(itertools.product(range(4), range(30)))):
        got = clock.seconds(clock.scales, clock.shape, clock.key, worker, draw, 3.0)
        assert got == first[worker, draw]
    assert (first != table(times, 4, seed=10)).mean() > 0.5


@every_random
def test_another_worker_disturbs_no_other(times):
    np.testing.assert_array_equal(table(times, 4, 9), table(times, 7, 9)[:4])


@every_random
def test_a_simulated_job_takes_the_time_of_its_worker_and_draw(times):
    # Whatever the method: an arrival comes at the start plus the time of that draw, to the bit.
    wanted = table(times, 4, seed=3, n_draws=200)
    for method in (Pure(), Random(concurrency=6), Ringmaster(max_delay=2, stop_stale=True)):
        jobs = simulate(method, times, n_workers=4, steps=60, seed=3).jobs
        arrived = ~np.isnan(jobs.arrival_time) & (jobs.fate != Fate.CANCELLED)
        assert arrived.sum() >= 60
        seconds = wanted[jobs.worker[arrived], jobs.draw[arrived]]
        np.testing.assert_array_equal(
            jobs.arrival_time[arrived], jobs.start_time[arrived] + seconds
        )


@every_random
def test_the_times_are_another_stream_than_the_methods(times):
    # Random draws from the seed, too; yet the times are those under a method that draws nothing.
    drawn, plain = (
        simulate(method, times, n_workers=4, steps=40, seed=3).jobs for method in (Random(), Pure())
    )
    for jobs in (drawn, plain):
        first = jobs.draw == 0  # the job that every worker starts with
        np.testing.assert_array_equal(jobs.worker[first], range(4))
        wanted = table(times, 4, 3)[:, 0]
        arrived = ~np.isnan(jobs.arrival_time[first])
        assert arrived.sum() >= 3
        np.testing.assert_array_equal(jobs.arrival_time[first][arrived], wanted[arrived])


class Growing(Times):
    """Worker i's d-th job takes 1 + i + d seconds."""

    def seconds(self, worker, draw, start):
        return 1 + worker + draw


class Outage(Times):
    """One second a job, but nothing happens between seconds 2 and 10."""

    def seconds(self, worker, draw, start):
        end = start + 1.0
        return 1.0 if end <= 2.0 else 9.0


class OwnLinear(Times):
    """What `Linear` is, in plain Python."""

    def seconds(self, worker, draw, start):
        return float(worker + 1)


def test_own_times_set_the_pace():
    # Worker 0 takes 1, 2, 3, ... seconds: it arrives at 1, 3, 6, 10; worker 1 at 2, 5, 9.
    trace = simulate(Pure(), Growing(), n_workers=2, steps=7)
    assert trace.step_times.tolist() == [1, 2, 3, 5, 6, 9, 10]
    used = trace.contributions.job
    assert trace.jobs.worker[used].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert trace.header.times == "Growing"


def test_own_times_know_when_a_job_starts():
    # Jobs start at 0, 1 and 2; the third would end at 3, in the outage: it ends at 11.
    trace = simulate(Pure(), Outage(), n_workers=1, steps=3)
    assert trace.step_times.tolist() == [1, 2, 11]


@pytest.mark.parametrize("method", [Pure(), Random(), Ringmaster(max_delay=2)])
def test_own_times_give_the_trace_of_the_built_in_ones(method):
    own, built_in = (
        simulate(method, times, n_workers=3, steps=50, seed=4) for times in (OwnLinear(), Linear())
    )
    for mine, theirs in zip(
        (*own.jobs, *own.contributions, own.step_times),
        (*built_in.jobs, *built_in.contributions, built_in.step_times),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs, strict=True)


class Broken(Times):
    """Well for some jobs, then a time that cannot be."""

    def __init__(self, bad: float):
        self.bad = bad

    def seconds(self, worker, draw, start):
        return self.bad if (worker, draw) == (1, 2) else 1.0


@pytest.mark.parametrize(
    ("bad", "said"),
    [(-1.0, "-1"), (-1e-300, "-1e-300"), (float("nan"), "nan"), (float("inf"), "inf")],
)
@pytest.mark.parametrize("record", [True, False])
def test_a_time_that_cannot_be_is_refused_where_it_arises(refused, bad, said, record):
    def run(steps: int):
        return simulate(Pure(), Broken(bad), n_workers=3, steps=steps, record=record)

    run(4)  # the bad time belongs to a job that starts later
    text = refused(lambda: run(20))
    assert text.startswith("Broken: the time of a job must be finite and >= 0")
    assert f"got {said} for worker 1. It was asked for draw 2." in text


@pytest.mark.parametrize("bad", [None, "1", [1.0], np.ones(2), 1j])
def test_what_is_no_time_is_refused_with_its_job(refused, bad):
    text = refused(lambda: simulate(Pure(), Broken(bad), n_workers=3, steps=20))
    assert text.startswith("Broken: seconds of worker 1, draw 2 must be a number, got ")


@pytest.mark.parametrize("limit", [{"steps": 9}, {"until_time": 1.7e308}])
def test_a_moment_that_overflows_is_refused(refused, limit):
    # Worker 0 ends at 1e308 s; twice that is beyond float64, for both workers.
    text = refused(lambda: simulate(Pure(), Fixed(1e308), n_workers=2, **limit))
    assert text == (
        "Fixed: the moment at which a job ends must be finite, got infinity after 1e+308 s; give "
        "the times in a larger unit."
    )


def test_a_random_time_that_overflows_is_refused(refused):
    text = refused(lambda: simulate(Pure(), LogNormal(sigma=1e300), n_workers=20, steps=500))
    assert text.startswith("LogNormal: the time of a job must be finite and >= 0, got inf")


def test_jobs_that_take_no_time_are_no_error():
    trace = simulate(Pure(), Fixed(0), n_workers=2, steps=10)
    assert trace.step_times.tolist() == [0.0] * 10


class Drawn(Times):
    """Exponential, from the stream that it is given."""

    def seconds(self, worker, draw, start, rng):
        return rng.exponential(worker + 1)


def test_own_random_times_follow_from_seed_worker_and_draw():
    first = table(Drawn(), 3, seed=9)
    np.testing.assert_array_equal(first, table(Drawn(), 5, seed=9)[:3])
    assert np.unique(first).size == first.size
    assert (first != table(Drawn(), 3, seed=10)).all()
    # Means of 400 numbers lie within 4 standard deviations of theirs.
    means = table(Drawn(), 2, seed=1, n_draws=400).mean(axis=1)
    np.testing.assert_allclose(means, [1.0, 2.0], rtol=4 / 20)


def test_a_run_on_own_random_times_is_the_same_again():
    times = Drawn()
    one, two, other = (
        simulate(Pure(), times, n_workers=3, steps=40, seed=seed).step_times for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).all()


@pytest.mark.parametrize("random_draw", [0, 2])
@pytest.mark.parametrize("random_worker", [0, 2, 4])
@pytest.mark.parametrize("name", ["random", "integers"])
def test_times_from_a_generator_of_their_own_are_refused(refused, name, random_worker, random_draw):
    class Unseeded(Times):
        """Draws from a generator that no seed fixes."""

        rng = np.random.default_rng(3)

        def seconds(self, worker, draw, start):
            found = self.rng.random() if name == "random" else self.rng.integers(1, 7)
            return found if (worker, draw) == (random_worker, random_draw) else 1.0

    text = refused(lambda: simulate(Pure(), Unseeded(), n_workers=5, steps=4))
    asked = f"worker={random_worker}, draw={random_draw}, start=0.0"
    assert text.startswith(f"Unseeded: seconds({asked}) must answer the same when")
    assert "draw random times from a parameter `rng`" in text


def test_times_that_are_known_of_few_jobs_serve_a_run_of_few():
    """A record that ends is no error of a run that ends before."""

    class Recorded(Times):
        """One job's time for each of two workers."""

        def seconds(self, worker, draw, start):
            return [[1.0], [2.0]][worker][draw]

    assert simulate(Pure(), Recorded(), n_workers=2, jobs=0).n_jobs == 2
    with pytest.raises(IndexError):
        simulate(Pure(), Recorded(), n_workers=2, jobs=2)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_time_that_cannot_be_is_a_failure_of_a_live_job(bad):
    class Asleep(Broken):
        """Well but for the second job."""

        def seconds(self, worker, draw, start):
            return self.bad if draw == 1 else 0.0

    problem = ag.problems.Tridiagonal(4, n_workers=1)
    workers = ag.Threads(sleep=Asleep(bad))
    found = ag.train(problem, Pure(), 0.01, workers=workers, steps=3)
    wanted = f"the time of worker 0 for draw 1 must be finite and >= 0, got {bad:g}."
    assert len(found.failures) == 1
    assert wanted in found.failures[0]
