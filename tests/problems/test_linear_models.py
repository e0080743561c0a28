"""Linear models against dense NumPy twins, finite differences and their own Hessians."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, special

from asgrad.problems import LeastSquares, Logistic, Softmax

N_ROWS, N_FEATURES, N_CLASSES = 137, 11, 4
MODELS = {"logistic": Logistic, "softmax": Softmax, "least-squares": LeastSquares}


def features(seed: int = 0, n_rows: int = N_ROWS, n_features: int = N_FEATURES) -> np.ndarray:
    """Features of unequal scale, half of them zero."""
    rng = np.random.default_rng(seed)
    kept = rng.random((n_rows, n_features)) < 0.5
    return kept * rng.normal(size=(n_rows, n_features)) * np.linspace(0.3, 3.0, n_features)


def labels(kind: str, seed: int = 1, n_rows: int = N_ROWS) -> np.ndarray:
    """Targets that suit a model, as its user would give them."""
    rng = np.random.default_rng(seed)
    if kind == "logistic":
        return rng.choice([-1.0, 1.0], n_rows)
    if kind == "softmax":
        return rng.choice([-5.0, 0.0, 2.5, 7.0], n_rows, p=[0.1, 0.2, 0.3, 0.4])
    return rng.normal(size=n_rows)


class Twin:
    """The same model in dense NumPy: mean loss over some rows, and the regulariser."""

    def __init__(self, kind: str, rows: np.ndarray, targets: np.ndarray, regularizer, strength):
        self.kind, self.rows, self.targets = kind, rows, targets
        self.regularizer, self.strength = regularizer, strength
        self.classes = np.unique(targets) if kind == "softmax" else np.zeros(1)

    def scores(self, x: np.ndarray, rows=slice(None)) -> np.ndarray:
        """One score a row, or one a row and class; the classes of a feature stand together."""
        scores = self.rows[rows] @ x.reshape(N_FEATURES, -1)
        return scores if self.kind == "softmax" else scores[:, 0]

    def loss(self, x: np.ndarray, rows=slice(None)) -> float:
        z, y = self.scores(x, rows), self.targets[rows]
        if self.kind == "logistic":
            data = np.logaddexp(0.0, -y * z).mean()
        elif self.kind == "softmax":
            right = np.searchsorted(self.classes, y)
            data = (special.logsumexp(z, axis=1) - z[np.arange(y.size), right]).mean()
        else:
            data = ((z - y) ** 2).mean() / 2
        extra = x**2 / 2 if self.regularizer == "l2" else x**2 / (1 + x**2)
        return data + self.strength * extra.sum()

    def gradient(self, x: np.ndarray, rows=slice(None)) -> np.ndarray:
        z, y = self.scores(x, rows), self.targets[rows]
        if self.kind == "logistic":
            slope = -y * special.expit(-y * z)
        elif self.kind == "softmax":
            slope = special.softmax(z, axis=1) - (y[:, None] == self.classes)
        else:
            slope = z - y
        data = (self.rows[rows].T @ slope / y.size).ravel()
        extra = x if self.regularizer == "l2" else 2 * x / (1 + x**2) ** 2
        return data + self.strength * extra

    def accuracy(self, x: np.ndarray) -> float:
        z = self.scores(x)
        if self.kind == "logistic":
            return float((np.sign(z) == self.targets).mean())
        if self.kind == "softmax":
            return float((self.classes[z.argmax(axis=1)] == self.targets).mean())
        return float("nan")


def pair(kind, regularizer="l2", strength=0.1, split="dirichlet", n_workers=5, sparse_rows=False):
    """A problem and its twin on the same data."""
    rows, targets = features(), labels(kind)
    problem = MODELS[kind](
        (sparse.csc_matrix(rows) if sparse_rows else rows, targets),
        n_workers=n_workers,
        split=split,
        regularizer=regularizer,
        strength=strength,
        seed=3,
    )
    return problem, Twin(kind, rows, targets, regularizer, strength)


def rows_of(problem, worker: int) -> np.ndarray:
    """The rows of the data that a worker holds."""
    bounds = problem.shards.bounds
    return problem.shards.order[bounds[worker] : bounds[worker + 1]]


def assert_close(got, wanted, tolerance: float = 1e-12) -> None:
    """Compare in norm, relative to the wanted value."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


every_kind = pytest.mark.parametrize("kind", MODELS)
every_regularizer = pytest.mark.parametrize(
    ("regularizer", "strength"), [("l2", 0.0), ("l2", 0.1), ("nonconvex", 0.1)]
)


