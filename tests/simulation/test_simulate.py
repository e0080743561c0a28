"""simulate: limits, refusals, and that the compiled and the plain Python loop are one."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import asgrad as ag
from asgrad.registry import catalogue
from asgrad.simulation import cost
from asgrad.simulation.simulate import _prepared, expected_cost
from asgrad.times import Clock

METHODS = [cls() for cls in catalogue(ag.methods).values()] + [
    ag.methods.Pure(wait=3),
    ag.methods.Random(concurrency=7, wait=2),
    ag.methods.Shuffled(once=True, concurrency=2),
    ag.methods.Ringmaster(max_delay=2, stop_stale=True),
    ag.methods.Rennala(batch=9, stop_stale=True),
]


class InPython(ag.times.AnyTimes):
    """Worker times whose kernel is called from Python: they force the plain Python loop."""

    def __init__(self, times: ag.times.AnyTimes):
        self.times = times

    @property
    def label(self):
        """The label of the times inside, so that headers are equal."""
        return self.times.label

    def begin(self, n_workers, seed) -> Clock:
        """The same clock with a Python function around its kernel."""
        clock = self.times.begin(n_workers, seed)
        return clock._replace(seconds=lambda *arguments: clock.seconds(*arguments))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
@pytest.mark.parametrize("times", [ag.times.Linear(), ag.times.Poisson()], ids=lambda t: t.label)
def test_compiled_and_python_loop_write_equal_traces(method, times):
    """The event loop's source, compiled and as plain Python, gives the same bits."""
    options = {"n_workers": 5, "steps": 40, "seed": 3}
    compiled = ag.simulate(method, times, **options)
    assert compiled.equals(ag.simulate(method, InPython(times), **options))


def test_limits_stop_at_the_first_that_is_reached():
    """Two workers of 1 and 2 seconds: arrivals at 1, 2, 2, 3, 4, 4, ..."""
    times = ag.times.Linear()
    by_time = ag.simulate(ag.methods.Pure(), times, n_workers=2, until_time=3.5)
    assert by_time.step_times.tolist() == [1, 2, 2, 3]
    assert (by_time.header.stopped_by, by_time.header.end_time) == ("time", 3.5)
    at_the_moment = ag.simulate(ag.methods.Pure(), times, n_workers=2, until_time=4)
    assert at_the_moment.step_times.tolist() == [1, 2, 2, 3, 4, 4]
    by_jobs = ag.simulate(ag.methods.Sync(), times, n_workers=2, jobs=3)
    assert (by_jobs.n_steps, by_jobs.header.stopped_by, by_jobs.header.end_time) == (1, "jobs", 3)
    both = ag.simulate(ag.methods.Pure(), times, n_workers=2, steps=2, until_time=100)
    assert (both.n_steps, both.header.stopped_by) == (2, "steps")


def test_a_long_run_grows_its_tables_without_a_seam(monkeypatch):
    """Growing from nothing and pausing often changes no bit of the trace."""
    module = sys.modules["asgrad.simulation.simulate"]
    whole = ag.simulate(ag.methods.Ringleader(), ag.times.Normal(), n_workers=7, steps=3000)
    monkeypatch.setattr(module, "RESERVED", 1)
    monkeypatch.setattr(module, "_ARRIVALS_A_CALL", 17)
    monkeypatch.setattr(module, "_PILOT", 5)
    pieces = ag.simulate(ag.methods.Ringleader(), ag.times.Normal(), n_workers=7, steps=3000)
    assert whole.equals(pieces)


class Forgetful(ag.Method):
    """Assigns nothing after the start."""

    def start(self, server):
        """One job a worker."""
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        """A step and no job."""
        server.apply()
        server.take_step()


class Undecided(Forgetful):
    """Says nothing of the gradient."""

    def arrive(self, server, worker, read_step):
        """Only a job."""
        server.assign(worker)


class Greedy(Forgetful):
    """Assigns to a worker that is not there."""

    def arrive(self, server, worker, read_step):
        """Worker n does not exist."""
        server.drop()
        server.assign(server.n_workers)


class Endless(Forgetful):
    """Drops everything for ever."""

    def arrive(self, server, worker, read_step):
        """Again."""
        server.drop()
        server.assign(worker)


class Wordy(Forgetful):
    """Says more than fits."""

    def arrive(self, server, worker, read_step):
        """A thousand steps at once."""
        server.apply()
        for _ in range(1000):
            server.take_step()


