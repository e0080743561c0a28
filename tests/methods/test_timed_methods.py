"""Methods that set alarms or are told how long jobs took: traces and choices by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import asgrad as ag
from asgrad.errors import AsgradError
from asgrad.methods import ATA, LocalSGD, MindFlayer, Rennala
from asgrad.simulation import simulate
from asgrad.times import Exponential, Fixed, Linear, Pareto
from asgrad.trace import Fate


def test_mindflayer_by_hand():
    """Workers of 1 and 2 s, both allotted 1.5 s, four trials a step.

    Worker 0 ends trials at 1, 2, 3 by gradients, worker 1 at 1.5 by its alarm: that is four at 3,
    where worker 0's arrival comes before worker 1's alarm, which is so set anew. p_0 = 3/3 and
    p_1 = 0/1 so far, so the weight is 1/(1 · 3 + 0 · 1). Then the same again.
    """
    trace = simulate(MindFlayer(allotted=1.5, trials=4), Fixed((1.0, 2.0)), n_workers=2, steps=2)
    jobs, used = trace.jobs, trace.contributions
    assert trace.step_times.tolist() == [3, 6]
    assert jobs.worker.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1]
    assert jobs.start_time.tolist() == [0, 0, 1, 1.5, 2, 3, 3, 4, 4.5, 5, 6, 6]
    ends = [1, 1.5, 2, 3, 3, 4, 4.5, 5, 6, 6, math.nan, math.nan]
    assert_array_equal(jobs.arrival_time, ends)
    done, off, now = Fate.APPLIED, Fate.CANCELLED, Fate.IN_FLIGHT
    assert jobs.fate.tolist() == [done, off, done, off, done] * 2 + [now, now]
    assert used.job.tolist() == [0, 2, 4, 5, 7, 9]
    assert_allclose(used.weight, 1 / 3)


def test_mindflayer_whose_alarm_is_the_last_trial():
    """One worker, 2 s a gradient, 1.5 s allotted: steps at 3 and 6 without a gradient."""
    trace = simulate(MindFlayer(allotted=1.5, trials=2), Fixed(2.0), n_workers=1, until_time=7.0)
    assert trace.step_times.tolist() == [3.0, 6.0]
    assert trace.contributions.job.size == 0
    problem = ag.problems.Tridiagonal(4, n_workers=1)
    models = ag.replay(trace, problem, 0.1, evaluations=1).models
    assert_array_equal(models[:, 0], problem.x0)


def test_mindflayer_without_a_limit_is_rennala():
    """t_i = ∞: B gradients make a step, with the weight 1/B each."""
    mine = simulate(MindFlayer(trials=5), Exponential(), n_workers=4, steps=20)
    theirs = simulate(Rennala(batch=5, stop_stale=True), Exponential(), n_workers=4, steps=20)
    for column in ("worker", "read_step", "draw", "start_time", "arrival_time", "fate"):
        assert_array_equal(getattr(mine.jobs, column), getattr(theirs.jobs, column), column)
    assert_array_equal(mine.step_times, theirs.step_times)
    assert_allclose(mine.contributions.weight, theirs.contributions.weight, rtol=1e-15)


def test_mindflayer_is_unbiased_with_the_true_chances():
    """Exponential times of mean s: p = 1 − e^{−t/s}. The weights of a step sum to 1 in the mean."""
    means, allotted = (1.0, 3.0), (1.0, 2.0)
    chances = tuple(1 - math.exp(-t / s) for s, t in zip(means, allotted, strict=True))
    method = MindFlayer(allotted=allotted, trials=20, success=chances)
    trace = simulate(method, Exponential(means), n_workers=2, steps=3000)
    used = trace.contributions
    sums = np.bincount(used.first_step, used.weight, minlength=3000)
    assert abs(sums.mean() - 1) < 4 * sums.std() / math.sqrt(3000)
    assert sums.std() > 0.05


def test_mindflayer_is_sooner_where_times_have_heavy_tails():
    """Pareto times of infinite mean: 300 steps of 10 trials against Rennala's of 10 gradients."""
    times = Pareto(1.0, 0.9)
    mine = simulate(MindFlayer(allotted=3.0, trials=10), times, n_workers=5, steps=300)
    theirs = simulate(Rennala(batch=10, stop_stale=True), times, n_workers=5, steps=300)
    assert mine.header.end_time < theirs.header.end_time


