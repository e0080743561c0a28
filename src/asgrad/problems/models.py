"""Linear models: logistic, softmax and least-squares regression."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from asgrad.errors import AsgradError, check_choice, check_integer, check_positive
from asgrad.problems import linear
from asgrad.problems.base import CompiledProblem, Packed
from asgrad.problems.data import Dataset, load
from asgrad.problems.split import split

__all__ = ["LeastSquares", "LinearModel", "Logistic", "Softmax"]

_REGULARIZERS = {"l2": linear.L2, "nonconvex": linear.NONCONVEX}
_CURVATURE = {"l2": 1.0, "nonconvex": 2.0}


class LinearModel(CompiledProblem):
    """f_i(x) = mean over worker i's rows of ℓ(a·x, y) + a regulariser; concrete classes choose ℓ.

    Parameters
    ----------
    data : str, path, Dataset or (features, targets)
        See `asgrad.problems.load`.
    n_workers : int >= 1
    split : str
        "contiguous", "shuffled", "label" or "dirichlet"; see `asgrad.problems.split`.
    alpha : float > 0
        For the Dirichlet split.
    batch : int >= 1, optional
        Rows of a stochastic gradient, drawn without replacement; a worker with fewer rows uses all
        of them. By default every gradient is over all rows of its worker.
    regularizer : str
        "l2": (λ/2) ‖x‖². "nonconvex": λ Σ x²/(1 + x²), as in AsGrad, arXiv 2310.20452.
    strength : float >= 0
        λ.
    seed : int >= 0
        Fixes the split.

    Raises
    ------
    AsgradError
        If the data, the labels or a parameter are refused.
    """

    _loss: ClassVar[int]
    _loss_curvature: ClassVar[float]

    def __init__(
        self,
        data: Any,
        *,
        n_workers: int = 10,
        split: str = "shuffled",
        alpha: float = 0.5,
        batch: int | None = None,
        regularizer: str = "l2",
        strength: float = 0.0,
        seed: int = 0,
    ):
        owner = type(self).__name__
        self.n_workers = check_integer(owner, "n_workers", n_workers, minimum=1)
        self.batch = 0 if batch is None else check_integer(owner, "batch", batch, minimum=1)
        self.strength = check_positive(owner, "strength", strength, zero=True)
        self.regularizer = check_choice("regularizer", regularizer, _REGULARIZERS)
        dataset = load(data)
        self.n_outputs, targets = self._encode(dataset)
        self.shards = _split(
            Dataset(dataset.features, targets, dataset.name), self.n_workers, split, alpha, seed
        )
        self.features: sparse.csr_matrix = dataset.features[self.shards.order]
        self.targets = targets[self.shards.order]
        self.dim = self.features.shape[1] * self.n_outputs
        self.data_name = dataset.name

    def _encode(self, data: Dataset) -> tuple[int, np.ndarray]:
        """Return the number of outputs and the targets as the kernel wants them."""
        return 1, data.targets

    @cached_property
    def smoothness(self) -> float:
        """L = max_i L_i, exact: the largest eigenvalue of A_iᵀA_i/m_i times ℓ's curvature, plus
        the regulariser's curvature (λ, or 2λ for the non-convex one)."""
        bounds = self.shards.bounds
        largest = max(
            _largest_eigenvalue(self.features[a:b]) / (b - a) for a, b in pairwise(bounds)
        )
        return self._loss_curvature * largest + _CURVATURE[self.regularizer] * self.strength

    def parts(self) -> dict[str, Any]:
        """Return the settings of which a change is to be named."""
        return {
            "batch": self.batch,
            "regularizer": self.regularizer,
            "strength": self.strength,
            "split": (self.shards.order, self.shards.bounds),
        }

    def pack(self, dtype: Any) -> Packed:
        """Return the data that the kernels read, with floats of `dtype`."""
        rows = self.features
        head = np.zeros(linear.HEAD, np.int64)
        head[linear.N_WORKERS] = self.n_workers
        head[linear.N_FEATURES] = rows.shape[1]
        head[linear.N_OUTPUTS] = self.n_outputs
        head[linear.N_ROWS] = rows.shape[0]
        head[linear.BATCH] = self.batch
        head[linear.LOSS] = self._loss
        head[linear.REGULARIZER] = _REGULARIZERS[self.regularizer]
        head[linear.N_STORED] = rows.nnz
        return Packed(
            np.concatenate([[self.strength], rows.data, self.targets]).astype(dtype),
            rows.indices.astype(np.int32),
            np.concatenate([head, self.shards.bounds, rows.indptr]).astype(np.int64),
        )

    def workspace(self, n_columns: int) -> tuple[int, int]:
        """Return how many floats and how many integers the kernels need beside their arguments."""
        floats = linear.TILE * self.n_outputs * n_columns + 2 * n_columns
        return floats, int(np.diff(self.shards.bounds).max())

    def kernels(self) -> tuple[Callable, Callable]:
        """Return the gradient and the evaluation as `gradient_type` and `evaluate_type` say."""
        return linear.gradient, linear.evaluate

    @property
    def label(self) -> str:
        """The problem in a few words."""
        batch = f", batch {self.batch}" if self.batch else ""
        return f"{self.name} on {self.data_name}, {self.n_workers} workers{batch}"


