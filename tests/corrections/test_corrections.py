"""What the server does to a gradient, against plain NumPy, and in live runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

import asgrad as ag
from asgrad.corrections import Correction, DelayCompensation, Mixing

ALL = [DelayCompensation(), DelayCompensation(2.0, 0.95), Mixing()]
both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def corrected(correction: Correction, dtype, lanes: slice) -> np.ndarray:
    """Three gradients of a thirteen-dimensional model after the kernel, some lanes of five."""
    rng = np.random.default_rng(3)
    blocks = rng.normal(size=(3, 3, 13, 5)).astype(dtype)[..., lanes]
    stepsizes = np.linspace(0.1, 1, 5).astype(dtype)[lanes]
    memory = np.zeros((correction.n_blocks(4), *blocks.shape[2:]), dtype)
    found = []
    for g, x_read, x_now in blocks:
        out, models = g.copy(), (x_read.copy(), x_now.copy())
        type(correction).kernel(correction.parameters(), out, *models, 2, stepsizes, 1, memory)
        np.testing.assert_array_equal(models, (x_read, x_now))
        found.append(out)
    return np.array(found)


@both_precisions
@pytest.mark.parametrize("correction", ALL, ids=str)
def test_a_lane_is_that_of_the_lane_alone(dtype, correction):
    together = corrected(correction, dtype, slice(None))
    assert together.dtype == dtype
    for lane in range(5):
        alone = corrected(correction, dtype, slice(lane, lane + 1))
        assert together[..., lane].tobytes() == alone[..., 0].tobytes()


def test_compensation_is_worked_by_hand():
    """g = 2, x_now − x_read = 3, λ = ½: 2 + ½·4·3 = 8. Adaptive, m = ½: mean square ½·4 = 2, then
    ½·2 + ½·4 = 3: 2 + ½·4·3/√(2 + 1e-7), 2 + ½·4·3/√(3 + 1e-7)."""
    x_read, x_now, stepsizes = np.ones((1, 1)), np.full((1, 1), 4.0), np.ones(1)
    for correction, wanted in (
        (DelayCompensation(0.5), [8.0, 8.0]),
        (DelayCompensation(0.5, 0.5), [2 + 6 / math.sqrt(2 + 1e-7), 2 + 6 / math.sqrt(3 + 1e-7)]),
    ):
        memory = np.zeros((correction.n_blocks(4), 1, 1))
        for number in wanted:
            g = np.full((1, 1), 2.0)
            type(correction).kernel(
                correction.parameters(), g, x_read, x_now, 1, stepsizes, 0, memory
            )
            assert g.item() == pytest.approx(number, rel=1e-14)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: DelayCompensation(-1),
            "DelayCompensation: strength must be finite and >= 0, got -1.",
        ),
        (
            lambda: DelayCompensation(1.0, 1.0),
            "DelayCompensation: decay must lie in [0, 1), got 1.",
        ),
        (
            lambda: DelayCompensation(decay="m"),
            "DelayCompensation: decay must be a number, got 'm'.",
        ),
        (lambda: Mixing(0), "Mixing: local_stepsize must be finite and > 0, got 0."),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(refused, make, text):
    assert refused(make) == text


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", ["pure", "pure:wait=2", "ringleader"])
@pytest.mark.parametrize("correction", ALL, ids=str)
def test_a_run_on_threads_replays_bit_for_bit(correction, method, dtype):
    problem = ag.problems.Quadratic(np.linspace(0.1, 1, 6), n_workers=3, noise=0.3)
    run = ag.train(problem, (method, correction, "polynomial"), 0.3, steps=60, dtype=dtype)
    again = ag.replay(run.trace, problem, 0.3, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


@pytest.mark.parametrize("correction", ALL, ids=str)
def test_many_lanes_are_single_lanes(correction):
    """Through the whole walk, a lane that diverges and is taken out among them."""
    problem = ag.problems.Quadratic(np.linspace(0.1, 1, 6), n_workers=3, noise=0.3)
    trace = ag.simulate("random", "normal", n_workers=3, steps=80)
    stepsizes = [0.02, 30.0, 0.1, 0.3]
    options = {"recipe": correction, "evaluations": 20}
    together = ag.replay(trace, problem, stepsizes, threads=1, **options)
    for lane, stepsize in enumerate(stepsizes):
        alone = ag.replay(trace, problem, stepsize, **options)
        np.testing.assert_array_equal(together.loss[:, lane], alone.loss[:, 0])
        if lane != 1:
            np.testing.assert_array_equal(together.models[:, lane], alone.models[:, 0])
    assert together.status[1] == "diverged"