def twin_of_ata(times: np.ndarray, batch: int, width: float, rounds: int) -> list[list[int]]:
    """Return a_i of every round on workers of fixed times, by the formulas."""
    n = times.size
    counts, shares = np.zeros(n, int), []
    for k in range(1, rounds + 1):
        if (counts == 0).any():
            who = np.flatnonzero(counts == 0)
        else:
            log = math.log(2 * k * k)
            ratio = log / counts
            scores = times - width * 2 * times * (np.sqrt(ratio) + ratio)
            who = np.flatnonzero(scores <= 0)
        share = np.zeros(n, int)
        if who.size:
            np.add.at(share, who[np.arange(batch) % who.size], 1)
        else:
            for _ in range(batch):
                share[np.argmin((share + 1) * scores)] += 1
        counts += share
        shares.append(share.tolist())
    return shares


@pytest.mark.parametrize(("batch", "width"), [(6, 0.02), (2, 0.05), (7, 4 * math.e), (5, 0.0)])
def test_ata_shares_out_by_its_scores(batch, width):
    """On fixed times the means are exact; the shares are those of an independent computation."""
    times = np.array([1.0, 2.5, 4.0])
    trace = simulate(ATA(batch, width=width), Fixed(tuple(times)), n_workers=3, steps=60)
    expected = twin_of_ata(times, batch, width, 60)
    for k, share in enumerate(expected):
        asked = trace.jobs.worker[trace.jobs.read_step == k]
        assert np.bincount(asked, minlength=3).tolist() == share, k
    assert_allclose(trace.contributions.weight, 1 / batch)


def test_ata_asks_slow_workers_little():
    """Speeds 1, 2, 4 and B = 7: with no width the best is 4, 2, 1, a round of 4 s."""
    trace = simulate(ATA(7, width=0.0), Fixed((1.0, 2.0, 4.0)), n_workers=3, steps=10)
    assert np.bincount(trace.jobs.worker[trace.jobs.read_step == 5]).tolist() == [4, 2, 1]
    assert_allclose(np.diff(trace.step_times)[3:], 4.0)


def test_local_sgd_gives_slow_workers_fewer_steps():
    """1, 2 and 3 s a gradient, H = 6, at least 2: jobs of 6 at first, then 6, 3 and 2.

    The first jobs end at 6, 12 and 18 s; worker 0 goes on with 6 of 1 s each.
    """
    trace = simulate(LocalSGD(n=6, least=2), Linear(), n_workers=3, until_time=24.0)
    jobs = trace.jobs
    for worker, works in ((0, [6] * 5), (1, [6, 3, 3, 3]), (2, [6, 2, 2])):
        assert jobs.work[jobs.worker == worker].tolist() == works
    assert jobs.draw[jobs.worker == 1].tolist() == [0, 6, 9, 12]
    assert trace.step_times.tolist() == [6, 12, 12, 18, 18, 18, 24, 24, 24]


class Patient(ag.Method):
    """Steps with whatever has arrived, every two seconds: a clock's method, in plain Python."""

    name = "patient"

    def __init__(self, period: float = 2.0):
        self.period = period

    def n_alarms(self, n_workers):
        return 1

    def n_entries(self, n_workers):
        return 1

    def start(self, server):
        self.n = 0
        self.seen = []
        server.set_alarm(0, self.period)
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        self.seen.append((server.now, server.job_time))
        server.hold(0)
        self.n += 1
        server.assign(worker)

    def alarm(self, server, alarm):
        server.weigh(0, 1.0 / max(1, self.n))
        server.take_step()
        server.clear(0)
        self.n = 0
        server.set_alarm(0, self.period)


