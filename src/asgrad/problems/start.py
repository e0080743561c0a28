"""Where a run starts: x_0 by name, from a file or as an array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, KindError, in_one_line, shown, unknown_name
from asgrad.streams import Purpose, stream_key

__all__ = ["STARTS", "checked_model", "start"]

STARTS = ("normal", "ones", "zeros")


def start(owner: str, x0: Any, dim: int, seed: int) -> np.ndarray | None:
    """Return x_0 as a new array, None for None.

    Parameters
    ----------
    owner : str
        Whose, for error messages.
    x0 : str, path, array or None
        "zeros"; "ones"; "normal": independent standard normal numbers, x_0 ~ N(0, I), not scaled,
        from a stream of their own under `seed`; a .npy file, whose name may begin with ~; or
        numbers of shape (dim,).
    dim : int
    seed : int >= 0

    Raises
    ------
    AsgradError
        If the name is unknown, the file cannot be read, the shape is another one, or a number is
        not finite.
    """
    if x0 is None:
        return None
    if not isinstance(x0, str | Path):
        return checked_model(owner, x0, dim).copy()
    if x0 == "zeros":
        return np.zeros(dim)
    if x0 == "ones":
        return np.ones(dim)
    if x0 == "normal":
        rng = np.random.default_rng(stream_key(seed, Purpose.START) & (2**63 - 1))
        return rng.normal(size=dim)
    path = Path(os.path.expanduser(x0))
    if not os.path.isfile(path):
        if path.suffix or len(path.parts) > 1:
            raise AsgradError(f"{owner}: x0: no file {shown(str(path))}.")
        raise unknown_name("x0", str(x0), [*STARTS, "a .npy file"])
    return checked_model(f"{owner}: {path}", _read(owner, path), dim).copy()


def checked_model(owner: str, x0: Any, dim: int) -> np.ndarray:
    """Return numbers of shape (dim,) as float64, finite; not a copy where they are that already."""
    try:
        found = np.asarray(x0)
        if np.ma.is_masked(x0) or found.dtype.kind not in "biufO":
            raise TypeError
        numbers: np.ndarray = np.asarray(found, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise KindError(f"{owner}: x0 must be an array of numbers, got {shown(x0)}.") from None
    if numbers.shape != (dim,):
        raise AsgradError(f"{owner}: x0 must have shape ({dim},), got {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise AsgradError(f"{owner}: x0 must be finite.")
    return numbers


def _read(owner: str, path: Path) -> np.ndarray:
    """Return what stands in a .npy file; one that is too large is not taken into memory."""
    try:
        found: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises many kinds
        raise AsgradError(
            f"{owner}: x0: {path} is no .npy file of numbers, as np.save writes them: "
            f"{in_one_line(error)}"
        ) from error
    return found
