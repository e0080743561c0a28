"""A method that a user writes in Python."""

from __future__ import annotations

import numpy as np

import asgrad as ag


class Anyone(ag.Method):
    """Whoever is drawn gets the next job."""

    def start(self, server):
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        server.apply()
        server.take_step()
        server.assign(int(server.rng.integers(server.n_workers)))


def test_random_choices_follow_from_the_seed_in_every_run_of_one_object():
    method = Anyone()
    one, two, other = (
        ag.simulate(method, "linear", n_workers=4, steps=60, seed=seed).jobs.worker
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, two)
    assert (one[:60] != other[:60]).any()


def test_what_is_compiled_has_nothing_that_only_a_method_in_python_has():
    """Two classes with one base: nothing is inherited only to be refused."""
    compiled = ag.methods.Pure()
    assert isinstance(compiled, ag.methods.AnyMethod)
    assert isinstance(Anyone(), ag.methods.AnyMethod)
    assert not isinstance(compiled, ag.Method)
    assert not hasattr(compiled, "arrive")
    assert not hasattr(ag.times.Poisson(), "seconds")
    assert ag.times.FromTable().seconds == "seconds"  # a column


class Clocked(ag.Method):
    """Gather what arrives; every second a step, if something did."""

    def n_alarms(self, n_workers):
        return 1

    def start(self, server):
        self.gathered = 0
        server.set_alarm(0, 1.0)
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        self.gathered += 1
        server.apply()
        server.assign(worker)
        if server.now < 7.0:
            server.set_alarm(0, np.floor(server.now) + 1.0 - server.now)

    def alarm(self, server, alarm):
        if self.gathered:
            server.take_step()
            self.gathered = 0


def test_an_alarm_at_which_nothing_is_said_passes():
    """One worker of 2.5 s: arrivals at 2.5, 5, 7.5; alarms at 1, in vain, at 3, and at 6."""
    trace = ag.simulate(Clocked(), ag.times.Fixed(2.5), n_workers=1, jobs=3)
    assert trace.step_times.tolist() == [3.0, 6.0]
    problem = ag.problems.Quadratic(np.ones(2), n_workers=1)
    run = ag.train(problem, Clocked(), 0.1, workers=ag.Virtual(ag.times.Fixed(2.5)), jobs=3)
    assert run.trace.equals(trace)
