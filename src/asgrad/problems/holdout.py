"""Rows that are kept for testing, apart from those that a run is trained on."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from asgrad.errors import AsgradError, KindError, shown
from asgrad.problems.data import Dataset, load
from asgrad.streams import Purpose, stream_key

__all__ = ["hold_out"]


def hold_out(
    owner: str, data: Dataset, test: Any, seed: int
) -> tuple[Dataset, Dataset | None, list[str]]:
    """Return the rows for training, those for testing if any, and what is to be said of them.

    Parameters
    ----------
    owner : str
        Whose, for error messages.
    data : Dataset
    test : float in (0, 1), str, path, Dataset, (features, targets) or None
        A share of the rows, drawn uniformly, without regard to targets or workers, from a stream of
        its own under `seed`; or other rows, of the same features. Of two LIBSVM files the second
        may name features that the first does not: no model can have learnt them, they are left out.
    seed : int >= 0

    Raises
    ------
    AsgradError
        If the share leaves no rows, or the test rows are of another kind.
    """
    if test is None:
        return data, None, []
    n_rows = data.targets.size
    if isinstance(test, Real) and not isinstance(test, bool):
        share = float(test)
        if not 0 < share < 1:
            raise AsgradError(f"{owner}: test as a share must lie between 0 and 1, got {share:g}.")
        n_test = round(share * n_rows)
        if not 0 < n_test < n_rows:
            raise AsgradError(
                f"{owner}: test must leave rows for training and for testing, got {n_test} of "
                f"{n_rows} rows for testing."
            )
        rng = np.random.default_rng(stream_key(seed, Purpose.TEST) & (2**63 - 1))
        held = np.zeros(n_rows, bool)
        held[rng.permutation(n_rows)[:n_test]] = True
        note = f"{n_test} of {n_rows} rows, drawn at random, are for testing"
        return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held)), [note]
    if not isinstance(test, str | Path | Dataset | tuple):
        raise KindError(
            f"{owner}: test must be a share such as 0.2, a name, a path or (features, targets), "
            f"got {shown(test)}."
        )
    rows = load(test)
    note = f"{rows.targets.size} rows of {rows.name} are for testing"
    n_features, found = data.features.shape[1], rows.features.shape[1]
    if rows.zero_based is not None and data.zero_based is not None:
        if rows.zero_based and not data.zero_based:
            raise AsgradError(
                f"{owner}: test rows must count features as the training rows do, got index 0 in "
                f"{rows.name}, and none in {data.name}."
            )
        if data.zero_based and not rows.zero_based:
            # The other file happens to lack index 0.
            first = sparse.csr_matrix((rows.targets.size, 1))
            rows = replace(rows, features=sparse.hstack([first, rows.features], "csr"))
            found += 1
        if found > n_features:
            note += f", without {found - n_features} features that no training row has"
        features = rows.features.copy()
        features.resize(rows.targets.size, n_features)
        rows = replace(rows, features=features)
    elif found != n_features:
        raise AsgradError(
            f"{owner}: test rows must have the {n_features} features of the training rows, got "
            f"{found}."
        )
    return data, rows, [note]
