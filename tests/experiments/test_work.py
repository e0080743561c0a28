"""The replays of a comparison: what their parts share."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.experiments.work import Horizon, Work
from asgrad.numerics import prepare, prepared


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_trace_is_planned_once_for_all_parts_of_a_grid(threads, monkeypatch):
    """Two traces, some parts each; once more where the grid is widened; none is kept at the end."""
    planned, plan = [], prepared.plan_replay
    monkeypatch.setattr(
        prepared, "plan_replay", lambda *given: planned.append(given[0]) or plan(*given)
    )
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    traces = {
        ("pure", seed): ag.simulate("pure", "linear", n_workers=2, steps=20) for seed in (0, 1)
    }
    horizon, wider = Horizon(20, None, 4), [np.array([0.4, 0.5])]
    work = Work(
        {"": problem}, {"pure": ag.stepsizes.Constant()}, traces, horizon, threads, known={}
    )
    grid = np.array([0.05, 0.1, 0.2, 0.3])
    work.run({("", "pure"): grid}, lambda pair: wider.pop() if wider else np.zeros(0))
    assert len(planned) == 4
    assert not work._shared
    for key, result in work.results.items():
        alone = ag.replay(
            traces["pure", key.seed], problem, [*grid, 0.4, 0.5], seeds=key.seed, evaluations=4
        )
        np.testing.assert_array_equal(result.models, alone.models)
        np.testing.assert_array_equal(result.times, alone.times)
        np.testing.assert_array_equal(result.gradients, alone.gradients)


def test_what_is_prepared_for_another_trace_is_refused(refused):
    """Also a trace that is equal: nobody compares them."""
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    traces = [ag.simulate("pure", "linear", n_workers=2, steps=5) for _ in range(2)]
    ready = prepare(traces[0], problem, evaluations=[0, 2, 5], dtype="float32")
    again = ag.replay(traces[0], problem, 0.1, prepared=ready)
    assert again.steps.tolist() == [0, 2, 5]
    assert again.models.dtype == np.float32
    text = refused(lambda: ag.replay(traces[1], problem, 0.1, prepared=ready))
    assert text == "replay: what is prepared must be of this very trace and problem."
