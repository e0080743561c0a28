"""asgrad plans, runs and replays stochastic gradient descent on workers of unequal speed.

simulate plays a method in virtual time and records a trace; replay walks a trace and does its
numerical work for many stepsizes at once; compare tunes and compares methods.

>>> import asgrad as ag
>>> trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=10, steps=100)
>>> trace.summary.tau_c
10
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from asgrad import (
        corrections,
        encoders,
        methods,
        optimizers,
        problems,
        recipes,
        stepsizes,
        times,
        work,
    )
    from asgrad.errors import AsgradError, TraceError
    from asgrad.experiments import Comparison, compare
    from asgrad.methods import Method
    from asgrad.numerics import Result, replay
    from asgrad.problems import Problem
    from asgrad.recipes import Recipe
    from asgrad.simulation import simulate
    from asgrad.times import Times
    from asgrad.trace import Summary, Trace
    from asgrad.training import Checkpoints, Training, train
    from asgrad.workers import Ray, Threads, Virtual

# Imported on first use, so that `import asgrad` and `asgrad --help` answer at once.
_HOMES = {
    "AsgradError": "asgrad.errors",
    "Checkpoints": "asgrad.training",
    "Comparison": "asgrad.experiments",
    "Method": "asgrad.methods",
    "Problem": "asgrad.problems",
    "Ray": "asgrad.workers",
    "Recipe": "asgrad.recipes",
    "Result": "asgrad.numerics",
    "Summary": "asgrad.trace",
    "Threads": "asgrad.workers",
    "Times": "asgrad.times",
    "Trace": "asgrad.trace",
    "TraceError": "asgrad.errors",
    "Training": "asgrad.training",
    "Virtual": "asgrad.workers",
    "compare": "asgrad.experiments",
    "replay": "asgrad.numerics",
    "simulate": "asgrad.simulation",
    "train": "asgrad.training",
}
_ROOMS = (
    "corrections", "encoders", "methods", "optimizers", "problems", "recipes", "stepsizes",
    "times", "work",
)  # fmt: skip

__all__ = [
    "AsgradError",
    "Checkpoints",
    "Comparison",
    "Method",
    "Problem",
    "Ray",
    "Recipe",
    "Result",
    "Summary",
    "Threads",
    "Times",
    "Trace",
    "TraceError",
    "Training",
    "Virtual",
    "compare",
    "corrections",
    "encoders",
    "methods",
    "optimizers",
    "problems",
    "recipes",
    "replay",
    "simulate",
    "stepsizes",
    "times",
    "train",
    "work",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("asgrad")
    if name in _ROOMS:
        return import_module(f"asgrad.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'asgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
