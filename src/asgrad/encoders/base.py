"""What happens to a gradient at its worker, before it is sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numba import types

from asgrad.errors import AsgradError
from asgrad.kernels import HasKernel, inlined

__all__ = ["Encoder", "check_encoder", "encode_nothing", "encoder_type"]


def encoder_type(f: Any) -> Any:
    """Return the signature of an encoder's kernel for float type `f`.

    encode(parameters, g, worker, draw, key, memory) changes the gradient `g`, of shape
    (dim, n_lanes), in place. It knows neither the server's model nor the stepsize. Randomness
    follows from (key, worker, draw), on a stream other than the job's own, from which the rows are
    drawn; `memory` is that of the worker, of shape (n_blocks, dim, n_lanes).
    """
    job = (types.int64, types.int64, types.int64)
    return types.void(types.float64[::1], types.Array(f, 2, "C"), *job, types.Array(f, 3, "C"))


class Encoder(HasKernel, ABC):
    """A map of one job's gradient at the worker that computed it: clipping, compression."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """Return what the kernel reads."""

    def n_blocks(self) -> int:
        """Return how many model-sized blocks every worker remembers."""
        return 0


@inlined
def encode_nothing(parameters, g, worker, draw, key, memory):
    """Leave the gradient as it is: what stands for no encoder."""


def check_encoder(owner: str, encoder: Encoder | None) -> None:
    """Refuse an encoder that remembers something.

    A worker's memory has to see all that the worker sent, in its order, dropped gradients too,
    which a replay does not compute.
    """
    if encoder is not None and encoder.n_blocks() > 0:
        raise AsgradError(
            f"{owner}: encoder must remember nothing, n_blocks() = 0, since gradients that no step "
            f"uses are not computed, got {type(encoder).__name__} with {encoder.n_blocks()}; what "
            "the server may remember is a correction."
        )
