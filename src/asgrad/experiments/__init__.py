"""Comparisons of many methods on one problem, a tuned stepsize each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgrad.experiments.comparison import Comparison, compare
    from asgrad.experiments.config import CompareConfig, TrainConfig

# Imported on first use: the command line needs the configurations alone to know its options.
_HOMES = {
    "CompareConfig": "config",
    "Comparison": "comparison",
    "TrainConfig": "config",
    "compare": "comparison",
}

__all__ = ["CompareConfig", "Comparison", "TrainConfig", "compare"]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"asgrad.experiments.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'asgrad.experiments' has no attribute {name!r}")
