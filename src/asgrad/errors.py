"""The one form in which asgrad refuses bad input, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

__all__ = [
    "AsgradError",
    "AsgradWarning",
    "GradientError",
    "KindError",
    "TraceError",
    "UnknownNameError",
    "as_number",
    "available_memory",
    "check_callable",
    "check_choice",
    "check_flag",
    "check_fraction",
    "check_integer",
    "check_kind",
    "check_memory",
    "check_positive",
    "in_one_line",
    "n_axes",
    "shown",
    "unknown_name",
]


class AsgradError(ValueError):
    """Input or a file that asgrad refuses; its text is one plain line for a person."""


class AsgradWarning(UserWarning):
    """What went wrong beside a run that goes on all the same; one plain line."""


class KindError(AsgradError, TypeError):
    """A value of the wrong kind."""


class TraceError(AsgradError):
    """A trace that is damaged, foreign, or does not fit what it is used with."""


class GradientError(AsgradError):
    """A problem's own code failed in the gradient of a job; `cause` is what it raised."""

    cause: BaseException | None = None

    @classmethod
    def of(cls, owner: str, worker: int, draw: int, cause: BaseException) -> GradientError:
        """Return the error that names the job."""
        error = cls(
            f"{owner}: the gradient of worker {worker}, draw {draw} failed: {in_one_line(cause)}"
        )
        error.cause = cause
        return error


class UnknownNameError(AsgradError):
    """A name that is none of the valid choices."""


def check_integer(owner: str, name: str, value: Any, *, minimum: int, maximum: int = 2**62) -> int:
    """Return `value` as an int if minimum <= value <= maximum, else raise."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise KindError(f"{owner}: {name} must be an integer, got {shown(value)}.")
    number = int(value)
    if not number >= minimum:
        raise AsgradError(f"{owner}: {name} must be an integer >= {minimum}, got {number}.")
    if not number <= maximum:
        raise AsgradError(f"{owner}: {name} must be an integer <= {maximum}, got {number}.")
    return number


def check_positive(owner: str, name: str, value: Any, *, zero: bool = False) -> float:
    """Return `value` as a float if it is finite and > 0 (>= 0 with `zero`), else raise."""
    number = as_number(owner, name, value)
    if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        rule = "finite and >= 0" if zero else "finite and > 0"
        raise AsgradError(f"{owner}: {name} must be {rule}, got {number:g}.")
    return number


def check_flag(owner: str, name: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise."""
    if not isinstance(value, bool):
        raise KindError(f"{owner}: {name} must be true or false, got {shown(value)}.")
    return value


def check_kind(owner: str, name: str, value: Any, kind: type, remedy: str) -> None:
    """Raise unless `value` is an instance of `kind`; `remedy` shows how to make one."""
    if isinstance(value, type) or not isinstance(value, kind):
        raise KindError(
            f"{owner}: {name} must be a {kind.__name__}, for instance {remedy}, got {shown(value)}."
        )


def check_callable(owner: str, name: str, value: Any) -> None:
    """Raise unless `value` can be called, or is None."""
    if value is not None and not callable(value):
        raise KindError(f"{owner}: {name} must be a function, got {shown(value)}.")


def check_fraction(owner: str, name: str, value: Any) -> float:
    """Return `value` as a float if 0 <= value <= 1, else raise."""
    number = as_number(owner, name, value)
    if not 0 <= number <= 1:
        raise AsgradError(f"{owner}: {name} must lie in [0, 1], got {number:g}.")
    return number


def check_memory(owner: str, what: str, n_bytes: float, remedy: str = "") -> None:
    """Raise if `n_bytes` are more than there are; `what` is a plural, the subject of "would take".

    Called before the memory is taken: a system that gives out more than it has kills the process
    later, without a word.
    """
    free = available_memory()
    if not n_bytes <= free:
        raise AsgradError(
            f"{owner}: {what} would take {_size(n_bytes)} of memory, {_size(free)} are available"
            f"{'; ' + remedy if remedy else ''}."
        )


def available_memory() -> float:
    """Return how many bytes could be taken now, as far as can be known; infinity where not."""
    known = [math.inf]
    with suppress(OSError, ValueError, AttributeError):  # not on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        said = next(line for line in lines if line.startswith("MemAvailable:"))
        known.append(1024 * int(said.split()[1]))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with suppress(OSError, ValueError):  # "max": none
            known.append(int((Path("/sys/fs/cgroup") / limit).read_text(encoding="ascii")))
    return min(number for number in known if number > 0)


def _size(n_bytes: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    unit = 0
    while n_bytes >= 999.5 and unit < 6:
        n_bytes, unit = n_bytes / 1000, unit + 1
    return f"{n_bytes:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[unit]}"


def check_choice(kind: str, name: Any, choices: Iterable[str]) -> str:
    """Return `name` if it is one of `choices`, else raise."""
    valid = list(choices)
    if not (isinstance(name, str) and name in valid):
        raise unknown_name(kind, name, valid)
    return name


def unknown_name(kind: str, name: Any, choices: Iterable[str]) -> UnknownNameError:
    """Build the error for a misspelt name: it names the closest valid one."""
    valid = sorted(choices)
    near = difflib.get_close_matches(str(name)[:100], valid, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {shown(name)}.{hint} Valid: {', '.join(valid)}.")


def in_one_line(error: BaseException) -> str:
    """Return what went wrong, without a traceback."""
    cause = error
    while isinstance(inner := getattr(cause, "cause", None), BaseException):
        cause = inner  # errors of Ray and of a gradient hold what was raised
    text = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {text[0] if text else ''}"


def shown(value: Any) -> str:
    """Return a value as one short line for an error message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def n_axes(value: Any) -> int:
    """Return how many axes a value has as an array: 0 of a number, 2 of lists of unequal length."""
    import numpy as np  # not with this module: it is imported before Ctrl-C is heard

    try:
        return np.ndim(value)
    except ValueError:
        return 2


def as_number(owner: str, name: str, value: Any) -> float:
    """Return `value` as a float, refusing what is no real number."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise KindError(f"{owner}: {name} must be a number, got {shown(value)}.") from None