class Holder(Forgetful):
    """Holds a gradient without a table."""

    def arrive(self, server, worker, read_step):
        """There is no entry 0."""
        server.hold(0)


@pytest.mark.parametrize(
    ("method", "times", "said"),
    [
        (Forgetful(), ag.times.Linear(), "Forgetful: every worker is idle after 3 steps"),
        (Undecided(), ag.times.Linear(), "exactly one of server.apply, server.hold"),
        (Greedy(), ag.times.Linear(), "worker must be an integer <= 2, got 3"),
        (Endless(), ag.times.Fixed(0.0), "time stands still at 0 s"),
        (Wordy(), ag.times.Linear(), "decisions fit one arrival"),
        (Holder(), ag.times.Linear(), r"let n_entries\(\) return > 0"),
    ],
)
def test_a_method_that_goes_wrong_is_named(method, times, said):
    """One line that says what the method did and what to do."""
    with pytest.raises(ag.AsgradError, match=said) as caught:
        ag.simulate(method, times, n_workers=3, steps=100)
    assert "\n" not in str(caught.value)


def test_time_that_never_passes_does_not_reach_a_limit_in_time():
    """Steps at 0 s for ever, and only a limit in time: refused. An idle end is no end either."""
    with pytest.raises(ag.AsgradError, match="time stands still"):
        ag.simulate(ag.methods.Pure(), ag.times.Fixed(0.0), n_workers=2, until_time=1)
    with pytest.raises(ag.AsgradError, match="every worker is idle"):
        ag.simulate(Forgetful(), ag.times.Linear(), n_workers=3, until_time=100)


class Reweighing(Forgetful):
    """Holds three thousand gradients, then changes their weight twelve times at one arrival."""

    def n_entries(self, n_workers):
        """One."""
        return 1

    def start(self, server):
        """Count from 0."""
        self.count = 0
        super().start(server)

    def arrive(self, server, worker, read_step):
        """Hold; at the last arrival weigh and step, again and again."""
        server.hold(0)
        self.count += 1
        if self.count == 3000:
            for i in range(12):
                server.weigh(0, 1.0 / (i + 1))
                server.take_step()
        server.assign(worker)


def test_many_steps_with_a_large_table_at_one_arrival_have_room():
    """Twelve rows for each of 3000 gradients come up at once."""
    trace = ag.simulate(Reweighing(), ag.times.Linear(), n_workers=10, jobs=3005)
    assert trace.contributions.job.size == 12 * 3000
    assert trace.n_steps == 12


def test_jobs_start_in_the_order_of_their_assignment_after_a_cancel():
    """cancel(1), cancel(2), then assign 0, 2, 1: at the next tie they arrive in that order."""

    class Shuffle(Forgetful):
        """At its first arrival calls off the others and assigns in another order."""

        def arrive(self, server, worker, read_step):
            """Record who arrives."""
            server.apply()
            server.take_step()
            order.append(worker)
            if len(order) == 1:
                server.cancel(1)
                server.cancel(2)
                for chosen in (0, 2, 1):
                    server.assign(chosen)

    order: list[int] = []
    ag.simulate(Shuffle(), ag.times.Fixed(1.0), n_workers=3, jobs=4)
    assert order == [0, 0, 2, 1]


def test_zero_times_are_fine_while_steps_are_taken():
    """All jobs take no time: every step happens at 0."""
    trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed(0.0), n_workers=3, steps=500)
    assert trace.n_steps == 500
    np.testing.assert_array_equal(trace.step_times, 0.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    offsets=st.lists(st.sampled_from([0, 300, 512, 513, 800, 1024, 1025]), min_size=2, max_size=9)
)
@example(offsets=[800, 512, 0])  # 0 and 1 are one moment, and 1 and 2, but not 0 and 2
@example(offsets=[1024, 0, 800, 512])
def test_moments_are_one_if_they_are_near_the_first_of_them(offsets):
    """Within 512 neighbouring numbers of the first; the order there is that of the starts."""
    scale = (np.ones(1).view(np.int64) + np.array(offsets)).view(np.float64)
    n, left = scale.size, list(range(scale.size))
    order, moments = [], []
    while left:
        first = min(offsets[worker] for worker in left)
        group = [worker for worker in left if offsets[worker] <= first + 512]
        order += group
        moments += [scale[offsets.index(first)]] * len(group)
        left = [worker for worker in left if worker not in group]
    trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed(scale), n_workers=n, jobs=n)
    assert trace.jobs.worker[trace.contributions.job].tolist() == order
    np.testing.assert_array_equal(trace.step_times, moments)


