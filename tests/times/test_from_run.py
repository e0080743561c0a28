"""Times drawn from a recorded run."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.experiments import CompareConfig
from asgrad.times import measured_times


@pytest.fixture
def recorded(tmp_path):
    """A run of three workers that take 1, 2 or 3, and 10 seconds, some jobs cancelled."""

    class Own(ag.Times):
        """Fixed by worker and draw."""

        def seconds(self, worker, draw, start):
            """Worker 1 alternates."""
            return [1.0, 2.0 + draw % 2, 10.0][worker]

    trace = ag.simulate(ag.methods.Pure(), Own(), n_workers=3, steps=60)
    return trace, str(trace.save(tmp_path / "trace"))


def test_measured_times_are_those_of_delivered_jobs(recorded):
    """By worker, in the order of assignment."""
    times = measured_times(recorded[0])
    assert set(times[0]) == {1.0}
    assert times[1][:4].tolist() == [2.0, 3.0, 2.0, 3.0]
    assert set(times[2]) == {10.0}
    cancelled = ag.simulate(ag.methods.MSync(m=1), ag.times.Linear(), n_workers=2, steps=9)
    assert [took.size for took in measured_times(cancelled)] == [9, 0]


def test_every_job_takes_one_of_its_workers_times(recorded):
    """Worker 1's two times come up about equally often; the others' never change."""
    trace = ag.simulate(
        ag.methods.Shuffled(), ag.times.FromRun(recorded[1]), n_workers=3, steps=6000, seed=3
    )
    times = measured_times(trace)
    np.testing.assert_allclose(times[0], 1.0)
    np.testing.assert_allclose(times[2], 10.0)
    twos = np.isclose(times[1], 2.0)
    assert (twos | np.isclose(times[1], 3.0)).all()
    # 2.0 and 3.0 stand in the record about equally often: 4 standard deviations around a half.
    share = np.isclose(measured_times(recorded[0])[1], 2.0).mean()
    assert abs(twos.mean() - share) < 4 * np.sqrt(0.25 / twos.size)


@pytest.mark.parametrize(
    ("n_workers", "said"), [(2, "has 3 workers, 2 are wanted"), (3, "no trace at")]
)
def test_what_does_not_fit_is_refused(recorded, n_workers, said):
    """Another number of workers, or no run."""
    path = recorded[1] if n_workers == 2 else recorded[1] + "x"
    with pytest.raises(ag.AsgradError, match=said):
        ag.simulate(ag.methods.Pure(), ag.times.FromRun(path), n_workers=n_workers, steps=1)


def test_a_worker_that_delivered_nothing_is_named(tmp_path):
    """Its times are not known."""
    trace = ag.simulate(ag.methods.MSync(m=1), ag.times.Linear(), n_workers=2, steps=9)
    path = str(trace.save(tmp_path / "trace"))
    with pytest.raises(ag.AsgradError, match="worker 1 delivered nothing"):
        ag.simulate(ag.methods.Pure(), ag.times.FromRun(path), n_workers=2, steps=1)


def test_without_a_limit_the_slowest_measured_worker_does_60_jobs(recorded, tmp_path):
    """Worker 2 takes 10 s; in the table worker 1 takes 0.1, 0.2 or 0.6 s, 0.3 s in the mean."""
    table = tmp_path / "times.csv"
    table.write_text("worker,seconds\n0,0.01\n1,0.1\n1,0.2\n1,0.6\n")
    for times, wanted in ((f"from-run:{recorded[1]}", 600.0), (f"from-table:{table}", 18.0)):
        config = CompareConfig.read(None, {"workers": 3, "times": times})
        assert config.until_time == pytest.approx(wanted)
        said = CompareConfig.read(None, {"workers": 3, "times": times, "until_time": 7.0})
        assert said.until_time == 7.0
    assert CompareConfig.read(None, {}).until_time == 600.0


@pytest.mark.parametrize("run", ["", 5, None])
def test_what_is_no_path_is_refused(run):
    with pytest.raises(ag.AsgradError, match="say from which run, by its folder"):
        ag.simulate(ag.methods.Pure(), ag.times.FromRun(run), n_workers=2, steps=1)
