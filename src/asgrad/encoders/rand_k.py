"""RandK: coordinates of every gradient that chance picks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.encoders.sparse import Sparse, n_kept
from asgrad.errors import AsgradError, check_flag
from asgrad.kernels import inlined
from asgrad.streams import below, encoder_stream

__all__ = ["RandK"]


@inlined
def _keep_some(parameters, g, worker, draw, key, memory, scratch):
    """Shuffle the indices until K are drawn, the same in all lanes; scale those, clear the rest."""
    dim, lanes = g.shape
    k = n_kept(parameters, dim)
    scratch[0] = k
    picks, state = scratch[1 : dim + 1], scratch[dim + 1 :]
    state[0], state[1] = encoder_stream(key, worker, draw), 0
    for i in range(dim):
        picks[i] = i
    for i in range(min(k, dim - 1)):
        j = i + below(state, dim - i)
        picks[i], picks[j] = picks[j], picks[i]
    if parameters[2] != 0:
        scale = dim / k
        for i in range(k):
            for lane in range(lanes):
                g[picks[i], lane] *= scale
    for i in range(k, dim):
        for lane in range(lanes):
            g[picks[i], lane] = 0


@dataclass(frozen=True)
class RandK(Sparse):
    """Only K coordinates of each gradient are sent, every choice of K being equally likely.

    Unbiased, they are scaled by d/K: E C(g) = g and E‖C(g) − g‖² = ω ‖g‖², ω = d/K − 1. Otherwise
    they are sent as they are: E‖C(g) − g‖² = (1 − K/d) ‖g‖², as error feedback needs it.

    Parameters
    ----------
    share : float in (0, 1], optional
        K/d; at least one coordinate is kept. By default 0.01, unless k is given.
    k : int >= 1, optional
        K; all coordinates, where there are fewer.
    feedback : bool
        Error feedback, at the price of a block of the model's size a worker.
    unbiased : bool, optional
        By default, unless there is error feedback.

    References
    ----------
    Shadowheart SGD, arXiv 2402.04785, for the unbiased one. Deviations: none.
    """

    unbiased: bool | None = None

    name: ClassVar[str] = "rand-k"
    reference: ClassVar[str] = "arXiv 2402.04785"
    kernel: ClassVar = _keep_some

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unbiased is not None:
            check_flag("RandK", "unbiased", self.unbiased)
        if self.unbiased and self.feedback:
            raise AsgradError(
                "RandK: unbiased must be false with feedback, which would be handed back what "
                "scaling by d/K adds, and grow without end, got true."
            )

    @property
    def is_unbiased(self) -> bool:
        """Whether what is sent is scaled."""
        return not self.feedback if self.unbiased is None else self.unbiased

    def parameters(self) -> np.ndarray:
        """Return K or 0, the share, and whether to scale."""
        return np.append(super().parameters(), float(self.is_unbiased))

    def n_scratch(self, dim: int) -> int:
        """Return room for the list of all coordinates, and for a stream's state."""
        return 1 + dim + 2

    def contraction(self, dim: int) -> float:
        """Return 1 − K/d, by which E‖C(g) − g‖² <= (1 − K/d) ‖g‖²; NaN if it is scaled."""
        return np.nan if self.is_unbiased else 1 - self.n_kept(dim) / dim

    def variance(self, dim: int) -> float:
        """Return ω = d/K − 1, by which E‖C(g) − g‖² <= ω ‖g‖²; NaN if it is biased."""
        return dim / self.n_kept(dim) - 1 if self.is_unbiased else np.nan