def test_many_workers_with_equal_times_take_turns():
    # All n jobs of a round arrive at one moment and are taken in the order of their starts; from
    # the second round on, n - 1 steps lie between a job's assignment and its arrival.
    n = 40_001
    trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed(1.0), n_workers=n, jobs=3 * n)
    k = np.arange(4 * n)
    np.testing.assert_array_equal(trace.jobs.worker, k % n)
    np.testing.assert_array_equal(trace.jobs.draw, k // n)
    np.testing.assert_array_equal(trace.jobs.assign_time, k // n)
    np.testing.assert_array_equal(trace.contributions.job, k[: 3 * n])
    np.testing.assert_array_equal(trace.delays, np.minimum(k[: 3 * n], n - 1))


def test_a_run_that_is_too_large_is_refused_before_it_is_played(refused, monkeypatch):
    """What it takes is said; insisting plays it. The limit in time is a million times too late."""
    text = refused(lambda: ag.simulate("pure", "fixed", n_workers=10, until_time=1e15))
    assert text.startswith("simulate: about 1e+16 jobs in about ")
    assert "of memory" in text
    assert "--insist" in text
    long = refused(lambda: ag.simulate("pure", "fixed", n_workers=10, steps=10**15, record=False))
    assert "the run would take about 1e+15 jobs in about" in long
    monkeypatch.setattr(cost, "available_memory", lambda: 1e6)
    monkeypatch.setattr("asgrad.machine.available_memory", lambda: 1e6)
    small = {"n_workers": 2, "jobs": 120_000}  # some 12 MB
    assert "12.6 MB of memory, 1 MB are available" in refused(
        lambda: ag.simulate("pure", "fixed", **small)
    )
    assert ag.simulate("pure", "fixed", **small, insist=True).n_steps == 120_000
    assert ag.simulate("pure", "fixed", **small, record=False).n_steps == 120_000


@pytest.mark.parametrize(
    ("limit", "jobs"),
    [
        ({"until_time": 1e30}, "1e+31"),
        ({"until_time": 1e308}, ""),
        ({"steps": 2**60}, "1.2e+18"),
        ({"jobs": 2**60, "until_time": 1e300}, "1.2e+18"),
    ],
)
def test_a_limit_that_is_never_reached_is_no_missing_one(refused, limit, jobs):
    """However far away it is: ten workers of a second do ten jobs a second."""
    text = refused(lambda: ag.simulate("pure", "fixed", n_workers=10, **limit))
    assert text.startswith(f"simulate: about {jobs}")
    assert "of memory" in text


def test_workers_that_memory_cannot_hold_are_refused(refused):
    text = refused(lambda: ag.simulate("pure", "fixed", n_workers=10**12, steps=1))
    assert text.startswith("simulate: 1000000000000 workers would take 700 TB of memory")


@pytest.mark.parametrize(
    ("method", "limits", "jobs"),
    [
        ("pure", {"steps": 10**9}, 1e9),
        ("sync", {"steps": 10**8}, 1e9),
        ("pure", {"jobs": 10**8}, 1e8),
        ("pure", {"until_time": 1e8}, 1e9),
        ("ringleader", {"until_time": 1e8, "steps": 10**12}, 1e9),
        ("pure", {"steps": 100}, 100),
    ],
)
def test_the_cost_of_a_run_is_guessed_from_its_beginning(method, limits, jobs):
    """Ten equal workers of one second: ten jobs a second, and a step for one job or for ten."""
    guess = expected_cost(method, "fixed", n_workers=10, **limits)
    assert guess.jobs == pytest.approx(jobs, rel=1e-3)
    rows = {"sync": 105 - 8 + 0.8, "ringleader": None}.get(method, 105)
    if rows:
        assert guess.n_bytes == pytest.approx(7000 + rows * jobs, rel=1e-3)
    assert 0 < guess.seconds < 1e-4 * jobs
    plain = expected_cost(method, "fixed", n_workers=10, record=False, **limits)
    assert plain.n_bytes == 7000


@pytest.mark.parametrize("method", ["pure", "ringleader", "ace"])
@pytest.mark.parametrize("n_workers", [10, 300])
def test_the_memory_that_is_guessed_is_about_what_a_trace_takes(method, n_workers):
    """45 bytes a job, 16 its arrival, 8 a step, 36 a row; to sort a table's rows 24 a row.

    With 300 workers the slowest have not been heard when the guess is made: it knows of few rows.
    """
    jobs = 150_000
    trace = ag.simulate(method, "exponential", n_workers=n_workers, jobs=jobs)
    row = 36 + (0 if method == "pure" else 24)
    takes = 700 * n_workers + 61 * jobs + row * trace.contributions.job.size + 8 * trace.n_steps
    guess = expected_cost(method, "exponential", n_workers=n_workers, jobs=jobs)
    assert guess.n_bytes == pytest.approx(takes, rel=0.02 if n_workers == 10 else 0.4)


@pytest.mark.parametrize("method", ["ringleader", "ace"])
def test_rows_are_sorted_without_a_second_table(method):
    """Beside what is reserved: an order of 8 bytes a row, and one column of 8 at a time."""
    run, limits = _prepared(method, "linear", 10, None, 100_000, None, 0, True)
    run.play(limits, None, True)
    run.books.close()
    n_rows = run.books.count("rows")
    tracemalloc.start()
    trace = run.trace("jobs")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert trace.contributions.job.size == n_rows
    assert peak < 25 * n_rows


def test_progress_is_told_in_shares_that_make_a_whole(monkeypatch):
    """Whichever limit ends the run."""
    module = sys.modules["asgrad.simulation.simulate"]
    monkeypatch.setattr(module, "_ARRIVALS_A_CALL", 100)
    monkeypatch.setattr(module, "_PILOT", 100)
    for limits in ({"steps": 1000}, {"until_time": 100.0}, {"jobs": 1000, "until_time": 1e9}):
        told: list[float] = []
        ag.simulate("pure", "fixed", n_workers=10, progress=told.append, **limits)
        assert len(told) >= 9
        assert min(told) >= 0
        assert sum(told) == pytest.approx(1.0)


def test_a_long_run_answers_ctrl_c(monkeypatch):
    """Between two calls of the loop, each some tenths of a second."""
    module = sys.modules["asgrad.simulation.simulate"]
    monkeypatch.setattr(module, "_PILOT", 100)
    calls: list[float] = []

    def interrupt(share):
        calls.append(share)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ag.simulate("pure", "fixed", n_workers=10, until_time=1e12, progress=interrupt, insist=True)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["record", "insist"])
@pytest.mark.parametrize("value", [None, 1, "no"])
def test_a_flag_is_true_or_false(refused, name, value):
    text = refused(lambda: ag.simulate("pure", "fixed", n_workers=2, steps=3, **{name: value}))
    assert text.startswith(f"simulate: {name} must be true or false, got ")


def test_a_limit_is_needed():
    """Without one the run would never end."""
    with pytest.raises(ag.AsgradError, match="give a limit"):
        ag.simulate(ag.methods.Pure(), ag.times.Fixed(), n_workers=2)


def test_a_job_that_takes_no_time_ends_no_sooner_than_it_began(tmp_path):
    """Its model may be there an ulp after the moment at which all of that moment is dealt with."""
    links = ag.times.Links(latency=[0.1, 0.7, 0.1, 0.0], bandwidth=100.0, size=20.0)
    paces = ag.times.Conditions(ag.times.Fixed([0.3, 0.1, 0.0, 0.1]), (links,))
    trace = ag.simulate(ag.methods.Pure(), paces, n_workers=4, jobs=60)
    jobs = trace.jobs
    sent = ~np.isnan(jobs.finish_time)
    assert (jobs.start_time <= jobs.finish_time)[sent].all()
    # Worker 2: 0.2 s for the model, 0.1 s latency, no time; 0.2 s and 0.1 s for the gradient.
    own = sent & (jobs.worker == 2)
    assert np.diff(jobs.start_time[own]) == pytest.approx(0.6)
    problem = ag.problems.Quadratic(np.ones(2), n_workers=4)
    run = ag.train(problem, "pure", 0.1, workers=ag.Virtual(paces), jobs=60, evaluate_every=None)
    assert run.trace.equals(trace)
    assert ag.Trace.load(trace.save(tmp_path / "trace")).equals(trace)
