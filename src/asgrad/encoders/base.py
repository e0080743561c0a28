"""What happens to a gradient at its worker, before it is sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numba import types

from asgrad.kernels import HasKernel, inlined, piece

__all__ = ["Encoder", "encode_job", "encode_nothing", "encoder_type", "feedback_of", "n_remembered"]


def encoder_type(f: Any) -> Any:
    """Return the signature of an encoder's kernel for float type `f`.

    encode(parameters, g, worker, draw, key, memory, scratch) changes the gradient `g`, of shape
    (dim, n_lanes), in place. It knows neither the server's model nor the stepsize. Randomness
    follows from (key, worker, draw), on a stream other than the job's own, from which the rows are
    drawn (`streams.encoder_stream`); `memory` is that of the worker, of shape
    (n_blocks, dim, n_lanes), and `scratch` working space, int64 of shape (n_scratch(dim),). A lane
    must not depend on those beside it.
    """
    job = (types.int64, types.int64, types.int64)
    spaces = (types.Array(f, 3, "C"), types.int64[::1])
    return types.void(types.float64[::1], types.Array(f, 2, "C"), *job, *spaces)


class Encoder(HasKernel, ABC):
    """A map C of one job's gradient at the worker that computed it: clipping, compression.

    What it remembers moves with every gradient that its worker has delivered, in their order,
    whether the server uses it or not, and with no other.
    """

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    feedback: bool = False
    """Error feedback: a = g + e is encoded, and e = a − C(a) is remembered, from e = 0. It is done
    around the kernel, for any encoder that lets its user ask for it."""
    lists_kept: ClassVar[bool] = False
    """Whether the kernel says in `scratch` which coordinates it has not set to zero: how many from
    scratch[0], −1 if it does not after all, and which from scratch[1] on. Feedback is faster then.
    """

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """Return what the kernel reads."""

    def n_blocks(self) -> int:
        """Return how many model-sized blocks the kernel remembers of every worker."""
        return 0

    def n_scratch(self, dim: int) -> int:
        """Return how many integers the kernel needs as working space."""
        return 0

    def contraction(self, dim: int) -> float:
        """Return γ of E‖C(g) − g‖² <= γ ‖g‖², γ < 1, in this dimension; NaN: there is none."""
        return float("nan")

    def variance(self, dim: int) -> float:
        """Return ω of E C(g) = g, E‖C(g) − g‖² <= ω ‖g‖², in this dimension; NaN: it is biased."""
        return float("nan")

    def n_bytes(self, dim: int, itemsize: int) -> int:
        """Return how long the code of a gradient is, of numbers of `itemsize` bytes."""
        return dim * itemsize


def feedback_of(encoder: Encoder | None) -> int:
    """Return what `encode_job` takes: 0 without error feedback, 2 where the kernel lists."""
    return 0 if encoder is None or not encoder.feedback else 1 + encoder.lists_kept


def n_remembered(encoder: Encoder | None) -> int:
    """Return how many model-sized blocks every worker remembers, error feedback included."""
    return encoder.n_blocks() + int(encoder.feedback) if encoder else 0


@inlined
def encode_nothing(parameters, g, worker, draw, key, memory, scratch):
    """Leave the gradient as it is: what stands for no encoder."""


@inlined
def _bring_back(g, error):
    """a = g + e, in the place of both."""
    flat_g, flat_error = g.reshape(g.size), error.reshape(g.size)
    for i in range(flat_g.size):
        total = flat_g[i] + flat_error[i]
        flat_g[i] = total
        flat_error[i] = total


@inlined
def _leave_behind(error, g):
    """e = a − C(a), where a stands in e's place."""
    flat_g, flat_error = g.reshape(g.size), error.reshape(g.size)
    for i in range(flat_g.size):
        flat_error[i] -= flat_g[i]


@inlined
def _leave_listed(error, g, listed):
    """Likewise, where all but the listed coordinates of C(a) are zero."""
    for i in range(listed[0]):
        for lane in range(g.shape[1]):
            error[listed[1 + i], lane] -= g[listed[1 + i], lane]


@piece
def encode_job(encode, parameters, feedback, g, worker, draw, key, memory, scratch):
    """Encode a gradient with what its worker remembers; error feedback has the last block."""
    if feedback == 0:
        encode(parameters, g, worker, draw, key, memory, scratch)
        return
    last = memory.shape[0] - 1
    _bring_back(g, memory[last])
    encode(parameters, g, worker, draw, key, memory[:last], scratch)
    if feedback == 2 and scratch[0] >= 0:
        _leave_listed(memory[last], g, scratch)
    else:
        _leave_behind(memory[last], g)