def test_a_method_of_ones_own_sets_alarms_and_hears_times():
    """Workers of 1 and 1.5 s: three gradients by 2 s, three more by 4 s.

    Worker 0 arrives at 1, 2, 3, 4, worker 1 at 1.5, 3. What arrives at the alarm's moment is in.
    """
    method = Patient()
    trace = simulate(method, Fixed((1.0, 1.5)), n_workers=2, until_time=4.0)
    assert trace.step_times.tolist() == [2, 4]
    assert np.bincount(trace.contributions.first_step).tolist() == [3, 3]
    assert method.seen == [(1, 1), (1.5, 1.5), (2, 1), (3, 1.5), (3, 1), (4, 1)]
    problem = ag.problems.Tridiagonal(4, n_workers=2, noise=0.1)
    run = ag.train(problem, Patient(), 0.1, workers=ag.Virtual(Fixed((1.0, 1.5))), until_time=4.0)
    assert_array_equal(run.trace.step_times, trace.step_times)
    assert_array_equal(run.model, ag.replay(trace, problem, 0.1, evaluations=1).models[:, 0])


def test_alarms_go_off_on_threads():
    """About every 20 ms, whether gradients arrive or not; the run replays to the bit."""
    problem = ag.problems.Tridiagonal(4, n_workers=2, noise=0.1)
    run = ag.train(problem, Patient(0.02), 0.1, workers=ag.Threads(), steps=5)
    assert run.trace.n_steps == 5
    assert (np.diff(run.trace.step_times) > 0.019).all()
    again = ag.replay(run.trace, problem, 0.1, recipe=(), evaluations=1)
    assert_array_equal(again.models[:, 0], run.model)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: MindFlayer(allotted=0.0), "allotted must be > 0, got 0"),
        (lambda: MindFlayer(success=1.5), r"success must be in \(0, 1\], got 1.5"),
        (lambda: MindFlayer(allotted=(1.0, 2.0)).begin(3, 0), "for each of the 3 workers, got 2"),
        (lambda: MindFlayer(trials=0), "trials must be an integer >= 1, got 0"),
        (lambda: ATA(batch=0), "batch must be an integer >= 1, got 0"),
        (lambda: ATA(alpha=-1.0), "alpha must be"),
        (lambda: LocalSGD(n=3, least=4), "least must be at most n = 3, got 4"),
    ],
)
def test_what_they_cannot_be_is_refused(make, error):
    with pytest.raises(AsgradError, match=error):
        make()


def test_alarms_that_a_method_has_not_are_named():
    class Wrong(Patient):
        def n_alarms(self, n_workers):
            return 0

    with pytest.raises(AsgradError, match="to set alarms, let n_alarms"):
        simulate(Wrong(), Fixed(), n_workers=1, steps=1)

    class Applies(Patient):
        def alarm(self, server, alarm):
            server.apply()

    with pytest.raises(AsgradError, match=r"alarm\(\) has no gradient"):
        simulate(Applies(), Fixed(), n_workers=1, steps=1)


def test_a_cap_on_jobs_in_flight_by_hand():
    """Three workers of 1 s, two jobs at most: 0 and 1 deliver at 1, 2 and 0 go on; 2 and 0 at 2,
    1 and 2 go on. A step is two arrivals."""
    trace = simulate("fedbuff:size=2,concurrency=2", Fixed(), n_workers=3, steps=2)
    assert trace.jobs.worker.tolist() == [0, 1, 2, 0, 1, 2]
    assert trace.jobs.assign_time.tolist() == [0, 0, 1, 1, 2, 2]
    assert trace.jobs.read_step.tolist() == [0, 0, 0, 1, 1, 2]
    assert trace.summary.tau_c == 2
    assert trace.step_times.tolist() == [1, 2]
