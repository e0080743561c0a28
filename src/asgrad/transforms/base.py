"""What happens to one job's gradient before it enters a direction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numba import types

__all__ = ["Transform", "transform_type"]


def transform_type(f: Any) -> Any:
    """Return the signature of a transform's kernel for float type `f`.

    transform(parameters, g, x_read, x_now, worker, memory) changes the gradient `g`, of shape
    (dim, n_lanes), in place. It sees the model that the job read, the model now, and the
    transform's own memory, of shape (n_blocks, dim, n_lanes).
    """
    block = types.Array(f, 2, "C")
    memory = types.Array(f, 3, "C")
    return types.void(types.float64[::1], block, block, block, types.int64, memory)


class Transform(ABC):
    """A map of one job's gradient: clipping, compression, delay compensation."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    kernel: ClassVar[Callable]

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """Return what the kernel reads."""

    def n_blocks(self, n_workers: int) -> int:
        """Return how many model-sized blocks the transform remembers."""
        return 0
