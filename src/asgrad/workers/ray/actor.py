"""A worker in a process of its own, as a session of Ray starts it; it talks in bytes and arrays."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from functools import cached_property

import numpy as np

from asgrad.encoders import Encoder
from asgrad.encoders.sparse import Sparse, pack
from asgrad.problems.base import Problem
from asgrad.work import Work
from asgrad.workers.base import NOT_FINITE, Computation
from asgrad.workers.memory import Mark
from asgrad.workers.ray.shared_memory import Address, attach

__all__ = ["HEAD", "INLINE", "Actor"]

HEAD = struct.Struct("<qqqqq")
"""Of a job: its draw, its gradients, the place of what it delivers or −1, and its `Mark`."""
INLINE = 100_000  # bytes; smaller arrays are not worth an object, or a place in shared memory


class Actor:
    """One worker, in a process of its own."""

    def __init__(
        self,
        key: int,
        dtype: str,
        index: int,
        slowdown: float,
        inline: int,
        encoder: Encoder | None,
        work: Work | None,
    ):
        self._key, self._dtype, self._encoder, self._work = key, np.dtype(dtype), encoder, work
        self._index, self._slowdown, self._inline = index, slowdown, inline

    def begun(self) -> int:
        """Return the process. From here on, what takes long is the problem's doing."""
        return os.getpid()

    @cached_property
    def _gradient(self) -> np.ndarray:
        """One for all jobs: what a call returns is copied before the next one begins."""
        return np.empty(self._shape, self._dtype)

    def ready(self, problem: Problem, places: Address | None) -> bool:
        """Take the problem and compute one gradient, so that kernels are compiled or loaded.

        Returns whether gradients can be written into the server's memory.
        """
        _keep_freed_memory()
        self._compute = Computation(
            problem, self._dtype.name, self._key, self._index, self._encoder, self._work
        )
        self._places = attach(places, problem.dim, self._dtype.name)
        self._shape = (problem.dim, 1)
        self._x = np.empty(self._shape, self._dtype)
        self._x_bytes = self._x.data.cast("B")
        x = np.array(problem.x0, self._dtype)
        self.compute(HEAD.pack(0, 2 if self._work else 1, -1, -1, -1), x.reshape(-1, 1))
        self._compute.go_back(Mark(-1, -1))
        if self._places:
            del self._gradient  # hardly needed any more
        return self._places is not None

    def compute(
        self, job: bytes, x: np.ndarray | None = None
    ) -> np.ndarray | bytes | tuple[bytes] | str | None:
        """Return what a job delivers, of shape (dim, 1), or why it is refused.

        `job` holds its head, then its model unless that comes from the object store. None says that
        the gradient lies in the place that the head names; a tuple holds a code.
        """
        began = time.perf_counter()
        draw, work, place, *mark = HEAD.unpack_from(job)
        gradient = self._places[place] if self._places and place >= 0 else self._gradient
        if x is None:
            self._x_bytes[:] = memoryview(job)[HEAD.size :]
            x = self._x
        else:
            x = _unlocked(x)
        finite = self._compute(x, draw, gradient, work, Mark(*mark))
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.perf_counter() - began))
        if not finite:
            return NOT_FINITE
        if place >= 0:
            return None
        if isinstance(self._encoder, Sparse):
            return (pack(gradient),)
        return gradient.tobytes() if gradient.nbytes <= self._inline else gradient


def _keep_freed_memory() -> None:
    """Tell the allocator that what is freed will be needed again at once, by the next job.

    Otherwise each message of some 100 kB is given back to the system, page by page, and asked for
    anew. Only where the C library is glibc.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # as malloc.h has them
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(m_trim_threshold, 1 << 30)
    mallopt(m_mmap_threshold, 1 << 25)


class _Memory:
    """Memory by its address, as `np.asarray` takes it."""

    def __init__(self, owner: np.ndarray):
        self.owner = owner
        self.__array_interface__ = {
            **owner.__array_interface__,
            "data": (owner.ctypes.data, False),
        }


def _unlocked(x: np.ndarray) -> np.ndarray:
    """Return `x` as kernels accept it: what Ray gives is read-only. Nothing is written to it.

    A copy of a large model at every job would cost as much as a small gradient does.
    """
    return x if x.flags.writeable else np.asarray(_Memory(x))
