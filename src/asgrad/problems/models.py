"""Linear models: logistic, softmax and least-squares regression."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from asgrad.errors import (
    AsgradError,
    check_choice,
    check_integer,
    check_positive,
    shown,
)
from asgrad.machine import check_memory
from asgrad.problems import linear
from asgrad.problems.base import CompiledProblem, Kernels, Packed
from asgrad.problems.curvature import largest_eigenvalue
from asgrad.problems.data import LARGEST, Dataset, load
from asgrad.problems.holdout import hold_out
from asgrad.problems.split import Shards, split, warn_of_small_shards
from asgrad.problems.start import start

__all__ = ["LeastSquares", "LinearModel", "Logistic", "Softmax", "suited_model"]

_REGULARIZERS = {"l2": linear.L2, "nonconvex": linear.NONCONVEX}
_CURVATURE = {"l2": 1.0, "nonconvex": 2.0}
_MOST_CLASSES = 1000


class LinearModel(CompiledProblem):
    """f_i(x) = mean over worker i's rows of ℓ(a·x, y) + a regulariser; concrete classes choose ℓ.

    Parameters
    ----------
    data : str, path, Dataset or (features, targets)
        See `asgrad.problems.load`; also two arrays, features and targets, one after the other.
    n_workers : int >= 1
    split : str
        "contiguous", "shuffled", "label", "dirichlet" or "shared"; see `asgrad.problems.split`.
    alpha : float > 0, optional
        For the Dirichlet split.
    equal : bool
        Whether rows are left out so that all workers have as many.
    test : float in (0, 1), str, path, Dataset or (features, targets), optional
        Rows on which accuracy and `test_loss` are measured: a share of the rows of `data`, drawn
        uniformly under `seed` before the others are dealt out, or other rows. By default there are
        none, and the accuracy is that of the training rows. f is the training rows' in any case.
    batch : int >= 1, optional
        Rows of a stochastic gradient, drawn without replacement; a worker with fewer rows uses all
        of them, of which a warning tells. By default every gradient is over all rows of its worker.
    regularizer : str
        "l2": (λ/2) ‖x‖². "nonconvex": λ Σ x²/(1 + x²), as in AsGrad, arXiv 2310.20452.
    strength : float in [0, 1e140], optional
        λ; by default 0.
    x0 : str, path or array, optional
        Where a run starts: "zeros" (the default), "ones", "normal" (x_0 ~ N(0, I) under `seed`), a
        .npy file, or numbers of shape (dim,).
    seed : int >= 0
        Fixes the split, the test rows and a random start.

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
        targets: Any = None,
        *,
        n_workers: int = 10,
        split: str = "shuffled",
        alpha: float | None = None,
        equal: bool = False,
        test: Any = None,
        batch: int | None = None,
        regularizer: str = "l2",
        strength: float | None = None,
        x0: Any = None,
        seed: int = 0,
    ):
        owner = type(self).__name__
        self.n_workers = check_integer(owner, "n_workers", n_workers, minimum=1)
        self.batch = 0 if batch is None else check_integer(owner, "batch", batch, minimum=1)
        self.strength = check_positive(
            owner, "strength", 0 if strength is None else strength, zero=True
        )
        if not self.strength <= LARGEST:
            raise AsgradError(
                f"{owner}: strength must be at most {LARGEST:g}, got {self.strength:g}."
            )
        self.regularizer = check_choice("regularizer", regularizer, _REGULARIZERS)
        if strength is None and regularizer != "l2":
            raise AsgradError(
                f"{owner}: regularizer {regularizer!r} needs a strength, for instance strength=0.1."
            )
        whole = load(data if targets is None else _pair(owner, data, targets))
        classes = self._classes(whole)
        dataset, held, notes = hold_out(owner, whole, test, seed)
        self.n_outputs = len(classes) if self._loss == linear.SOFTMAX else 1
        self.dim = whole.features.shape[1] * self.n_outputs
        # The least that any use takes: x0, a model and a gradient.
        check_memory(owner, f"vectors of dimension {self.dim}", 3 * 8 * self.dim)
        coded = self._coded(classes, dataset, "training")
        self.split_name = split
        self.shards = _split(
            Dataset(dataset.features, coded), self.n_workers, split, alpha, equal, seed
        )
        self.features: sparse.csr_matrix = dataset.features[self.shards.order]
        self.targets = coded[self.shards.order]
        self.test_features, self.test_targets = self.features[:0], self.targets[:0]
        if held is not None:
            self.test_features = held.features
            self.test_targets = self._coded(classes, held, "test")
        self.data_name = whole.name
        self._x0 = start(owner, x0, self.dim, seed)
        left = self.shards.said_of_rows_left(coded.size)
        self.notes = (*self._said_of(classes, whole), *notes, *left)
        warn_of_small_shards(owner, self.shards.sizes, self.batch)

    def _classes(self, data: Dataset) -> np.ndarray:
        """Return the labels, sorted; none where targets are values."""
        return np.zeros(0)

    def _coded(self, classes: np.ndarray, data: Dataset, which: str) -> np.ndarray:
        """Return targets as the kernel wants them; `which` rows they are, for error messages."""
        if not classes.size:
            return data.targets
        owner = type(self).__name__
        unknown = ~np.isin(data.targets, classes)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise AsgradError(
                f"{owner}: labels of {which} rows must be labels of the data, got "
                f"{data.targets[row]:g} in row {row} of {data.name}."
            )
        if which == "training" and np.ptp(data.targets) == 0:
            raise AsgradError(
                f"{owner}: the training rows that test leaves are of one class only; take a "
                "smaller share, or another seed."
            )
        index: np.ndarray = np.searchsorted(classes, data.targets).astype(np.float64)
        return index

    def _said_of(self, classes: np.ndarray, data: Dataset) -> list[str]:
        """Return what is to be said of the labels."""
        return []

    @cached_property
    def smoothness(self) -> float:
        """L = max_i L_i: the largest eigenvalue of A_iᵀA_i/m_i times ℓ's curvature, plus the
        regulariser's curvature (λ, or 2λ for the non-convex one). See `largest_eigenvalue` for how
        exact it is."""
        bounds = self.shards.bounds
        largest = max(largest_eigenvalue(self.features[a:b]) / (b - a) for a, b in pairwise(bounds))
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
        if self.test_targets.size:
            rows = sparse.vstack([rows, self.test_features], "csr")
        head = np.zeros(linear.HEAD, np.int64)
        head[linear.N_SHARDS] = self.shards.sizes.size
        head[linear.N_FEATURES] = rows.shape[1]
        head[linear.N_OUTPUTS] = self.n_outputs
        head[linear.BATCH] = self.batch
        head[linear.LOSS] = self._loss
        head[linear.REGULARIZER] = _REGULARIZERS[self.regularizer]
        head[linear.N_STORED] = rows.nnz
        return Packed(
            np.concatenate([[self.strength], rows.data, self.targets, self.test_targets]).astype(
                dtype
            ),
            rows.indices.astype(np.int32),
            np.concatenate([head, self.shards.bounds, [rows.shape[0]], rows.indptr]).astype(
                np.int64
            ),
        )

    def workspace(self, n_columns: int) -> tuple[int, int]:
        """Return how many floats and how many integers the kernels need beside their arguments."""
        floats = linear.TILE * self.n_outputs * n_columns + 2 * n_columns
        return floats, int(max(self.shards.sizes.max(), self.test_targets.size))

    def kernels(self) -> Kernels:
        """Return what computes gradients and evaluations."""
        return Kernels(linear.gradient, linear.evaluate)

    @property
    def label(self) -> str:
        """The problem in a few words."""
        batch = f", batch {self.batch}" if self.batch else ""
        test = f", {self.test_targets.size} test rows" if self.test_targets.size else ""
        workers = f"{self.n_workers} workers, split {self.split_name}"
        return f"{self.name} on {self.data_name}, {workers}{batch}{test}"

    @property
    def smoothness_source(self) -> str:
        """How L is got, in a few words."""
        return "exact, by the largest eigenvalue of every worker's AᵀA/m"


