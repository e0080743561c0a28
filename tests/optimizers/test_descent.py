"""What the server does with directions, against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asgrad.optimizers import SGD, Adam, AMSGrad, HeavyBall, Nesterov, Optimizer

DIM, N_STEPS = 13, 6
ALL = [SGD(), HeavyBall(0.9), Nesterov(0.9), Adam(), AMSGrad(), AMSGrad(max_delay=1)]
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
    """The models after every step, of shape (n_steps, dim, n_lanes); delays rise from 0."""
    repeated = np.tile(stepsizes, 7)  # as the walk gives them: neither one run nor many
    memory = np.zeros((optimizer.n_blocks(), *x.shape), x.dtype)
    x, models = x.copy(), []
    for step, direction in enumerate(directions):
        before = x.copy()
        x_new = x if in_place else np.full_like(x, np.nan)
        given = direction.copy()
        type(optimizer).kernel(
            optimizer.parameters(), repeated, step, step, given, memory, x, x_new
        )
        np.testing.assert_array_equal(given, direction)
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
@pytest.mark.parametrize("optimizer", ALL, ids=str)
def test_a_lane_is_that_of_the_lane_alone(dtype, optimizer):
    stepsizes, x, directions = numbers(dtype, 5)
    together = walk(optimizer, stepsizes, x, directions, in_place=False)
    for lane in range(5):
        only = slice(lane, lane + 1)
        alone = walk(
            optimizer, stepsizes[only], x[:, only].copy(), directions[:, :, only].copy(), False
        )
        assert together[:, :, lane].tobytes() == alone[:, :, 0].tobytes()


@both_precisions
@pytest.mark.parametrize("optimizer", ALL, ids=str)
def test_a_model_may_be_written_over_the_one_before(dtype, optimizer):
    given = numbers(dtype, 3)
    np.testing.assert_array_equal(walk(optimizer, *given, True), walk(optimizer, *given, False))


@both_precisions
def test_the_first_step_of_adam_is_the_stepsize_itself(dtype):
    """m̂ = d, v̂ = d²: bias correction makes it γ d/(|d| + ε), whatever β₁ and β₂ are."""
    stepsizes, x, directions = numbers(dtype, 2)
    model = walk(Adam(), stepsizes, x, directions, False)[0]
    exact = directions[0].astype(np.float64)
    wanted = x - stepsizes * exact / (abs(exact) + 1e-8)
    np.testing.assert_allclose(model, wanted, rtol=2e-5 if dtype == np.float32 else 1e-11)


def test_a_direction_that_is_nan_makes_the_model_nan_for_ever():
    """Else a lane that blew up would seem to stand still."""
    stepsizes, x, directions = numbers(np.float64, 2)
    directions[1, 4, 0] = np.nan
    for optimizer in ALL:
        models = walk(optimizer, stepsizes, x, directions, False)
        assert np.isnan(models[1:, 4, 0]).all()
        assert np.isfinite(models[:, :, 1]).all()
        assert np.isfinite(models[0]).all()


def test_what_each_remembers():
    """In blocks of the model's size."""
    assert [optimizer.n_blocks() for optimizer in ALL] == [0, 1, 1, 2, 3, 3]
    assert HeavyBall().momentum == 0.9


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Nesterov(1), "Nesterov: momentum must lie in [0, 1), got 1."),
        (lambda: Adam(momentum=-0.1), "Adam: momentum must lie in [0, 1), got -0.1."),
        (lambda: Adam(decay=1.0), "Adam: decay must lie in [0, 1), got 1."),
        (lambda: Adam(epsilon=0), "Adam: epsilon must be finite and > 0, got 0."),
        (lambda: AMSGrad(momentum=math.nan), "AMSGrad: momentum must lie in [0, 1), got nan."),
        (lambda: AMSGrad(decay="1"), "AMSGrad: decay must be a number, got '1'."),
        (lambda: AMSGrad(epsilon=-1), "AMSGrad: epsilon must be finite and > 0, got -1."),
        (lambda: AMSGrad(max_delay=-1), "AMSGrad: max_delay must be an integer >= 0, got -1."),
        (lambda: AMSGrad(max_delay=1.5), "AMSGrad: max_delay must be an integer, got 1.5."),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(refused, make, text):
    assert refused(make) == text


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
