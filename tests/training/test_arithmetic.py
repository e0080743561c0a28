"""The numbers of a live run: which versions are kept, and what a step does to them."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.training.arithmetic import Arithmetic


def make() -> Arithmetic:
    """One number, from 1, two workers, γ = 0.5."""
    problem = ag.problems.Quadratic(np.ones(1), n_workers=2)
    opening = ag.methods.Pure().begin(2, 0)
    parts = ag.stepsizes.Constant(), None, ag.optimizers.SGD()
    return Arithmetic(problem, opening, *parts, np.ones(1), 0.5, "float64")


def step(numbers: Arithmetic, gradient: float, weight: float = 1.0) -> None:
    """Take a step on one gradient."""
    numbers.add_row(-1, weight, gradient=np.array([[gradient]]))
    numbers.step()


def test_a_step_is_worked_by_hand():
    """1 − ½·1 = ½; ½ − ½·(2·¼ + 1·1) = −¼; a step without gradients leaves it there."""
    numbers = make()
    step(numbers, 1.0)
    assert numbers.model(1).item() == 0.5
    numbers.add_row(-1, 0.25, gradient=np.array([[2.0]]))
    step(numbers, 1.0)
    assert numbers.model(2).item() == -0.25
    numbers.step()
    assert numbers.model(3).item() == -0.25


def test_a_version_is_kept_while_it_is_held():
    """x_0 is read by two jobs: it stays until both have let go, however many steps are taken."""
    numbers = make()
    numbers.hold(0)
    numbers.hold(0)
    for _ in range(50):
        step(numbers, 1.0)
    numbers.release(0)
    assert numbers.model(0).item() == 1.0
    assert numbers.arrays()["model_steps"].tolist() == [0, 50]
    numbers.release(0)
    assert numbers.arrays()["model_steps"].tolist() == [50]


def test_memory_of_versions_that_nobody_reads_is_used_again():
    """A thousand steps need no more versions than three."""
    numbers = make()
    places = set()
    for i in range(1000):
        step(numbers, 0.0)
        places.add(numbers.model(i + 1).ctypes.data)
    assert len(places) <= 3


def test_many_held_versions_make_room():
    """Views stay valid when the memory grows."""
    numbers = make()
    views = []
    for i in range(40):
        numbers.hold(i)
        views.append(numbers.model(i))
        step(numbers, 1.0)
    assert [view.item() for view in views] == [1.0 - 0.5 * i for i in range(40)]
    assert [numbers.model(i).item() for i in range(40)] == [1.0 - 0.5 * i for i in range(40)]


def test_a_read_only_gradient_is_not_written_to():
    """Ray's object store gives such; a weight other than 1 must scale a copy."""
    numbers = make()
    gradient = np.array([[1.0]])
    gradient.flags.writeable = False
    numbers.add_row(-1, 0.5, gradient=gradient)
    numbers.step()
    assert numbers.model(1).item() == 0.75
    assert gradient.item() == 1.0


def test_numbers_of_other_steps_are_not_read():
    """What is stored must fit the steps and holds that were counted."""
    numbers, other = make(), make()
    step(numbers, 1.0)
    with pytest.raises(ValueError, match="versions"):
        other.restore(numbers.arrays())