@every_kind
@every_regularizer
@pytest.mark.parametrize("sparse_rows", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("split", ["shuffled", "dirichlet"])
def test_values_and_gradients_are_those_of_the_twin(
    kind, regularizer, strength, sparse_rows, split
):
    problem, twin = pair(kind, regularizer, strength, split, sparse_rows=sparse_rows)
    shards = [rows_of(problem, worker) for worker in range(problem.n_workers)]
    assert len({len(rows) for rows in shards}) > 1  # unequal shards: the mean is over workers
    for x in np.random.default_rng(4).normal(size=(3, problem.dim)):
        assert_close(problem.loss(x), np.mean([twin.loss(x, rows) for rows in shards]))
        slopes = [twin.gradient(x, rows) for rows in shards]
        assert_close(problem.full_gradient(x), np.mean(slopes, axis=0))
        for worker, slope in enumerate(slopes):
            assert_close(problem.gradient(x, worker), slope)
        assert problem.accuracy(x) == pytest.approx(twin.accuracy(x), nan_ok=True)


@every_kind
def test_extreme_models_neither_overflow_nor_lose_digits(kind):
    problem, twin = pair(kind)
    shards = [rows_of(problem, worker) for worker in range(problem.n_workers)]
    for scale in (1e3, 1e6):
        x = scale * np.random.default_rng(5).normal(size=problem.dim)
        assert_close(problem.loss(x), np.mean([twin.loss(x, rows) for rows in shards]))
        slope = np.mean([twin.gradient(x, rows) for rows in shards], axis=0)
        assert_close(problem.full_gradient(x), slope)


@every_kind
@every_regularizer
def test_the_gradient_is_the_slope_of_the_loss(kind, regularizer, strength):
    problem, _ = pair(kind, regularizer, strength)
    rng = np.random.default_rng(6)
    x, h = rng.normal(size=problem.dim), 1e-5
    for way in rng.normal(size=(5, problem.dim)):
        way /= np.linalg.norm(way)
        slope = (problem.loss(x + h * way) - problem.loss(x - h * way)) / (2 * h)
        assert slope == pytest.approx(problem.full_gradient(x) @ way, rel=1e-7, abs=1e-8)


@every_kind
def test_dense_and_sparse_features_give_the_same_bits(kind):
    dense, _ = pair(kind)
    thin, _ = pair(kind, sparse_rows=True)
    x = np.random.default_rng(7).normal(size=dense.dim)
    assert dense.loss(x) == thin.loss(x)
    np.testing.assert_array_equal(dense.gradient(x, 1), thin.gradient(x, 1))


def test_labels_of_zero_and_one_are_minus_and_plus_one():
    rows, signs = features(), labels("logistic")
    problems = [Logistic((rows, y), n_workers=4) for y in (signs, (signs + 1) / 2, signs > 0)]
    x = np.random.default_rng(8).normal(size=N_FEATURES)
    assert len({problem.loss(x) for problem in problems}) == 1
    assert len({problem.accuracy(x) for problem in problems}) == 1


@every_kind
def test_a_problem_says_its_size_and_where_to_start(kind):
    problem, _ = pair(kind)
    assert problem.n_workers == 5
    assert problem.dim == N_FEATURES * (N_CLASSES if kind == "softmax" else 1)
    np.testing.assert_array_equal(problem.x0, np.zeros(problem.dim), strict=True)


@every_kind
def test_neither_data_nor_model_are_changed(kind):
    rows, targets = features(), labels(kind)
    kept = rows.copy(), targets.copy()
    problem = MODELS[kind]((rows, targets), n_workers=3, batch=5, regularizer="nonconvex")
    x = np.random.default_rng(9).normal(size=problem.dim)
    model = x.copy()
    problem.loss(x), problem.gradient(x, 0), problem.full_gradient(x)
    np.testing.assert_array_equal(x, model)
    np.testing.assert_array_equal(rows, kept[0])
    np.testing.assert_array_equal(targets, kept[1])


def largest_eigenvalues(problem) -> list[float]:
    """The largest eigenvalue of A_iᵀA_i/m_i for every worker, densely."""
    shards = [features()[rows_of(problem, worker)] for worker in range(problem.n_workers)]
    return [np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1] for rows in shards]


def hessian(problem, x: np.ndarray, worker: int) -> np.ndarray:
    """The Hessian of f_worker by central differences of its gradient."""
    h = 1e-5
    columns = [
        (problem.gradient(x + h * unit, worker) - problem.gradient(x - h * unit, worker)) / (2 * h)
        for unit in np.eye(problem.dim)
    ]
    return (np.array(columns) + np.array(columns).T) / 2


@every_kind
@every_regularizer
def test_smoothness_is_the_largest_curvature_that_the_model_can_have(kind, regularizer, strength):
    problem, _ = pair(kind, regularizer, strength)
    curvature = {"logistic": 1 / 4, "softmax": 1 / 2, "least-squares": 1.0}[kind]
    extra = strength if regularizer == "l2" else 2 * strength
    wanted = curvature * max(largest_eigenvalues(problem)) + extra
    assert problem.smoothness == pytest.approx(wanted, rel=1e-12)


