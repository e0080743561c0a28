"""The largest curvature of a sum of squares."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.linalg import eigh_tridiagonal

__all__ = ["largest_eigenvalue"]

_DENSE = 2000  # up to this size all eigenvalues are computed, in seconds
_MOST_ITERATIONS = 2000
_TOLERANCE = 1e-13


def largest_eigenvalue(rows: sparse.csr_matrix) -> float:
    """Return the largest eigenvalue of AᵀA, from the smaller of AᵀA and AAᵀ.

    To rounding, unless both are larger than 2000 and the largest eigenvalue stands in a crowd:
    then to about 1e-6 of itself.
    """
    if min(rows.shape) <= _DENSE:
        small = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
        return float(np.linalg.eigvalsh(small.toarray())[-1])
    return _lanczos(rows)


def _lanczos(rows: sparse.csr_matrix) -> float:
    """Return the largest eigenvalue of AᵀA by Lanczos' iteration from a random vector.

    It keeps two vectors and starts nowhere anew, so a small gap to the next eigenvalue costs
    digits, not convergence: after k iterations the relative error is of the order of
    (ln(n k²)/k)²/10 whatever the spectrum is (Kuczyński, Woźniakowski, SIAM J. Matrix Anal. Appl.
    13, 1992). The vectors lose their orthogonality, which only gives copies of eigenvalues.
    """
    v = np.random.default_rng(0).normal(size=rows.shape[1])
    v /= np.linalg.norm(v)
    before, beside = np.zeros_like(v), 0.0
    diagonal, beneath = list[float](), list[float]()
    top, check_at = 0.0, 16
    for k in range(1, _MOST_ITERATIONS + 1):
        w = rows.T @ (rows @ v)
        w -= beside * before
        diagonal.append(float(v @ w))
        w -= diagonal[-1] * v
        beside = float(np.linalg.norm(w))
        is_whole = beside <= _TOLERANCE * max(diagonal)  # the space is invariant
        if is_whole or k in (check_at, _MOST_ITERATIONS):
            last, check_at = top, k + k // 4
            top = float(
                eigh_tridiagonal(
                    diagonal, beneath, eigvals_only=True, select="i", select_range=(k - 1, k - 1)
                )[0]
            )
            if is_whole or top - last <= _TOLERANCE * top:
                break
        beneath.append(beside)
        before, v = v, w / beside
    return max(top, 0.0)
