"""What a run's numbers follow from, written down so that another problem is told from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asgrad.problems.base import CompiledProblem, Problem

__all__ = ["difference", "fingerprint", "hashed"]

_HASH, _NUMBERS = "sha256:", "numbers:"
_TOLERANCE = 1e-4  # other processors add in another order, some problems in single precision


def fingerprint(problem: Problem) -> dict[str, str]:
    """Return what the problem's numbers follow from, as texts by name, for `difference`.

    Of a problem of asgrad that is all of it: settings, and the SHA-256 of start and data. Of a
    problem in plain Python it is what can be known: the numbers and arrays that are its attributes,
    and some gradients and a loss, which are computed here. An attribute that changes while they are
    is none of it.
    """
    found = {
        "class": type(problem).__name__,
        "n_workers": str(problem.n_workers),
        "dim": str(problem.dim),
    }
    parts = _texts(problem)
    if isinstance(problem, CompiledProblem):
        kernels = problem.kernels()
        parts["kernels"] = ", ".join(map(_name_of, (kernels.gradient, kernels.evaluation)))
        parts["data"] = hashed(problem.pack(np.float64))
    elif type(problem).parts is Problem.parts:
        numbers = _numbers(problem)
        after = _texts(problem)
        parts = {name: text for name, text in parts.items() if after.get(name) == text}
        parts |= numbers
    return {**found, "x0": hashed([problem.x0]), **parts}


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words for "a run with ..." where two fingerprints differ first, "" if they do not.

    Only what both name is compared: not everything can be known of a problem at every time.
    """
    for name, before in then.items():
        if name in now and not _is_same(before, now[name]):
            if str(before).startswith((_HASH, _NUMBERS)):
                return f"another {name}" if name == "x0" else f"other {name}"
            return f"{name} = {before}, this one has {now[name]}"
    return ""


def hashed(arrays: Sequence[np.ndarray]) -> str:
    """Return what tells the bits of some arrays from all others."""
    found = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return _HASH + found.hexdigest()


def _texts(problem: Problem) -> dict[str, str]:
    """Return the parts of a problem as texts, as far as they have one."""
    texts = ((name, _text(part)) for name, part in problem.parts().items())
    return {name: text for name, text in texts if text}


def _text(part: Any) -> str:
    """Return a number, a text or arrays as a text, "" for anything else."""
    if isinstance(part, np.generic):
        part = part.item()
    if part is None or isinstance(part, bool | int | float | str):
        return str(part)
    if hasattr(part, "indptr"):  # a sparse matrix, by rows or columns
        part = (part.data, part.indices, part.indptr)
    several = part if isinstance(part, tuple | list) else (part,)
    try:
        arrays = [np.asarray(one) for one in several if hasattr(one, "__array__")]
    except Exception:  # a tensor that is elsewhere, or is asked for by a gradient
        return ""
    if len(arrays) < max(len(several), 1) or any(
        array.dtype.kind not in "biufc" for array in arrays
    ):
        return ""
    return hashed(arrays)


def _name_of(kernel: Any) -> str:
    """Return a kernel's name, with its module."""
    function = getattr(kernel, "py_func", kernel)
    return f"{function.__module__}.{function.__qualname__}"


def _numbers(problem: Problem) -> dict[str, str]:
    """Return numbers of the gradients of the first and the last worker, and a loss, as texts.

    None of those that are others when they are computed again, or cannot be computed.
    """
    direction = np.cos(np.arange(problem.dim))
    point = problem.x0 + 0.1 * direction  # at x0 itself a regulariser may have no say

    def gradients() -> list[float]:
        found = []
        for worker in sorted({0, problem.n_workers - 1}):
            rng = np.random.default_rng(worker)
            gradient = np.asarray(problem.gradient(point.copy(), worker, 0, rng), np.float64)
            found += [float(direction @ gradient), float(np.linalg.norm(gradient))]
        return found

    numbers = {}
    for name, compute in {
        "gradients": gradients,
        "loss": lambda: [float(problem.loss(point.copy()))],
    }.items():
        try:
            first, second = (_NUMBERS + " ".join(map(repr, compute())) for _ in range(2))
        except Exception:  # whatever it raises: the run itself says so better
            continue
        if _is_same(first, second):
            numbers[name] = first
    return numbers


def _is_same(then: Any, now: Any) -> bool:
    """Say whether two parts are the same, numbers up to rounding."""
    if then == now:
        return True
    try:
        a, b = (
            np.array(str(text).removeprefix(_NUMBERS).split(), np.float64) for text in (then, now)
        )
    except ValueError:
        return False
    tolerance = _TOLERANCE if str(then).startswith(_NUMBERS) else 1e-12
    if a.shape != b.shape:
        return False
    size = max(np.abs(a[np.isfinite(a)]).max(initial=0.0), 1e-300)
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True))