@every_kind
@every_regularizer
def test_no_hessian_exceeds_the_smoothness(kind, regularizer, strength):
    problem, _ = pair(kind, regularizer, strength)
    rng = np.random.default_rng(10)
    models = [np.zeros(problem.dim), *rng.normal(scale=0.5, size=(2, problem.dim))]
    for x in models:
        for worker in range(problem.n_workers):
            size = np.abs(np.linalg.eigvalsh(hessian(problem, x, worker))).max()
            assert size <= problem.smoothness * (1 + 1e-6)


@pytest.mark.parametrize(("regularizer", "strength"), [("l2", 0.3), ("nonconvex", 0.3)])
@pytest.mark.parametrize("kind", ["logistic", "two-class softmax", "least-squares"])
def test_smoothness_is_attained_at_zero(kind, regularizer, strength):
    # At x = 0 every p is 1/2: the logistic curvature is 1/4 and that of two-class softmax 1/2;
    # the curvature of x²/2 is 1 and that of x²/(1 + x²) is 2.
    model = MODELS[kind.split()[-1]]
    targets = labels("least-squares" if kind == "least-squares" else "logistic")
    problem = model((features(), targets), n_workers=3, regularizer=regularizer, strength=strength)
    x = np.zeros(problem.dim)
    top = max(np.linalg.eigvalsh(hessian(problem, x, worker))[-1] for worker in range(3))
    assert top == pytest.approx(problem.smoothness, rel=1e-6)


def test_smoothness_of_workers_with_fewer_rows_than_features():
    rows = np.random.default_rng(11).normal(size=(12, 30))
    problem = LeastSquares((rows, np.zeros(12)), n_workers=3, split="contiguous")
    wanted = max(np.linalg.eigvalsh(rows[i : i + 4].T @ rows[i : i + 4] / 4)[-1] for i in (0, 4, 8))
    assert problem.smoothness == pytest.approx(wanted, rel=1e-12)


def test_smoothness_of_many_sparse_rows_and_features():
    # AᵀA = I + 9 (e_0 − e_1)(e_0 − e_1)ᵀ has the eigenvalues 19 and 1; its top eigenvector is
    # orthogonal to (1, …, 1), where a careless iteration starts.
    n = 2100
    last = sparse.csr_matrix(([3.0, -3.0], ([0, 0], [0, 1])), shape=(1, n))
    rows = sparse.vstack([sparse.identity(n), last])
    problem = LeastSquares((rows, np.zeros(n + 1)), n_workers=1)
    assert problem.smoothness == pytest.approx(19 / (n + 1), rel=1e-9)


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
def test_smoothness_does_not_depend_on_the_batch(kind):
    data = features(), labels(kind)
    whole, part = (MODELS[kind](data, n_workers=5, batch=batch) for batch in (None, 2))
    assert whole.smoothness == part.smoothness


def batched(kind, rows, batch=9, **options):
    """A problem on the unequal shards of `pair` whose gradients take a batch."""
    return MODELS[kind](
        (rows, labels(kind)), n_workers=5, split="dirichlet", seed=3, batch=batch, **options
    )


def picked_rows(kind: str, worker: int, draw: int, key: int) -> np.ndarray:
    """The rows of a batch: with the unit vectors as features, a gradient names its rows."""
    marked = LeastSquares(
        (np.eye(N_ROWS), labels(kind)), n_workers=5, split="dirichlet", seed=3, batch=9
    )
    return np.flatnonzero(marked.gradient(np.full(N_ROWS, 1e3), worker, draw, key=key))


@every_kind
@every_regularizer
def test_a_stochastic_gradient_is_the_twins_over_the_rows_of_its_batch(kind, regularizer, strength):
    whole, twin = pair(kind, regularizer, strength)
    problem = batched(kind, features(), regularizer=regularizer, strength=strength)
    x = np.random.default_rng(12).normal(size=problem.dim)
    for worker in range(5):
        held = rows_of(whole, worker)
        for draw in range(4):
            rows = picked_rows(kind, worker, draw, key=77)
            assert rows.size == min(9, held.size)
            assert set(rows) <= set(held)
            assert_close(problem.gradient(x, worker, draw, key=77), twin.gradient(x, rows))


@every_kind
def test_a_batch_larger_than_the_shard_is_the_shard(kind):
    whole, _ = pair(kind)
    large = batched(kind, features(), batch=10_000, strength=0.1)
    x = np.random.default_rng(13).normal(size=whole.dim)
    for worker in range(5):
        for draw in range(2):
            got = large.gradient(x, worker, draw, key=5)
            np.testing.assert_array_equal(got, whole.gradient(x, worker))
