"""What the server does with directions, against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asgrad.optimizers import SGD, HeavyBall, Optimizer

DIM, N_STEPS = 13, 6
both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])
every_number_of_lanes = pytest.mark.parametrize("n_lanes", [1, 2, 5])
in_place = pytest.mark.parametrize("in_place", [False, True], ids=["elsewhere", "in place"])


def numbers(dtype, n_lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stepsizes, a starting model, and the directions of some steps."""
    rng = np.random.default_rng(n_lanes)
    stepsizes = rng.uniform(0.01, 1.0, n_lanes).astype(dtype)
    x = rng.normal(size=(DIM, n_lanes)).astype(dtype)
    return stepsizes, x, rng.normal(size=(N_STEPS, DIM, n_lanes)).astype(dtype)


def walk(optimizer: Optimizer, stepsizes, x, directions, in_place: bool) -> np.ndarray:
    """The models after every step, of shape (n_steps, dim, n_lanes)."""
    memory = np.zeros((optimizer.n_blocks(), *x.shape), x.dtype)
    x, models = x.copy(), []
    for step, direction in enumerate(directions):
        before = x.copy()
        x_new = x if in_place else np.full_like(x, np.nan)
        type(optimizer).kernel(
            optimizer.parameters(), stepsizes, step, 0, direction.copy(), memory, x, x_new
        )
        if not in_place:
            np.testing.assert_array_equal(x, before)
        x = x_new
        models.append(x.copy())
    return np.array(models)


@both_precisions
@every_number_of_lanes
@in_place
def test_sgd_takes_the_direction_times_the_stepsize(dtype, n_lanes, in_place):
    stepsizes, x, directions = numbers(dtype, n_lanes)
    models = walk(SGD(), stepsizes, x, directions, in_place)
    assert models.dtype == dtype
    for model, direction in zip(models, directions, strict=True):
        x = x - stepsizes * direction
        np.testing.assert_array_equal(model, x)


@both_precisions
@every_number_of_lanes
@in_place
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_heavy_ball_remembers_its_directions(dtype, n_lanes, in_place, momentum):
    # x_{s+1} = x_0 − γ Σ_{r<=s} m_{r+1}, m_{r+1} = Σ_{q<=r} β^{r−q} d_q, summed in full.
    stepsizes, x, directions = numbers(dtype, n_lanes)
    models = walk(HeavyBall(momentum), stepsizes, x, directions, in_place)
    exact = directions.astype(np.float64)
    ages = np.arange(N_STEPS)[:, None] - np.arange(N_STEPS)
    weights = np.where(ages >= 0, float(momentum) ** np.maximum(ages, 0), 0.0)
    momenta = np.einsum("rq,qij->rij", weights, exact)
    wanted = x - stepsizes.astype(np.float64) * momenta.cumsum(axis=0)
    precision = 1e-13 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(models, wanted, rtol=precision, atol=precision)


@both_precisions
def test_heavy_ball_without_momentum_is_sgd(dtype):
    given = numbers(dtype, 3)
    np.testing.assert_array_equal(
        walk(HeavyBall(0), *given, in_place=False), walk(SGD(), *given, in_place=False)
    )


@both_precisions
@pytest.mark.parametrize("optimizer", [SGD(), HeavyBall(0.9)], ids=lambda o: o.name)
def test_a_lane_is_that_of_the_lane_alone(dtype, optimizer):
    stepsizes, x, directions = numbers(dtype, 5)
    together = walk(optimizer, stepsizes, x, directions, in_place=False)
    for lane in range(5):
        only = slice(lane, lane + 1)
        alone = walk(
            optimizer, stepsizes[only], x[:, only].copy(), directions[:, :, only].copy(), False
        )
        assert together[:, :, lane].tobytes() == alone[:, :, 0].tobytes()


def test_only_momentum_needs_memory():
    assert SGD().n_blocks() == 0
    assert HeavyBall().n_blocks() == 1
    assert HeavyBall().momentum == 0.9


@pytest.mark.parametrize(("momentum", "said"), [(-0.1, "-0.1"), (1, "1"), (2.5, "2.5")])
def test_a_momentum_out_of_range_is_refused(refused, momentum, said):
    text = refused(lambda: HeavyBall(momentum))
    assert text == f"HeavyBall: momentum must lie in [0, 1), got {said}."


def test_a_momentum_that_is_nan_is_refused(refused):
    assert "momentum must lie in [0, 1), got nan." in refused(lambda: HeavyBall(math.nan))


@pytest.mark.parametrize("momentum", ["0.9", None, [0.9], True])
def test_a_momentum_that_is_no_number_is_refused(refused, momentum):
    text = refused(lambda: HeavyBall(momentum))
    assert text.startswith("HeavyBall: momentum must ")
    assert repr(momentum) in text
