"""Data sets: bundled ones, LIBSVM files, arrays, and the synthetic Syn(α, β)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from asgrad.errors import AsgradError, KindError, check_integer, check_positive, shown, unknown_name
from asgrad.machine import check_memory
from asgrad.problems.libsvm import line_of_row, read_libsvm
from asgrad.streams import Purpose, stream_key

__all__ = ["LARGEST", "Dataset", "load", "synthetic"]


# Squares of a thousand million numbers of this size can still be added.
LARGEST = 1e140
_MOST_COLUMNS = 2**31 - 1  # kernels hold columns as int32
_EXACT = 2**53  # float64 holds all integers below

_Where = Callable[[int, int | None], str]


def _of_arrays(row: int, column: int | None) -> str:
    """Say where a number stands in arrays; a target has no column."""
    return f"row {row}" if column is None else f"row {row}, column {column}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features and targets, checked.

    Attributes
    ----------
    features : scipy.sparse.csr_matrix
        float64 of shape (n_rows, n_features), finite. Dense features are held as sparse rows too:
        the kernels run over many lanes at once, where an index costs nothing.
    targets : numpy.ndarray
        float64 of shape (n_rows,): labels or values.
    name : str
    zero_based : bool, optional
        Of a LIBSVM file: whether it counts features from 0. None: the data are of another origin.
    """

    features: sparse.csr_matrix
    targets: np.ndarray
    name: str = "data"
    zero_based: bool | None = None

    @classmethod
    def of(
        cls, features: Any, targets: Any, name: str = "data", *, where: _Where = _of_arrays
    ) -> Dataset:
        """Check arrays and make a data set of them.

        Parameters
        ----------
        features, targets : array, sparse matrix, data frame or list
            Of numbers or truth values.
        name : str
        where : callable
            Says in errors where a number stands, of its row and column.

        Raises
        ------
        AsgradError
            If the data are empty or ragged, of unequal length, masked, or not finite real numbers
            below 1e140.
        """
        rows, values = _features(features, name, where), _targets(targets, name, where)
        n_rows, n_features = rows.shape
        if n_rows == 0 or n_features == 0:
            raise AsgradError(f"{name}: the data are empty: {n_rows} rows, {n_features} columns.")
        if values.shape != (n_rows,):
            raise AsgradError(
                f"{name}: there must be one target a row, got targets of shape {values.shape} for "
                f"{n_rows} rows."
            )
        return cls(rows, values, name)

    def take(self, rows: np.ndarray) -> Dataset:
        """Return some rows, in the order given."""
        return replace(self, features=self.features[rows], targets=self.targets[rows])


def load(source: Any) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    source : str, path, Dataset or (features, targets)
        "digits" (1797 images of 8×8 pixels scaled to [0, 1], ten classes) and "breast-cancer" (569
        rows of 30 standardised features, two classes) come with scikit-learn. A path is read as a
        LIBSVM file, plain, .gz, .bz2 or .xz; it may begin with ~. Arrays may be NumPy or SciPy
        sparse, lists or data frames.

    Raises
    ------
    AsgradError
        If there is no such data set or file, or its content is no usable data.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        return Dataset.of(*source)
    if not isinstance(source, str | Path):
        raise KindError(f"data: give a name, a path or (features, targets), got {shown(source)}.")
    if str(source) in BUNDLED:
        return BUNDLED[str(source)]()
    path = Path(os.path.expanduser(source))
    if os.path.isfile(path):  # also says no of names that no file can have
        return _libsvm(path)
    if path.suffix or len(path.parts) > 1:
        raise AsgradError(f"data: no file {_short(path)}.")
    raise unknown_name("data set", str(source), BUNDLED)


def synthetic(
    alpha: float,
    beta: float,
    *,
    n_workers: int = 10,
    n_rows: int = 200,
    n_features: int = 300,
    seed: int = 0,
) -> Dataset:
    """Make Syn(α, β): α sets how much the workers' models differ, β how much their features do.

    B_i ~ N(0, β²); v_i ~ N(B_i, 1)^d; a_ij ~ N(v_i, diag(k^{−1.2})); u_i ~ N(0, α²); c_i ~
    N(u_i, 1); w_i ~ N(u_i, 1)^d; label −1 with probability sigmoid(w_i·a_ij + c_i), else +1. The
    rows stand worker by worker: split them "contiguous".

    Parameters
    ----------
    alpha, beta : float >= 0
        Standard deviations.
    n_workers, n_rows, n_features : int >= 1
        `n_rows` is per worker.
    seed : int >= 0

    References
    ----------
    AsGrad, arXiv 2310.20452, experiments. Deviations: none.
    """
    check_positive("synthetic", "alpha", alpha, zero=True)
    check_positive("synthetic", "beta", beta, zero=True)
    for name, value in (("n_workers", n_workers), ("n_rows", n_rows), ("n_features", n_features)):
        check_integer("synthetic", name, value, minimum=1)
    n_numbers = n_workers * n_rows * n_features
    # The blocks, all of them together, and those as sparse rows: 8 + 8 + 12 bytes.
    check_memory("synthetic", f"{n_numbers} features", 28 * n_numbers, "make fewer or shorter rows")
    rng = np.random.default_rng(stream_key(seed, Purpose.DATA) & (2**63 - 1))
    spread = np.arange(1, n_features + 1) ** -0.6  # standard deviations: variances are k^-1.2
    blocks, labels = [], []
    for _ in range(n_workers):
        center = rng.normal(beta * rng.normal(), 1.0, n_features)
        rows = center + spread * rng.normal(size=(n_rows, n_features))
        offset = alpha * rng.normal()
        intercept = rng.normal(offset, 1.0)
        model = rng.normal(offset, 1.0, n_features)
        logits = np.clip(rows @ model + intercept, -700.0, 700.0)
        negative = rng.random(n_rows) < 1.0 / (1.0 + np.exp(-logits))
        blocks.append(rows)
        labels.append(np.where(negative, -1.0, 1.0))
    name = f"syn({alpha:g},{beta:g})"
    return Dataset.of(np.concatenate(blocks), np.concatenate(labels), name)


