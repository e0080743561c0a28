"""Encoders that keep K coordinates of a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.encoders.base import Encoder
from asgrad.errors import AsgradError, check_flag, check_integer, check_positive
from asgrad.kernels import inlined

__all__ = ["Sparse", "n_kept", "pack", "unpack"]

_SHARE = 0.01
_INDEX = np.dtype(np.int32)


@inlined
def n_kept(parameters, dim):
    """K: the first parameter, or where that is 0 the second, a share, of the dimension."""
    k = int(parameters[0])
    if k == 0:
        k = int(parameters[1] * dim + 0.5)
    return min(max(k, 1), dim)


@dataclass(frozen=True)
class Sparse(Encoder):
    """K coordinates of d are kept; a code is their indices, of four bytes each, and values.

    Parameters
    ----------
    share : float in (0, 1], optional
        K/d; at least one coordinate is kept. By default 0.01, unless k is given.
    k : int >= 1, optional
        K; all coordinates, where there are fewer.
    feedback : bool
        Error feedback: what was not sent is added to the worker's next gradient.
    """

    share: float | None = None
    k: int | None = None
    feedback: bool = False

    lists_kept: ClassVar[bool] = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_flag(name, "feedback", self.feedback)
        if self.k is not None:
            check_integer(name, "k", self.k, minimum=1)
            if self.share is not None:
                raise AsgradError(
                    f"{name}: give share or k, not both, got share={self.share} and k={self.k}."
                )
        if self.share is not None and not check_positive(name, "share", self.share) <= 1:
            raise AsgradError(f"{name}: share must lie in (0, 1], got {self.share:g}.")

    def parameters(self) -> np.ndarray:
        """Return K or 0, and the share."""
        return np.array([self.k or 0, _SHARE if self.share is None else self.share])

    def n_kept(self, dim: int) -> int:
        """Return K."""
        return int(n_kept.py_func(self.parameters(), dim))

    def n_bytes(self, dim: int, itemsize: int) -> int:
        """Return how long the code of a gradient is."""
        return self.n_kept(dim) * (_INDEX.itemsize + itemsize)


def pack(g: np.ndarray) -> bytes:
    """Return the code of a gradient of shape (dim, 1): indices and values of what is not +0."""
    bits = g[:, 0].view(np.dtype(f"i{g.itemsize}"))  # −0 is sent, so that all bits come back
    indices = np.flatnonzero(bits)
    return indices.astype(_INDEX).tobytes() + g[indices, 0].tobytes()


def unpack(code: bytes, dim: int, dtype: str) -> np.ndarray:
    """Return the gradient of a code, of shape (dim, 1)."""
    g = np.zeros((dim, 1), dtype)
    n = len(code) // (_INDEX.itemsize + g.itemsize)
    indices = np.frombuffer(code, _INDEX, n)
    g[indices, 0] = np.frombuffer(code, g.dtype, n, offset=n * _INDEX.itemsize)
    return g
