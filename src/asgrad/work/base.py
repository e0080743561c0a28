"""Of how many gradients a job is made, and how one leads to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

__all__ = ["Work"]


class Work(ABC):
    """What a job is made of, where that is more than one gradient.

    A job of w gradients delivers their sum Σ_{q<w} g(y_q), where y_0 is the model that it read and
    y_{q+1} = y_q − η g(y_q); its gradients are draws d, …, d + w − 1 of its worker. With η = 0 all
    are taken at the model that it read.
    """

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def gradients(self, n_workers: int) -> np.ndarray:
        """Return how many gradients a job of each worker is made of, unless the method says.

        int16 of shape (n_workers,), each >= 1.
        """

    @property
    @abstractmethod
    def local_stepsize(self) -> float:
        """η."""
