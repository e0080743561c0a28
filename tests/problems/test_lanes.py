"""Many models at once: the bits of every lane are those of the lane alone, in either precision."""

from __future__ import annotations

import numpy as np
import pytest

from asgrad.problems import LeastSquares, Logistic, Quadratic, Softmax, Tridiagonal

N_ROWS, N_FEATURES = 150, 9


def data(targets: str) -> tuple[np.ndarray, np.ndarray]:
    """Half-empty features; labels of two or of four kinds, or numbers."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(N_ROWS, N_FEATURES)) * (rng.random((N_ROWS, N_FEATURES)) < 0.5)
    kinds = {
        "two": rng.choice([-1.0, 1.0], N_ROWS),
        "four": rng.choice(4, N_ROWS),
        "numbers": rng.normal(size=N_ROWS),
    }
    return rows, kinds[targets]


OPTIONS = {"n_workers": 3, "strength": 0.1}
PROBLEMS = {
    "logistic": lambda: Logistic(data("two"), **OPTIONS),
    "logistic, nonconvex, batch": lambda: Logistic(
        data("two"), batch=7, regularizer="nonconvex", **OPTIONS
    ),
    "logistic, dirichlet": lambda: Logistic(data("two"), split="dirichlet", **OPTIONS),
    "softmax": lambda: Softmax(data("four"), **OPTIONS),
    "softmax, nonconvex, batch": lambda: Softmax(
        data("four"), batch=7, regularizer="nonconvex", **OPTIONS
    ),
    "least squares": lambda: LeastSquares(data("numbers"), **OPTIONS),
    "least squares, batch": lambda: LeastSquares(data("numbers"), batch=70, n_workers=2),
    "tridiagonal": lambda: Tridiagonal(17, n_workers=3),
    "tridiagonal, shortest": lambda: Tridiagonal(2, n_workers=1, noise=0.1),
    "tridiagonal, noise": lambda: Tridiagonal(18, n_workers=3, noise=0.1),
    "quadratic": lambda: Quadratic(np.linspace(0, 2, 7), n_workers=3, heterogeneity=1.0),
    "quadratic, one worker": lambda: Quadratic([3.0], n_workers=1, noise=0.1),
    "quadratic, noise": lambda: Quadratic(np.linspace(0, 2, 8), n_workers=3, noise=0.1),
}
every_problem = pytest.mark.parametrize(
    "problem", [make() for make in PROBLEMS.values()], ids=PROBLEMS
)
both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])
N_LANES = (1, 2, 3, 4, 5, 8, 16, 33)


def gradient(problem, x: np.ndarray, worker: int, draw: int, key: int = -99) -> np.ndarray:
    """The gradient kernel on the columns of x."""
    out = np.full_like(x, np.nan)
    scratch, picks = problem.buffers(x.shape[1], x.dtype)
    kernel = problem.kernels().gradient
    kernel(*problem.pack(x.dtype), x, worker, draw, key, out, scratch, picks)
    return out


def evaluate(problem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The evaluation kernel on the columns of x: f, ‖∇f‖² and accuracy; ∇f."""
    out, metrics = np.full_like(x, np.nan), np.full((4, x.shape[1]), np.nan)
    scratch, picks = problem.buffers(x.shape[1], x.dtype)
    problem.kernels().evaluation(*problem.pack(x.dtype), x, metrics, out, scratch, picks)
    return metrics[:3], out


def models(problem, n_lanes: int, dtype) -> np.ndarray:
    """Models of sizes from 1e-3 to 1e3, so that a lane has every chance to disturb another."""
    rng = np.random.default_rng(n_lanes)
    sizes = 10.0 ** rng.uniform(-3, 3, n_lanes)
    return (sizes * rng.normal(size=(problem.dim, n_lanes))).astype(dtype)


@every_problem
@both_precisions
def test_gradients_of_many_lanes_are_those_of_each_alone(problem, dtype):
    for n_lanes in N_LANES:
        x = models(problem, n_lanes, dtype)
        for worker in range(problem.n_workers):
            together = gradient(problem, x, worker, draw=n_lanes)
            assert together.dtype == dtype
            assert np.isfinite(together).all()
            for lane in range(n_lanes):
                alone = gradient(problem, x[:, lane : lane + 1].copy(), worker, draw=n_lanes)
                assert together[:, lane].tobytes() == alone.tobytes()


@every_problem
@both_precisions
def test_evaluations_of_many_lanes_are_those_of_each_alone(problem, dtype):
    for n_lanes in N_LANES:
        x = models(problem, n_lanes, dtype)
        metrics, slopes = evaluate(problem, x)
        for lane in range(n_lanes):
            alone, slope = evaluate(problem, x[:, lane : lane + 1].copy())
            assert metrics[:, lane].tobytes() == alone.tobytes()
            assert slopes[:, lane].tobytes() == slope.tobytes()


@every_problem
def test_a_lane_that_blows_up_leaves_the_others_alone(problem):
    x = models(problem, 3, np.float64)
    wanted = gradient(problem, x, 0, 1), *evaluate(problem, x)
    for poison in (np.nan, np.inf, 1e300):
        ill = x.copy()
        ill[:, 1] = poison
        with np.errstate(all="ignore"):
            got = gradient(problem, ill, 0, 1), *evaluate(problem, ill)
        for a, b in zip(got, wanted, strict=True):
            assert a[:, [0, 2]].tobytes() == b[:, [0, 2]].tobytes()


@every_problem
def test_the_kernels_leave_the_models_alone(problem):
    x = models(problem, 3, np.float64)
    kept = x.copy()
    gradient(problem, x, 0, 0)
    evaluate(problem, x)
    np.testing.assert_array_equal(x, kept)


@every_problem
def test_the_methods_for_one_model_are_the_kernels(problem):
    x = models(problem, 1, np.float64)
    metrics, slope = evaluate(problem, x)
    model = x[:, 0]
    np.testing.assert_array_equal(
        [problem.loss(model), problem.accuracy(model)], metrics[[0, 2], 0]
    )
    np.testing.assert_array_equal(problem.full_gradient(model), slope[:, 0])
    assert metrics[1, 0] == pytest.approx(slope[:, 0] @ slope[:, 0], rel=1e-13)
    got = problem.gradient(model, 0, 4, key=-99)
    np.testing.assert_array_equal(got, gradient(problem, x, 0, 4)[:, 0])


@every_problem
def test_the_mean_of_the_workers_gradients_is_the_full_gradient(problem):
    if getattr(problem, "batch", 0) or getattr(problem, "noise", 0):
        pytest.skip("stochastic gradients")
    x = models(problem, 1, np.float64)[:, 0]
    mean = np.mean([problem.gradient(x, i) for i in range(problem.n_workers)], axis=0)
    np.testing.assert_allclose(mean, problem.full_gradient(x), rtol=1e-12, atol=1e-13)


@every_problem
def test_single_precision_is_close_to_double(problem):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(problem.dim, 4)).astype(np.float32)
    exact = x.astype(np.float64)
    for worker in range(problem.n_workers):
        wanted = gradient(problem, exact, worker, 2)
        error = np.abs(gradient(problem, x, worker, 2) - wanted).max()
        assert error <= 2e-5 * np.abs(wanted).max()
    metrics, slopes = evaluate(problem, x)
    wanted, wanted_slopes = evaluate(problem, exact)
    np.testing.assert_allclose(metrics[:2], wanted[:2], rtol=2e-5)
    np.testing.assert_allclose(metrics[2], wanted[2], atol=1.5 / N_ROWS)
    assert np.abs(slopes - wanted_slopes).max() <= 2e-5 * np.abs(wanted_slopes).max()
