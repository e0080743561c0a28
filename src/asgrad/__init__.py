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

    from asgrad import methods, optimizers, problems, stepsizes, times, transforms
    from asgrad.engines import Checkpoints, Ray, Result, Threads, Training, replay, simulate, train
    from asgrad.errors import AsgradError, TraceError
    from asgrad.experiments import Comparison, compare
    from asgrad.methods import Method
    from asgrad.problems import Problem
    from asgrad.times import Times
    from asgrad.trace import Summary, Trace

# Imported on first use, so that `import asgrad` and `asgrad --help` answer at once.
_HOMES = {
    "AsgradError": "asgrad.errors",
    "Checkpoints": "asgrad.engines",
    "Comparison": "asgrad.experiments",
    "Method": "asgrad.methods",
    "Problem": "asgrad.problems",
    "Ray": "asgrad.engines",
    "Result": "asgrad.engines",
    "Summary": "asgrad.trace",
    "Threads": "asgrad.engines",
    "Times": "asgrad.times",
    "Trace": "asgrad.trace",
    "TraceError": "asgrad.errors",
    "Training": "asgrad.engines",
    "compare": "asgrad.experiments",
    "replay": "asgrad.engines",
    "simulate": "asgrad.engines",
    "train": "asgrad.engines",
}
_ROOMS = ("methods", "optimizers", "problems", "stepsizes", "times", "transforms")

__all__ = [
    "AsgradError",
    "Checkpoints",
    "Comparison",
    "Method",
    "Problem",
    "Ray",
    "Result",
    "Summary",
    "Threads",
    "Times",
    "Trace",
    "TraceError",
    "Training",
    "compare",
    "methods",
    "optimizers",
    "problems",
    "replay",
    "simulate",
    "stepsizes",
    "times",
    "train",
    "transforms",
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
