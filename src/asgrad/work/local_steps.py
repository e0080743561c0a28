"""Local SGD: a job is several steps of its worker's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from asgrad.errors import AsgradError, KindError, check_integer, check_positive, n_axes, shown
from asgrad.work.base import Work

__all__ = ["MOST_WORK", "LocalSteps", "checked_steps"]

MOST_WORK = 2**15 - 1
"""The most gradients that one job may be made of."""


def checked_steps(owner: str, name: str, said: Any) -> int | tuple[int, ...]:
    """Return a number of gradients, or one a worker, if it is such."""
    if n_axes(said) > 1 or isinstance(said, str) or np.size(said) == 0:
        raise KindError(f"{owner}: {name} must be an integer, or one a worker, got {shown(said)}.")
    if n_axes(said) == 0:
        return check_integer(owner, name, said, minimum=1, maximum=MOST_WORK)
    return tuple(check_integer(owner, name, n, minimum=1, maximum=MOST_WORK) for n in said)


@dataclass(frozen=True)
class LocalSteps(Work):
    """A job is Q local steps y_{q+1} = y_q − η g(y_q) from y_0 = x_read; it delivers (y_0 − y_Q)/η.

    That is the sum of its Q gradients, as which it is computed. So a step of the server moves by γ
    times a sum of Q gradients, and γ = η with one such job a step is the worker's own movement.
    A method that says itself how many gradients a job is made of takes only η from here.

    Parameters
    ----------
    n : int >= 1, or one a worker
        Q, at most 32767.
    stepsize : float >= 0
        η. With 0 all gradients are taken at the model that the job read: a job is a batch.

    References
    ----------
    FedBuff, arXiv 2106.06639, with Q local steps. Deviations: none.
    """

    n: int | Sequence[int] = 10
    stepsize: float = 0.01

    name: ClassVar[str] = "local-steps"
    reference: ClassVar[str] = "arXiv 2106.06639"

    def __post_init__(self) -> None:
        check_positive("LocalSteps", "stepsize", self.stepsize, zero=True)
        object.__setattr__(self, "n", checked_steps("LocalSteps", "n", self.n))

    def gradients(self, n_workers: int) -> np.ndarray:
        """Return Q of every worker, int16 of shape (n_workers,)."""
        if isinstance(self.n, tuple) and len(self.n) != n_workers:
            raise AsgradError(
                f"LocalSteps: n must hold one number for each of the {n_workers} workers, got "
                f"{len(self.n)}."
            )
        return np.broadcast_to(np.array(self.n, np.int16), n_workers).copy()

    @property
    def local_stepsize(self) -> float:
        """η."""
        return float(self.stepsize)