class Logistic(LinearModel):
    """Binary logistic regression: ℓ(z, y) = log(1 + exp(−y z)), y = ±1.

    The labels may be any two numbers; the smaller one is −1. See `LinearModel` for the parameters.
    """

    name: ClassVar[str] = "logistic"
    _loss: ClassVar[int] = linear.LOGISTIC
    _loss_curvature: ClassVar[float] = 0.25

    def _classes(self, data: Dataset) -> np.ndarray:
        """Return the two labels."""
        found = _two_at_least("Logistic", data)
        if found.size > 2:
            some = ", ".join(f"{label:g}" for label in found[:6])
            raise AsgradError(
                f"Logistic: labels must be of two classes, got {found.size}: {some}"
                f"{', ...' if found.size > 6 else ''} in {data.name}. Map them first, for instance "
                "labels = np.where(labels == positive, 1, -1), or take Softmax for several classes."
            )
        return found

    def _coded(self, classes: np.ndarray, data: Dataset, which: str) -> np.ndarray:
        """Return the labels as ±1."""
        return 2.0 * super()._coded(classes, data, which) - 1.0

    def _said_of(self, classes: np.ndarray, data: Dataset) -> list[str]:
        """Return how the labels are mapped, where they are."""
        smaller, larger = classes
        if (smaller, larger) == (-1, 1):
            return []
        return [f"label {smaller:g} of {data.name} counts as -1, label {larger:g} as 1"]


