"""Of how many gradients a job is made, and how one leads to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from asgrad.kernels import inlined, piece

__all__ = ["Work", "add_up_gradients"]


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


@inlined
def _step_away(y, x, eta, g):
    """y = x − η g."""
    flat_y, flat_x, flat_g = y.reshape(y.size), x.reshape(y.size), g.reshape(y.size)
    for i in range(flat_y.size):
        flat_y[i] = flat_x[i] - eta * flat_g[i]


@inlined
def _step_on(total, y, eta, g):
    """total += g and y −= η g, in one pass."""
    flat_total, flat_y, flat_g = total.reshape(y.size), y.reshape(y.size), g.reshape(y.size)
    for i in range(flat_y.size):
        flat_total[i] += flat_g[i]
        flat_y[i] -= eta * flat_g[i]


@piece
def add_up_gradients(gradient, data, x, worker, draw, work, eta, key, out, local, scratch, picks):
    """out = Σ_{q<work} g(y_q; draw + q), y_0 = x, y_{q+1} = y_q − η g(y_q): what a job delivers.

    `local`, of shape (2, dim, n_lanes), is where y and its gradient stand; it is not touched by a
    job of one gradient. Workers and replays call the same code, so that their bits agree.
    """
    gradient(
        data.values, data.indices, data.layout, x, worker, draw, key, out, scratch, picks
    )  # fmt: skip
    if work <= 1:
        return
    y, g = local[0], local[1]
    _step_away(y, x, eta, out)
    for q in range(1, work):
        gradient(
            data.values, data.indices, data.layout, y, worker, draw + q, key, g, scratch, picks
        )  # fmt: skip
        _step_on(out, y, eta, g)
