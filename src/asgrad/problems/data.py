"""Data sets: bundled ones, LIBSVM files, arrays, and the synthetic Syn(α, β)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from asgrad.errors import (
    AsgradError,
    KindError,
    check_integer,
    check_positive,
    shown,
    unknown_name,
)
from asgrad.streams import Purpose, stream_key

__all__ = ["Dataset", "load", "synthetic"]


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
    """

    features: sparse.csr_matrix
    targets: np.ndarray
    name: str = "data"

    @classmethod
    def of(cls, features: Any, targets: Any, name: str = "data") -> Dataset:
        """Check arrays and make a data set of them.

        Raises
        ------
        AsgradError
            If the data are empty or ragged, of unequal length, or not finite numbers.
        """
        return cls(_features(features, name), _targets(targets, name), name)._checked()

    def _checked(self) -> Dataset:
        """Refuse features and targets that do not fit each other."""
        n_rows, n_features = self.features.shape
        if n_rows == 0 or n_features == 0:
            raise AsgradError(
                f"{self.name}: the data are empty: {n_rows} rows, {n_features} columns."
            )
        if self.targets.shape != (n_rows,):
            raise AsgradError(
                f"{self.name}: there must be one target a row, got targets of shape "
                f"{self.targets.shape} for {n_rows} rows."
            )
        return self


def load(source: Any) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    source : str, path, Dataset or (features, targets)
        "digits" (1797 images of 8×8 pixels scaled to [0, 1], ten classes) and "breast-cancer" (569
        rows of 30 standardised features, two classes) come with scikit-learn. A path is read as a
        LIBSVM file, plain, .gz or .bz2. Arrays may be NumPy or SciPy sparse.

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
    path = Path(source)
    if path.is_file():
        return _libsvm(path)
    if path.suffix or len(path.parts) > 1:
        raise AsgradError(f"data: no file {path}.")
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


def _features(features: Any, name: str) -> sparse.csr_matrix:
    """Return features as finite CSR rows of float64."""
    if not sparse.issparse(features):
        try:
            features = np.asarray(features, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise AsgradError(
                f"{name}: the features must be a table of numbers with rows of one length: "
                f"{shown(str(error))}."
            ) from error
        if features.ndim != 2:
            raise AsgradError(
                f"{name}: the features must have two axes (rows, columns), got shape "
                f"{features.shape}."
            )
    rows = sparse.csr_matrix(features, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    bad = ~np.isfinite(rows.data)
    if bad.any():
        position = int(np.argmax(bad))
        row = int(np.searchsorted(rows.indptr, position, side="right") - 1)
        raise AsgradError(
            f"{name}: features must be finite, got {rows.data[position]} in row {row}, "
            f"column {rows.indices[position]}."
        )
    return rows


def _targets(targets: Any, name: str) -> np.ndarray:
    """Return targets as finite float64."""
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise AsgradError(
            f"{name}: the targets must be numbers; map your labels to numbers first, for instance "
            "with np.unique(labels, return_inverse=True)[1]."
        ) from error
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise AsgradError(f"{name}: targets must be finite, got {values[row]} in row {row}.")
    return values


def _libsvm(path: Path) -> Dataset:
    """Read a LIBSVM file."""
    from sklearn.datasets import load_svmlight_file

    try:
        features, targets = load_svmlight_file(str(path))
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AsgradError(f"data: {path} is not a readable LIBSVM file: {reason}.") from error
    return Dataset.of(features, targets, path.name.split(".")[0])


def _digits() -> Dataset:
    """Return the bundled handwritten digits, pixels scaled to [0, 1]."""
    from sklearn.datasets import load_digits

    features, targets = load_digits(return_X_y=True)
    return Dataset.of(features / 16.0, targets, "digits")


def _breast_cancer() -> Dataset:
    """Return the bundled breast cancer data, every feature with mean 0 and variance 1."""
    from sklearn.datasets import load_breast_cancer

    features, targets = load_breast_cancer(return_X_y=True)
    return Dataset.of(
        (features - features.mean(axis=0)) / features.std(axis=0), targets, "breast-cancer"
    )


BUNDLED: dict[str, Callable[[], Dataset]] = {
    "breast-cancer": _breast_cancer,
    "digits": _digits,
}
