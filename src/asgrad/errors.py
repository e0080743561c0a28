"""The one form in which asgrad refuses bad input, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

__all__ = [
    "AsgradError",
    "KindError",
    "TraceError",
    "UnknownNameError",
    "check_fraction",
    "check_integer",
    "check_positive",
    "unknown_name",
]


class AsgradError(ValueError):
    """Input or a file that asgrad refuses; its text is one plain line for a person."""


class KindError(AsgradError, TypeError):
    """A value of the wrong kind."""


class TraceError(AsgradError):
    """A trace that is damaged, foreign, or does not fit what it is used with."""


class UnknownNameError(AsgradError):
    """A name that is none of the valid choices."""


def check_integer(owner: str, name: str, value: Any, *, minimum: int, maximum: int = 2**62) -> int:
    """Return `value` as an int if minimum <= value <= maximum, else raise."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise KindError(f"{owner}: {name} must be an integer, got {value!r}.")
    number = int(value)
    if not number >= minimum:
        raise AsgradError(f"{owner}: {name} must be an integer >= {minimum}, got {number}.")
    if not number <= maximum:
        raise AsgradError(f"{owner}: {name} must be an integer <= {maximum}, got {number}.")
    return number


def check_positive(owner: str, name: str, value: Any, *, zero: bool = False) -> float:
    """Return `value` as a float if it is finite and > 0 (>= 0 with `zero`), else raise."""
    number = _number(owner, name, value)
    if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
        rule = "finite and >= 0" if zero else "finite and > 0"
        raise AsgradError(f"{owner}: {name} must be {rule}, got {number:g}.")
    return number


def check_fraction(owner: str, name: str, value: Any) -> float:
    """Return `value` as a float if 0 <= value <= 1, else raise."""
    number = _number(owner, name, value)
    if not 0 <= number <= 1:
        raise AsgradError(f"{owner}: {name} must lie in [0, 1], got {number:g}.")
    return number


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Build the error for a misspelt name: it names the closest valid one."""
    valid = sorted(choices)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(valid)}.")


def _number(owner: str, name: str, value: Any) -> float:
    """Return `value` as a float, refusing what is no real number."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise KindError(f"{owner}: {name} must be a number, got {value!r}.")
    return float(value)