class Logistic(LinearModel):
    """Binary logistic regression: ℓ(z, y) = log(1 + exp(−y z)), y = ±1.

    Labels may be ±1 or 0/1 (0 counts as −1). See `LinearModel` for the parameters.
    """

    name: ClassVar[str] = "logistic"
    _loss: ClassVar[int] = linear.LOGISTIC
    _loss_curvature: ClassVar[float] = 0.25

    def _encode(self, data: Dataset) -> tuple[int, np.ndarray]:
        """Check that the labels are binary; return them as ±1."""
        found = np.unique(data.targets)
        if found.size == 1:
            raise AsgradError(
                f"Logistic: {data.name} has one class only, label {found[0]:g}; two are needed."
            )
        if not (set(found) <= {-1.0, 1.0} or set(found) <= {0.0, 1.0}):
            some = ", ".join(f"{label:g}" for label in found[:6])
            raise AsgradError(
                f"Logistic: labels must be -1 and 1, or 0 and 1, got {some}"
                f"{', ...' if found.size > 6 else ''} in {data.name}. Map them first, for instance "
                "labels = np.where(labels == positive, 1, -1), or take Softmax for several classes."
            )
        return 1, np.where(data.targets > 0, 1.0, -1.0)


class Softmax(LinearModel):
    """Softmax regression: the cross-entropy of K linear scores, one for every label.

    Labels may be any numbers. The model is a flat vector of K numbers a feature. See `LinearModel`
    for the parameters; the curvature of the cross-entropy is at most 1/2.
    """

    name: ClassVar[str] = "softmax"
    _loss: ClassVar[int] = linear.SOFTMAX
    _loss_curvature: ClassVar[float] = 0.5

    def _encode(self, data: Dataset) -> tuple[int, np.ndarray]:
        """Return the number of classes and the index of every row's class."""
        classes, index = np.unique(data.targets, return_inverse=True)
        if classes.size == 1:
            raise AsgradError(
                f"Softmax: {data.name} has one class only, label {classes[0]:g}; two are needed."
            )
        return int(classes.size), index.astype(np.float64)


class LeastSquares(LinearModel):
    """Least squares: ℓ(z, y) = (z − y)²/2. See `LinearModel` for the parameters."""

    name: ClassVar[str] = "least-squares"
    _loss: ClassVar[int] = linear.SQUARES
    _loss_curvature: ClassVar[float] = 1.0


def _split(data: Dataset, n_workers: int, how: str, alpha: float, seed: int) -> Any:
    """Deal out the rows; a name of its own, because `split` is also a parameter."""
    return split(data, n_workers, how, alpha=alpha, seed=seed)


def _largest_eigenvalue(rows: sparse.csr_matrix) -> float:
    """Return the largest eigenvalue of AᵀA, from the smaller of AᵀA and AAᵀ."""
    if min(rows.shape) <= 2000:
        small = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
        return float(np.linalg.eigvalsh(small.toarray())[-1])
    product = sparse.linalg.LinearOperator(
        (rows.shape[1], rows.shape[1]), matvec=lambda v: rows.T @ (rows @ v), dtype=np.float64
    )
    start = np.ones(rows.shape[1])
    found = sparse.linalg.eigsh(product, k=1, v0=start, return_eigenvectors=False)
    return float(found[0])