def _features(features: Any, name: str, where: _Where) -> sparse.csr_matrix:
    """Return features as finite CSR rows of float64."""
    if sparse.issparse(features):
        _real(features.dtype, f"{name}: the features", "biuf")
    else:
        features = _numbers(
            features, f"{name}: the features", "a table of numbers with rows of one length"
        )
    if features.ndim != 2:
        raise AsgradError(
            f"{name}: the features must have two axes (rows, columns), got shape {features.shape}."
        )
    if not features.shape[1] <= _MOST_COLUMNS:
        raise AsgradError(
            f"{name}: there must be at most {_MOST_COLUMNS} columns, got {features.shape[1]}."
        )
    rows = sparse.csr_matrix(features, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    bad = ~(np.abs(rows.data) <= LARGEST)
    if bad.any():
        position = int(np.argmax(bad))
        row = int(np.searchsorted(rows.indptr, position, side="right") - 1)
        raise AsgradError(
            f"{name}: features must be finite and at most {LARGEST:g} in size, got "
            f"{rows.data[position]} in {where(row, int(rows.indices[position]))}."
        )
    return rows


def _targets(targets: Any, name: str, where: _Where) -> np.ndarray:
    """Return targets as finite float64."""
    remedy = (
        "numbers; map your labels to numbers first, for instance with np.unique(labels, "
        "return_inverse=True)[1]"
    )
    values = _numbers(targets, f"{name}: the targets", remedy)
    bad = ~(np.abs(values) <= LARGEST)
    if bad.any():
        row = int(np.argmax(bad))
        raise AsgradError(
            f"{name}: targets must be finite and at most {LARGEST:g} in size, got "
            f"{values.flat[row]} in {where(row, None)}."
        )
    return values


def _numbers(values: Any, what: str, rule: str) -> np.ndarray:
    """Return real numbers as an array of float64; `what` must be `rule`."""
    if np.ma.is_masked(values):
        raise AsgradError(f"{what} must have no masked entries; fill them, or leave the rows out.")
    try:
        found = np.asarray(values)
        if found.dtype.kind in "USO" and any(isinstance(v, str | bytes) for v in found.flat):
            raise TypeError("it is text")
        _real(found.dtype, what, "biufO")  # of objects only their conversion tells
        with np.errstate(over="ignore"):  # longer floats become infinite, which is refused
            numbers: np.ndarray = found.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, AsgradError):
            raise
        raise AsgradError(f"{what} must be {rule}: {shown(str(error))}.") from error
    if found.dtype.kind in "iu" and found.size and not (np.abs(numbers) < _EXACT).all():
        raise AsgradError(
            f"{what} must be integers below 2^53 in size, which float64 holds exactly; give "
            "them as floats, or number them anew."
        )
    return numbers


def _real(dtype: np.dtype, what: str, kinds: str) -> None:
    """Refuse types that hold no real numbers."""
    if dtype.kind not in kinds:
        raise AsgradError(f"{what} must be real numbers, got {dtype}.")


def _short(path: Path) -> str:
    """Return a path as part of a line."""
    text = " ".join(str(path).split())
    return text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}"


def _libsvm(path: Path) -> Dataset:
    """Read a LIBSVM file."""
    features, targets, zero_based = read_libsvm(path)

    def where(row: int, column: int | None) -> str:
        line = f"line {line_of_row(path, row)}"
        return line if column is None else f"{line}, index {column + (not zero_based)}"

    name = path.name.split(".")[0] or path.name
    try:
        data = Dataset.of(features, targets, name, where=where)
    except AsgradError as error:
        raise AsgradError(f"data: {path}: {str(error).removeprefix(name + ': ')}") from error
    return replace(data, zero_based=zero_based)


def _bundled(name: str, n_headers: int, loader: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features and targets that scikit-learn brings along; importing it takes a second."""
    home = find_spec("sklearn")
    try:
        path = Path(str(home and home.origin)).parent / "datasets" / "data" / name
        table = np.loadtxt(path, delimiter=",", skiprows=n_headers)
    except (OSError, ValueError):  # another version may keep them elsewhere
        found = getattr(import_module("sklearn.datasets"), loader)(return_X_y=True)
        return found[0], found[1]
    return table[:, :-1], table[:, -1]


def _digits() -> Dataset:
    """Return the bundled handwritten digits, pixels scaled to [0, 1]."""
    features, targets = _bundled("digits.csv.gz", 0, "load_digits")
    return Dataset.of(features / 16.0, targets, "digits")


def _breast_cancer() -> Dataset:
    """Return the bundled breast cancer data, every feature with mean 0 and variance 1."""
    features, targets = _bundled("breast_cancer.csv", 1, "load_breast_cancer")
    return Dataset.of(
        (features - features.mean(axis=0)) / features.std(axis=0), targets, "breast-cancer"
    )


BUNDLED: dict[str, Callable[[], Dataset]] = {
    "breast-cancer": _breast_cancer,
    "digits": _digits,
}
