"""LIBSVM files: a row a line, "label index:value index:value ... # remark", indices rising."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from asgrad.errors import AsgradError, shown
from asgrad.machine import check_memory

__all__ = ["line_of_row", "read_libsvm"]

_OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 24  # bytes of a line that are read at once


def read_libsvm(path: Path) -> tuple[sparse.csr_matrix, np.ndarray, bool]:
    """Read a file, plain, .gz, .bz2 or .xz.

    Features are counted from 0 if one of them has the index 0, else from 1. What stands after a #
    and the groups of a ranking (qid:7) are left out.

    Returns
    -------
    features : scipy.sparse.csr_matrix
    targets : numpy.ndarray
    zero_based : bool
        Whether the file counts features from 0.

    Raises
    ------
    AsgradError
        If the file cannot be read, is of another form, or holds no rows; it names the line.
    """
    from sklearn.datasets import load_svmlight_file

    lines = _Lines(path)
    try:
        features, targets = load_svmlight_file(lines, zero_based=True)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, AsgradError):
            raise
        raise AsgradError(
            f"data: {path} is not a readable LIBSVM file: line {max(lines.number, 1)}: "
            f"{_reason(error)}."
        ) from error
    if targets.size == 0:
        raise AsgradError(f"data: {path} is empty: its {lines.number} lines hold no rows.")
    zero_based = features.nnz == 0 or features.indices.min() == 0
    rows = sparse.csr_matrix(features if zero_based else features[:, 1:])
    return rows, targets, bool(zero_based)


def line_of_row(path: Path, row: int) -> int:
    """Return the number of the line, from 1, in which a row stands."""
    lines = _Lines(path)
    with_data = (lines.number for line in lines if line.partition(b"#")[0].strip())
    return next(islice(with_data, row, None))


class _Lines:
    """The lines of a file, without a byte order mark; it knows how many have been read.

    A packed file may hold a thousand times its own size, even in a single line. What has been read
    is no longer than the copies of its numbers that are still to come, so there must be as much.
    """

    def __init__(self, path: Path):
        self.path, self.number = path, 0
        self._size = self._checked = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield line by line."""
        self._size, self._checked = 0, self.path.stat().st_size
        check_memory("data", f"the rows of {self.path}", self._checked)
        with _OPENERS.get(self.path.suffix, open)(self.path, "rb") as file:
            while line := self._line(file):
                self.number += 1
                yield line.removeprefix(_BOM) if self.number == 1 else line

    def _line(self, file: Any) -> bytes:
        """Return the next line, an empty one at the end of the file."""
        pieces = []
        while True:
            piece: bytes = file.readline(_PIECE)
            self._size += len(piece)
            if self._size > self._checked:
                check_memory("data", f"the rows of {self.path}", self._size)
                self._checked = self._size + self._size // 4
            pieces.append(piece)
            if len(piece) < _PIECE or piece.endswith(b"\n"):
                return piece if len(pieces) == 1 else b"".join(pieces)

    def read(self) -> bytes:
        """Only lines are read; what takes files wants to see such a method."""
        raise TypeError("read line by line")


def _reason(error: BaseException) -> str:
    """Return in a few words why a line cannot be read."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, OverflowError):
        return "a feature's index must be at most 2147483647"
    if "unpack" in text:
        return "features must be written index:value"
    if "sorted and unique" in text:
        return "the indices of the features must rise, each only once"
    return shown(text)[1:-1] if text else type(error).__name__