class Softmax(LinearModel):
    """Softmax regression: the cross-entropy of K linear scores, one for every label.

    Labels may be any numbers. The model is a flat vector of K numbers a feature. See `LinearModel`
    for the parameters; the curvature of the cross-entropy is at most 1/2.
    """

    name: ClassVar[str] = "softmax"
    _loss: ClassVar[int] = linear.SOFTMAX
    _loss_curvature: ClassVar[float] = 0.5

    def _classes(self, data: Dataset) -> np.ndarray:
        """Return the labels, sorted."""
        return _two_at_least("Softmax", data)


class LeastSquares(LinearModel):
    """Least squares: ℓ(z, y) = (z − y)²/2. See `LinearModel` for the parameters."""

    name: ClassVar[str] = "least-squares"
    _loss: ClassVar[int] = linear.SQUARES
    _loss_curvature: ClassVar[float] = 1.0


def suited_model(data: Dataset) -> tuple[type[LinearModel], str]:
    """Return the model that suits the targets of some data, and why in words.

    Two different targets: logistic regression, whatever they are. Integers: softmax regression,
    unless there are more than 1000 different ones, or more than half as many as rows. All else is a
    regression: least squares.
    """
    found, n_rows = np.unique(data.targets), data.targets.size
    if found.size <= 2:
        labels = " and ".join(f"{label:g}" for label in found)
        return Logistic, f"the targets of {data.name} are of two classes, {labels}"
    if not (found == np.round(found)).all():
        return LeastSquares, f"the targets of {data.name} are real numbers, not classes"
    if found.size <= _MOST_CLASSES and 2 * found.size <= n_rows:
        return Softmax, f"the targets of {data.name} are integers, {found.size} classes"
    return (
        LeastSquares,
        f"the targets of {data.name} are {found.size} different integers in {n_rows} rows, too "
        "many for classes",
    )


def _two_at_least(owner: str, data: Dataset) -> np.ndarray:
    """Return the labels of data, sorted; refuse a single one."""
    found: np.ndarray = np.unique(data.targets)
    if found.size == 1:
        raise AsgradError(
            f"{owner}: {data.name} has one class only, label {found[0]:g}; two are needed."
        )
    return found


def _pair(owner: str, data: Any, targets: Any) -> tuple[Any, Any]:
    """Return features and targets that were given one after the other."""
    if isinstance(data, str | Path | Dataset | tuple):
        raise AsgradError(
            f"{owner}: targets are given beside {shown(data)}, which has its own; give features "
            "and targets as two arrays, or leave the targets out."
        )
    return data, targets


def _split(
    data: Dataset, n_workers: int, how: str, alpha: float | None, equal: bool, seed: int
) -> Shards:
    """Deal out the rows; a name of its own, because `split` is also a parameter."""
    return split(data, n_workers, how, alpha=alpha, equal=equal, seed=seed)
