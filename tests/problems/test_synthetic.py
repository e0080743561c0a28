"""Syn(α, β) follows its recipe, as far as statistics can tell.

B_i ~ N(0, β²); v_i ~ N(B_i, 1)^d; a_ij ~ N(v_i, diag(k^−1.2)); u_i ~ N(0, α²); c_i ~ N(u_i, 1);
w_i ~ N(u_i, 1)^d; label −1 with probability sigmoid(w_i·a_ij + c_i), else +1.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from asgrad.problems import Logistic, synthetic


def workers(alpha: float, beta: float, **sizes) -> tuple[np.ndarray, np.ndarray]:
    """Features of shape (n_workers, n_rows, n_features) and labels of shape (n_workers, n_rows)."""
    data = synthetic(alpha, beta, **sizes)
    shape = sizes["n_workers"], sizes["n_rows"]
    return data.features.toarray().reshape(*shape, -1), data.targets.reshape(shape)


def assert_variance(sample: np.ndarray, variance: float) -> None:
    """Independent normal numbers of mean 0: Σ x²/σ² is χ² with as many degrees of freedom."""
    p = stats.chi2.cdf((sample**2).sum() / variance, sample.size)
    assert 1e-3 < p < 1 - 1e-3


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_the_features_follow_the_recipe(beta):
    n_workers, n_rows, d = 150, 30, 40
    rows, _ = workers(1.0, beta, n_workers=n_workers, n_rows=n_rows, n_features=d, seed=3)
    variances = np.arange(1, d + 1) ** -1.2
    means = rows.mean(axis=1)
    # Within a worker: column k varies by k^−1.2 about the worker's own mean.
    within = (rows - means[:, None]) / np.sqrt(variances)
    for column in (0, 1, 9, d - 1):
        p = stats.chi2.cdf((within[:, :, column] ** 2).sum(), n_workers * (n_rows - 1))
        assert 1e-3 < p < 1 - 1e-3
    scale = np.sqrt(n_rows / (n_rows - 1))
    assert stats.kstest((within * scale).ravel()[::7], "norm").pvalue > 1e-3
    # Between workers: the mean of column k is B_i + N(0, 1 + k^−1.2/m), B_i shared by the columns.
    noise = 1 + variances / n_rows
    centers = (means / noise).sum(axis=1) / (1 / noise).sum()
    assert_variance(centers, beta**2 + 1 / (1 / noise).sum())
    apart = (means - centers[:, None]) / np.sqrt(noise)
    p = stats.chi2.cdf((apart**2).sum(), n_workers * (d - 1))
    assert 1e-3 < p < 1 - 1e-3


def fitted(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Maximum-likelihood (w, c) of P(label = −1) = sigmoid(w a + c), a worker each, by Newton."""
    theta = np.zeros((len(rows), 2))
    inputs = np.stack([rows, np.ones_like(rows)], axis=2)
    for _ in range(25):
        p = special.expit(np.einsum("ijk,ik->ij", inputs, theta))
        slope = np.einsum("ijk,ij->ik", inputs, (labels < 0) - p)
        curvature = np.einsum("ijk,ij,ijl->ikl", inputs, p * (1 - p), inputs)
        theta += np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
    return theta


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_labels_follow_the_recipe(alpha):
    # With one feature: w − c ~ N(0, 2) whatever u_i is, and w + c ~ N(0, 2 + 4α²).
    rows, labels = workers(alpha, 0.0, n_workers=250, n_rows=2500, n_features=1, seed=5)
    w, c = fitted(rows[:, :, 0], labels).T
    errors = 1.03  # the fit's own variance, a few hundredths
    assert_variance(w - c, 2 * errors)
    assert_variance(w + c, (2 + 4 * alpha**2) * errors)


def test_the_labels_depend_on_every_feature():
    # Very large α: w_i ≈ (u_i, …, u_i) and c_i ≈ u_i, so the sign of Σ_k a_k + 1 decides, and the
    # sign of u_i which label it gets.
    rows, labels = workers(1e4, 1.0, n_workers=100, n_rows=50, n_features=5, seed=6)
    side = rows.sum(axis=2) + 1
    clear = np.abs(side) > 0.05
    product = labels * np.sign(side) * clear
    agrees = np.abs(product.sum(axis=1)) == clear.sum(axis=1)
    # The sum of five numbers ~ N(0, 1/α²) relative to u_i stays small unless u_i itself is.
    assert agrees.mean() > 0.97
    signs = np.sign(product.sum(axis=1))
    assert 30 <= (signs > 0).sum() <= 70


def test_the_sizes_are_as_asked_and_rows_stand_worker_by_worker():
    data = synthetic(0.5, 2.0, n_workers=4, n_rows=6, n_features=3)
    assert data.features.shape == (24, 3)
    assert set(data.targets) <= {-1.0, 1.0}
    defaults = synthetic(0.5, 0.5)
    assert defaults.features.shape == (2000, 300)
    problem = Logistic(data, n_workers=4, split="contiguous")
    np.testing.assert_array_equal(problem.features.toarray(), data.features.toarray())


def test_the_seed_fixes_the_data():
    first, again, other = (
        synthetic(1, 1, n_workers=3, n_rows=5, n_features=4, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.features.toarray(), again.features.toarray())
    np.testing.assert_array_equal(first.targets, again.targets)
    assert np.abs(first.features - other.features).min() > 0


def test_another_worker_leaves_the_data_of_the_others():
    few, many = (synthetic(1, 1, n_workers=n, n_rows=5, n_features=4) for n in (3, 4))
    np.testing.assert_array_equal(few.features.toarray(), many.features.toarray()[:15])
    np.testing.assert_array_equal(few.targets, many.targets[:15])
