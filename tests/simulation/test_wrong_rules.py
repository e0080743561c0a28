"""Compiled rules of one's own that say what cannot be: refused in one line, no memory touched."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.errors import AsgradError
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import apply, assign, drop, hold, set_alarm, take_step


@compiled(RULE)
def rule(state, worker, read_step, step, out):
    """Do what is wrong in the way that state[0] says."""
    kind = state[0]
    if kind == 0:
        hold(out, 0)
    elif kind == 1:
        apply(out, 1.0)
        assign(out, worker + 1)
    elif kind == 2:
        take_step(out)
    elif kind == 3:
        apply(out, 1.0)
        set_alarm(out, 0, 1.0)
    elif kind == 4:
        apply(out, 1.0)
        drop(out)
    elif kind == 5:
        apply(out, 1.0)
    assign(out, max(worker, 0))


class Wrong(CompiledMethod):
    name = "wrong"

    def __init__(self, kind):
        self.kind = kind

    def begin(self, n_workers, seed):
        alarms = np.array([0.5]) if self.kind == 5 else np.empty(0)
        return Opening(np.array([self.kind]), np.arange(n_workers), rule, 0, alarms=alarms)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (0, "Wrong: an entry must be one that its opening has, which has none, got 0."),
        (1, r"Wrong: a worker must be in \[0, 1\], got 2."),
        (2, "Wrong: of a gradient that arrives exactly one of apply, hold and drop is said."),
        (3, "Wrong: an alarm must be one that its opening has, which has none, got 0."),
        (4, "Wrong: of a gradient that arrives exactly one of apply, hold and drop is said."),
        (5, "Wrong: when an alarm goes off there is no gradient to apply, hold or drop."),
    ],
)
def test_a_compiled_rule_that_says_what_cannot_be_is_refused(kind, said):
    with pytest.raises(AsgradError, match=said):
        ag.simulate(Wrong(kind), "linear", n_workers=2, steps=5)
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    with pytest.raises(AsgradError, match=said):
        ag.train(problem, Wrong(kind), 0.1, workers=ag.Virtual("linear"), steps=5)


class Ticking(ag.Method):
    """Gives work only when its alarm goes off; between two nobody has any."""

    name = "ticking"

    def n_alarms(self, n_workers):
        return 1

    def start(self, server):
        server.set_alarm(0, 2.0)

    def arrive(self, server, worker, read_step):
        server.apply()
        server.take_step()

    def alarm(self, server, alarm):
        for worker in range(server.n_workers):
            server.assign(worker)
        server.set_alarm(0, 3.0)


def test_all_may_be_idle_until_an_alarm():
    """Alarms at 2, 5, 8; workers of 1 and 2 s: steps at 3, 4, 6, 7, live as in simulation."""
    trace = ag.simulate(Ticking(), "linear", n_workers=2, until_time=7.5)
    assert trace.step_times.tolist() == [3, 4, 6, 7]
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    run = ag.train(problem, Ticking(), 0.1, workers=ag.Virtual("linear"), until_time=7.5)
    assert run.trace.step_times.tolist() == [3, 4, 6, 7]
