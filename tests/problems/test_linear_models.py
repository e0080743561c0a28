"""Linear models against dense NumPy twins, finite differences and their own Hessians."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse, special

from asgrad import errors, machine
from asgrad.problems import LeastSquares, Logistic, Quadratic, Softmax, Tridiagonal, load
from asgrad.problems.models import suited_model
from asgrad.problems.split import Shards

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


@pytest.mark.parametrize("names", [(0, 1), (False, True), (1, 2), (3, 7), (-2.5, 0.5)])
def test_two_classes_are_one_problem_whatever_their_names(names):
    """The smaller label is −1, and a note says so."""
    rows, signs = features(), labels("logistic")
    plain = Logistic((rows, signs), n_workers=4)
    named = Logistic((rows, np.where(signs < 0, *names)), n_workers=4)
    np.testing.assert_array_equal(named.targets, plain.targets)
    assert named.smoothness == plain.smoothness
    x = np.random.default_rng(8).normal(size=N_FEATURES)
    assert named.loss(x) == plain.loss(x)
    assert plain.notes == ()
    smaller, larger = map(float, names)
    assert named.notes == (f"label {smaller:g} of data counts as -1, label {larger:g} as 1",)


@every_kind
def test_features_and_targets_may_be_given_one_after_the_other(kind, refused):
    rows, targets = features(), labels(kind)
    one, two = MODELS[kind]((rows, targets), n_workers=3), MODELS[kind](rows, targets, n_workers=3)
    np.testing.assert_array_equal(one.features.toarray(), two.features.toarray())
    np.testing.assert_array_equal(one.targets, two.targets)
    name = type(one).__name__
    for first in ("digits", (rows, targets)):
        text = refused(lambda first=first: MODELS[kind](first, targets))
        assert text.startswith(f"{name}: targets are given beside ")


@pytest.mark.parametrize(
    ("targets", "model", "said"),
    [
        ([1, 2, 1, 2], Logistic, "of two classes, 1 and 2"),
        ([0.25, -3, 0.25, 0.25], Logistic, "of two classes, -3 and 0.25"),
        ([0, 1, 2] * 2, Softmax, "integers, 3 classes"),
        ([1, 2, 3, 1, 2], LeastSquares, "3 different integers in 5 rows, too many for classes"),
        (list(range(1000)) * 2, Softmax, "integers, 1000 classes"),
        (list(range(1001)) * 3, LeastSquares, "1001 different integers in 3003 rows, too many"),
        ([0.5, 1, 2] * 5, LeastSquares, "real numbers, not classes"),
    ],
)
def test_the_model_that_suits_the_targets(targets, model, said):
    chosen, why = suited_model(load((np.ones((len(targets), 1)), targets)))
    assert chosen is model
    assert said in why


@every_kind
def test_shared_rows_are_held_once_and_every_worker_draws_from_all(kind):
    """f_i = f; the rows of a job still depend on the worker."""
    rows, targets = features(), labels(kind)
    alone = MODELS[kind](rows, targets, n_workers=1, split="contiguous", strength=0.1)
    shared = MODELS[kind](rows, targets, n_workers=500, split="shared", strength=0.1)
    x = np.random.default_rng(8).normal(size=alone.dim)
    assert shared.loss(x) == alone.loss(x)
    assert shared.accuracy(x) == pytest.approx(alone.accuracy(x), nan_ok=True)
    assert shared.smoothness == alone.smoothness
    np.testing.assert_array_equal(shared.full_gradient(x), alone.full_gradient(x))
    for worker in (0, 7, 499):
        np.testing.assert_array_equal(shared.gradient(x, worker), alone.gradient(x, 0))
    assert shared.pack(np.float64).values.size == alone.pack(np.float64).values.size
    marked = LeastSquares(np.eye(N_ROWS), -np.ones(N_ROWS), n_workers=3, split="shared", batch=9)
    drawn = [np.flatnonzero(marked.gradient(marked.x0, i)).tolist() for i in range(3)]
    assert [len(rows) for rows in drawn] == [9, 9, 9]
    assert drawn[0] != drawn[1] != drawn[2]


def test_equal_shards_say_what_they_leave_out():
    rows, targets = features(), labels("logistic")
    problem = Logistic(rows, targets, n_workers=5, split="contiguous", equal=True)
    assert problem.shards.sizes.tolist() == [27] * 5
    assert problem.notes == ("2 of 137 rows are left out, for equal shards of 27 rows",)
    x = np.ones(N_FEATURES)
    kept = np.r_[0:27, 28:55, 56:83, 83:110, 110:137]  # array_split gives 28, 28, 27, 27, 27
    assert problem.loss(x) == pytest.approx(
        np.logaddexp(0, -targets[kept] * (rows[kept] @ x)).mean(), rel=1e-13
    )
    assert Logistic(rows[:135], targets[:135], n_workers=5, equal=True).notes == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"n_workers": 3, "split": "contiguous", "batch": 46},
            "Logistic: worker 2 has 45 rows, fewer than the batch of 46, and computes with all of "
            "them; take a batch of at most 45, 0 or none for all rows, or a split with larger "
            "shards.",
        ),
        ({"n_workers": 5, "split": "contiguous", "batch": 99}, "all of them, as do 4 others; take"),
        ({"split": "shared", "batch": 138}, "Logistic: the workers share 137 rows, fewer than the"),
    ],
)
def test_a_batch_that_is_larger_than_a_shard_is_said(options, said):
    rows, targets = features(), labels("logistic")
    with pytest.warns(errors.AsgradWarning, match="fewer than the batch") as caught:
        Logistic(rows, targets, **options)
    assert len(caught) == 1
    assert said in str(caught[0].message)


def test_a_batch_of_a_whole_shard_is_no_surprise():
    Logistic(features(), labels("logistic"), n_workers=137, batch=1)
    Logistic(features(), labels("logistic"), n_workers=1, batch=137)


def test_a_regularizer_without_strength_is_refused(refused):
    data = features(), labels("logistic")
    text = refused(lambda: Logistic(*data, regularizer="nonconvex"))
    assert text == "Logistic: regularizer 'nonconvex' needs a strength, for instance strength=0.1."
    assert Logistic(*data, regularizer="nonconvex", strength=0).strength == 0.0


@pytest.mark.parametrize("n_classes", [40_000, 70_000])
def test_a_softmax_of_very_many_classes_has_a_finite_loss(n_classes):
    """At x = 0 it is ln K, and its gradient that of equal probabilities."""
    labels = np.arange(n_classes) % n_classes
    problem = Softmax(np.ones((n_classes, 1)), labels, n_workers=1, split="contiguous")
    # 64 rows a worker suffice to see a tile; the rest would only take time.
    problem.shards = Shards(np.arange(130), np.array([0, 130]))
    problem.features, problem.targets = problem.features[:130], problem.targets[:130]
    assert problem.loss(problem.x0) == pytest.approx(np.log(n_classes), rel=1e-12)
    slope = np.full(n_classes, 1 / n_classes)
    slope[:130] -= 1 / 130
    np.testing.assert_allclose(problem.full_gradient(problem.x0), slope, rtol=1e-9)


def test_models_that_memory_cannot_hold_are_refused(refused, tmp_path, monkeypatch):
    """A feature number in the thousand millions makes a model of as many numbers."""
    monkeypatch.setattr(machine, "available_memory", lambda: 16e9)
    path = tmp_path / "far.svm"
    path.write_text("1 2000000000:1\n-1 1:1\n")
    assert refused(lambda: Logistic(path, n_workers=1)) == (
        "Logistic: vectors of dimension 2000000000 would take 48 GB of memory, 16 GB are available."
    )
    rows = sparse.csr_matrix((3000, 10**6))
    text = refused(lambda: Softmax(rows, np.arange(3000), n_workers=1))
    assert "vectors of dimension 3000000000 would take 72 GB" in text
    for make, said in (
        (lambda: Tridiagonal(10**12), "Tridiagonal: vectors of dimension 1000000000000 would take"),
        (lambda: Quadratic(np.ones(30_000)), "Quadratic: dimension 30000 and 10 workers would"),
        (lambda: Quadratic([1.0], n_workers=10**10), "Quadratic: dimension 1 and 10000000000 work"),
    ):
        assert said in refused(make)


def test_numbers_of_the_largest_size_give_a_finite_problem():
    rows = 1e140 * np.random.default_rng(0).uniform(-1, 1, size=(20, 3))
    problem = LeastSquares(rows, rows[:, 0], n_workers=2)
    assert np.isfinite([problem.smoothness, problem.loss(np.ones(3))]).all()


@pytest.mark.parametrize("shape", [(20, 3), (2500, 2400)])
def test_workers_without_a_feature_have_no_curvature(shape):
    problem = LeastSquares(sparse.csr_matrix(shape), np.ones(shape[0]), n_workers=1, strength=0.1)
    assert problem.smoothness == 0.1


def test_smoothness_of_the_differences_of_neighbours():
    """(1, …, 1) is in the kernel, and the top eigenvalues of the path, 4 sin²(πk/2n), crowd."""
    n = 2500
    rows = sparse.diags([np.ones(n - 1), -np.ones(n - 1)], [0, 1], shape=(n - 1, n))
    problem = LeastSquares(rows, np.zeros(n - 1), n_workers=1, split="contiguous")
    wanted = 4 * np.sin(np.pi * (n - 1) / (2 * n)) ** 2 / (n - 1)
    assert problem.smoothness == pytest.approx(wanted, rel=1e-6)


def test_smoothness_where_all_but_the_top_is_seen_from_the_ones():
    """The block of neighbours' differences has the larger eigenvalue, 4; the identity has 1."""
    n = 2200
    pairs = sparse.kron(sparse.identity(n), [[1.4, -1.4]])
    rows = sparse.block_diag([pairs, sparse.identity(n)])
    problem = LeastSquares(rows, np.zeros(2 * n), n_workers=1, split="contiguous")
    assert problem.smoothness == pytest.approx(2 * 1.4**2 / (2 * n), rel=1e-12)


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
    problem = MODELS[kind](
        (rows, targets), n_workers=3, batch=5, regularizer="nonconvex", strength=1
    )
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows, fewer than the batch of")
        return MODELS[kind](
            (rows, labels(kind)), n_workers=5, split="dirichlet", seed=3, batch=batch, **options
        )


def picked_rows(kind: str, worker: int, draw: int, key: int) -> np.ndarray:
    """The rows of a batch: with the unit vectors as features, a gradient names its rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows, fewer than the batch of")
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
