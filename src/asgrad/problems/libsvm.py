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
        check_memory("data", f"the rows of {path}", path.stat().st_size)  # a text is no shorter
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
    """The lines of a file, without a byte order mark; it knows how many have been read."""

    def __init__(self, path: Path):
        self.path, self.number = path, 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield line by line."""
        with _OPENERS.get(self.path.suffix, open)(self.path, "rb") as file:
            for line in file:
                self.number += 1
                yield line.removeprefix(_BOM) if self.number == 1 else line

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
