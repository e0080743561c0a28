"""Quadratics against dense NumPy, and the law of their noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from asgrad.problems import Quadratic, Tridiagonal
from asgrad.streams import Purpose, stream_key

KEY = stream_key(4, Purpose.GRADIENT)


def laplacian(dim: int) -> np.ndarray:
    """tridiag(−1, 2, −1)/4."""
    return (2 * np.eye(dim) - np.eye(dim, k=1) - np.eye(dim, k=-1)) / 4


def assert_is_quadratic(problem, matrix: np.ndarray, vectors: np.ndarray) -> None:
    """f_i(x) = xᵀAx/2 − b_i·x for every worker, f their mean."""
    b = vectors.mean(axis=0)
    for x in np.random.default_rng(1).normal(size=(3, problem.dim)):
        curve = matrix @ x
        size = 1e-12 * (np.linalg.norm(curve) + np.linalg.norm(vectors))
        for worker, own in enumerate(vectors):
            np.testing.assert_allclose(problem.gradient(x, worker), curve - own, 0, size)
        np.testing.assert_allclose(problem.full_gradient(x), curve - b, 0, size)
        assert problem.loss(x) == pytest.approx(x @ curve / 2 - b @ x, rel=1e-12, abs=1e-13)
        assert math.isnan(problem.accuracy(x))


@pytest.mark.parametrize("dim", [2, 3, 4, 51])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_tridiagonal_is_the_classic_quadratic(dim, n_workers):
    problem = Tridiagonal(dim, n_workers=n_workers)
    assert (problem.dim, problem.n_workers) == (dim, n_workers)
    b = np.zeros(dim)
    b[0] = -1 / 4
    assert_is_quadratic(problem, laplacian(dim), np.tile(b, (n_workers, 1)))


@pytest.mark.parametrize("dim", [2, 3, 4, 51])
def test_the_smoothness_of_tridiagonal_is_its_largest_eigenvalue(dim):
    largest = np.linalg.eigvalsh(laplacian(dim))[-1]
    assert Tridiagonal(dim).smoothness == pytest.approx(largest, rel=1e-12)


def test_tridiagonal_starts_at_the_root_of_its_dimension():
    wanted = np.zeros(9)
    wanted[0] = 3.0
    np.testing.assert_array_equal(Tridiagonal(9).x0, wanted, strict=True)


@pytest.mark.parametrize(
    ("spectrum", "n_workers", "heterogeneity"),
    [([2.0], 1, 0.0), ([0.5, 3.0, 0.0], 1, 2.0), (np.linspace(0, 4, 12), 5, 1.5), ([1, 2], 4, 0)],
)
def test_quadratic_has_its_spectrum_and_its_gradients(spectrum, n_workers, heterogeneity):
    problem = Quadratic(spectrum, n_workers=n_workers, heterogeneity=heterogeneity, seed=2)
    assert (problem.dim, problem.n_workers) == (len(spectrum), n_workers)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(problem.matrix), np.sort(spectrum), rtol=0, atol=1e-12
    )
    assert problem.smoothness == max(spectrum)
    np.testing.assert_array_equal(problem.x0, np.zeros(problem.dim))
    vectors = np.broadcast_to(problem.vectors, (n_workers, problem.dim))
    assert_is_quadratic(problem, problem.matrix, vectors)


def test_the_rotation_of_a_quadratic_is_random_and_fixed_by_its_seed():
    first, again, other = (Quadratic([1, 2, 3.0], seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrix, again.matrix)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert np.abs(first.matrix - other.matrix).max() > 0.01
    assert np.abs(first.matrix - np.diag(np.diag(first.matrix))).max() > 0.01


def test_heterogeneity_spreads_the_workers_about_the_same_mean():
    mild, strong = (
        Quadratic(np.ones(200), n_workers=30, heterogeneity=size, seed=5) for size in (1.0, 3.0)
    )
    mean = mild.vectors.mean(axis=0)
    np.testing.assert_allclose(strong.vectors.mean(axis=0), mean, atol=1e-13)
    np.testing.assert_allclose(strong.vectors - mean, 3 * (mild.vectors - mean), atol=1e-12)
    # Σ z_i = 0 takes 1/n off the variance of standard normal numbers.
    z = (mild.vectors - mean) / math.sqrt(1 - 1 / 30)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3


def test_the_workers_differ_by_the_same_everywhere():
    problem = Quadratic(np.linspace(0, 2, 6), n_workers=4, heterogeneity=2.0)
    apart = problem.vectors.mean(axis=0) - problem.vectors
    for x in np.random.default_rng(3).normal(size=(3, 6)):
        for worker in range(4):
            difference = problem.gradient(x, worker) - problem.full_gradient(x)
            np.testing.assert_allclose(difference, apart[worker], atol=1e-12)


def test_without_heterogeneity_all_workers_are_the_same():
    problem = Quadratic([1.0, 2.0], n_workers=3)
    x = np.array([0.3, -4.0])
    first = problem.gradient(x, 0)
    for worker in (1, 2):
        np.testing.assert_array_equal(problem.gradient(x, worker), first)


NOISY = {
    "tridiagonal": Tridiagonal(41, n_workers=3, noise=0.7),
    "quadratic": Quadratic(np.linspace(0, 1, 42), n_workers=3, heterogeneity=1.0, noise=0.7),
}
noisy = pytest.mark.parametrize("problem", NOISY.values(), ids=NOISY)


def noise_of(problem, x: np.ndarray, worker: int, draw: int, key: int = KEY) -> np.ndarray:
    """What a stochastic gradient adds to the exact one, dim × lanes."""
    out = np.empty_like(x)
    scratch, picks = problem.buffers(x.shape[1], x.dtype)
    kernel = problem.kernels().gradient
    packed = problem.pack(x.dtype)
    kernel(*packed, x, worker, draw, key, out, scratch, picks)
    exact = np.empty_like(x)
    packed.values[0] = 0.0  # the noise's standard deviation
    kernel(*packed, x, worker, draw, key, exact, scratch, picks)
    return out - exact


@noisy
def test_the_noise_has_its_mean_its_variance_and_its_law(problem):
    x = np.zeros((problem.dim, 1))
    noise = np.array([noise_of(problem, x, 1, draw)[:, 0] for draw in range(1500)]) / 0.7
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    n = len(noise)
    assert np.abs(noise.mean(axis=0)).max() < 4.5 / math.sqrt(n)
    assert np.abs(noise.var(axis=0) - 1).max() < 4.5 * math.sqrt(2 / n)
    correlations = np.corrcoef(noise.T) - np.eye(problem.dim)
    assert np.abs(correlations).max() < 5 / math.sqrt(n)
    after = (noise[1:] * noise[:-1]).mean(axis=0)  # a draw and the one before it
    assert np.abs(after).max() < 4.5 / math.sqrt(n)


@noisy
def test_the_noise_is_the_same_in_every_lane(problem):
    x = np.random.default_rng(6).normal(size=(problem.dim, 5))
    noise = noise_of(problem, x, 2, 9)
    np.testing.assert_allclose(noise, np.tile(noise[:, :1], 5), rtol=0, atol=1e-14)
    x[:] = x[:, :1]
    noise = noise_of(problem, x, 2, 9)
    np.testing.assert_array_equal(noise, np.tile(noise[:, :1], 5))


@noisy
def test_the_noise_follows_from_key_worker_and_draw(problem):
    x = np.zeros((problem.dim, 1))
    jobs = [(worker, draw, key) for worker in range(3) for draw in range(5) for key in (KEY, 1)]
    noises = [noise_of(problem, x, *job) for job in jobs]
    for job, noise in reversed(list(zip(jobs, noises, strict=True))):
        np.testing.assert_array_equal(noise_of(problem, x, *job), noise)
    rows = np.array(noises)[:, :, 0]
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.8  # 41 numbers each


@noisy
def test_evaluation_knows_no_noise(problem):
    quiet = type(problem)(
        *([problem.spectrum] if isinstance(problem, Quadratic) else [problem.dim]),
        n_workers=3,
        **({"heterogeneity": 1.0} if isinstance(problem, Quadratic) else {}),
    )
    x = np.random.default_rng(7).normal(size=problem.dim)
    assert problem.loss(x) == quiet.loss(x)
    np.testing.assert_array_equal(problem.full_gradient(x), quiet.full_gradient(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [2, 3, 64, 1023, 1024, 1025, 1026, 2049])
def test_one_lane_of_a_noisy_tridiagonal_has_the_bits_of_several(dim, dtype):
    problem = Tridiagonal(dim, n_workers=3, noise=0.7)
    x = np.random.default_rng(dim).normal(size=(dim, 3)).astype(dtype)
    packed, kernel = problem.pack(dtype), problem.kernels().gradient
    several, alone = np.empty_like(x), np.empty((dim, 1), dtype)
    kernel(*packed, x, 2, 5, KEY, several, *problem.buffers(3, dtype))
    for lane in range(3):
        model = np.ascontiguousarray(x[:, lane : lane + 1])
        kernel(*packed, model, 2, 5, KEY, alone, *problem.buffers(1, dtype))
        np.testing.assert_array_equal(alone[:, 0], several[:, lane])
