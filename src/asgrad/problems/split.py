"""How rows of data are dealt out to the workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asgrad.errors import AsgradError, check_choice, check_integer, check_positive
from asgrad.problems.data import Dataset
from asgrad.streams import Purpose, stream_key

__all__ = ["SPLITS", "Shards", "split"]

SPLITS = ("contiguous", "dirichlet", "label", "shuffled")


@dataclass(frozen=True, eq=False)
class Shards:
    """Rows sorted by worker.

    Attributes
    ----------
    order : numpy.ndarray
        int64 of shape (n_rows,): the rows, worker by worker.
    bounds : numpy.ndarray
        int64 of shape (n_workers + 1,): worker i holds order[bounds[i]:bounds[i + 1]].
    """

    order: np.ndarray
    bounds: np.ndarray


def split(
    data: Dataset, n_workers: int, how: str = "shuffled", *, alpha: float = 0.5, seed: int = 0
) -> Shards:
    """Deal the rows of `data` out to `n_workers` workers; every row to exactly one.

    Parameters
    ----------
    data : Dataset
    n_workers : int, 1 <= n_workers <= number of rows
    how : str
        "contiguous": equal parts in file order. "shuffled": equal parts of a random order. "label":
        equal parts after sorting by target, so that a worker sees few classes. "dirichlet": each
        class is dealt out in proportions drawn from Dirichlet(α), fewer classes a worker for
        smaller α; shares are unequal.
    alpha : float > 0
        For "dirichlet".
    seed : int >= 0

    Raises
    ------
    AsgradError
        If there are more workers than rows, or a worker would have none.
    """
    check_choice("split", how, SPLITS)
    check_integer("split", "n_workers", n_workers, minimum=1)
    n_rows = data.targets.size
    if not n_workers <= n_rows:
        raise AsgradError(
            f"split: there must be at least one row a worker, got {n_workers} workers and "
            f"{n_rows} rows."
        )
    rng = np.random.default_rng(stream_key(seed, Purpose.SPLIT) & (2**63 - 1))
    if how == "dirichlet":
        return _dirichlet(data.targets, n_workers, check_positive("split", "alpha", alpha), rng)
    if how == "contiguous":
        order = np.arange(n_rows)
    elif how == "shuffled":
        order = rng.permutation(n_rows)
    else:
        order = np.argsort(data.targets, kind="stable")
    sizes = [part.size for part in np.array_split(order, n_workers)]
    return Shards(order, np.concatenate([[0], np.cumsum(sizes)]))


def _dirichlet(
    targets: np.ndarray, n_workers: int, alpha: float, rng: np.random.Generator
) -> Shards:
    """Deal each class out in Dirichlet(α) proportions; draw again while a worker has no row."""
    classes = np.unique(targets)
    for _ in range(1000):
        owner = np.empty(targets.size, np.int64)
        for label in classes:
            rows = rng.permutation(np.flatnonzero(targets == label))
            shares = np.cumsum(rng.dirichlet(np.full(n_workers, alpha)))
            cuts = np.round(shares[:-1] * rows.size).astype(np.int64)
            owner[rows] = np.searchsorted(cuts, np.arange(rows.size), side="right")
        sizes = np.bincount(owner, minlength=n_workers)
        if sizes.min() > 0:
            order = np.argsort(owner, kind="stable")
            return Shards(order, np.concatenate([[0], np.cumsum(sizes)]))
    raise AsgradError(
        f"split: every worker needs at least one row; Dirichlet({alpha:g}) left one of "
        f"{n_workers} workers without in 1000 draws. Take a larger alpha or fewer workers."
    )
