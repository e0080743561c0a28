"""The public surface: what `import asgrad` offers, and that it comes lazily."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import asgrad as ag
from asgrad.experiments.training import StoredTraining

PACKAGES = [
    "asgrad",
    "asgrad.numerics",
    "asgrad.simulation",
    "asgrad.training",
    "asgrad.workers",
    "asgrad.corrections",
    "asgrad.encoders",
    "asgrad.experiments",
    "asgrad.methods",
    "asgrad.optimizers",
    "asgrad.problems",
    "asgrad.recipes",
    "asgrad.report",
    "asgrad.stepsizes",
    "asgrad.times",
    "asgrad.trace",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_true(package):
    """__all__ is sorted, without repeats, and every name exists."""
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def test_unknown_attribute_is_an_attribute_error():
    """A misspelt name fails as in any module."""
    with pytest.raises(AttributeError, match="simulat"):
        ag.simulat  # noqa: B018


def test_version_is_that_of_the_project():
    """__version__ agrees with pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert ag.__version__ == project["project"]["version"]


@pytest.mark.parametrize("statement", ["import asgrad", "import asgrad.cli"])
def test_heavy_libraries_are_not_imported_at_the_start(statement):
    """Importing asgrad or its command line loads none of the slow libraries."""
    heavy = ["numba", "sklearn", "matplotlib", "pyarrow", "scipy", "torch", "ray"]
    check = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_is_shown_of_large_objects_is_short():
    """One line each, whatever the size of the arrays."""
    trace = ag.simulate("pure", "linear", n_workers=2000, steps=20_000)
    problem = ag.problems.Tridiagonal(5000, n_workers=2)
    small = ag.simulate("pure", "linear", n_workers=2, steps=20)
    shown = [trace, trace.summary, ag.replay(small, problem, [0.1, 0.2]), problem,
             ag.train(problem, "pure", 0.1, steps=5),
             StoredTraining(Path("runs/a"), None, trace, np.zeros(10**5), 0.1, {}, {})]  # fmt: skip
    for thing in shown:
        text = repr(thing)
        assert len(text) < 400, text
        assert "\n" not in text
    assert repr(small) == "<Trace of pure, times linear: 2 workers, 20 steps, 22 jobs, 14 s>"
