"""Gradients that a worker process of this machine writes and the server reads in place.

A file that lies in memory only and has no name (Linux's memfd) holds places of one size. The server
lends a place with a job; the worker writes the job's gradient there. A place is free again when
nothing in the server refers to its array any more; where the server holds many, further gradients
come another way. The memory is given back when the worker ends.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Address", "Loan", "OwnPlaces", "Places", "attach"]

_MOST = 8  # places of one worker


class Address(NamedTuple):
    """Where another process finds the file, and how it tells that it is the right one."""

    machine: str
    path: str
    device: int
    inode: int


class Places:
    """An open file of places, each an array of shape (dim, 1); closed with its last reference."""

    _file = -1

    def __init__(self, file: int, dim: int, dtype: str):
        self._file, self._dim, self._dtype = file, dim, np.dtype(dtype)
        page = mmap.ALLOCATIONGRANULARITY
        self._n_bytes = dim * self._dtype.itemsize
        self._stride = -(-self._n_bytes // page) * page
        self._arrays: dict[int, np.ndarray] = {}

    def __getitem__(self, place: int) -> np.ndarray:
        """Return a place's array."""
        if place not in self._arrays:
            memory = mmap.mmap(self._file, self._n_bytes, offset=place * self._stride)
            self._arrays[place] = np.frombuffer(memory, self._dtype).reshape(-1, 1)
        return self._arrays[place]

    def __del__(self) -> None:
        """Close the file; arrays that are in use keep its memory."""
        if self._file >= 0:
            os.close(self._file)


class OwnPlaces(Places):
    """The server's: as many places as are lent at once, but not more than `_MOST`.

    Raises
    ------
    OSError
        Where the system has no such files, or allows no more.
    """

    def __init__(self, dim: int, dtype: str):
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd_create.")
        super().__init__(os.memfd_create("asgrad"), dim, dtype)
        path = f"/proc/{os.getpid()}/fd/{self._file}"
        self.address = Address(_machine(), path, *_identity(path))
        self._free: list[int] = []
        self._n_places = 0

    def lend(self) -> Loan | None:
        """Return a place that nobody uses; None if the server holds too many."""
        if not self._free and not self._grows():
            return None
        place = self._free.pop()
        return Loan(place, self[place], self._free)

    def _grows(self) -> bool:
        """Make another place, if there may be one."""
        if self._n_places == _MOST:
            return False
        try:
            os.truncate(self._file, (self._n_places + 1) * self._stride)
            self[self._n_places]
        except OSError:  # each place takes a file descriptor too
            return False
        self._free.append(self._n_places)
        self._n_places += 1
        return True


class Loan:
    """A place, used until nothing refers to this and to arrays made from it."""

    def __init__(self, place: int, array: np.ndarray, free: list[int]):
        self.place, self._array, self._free = place, array, free
        # An array made by it refers to this object, as do all its views; those of `array` would
        # refer to the memory itself.
        self.__array_interface__ = array.__array_interface__

    @property
    def array(self) -> np.ndarray:
        """float of shape (dim, 1)."""
        return np.asarray(self)

    def __del__(self) -> None:
        """Give the place back."""
        self._free.append(self.place)


def attach(address: Address | None, dim: int, dtype: str) -> Places | None:
    """Return the places of an address; None if they are out of reach.

    They are where the server runs on another machine, or is hidden from this process.
    """
    if address is None:
        return None
    try:
        # Looked at before it is opened: elsewhere the path may be anything.
        if address != (_machine(), address.path, *_identity(address.path)):
            return None
        return Places(os.open(address.path, os.O_RDWR | os.O_CLOEXEC), dim, dtype)
    except OSError:
        return None


def _machine() -> str:
    """Return what tells a running machine from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text()


def _identity(path: str) -> tuple[int, int]:
    """Return a file's device and inode."""
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
