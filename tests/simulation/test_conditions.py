"""Links, outages, phases and mixtures: whole traces by hand, and what every condition keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import asgrad as ag
from asgrad.errors import AsgradError
from asgrad.simulation import simulate
from asgrad.times import (
    Availability,
    Away,
    Conditions,
    Fixed,
    Linear,
    Links,
    Mixture,
    Outages,
    Phases,
    times_of,
)
from asgrad.trace import Fate, Trace
from asgrad.trace.consistency import check

IN_FLIGHT, APPLIED, CANCELLED, LOST = Fate.IN_FLIGHT, Fate.APPLIED, Fate.CANCELLED, Fate.LOST
NONE = math.nan


def rows(trace: Trace) -> list[tuple]:
    """Return worker, read step, and assign, start, finish, arrival time and fate of every job."""
    jobs = trace.jobs
    return list(
        zip(
            *(column.tolist() for column in (
                jobs.worker, jobs.read_step, jobs.assign_time, jobs.start_time, jobs.finish_time,
                jobs.arrival_time, jobs.fate,
            )),
            strict=True,
        )
    )  # fmt: skip


def assert_rows(trace: Trace, expected: list[tuple]) -> None:
    """Compare the jobs, NaN with NaN."""
    check(trace.tables, trace.n_workers, "trace")
    assert len(trace.jobs.worker) == len(expected)
    for found, wanted in zip(rows(trace), expected, strict=True):
        assert_array_equal(found, wanted)


def test_latency_on_both_ways():
    """1 and 2 s a gradient, 1 s each way: worker 0 needs 1 + 1 + 1 s a job, worker 1 1 + 2 + 1."""
    trace = simulate("pure", (Linear(), Links(latency=1.0)), n_workers=2, steps=3)
    assert_rows(
        trace,
        [
            (0, 0, 0, 1, 2, 3, APPLIED),
            (1, 0, 0, 1, 3, 4, APPLIED),
            (0, 1, 3, 4, 5, 6, APPLIED),
            (1, 2, 4, 5, NONE, NONE, IN_FLIGHT),
            (0, 3, 6, NONE, NONE, NONE, IN_FLIGHT),  # its model is still on the way
        ],
    )
    assert_allclose(trace.summary.idle_times, [6 - 2, 6 - 3])


def test_sending_overlaps_the_next_job():
    """One worker with two jobs: the second is computed while the first's gradient is sent.

    A message of 4 bytes takes 2 s at 2 bytes a second. Models are there at 2 and 4; computed 2 to
    3 and 4 to 5; sent 3 to 5 and 5 to 7. The job assigned at 5 has its model at 7, is computed to
    8, and sent to 10; that of 7: 9, 10, 12, after the link is free again at 10.
    """
    links = Links(bandwidth=2.0, size=4.0)
    trace = simulate("random:concurrency=2", (Fixed(), links), n_workers=1, until_time=12.0)
    assert_rows(
        trace,
        [
            (0, 0, 0, 2, 3, 5, APPLIED),
            (0, 0, 0, 4, 5, 7, APPLIED),
            (0, 1, 5, 7, 8, 10, APPLIED),
            (0, 2, 7, 9, 10, 12, APPLIED),
            (0, 3, 10, 12, NONE, NONE, IN_FLIGHT),
            (0, 4, 12, NONE, NONE, NONE, IN_FLIGHT),
        ],
    )


def test_the_servers_link_carries_one_message_at_a_time():
    """Three workers of 1 s, messages of 1 s on the server's link alone: models at 1, 2, 3.

    Computed at 2, 3, 4; worker 0 sends 2 to 3, worker 1 3 to 4, worker 2 4 to 5.
    """
    links = Links(server_bandwidth=5.0, size=5.0)
    trace = simulate("sync", (Fixed(), links), n_workers=3, steps=1)
    assert trace.jobs.start_time[:3].tolist() == [1, 2, 3]
    assert trace.jobs.finish_time[:3].tolist() == [2, 3, 4]
    assert trace.jobs.arrival_time[:3].tolist() == [3, 4, 5]


def test_a_job_that_is_called_off_frees_its_link():
    """m-Sync takes the first of two; worker 1's gradient, on its way since 3, is called off at 4.

    Its link would have been busy to 6; the next gradient, computed 4 to 7, is sent at once.
    """
    links = Links(bandwidth=1.0, size=0.0, upload=3.0)
    trace = simulate("m-sync:m=1", (Fixed((1.0, 3.0)), links), n_workers=2, steps=2)
    assert_rows(
        trace,
        [
            (0, 0, 0, 0, 1, 4, APPLIED),
            (1, 0, 0, 0, 3, 4, CANCELLED),
            (0, 1, 4, 4, 5, 8, APPLIED),
            (1, 1, 4, 4, 7, 8, CANCELLED),
            (0, 2, 8, 8, NONE, NONE, IN_FLIGHT),
            (1, 2, 8, 8, NONE, NONE, IN_FLIGHT),
        ],
    )


def test_a_worker_that_is_away_has_a_job_when_it_is_back():
    """Pure: nobody else may take the job over."""
    times = (Linear(), Away((0,), (2.5,), (4.0,)))
    trace = simulate("pure", times, n_workers=2, until_time=5.0)
    assert_rows(
        trace,
        [
            (0, 0, 0, 0, NONE, 1, APPLIED),
            (1, 0, 0, 0, NONE, 2, APPLIED),
            (0, 1, 1, 1, NONE, 2, APPLIED),
            (1, 2, 2, 2, NONE, 4, APPLIED),
            (0, 3, 2, 2, NONE, 2.5, LOST),
            (1, 4, 4, 4, NONE, NONE, IN_FLIGHT),
            (0, 4, 4, 4, NONE, 5, APPLIED),
            (0, 5, 5, 5, NONE, NONE, IN_FLIGHT),
        ],
    )
    assert [column.tolist() for column in trace.absences] == [[0], [2.5], [4.0]]
    assert trace.summary.n_lost == 1


def test_a_job_that_is_lost_goes_to_another_worker():
    """Shuffled once, concurrency 1: jobs go 0, 1, 0, 1 … if that is the permutation drawn.

    Worker 1 is away for good from 0.5 on: what it is given is lost at once, and its heir is 0.
    """
    times = (Fixed(), Away(1, 0.5))
    method = ag.methods.Shuffled(concurrency=1, once=True)
    trace = simulate(method, times, n_workers=2, until_time=3.0)
    fates, workers = trace.jobs.fate, trace.jobs.worker
    assert (workers[fates == APPLIED] == 0).sum() >= 2
    lost = fates == LOST
    assert lost.any()
    assert (workers[lost] == 1).all()
    assert_array_equal(np.flatnonzero(lost) + 1, np.flatnonzero(np.append(False, lost[:-1])))
    assert (workers[np.flatnonzero(lost) + 1] == 0).all()  # the heir's job follows
    assert np.isnan(trace.absences.end_time).all()


def test_who_is_late_by_nothing_is_in_time():
    """A gradient that arrives at the moment at which its worker goes has arrived."""
    trace = simulate("pure", (Fixed(), Away(0, 2.0, 3.0)), n_workers=1, until_time=4.0)
    assert trace.jobs.arrival_time[:2].tolist() == [1, 2]
    assert trace.jobs.fate[:3].tolist() == [APPLIED, APPLIED, LOST]
    assert trace.step_times.tolist() == [1, 2, 4]


def test_mean_times_to_failure_and_repair():
    """Over 4000 outages: the mean times are those given, within four standard errors."""
    times = (Fixed(0.5), Outages(uptime=5.0, downtime=2.0))
    trace = simulate("pure", times, n_workers=20, until_time=1400.0)
    gone = trace.absences
    ended = ~np.isnan(gone.end_time)
    away = (gone.end_time - gone.begin_time)[ended]
    assert away.size > 3500
    assert abs(away.mean() - 2.0) < 4 * 2.0 / math.sqrt(away.size)
    there = np.concatenate(
        [
            gone.begin_time[gone.worker == w] - np.append(0, gone.end_time[gone.worker == w][:-1])
            for w in range(20)
        ]
    )
    assert abs(there.mean() - 5.0) < 4 * 5.0 / math.sqrt(there.size)
    lost = trace.jobs.fate == LOST
    assert np.isin(trace.jobs.arrival_time[lost], gone.begin_time).all()


def test_a_mixture_and_phases_lengthen_jobs():
    """q = 0.25 of the jobs take 4 s; half of the time every job takes three times as long."""
    trace = simulate("pure", (Fixed(), Mixture(0.25, 4.0)), n_workers=4, jobs=8000)
    took = np.diff(np.append(0, trace.jobs.arrival_time[trace.jobs.worker == 0]))
    took = took[~np.isnan(took)]
    assert set(took.round(9)) == {1.0, 4.0}
    assert abs((took > 2).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / took.size)

    phases = Phases(factor=3.0, fast_time=30.0, slow_time=30.0)
    trace = simulate("pure", (Fixed(), phases), n_workers=40, until_time=3000.0)
    jobs = trace.jobs
    length = (jobs.arrival_time - jobs.start_time)[jobs.fate == APPLIED]
    assert set(length.round(6)) == {1.0, 3.0}
    slow_time = length[length > 2].sum() / length.sum()
    assert abs(slow_time - 0.5) < 0.05  # 40 · 50 pairs of phases: a standard error of 0.01
    first = length[:40]
    assert (first == 1.0).all()  # all begin fast


def test_nothing_lost_and_no_links_is_as_without():
    """Conditions that do nothing leave the trace as it is, but for the label."""
    plain = simulate("ringmaster:max_delay=3", Linear(), n_workers=4, steps=50)
    nothing = (Linear(), Links(), Away(0, 1e9), Mixture(0.0), Phases(factor=1.0))
    other = simulate("ringmaster:max_delay=3", nothing, n_workers=4, steps=50)
    for name in ("worker", "read_step", "draw", "start_time", "arrival_time", "fate"):
        assert_array_equal(getattr(plain.jobs, name), getattr(other.jobs, name), name)
    assert_array_equal(plain.step_times, other.step_times)


METHODS = [
    "pure", "random", "shuffled:wait=2", "minibatch", "sync", "m-sync", "rennala:stop_stale=true",
    "ringmaster:max_delay=3,stop_stale=true", "ringleader", "ace", "malenia",
    "mindflayer:allotted=1.5,trials=7", "ata:batch=7,width=0.1",
]  # fmt: skip
CONDITIONS = [
    "linear+links:latency=0.25",
    "exponential+links:latency=0.1,bandwidth=100,size=64,server_bandwidth=200",
    "exponential+outages:uptime=8,downtime=3+links:latency=0.2+phases:factor=3,fast_time=4,"
    "slow_time=2+mixture:share=0.3,factor=4",
    "fixed+away:workers=0/1/2,begins=1/2/2,ends=4/3/5",
]


@pytest.mark.parametrize("times", CONDITIONS)
@pytest.mark.parametrize("method", METHODS)
def test_virtual_workers_meet_the_same_conditions(method, times):
    """`train` on virtual workers is `simulate` and `replay` to the bit; the summary without a
    record is that of the trace."""
    problem = ag.problems.Tridiagonal(6, n_workers=5, noise=0.01)
    trace = simulate(method, times, n_workers=5, until_time=25.0, seed=1)
    check(trace.tables, 5, "trace")
    run = ag.train(
        problem, method, 0.01, workers=ag.Virtual(times), until_time=25.0, seed=1,
        evaluate_every=3.0,
    )  # fmt: skip
    for mine, theirs in zip(
        (*trace.jobs, *trace.contributions, trace.step_times, *trace.absences),
        (*run.trace.jobs, *run.trace.contributions, run.trace.step_times, *run.trace.absences),
        strict=True,
    ):
        assert_array_equal(mine, theirs)
    again = ag.replay(trace, problem, 0.01, evaluations=1)
    assert_array_equal(again.models[:, 0], run.model)
    short = simulate(method, times, n_workers=5, until_time=25.0, seed=1, record=False)
    long = trace.summary
    for name in ("n_jobs", "n_applied", "n_lost", "n_cancelled", "n_in_flight", "tau_c", "tau_max"):
        assert getattr(short, name) == getattr(long, name), name
    assert_allclose(short.idle_times, long.idle_times, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("times", [CONDITIONS[2], CONDITIONS[3]])
def test_a_run_under_conditions_goes_on_from_a_checkpoint(tmp_path, times):
    """Clock, links, absences and what is on its way come back: the trace is that of one run."""
    problem = ag.problems.Tridiagonal(6, n_workers=5, noise=0.01)
    workers = ag.Virtual(times)
    for method in ("shuffled:wait=2", "ringmaster:max_delay=3,stop_stale=true"):
        folder = tmp_path / method.partition(":")[0]
        kept = ag.Checkpoints(folder, steps=1)
        options = {"workers": workers, "seed": 2, "checkpoints": kept}
        ag.train(problem, method, 0.01, until_time=9.0, **options)
        run = ag.train(problem, method, 0.01, until_time=20.0, resume=True, **options)
        whole = simulate(method, times, n_workers=5, until_time=20.0, seed=2)
        assert_array_equal(run.trace.step_times, whole.step_times)
        for name, mine, theirs in zip(whole.jobs._fields, run.trace.jobs, whole.jobs, strict=True):
            assert_array_equal(mine, theirs, name)


def test_a_trace_keeps_its_absences(tmp_path):
    trace = simulate("random", "exponential+outages:uptime=5", n_workers=3, until_time=50.0)
    assert trace.absences.worker.size
    loaded = Trace.load(trace.save(tmp_path / "trace"))
    assert loaded.equals(trace)
    assert not loaded.equals(simulate("random", "exponential", n_workers=3, until_time=50.0))


def test_an_availability_trace(tmp_path):
    path = tmp_path / "away.csv"
    path.write_text("worker,begin,end\n1,2.5,4\n0,1,\n")
    from_file = simulate("pure", (Fixed(), Availability(str(path))), n_workers=2, until_time=6.0)
    said = (Fixed(), Away((1, 0), (2.5, 1.0), (4.0, math.inf)))
    listed = simulate("pure", said, n_workers=2, until_time=6.0)
    for mine, theirs in zip(from_file.jobs, listed.jobs, strict=True):
        assert_array_equal(mine, theirs)


def test_texts_and_objects_are_the_same():
    made = times_of("x", (Linear("sqrt"), Links(latency=0.5), Outages(uptime=7.0)))
    assert made == times_of("x", made.label)
    assert made.label == "linear:scale=sqrt+links:latency=0.5+outages:uptime=7.0"
    more = times_of("x", ("linear+links:latency=0.5", Phases(2.0)))
    assert isinstance(more, Conditions)
    assert times_of("x", more.label) == more


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("outages", r"is a condition; it follows worker times, as in linear\+outages"),
        ("linear+", "joins two parts; one is missing"),
        ("linear+fixed", "a condition must be a Condition"),
        ("linear+outage", "Did you mean 'outages'"),
        ("linear+outages+away", "both about outages"),
        ("linear+links:bandwidth=10", "size must be given"),
        ("linear+links:latency=-1", "latency must be finite and >= 0, got -1"),
        ("linear+links:server_bandwidth=0", "server_bandwidth must be > 0"),
        ("linear+outages:uptime=0", "uptime must be > 0, got 0"),
        ("linear+mixture:share=2", r"share must lie in \[0, 1\], got 2"),
        ("linear+phases:factor=0", "factor must be"),
        ("linear+away:workers=5,begins=1", r"worker must be an integer in \[0, 1\], got 5"),
        ("linear+away:workers=0/0,begins=1/2,ends=3/4", "must lie apart"),
        ("linear+away:workers=0,begins=3,ends=2", "before it ends"),
        ("linear+away:workers=0/1,begins=3/4/5", "equally many"),
        ("linear+availability:path=none.csv", "none.csv cannot be read"),
    ],
)
def test_wrong_conditions_are_named(said, error):
    with pytest.raises(AsgradError, match=error):
        simulate("pure", said, n_workers=2, steps=3)


def test_workers_that_are_all_gone_are_named():
    with pytest.raises(AsgradError, match="all were away for good after 1 s"):
        simulate("pure", (Linear(), Away((0, 1), (0.5, 1.0))), n_workers=2, steps=30)
