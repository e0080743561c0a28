"""How rows of data are dealt out to the workers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from asgrad.errors import (
    AsgradError,
    AsgradWarning,
    check_choice,
    check_flag,
    check_integer,
    check_positive,
    shown,
)
from asgrad.problems.data import Dataset
from asgrad.streams import Purpose, stream_key

__all__ = ["SPLITS", "Shards", "split", "warn_of_small_shards"]

SPLITS = ("contiguous", "dirichlet", "label", "shared", "shuffled")


@dataclass(frozen=True, eq=False)
class Shards:
    """Rows sorted by worker.

    Attributes
    ----------
    order : numpy.ndarray
        int64 of shape (n_rows,): the rows, shard by shard.
    bounds : numpy.ndarray
        int64 of shape (n_shards + 1,): shard i is order[bounds[i]:bounds[i + 1]]. Every worker has
        a shard of its own, or there is one shard for all of them.
    """

    order: np.ndarray
    bounds: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """How many rows every shard has, int64 of shape (n_shards,)."""
        return np.diff(self.bounds)

    def equal(self) -> Shards:
        """Return shards of the smallest one's size: of the others the last rows are left out."""
        size = int(self.sizes.min())
        rows = np.concatenate([self.order[first : first + size] for first in self.bounds[:-1]])
        return Shards(rows, size * np.arange(self.bounds.size))

    def said_of_rows_left(self, n_rows: int) -> list[str]:
        """Return what is to be said of rows that no worker has, if there are some."""
        n_left = n_rows - self.order.size
        size = self.sizes[0]
        text = f"{n_left} of {n_rows} rows are left out, for equal shards of {size} rows"
        return [text] if n_left else []


def split(
    data: Dataset,
    n_workers: int,
    how: str = "shuffled",
    *,
    alpha: float | None = None,
    equal: bool = False,
    seed: int = 0,
) -> Shards:
    """Deal the rows of `data` out to `n_workers` workers; every row to one at most, or all to all.

    Parameters
    ----------
    data : Dataset
    n_workers : int >= 1
        At most the number of rows, unless they are shared.
    how : str
        "contiguous": equal parts in file order. "shuffled": equal parts of a random order. "label":
        equal parts after sorting by target, so that a worker sees few classes. "dirichlet": each
        class is dealt out in proportions drawn from Dirichlet(α), fewer classes a worker for
        smaller α; shares are unequal. "shared": every worker has all rows; they are held once.
    alpha : float > 0, optional
        For "dirichlet", by default 0.5.
    equal : bool
        Equal parts may differ by one row; with `equal` they do not, and the rows that are over,
        fewer than there are workers, are left out.
    seed : int >= 0

    Raises
    ------
    AsgradError
        If there are more workers than rows, a worker would have none, or an option is of another
        split.
    """
    check_choice("split", how, SPLITS)
    check_integer("split", "n_workers", n_workers, minimum=1)
    if alpha is not None and how != "dirichlet":
        raise AsgradError(
            f"split: alpha is for the split 'dirichlet' only, got {shown(alpha)} with {how!r}; "
            "leave it out."
        )
    if check_flag("split", "equal", equal) and how in ("dirichlet", "shared"):
        raise AsgradError(
            f"split: equal is for parts that differ by one row at most, got split {how!r}; leave "
            "it out."
        )
    shards = _dealt(data.targets, n_workers, how, 0.5 if alpha is None else alpha, seed)
    return shards.equal() if equal else shards


def warn_of_small_shards(owner: str, sizes: np.ndarray, batch: int) -> None:
    """Say that a batch is larger than what a worker has; called where a problem is built."""
    worker = int(np.argmin(sizes))
    if sizes[worker] < batch:
        n_small = int((sizes < batch).sum())
        others = f", as do {n_small - 1} others" if n_small > 1 else ""
        who = f"worker {worker} has" if sizes.size > 1 else "the workers share"
        warnings.warn(
            f"{owner}: {who} {sizes[worker]} rows, fewer than the batch of {batch}, and computes "
            f"with all of them{others}; take a batch of at most {sizes[worker]}, 0 or none for all "
            "rows, or a split with larger shards.",
            AsgradWarning,
            stacklevel=3,
        )


def _dealt(targets: np.ndarray, n_workers: int, how: str, alpha: float, seed: int) -> Shards:
    """Deal all rows out."""
    n_rows = targets.size
    if how == "shared":
        return Shards(np.arange(n_rows), np.array([0, n_rows]))
    if not n_workers <= n_rows:
        raise AsgradError(
            f"split: there must be at least one row a worker, got {n_workers} workers and "
            f"{n_rows} rows; take fewer workers, or the split 'shared'."
        )
    rng = np.random.default_rng(stream_key(seed, Purpose.SPLIT) & (2**63 - 1))
    if how == "dirichlet":
        return _dirichlet(targets, n_workers, check_positive("split", "alpha", alpha), rng)
    if how == "contiguous":
        order = np.arange(n_rows)
    elif how == "shuffled":
        order = rng.permutation(n_rows)
    else:
        order = np.argsort(targets, kind="stable")
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
