"""What parts take from a run: found out when it is asked for, once, and then kept."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.recipes import Bound


def test_numbers_are_found_out_once_and_only_if_they_are_asked_for():
    asked = []

    def find(name, number):
        return lambda: asked.append(name) or number

    run = Bound(
        {"concurrency": 7.0},
        concurrency=find("concurrency", 1),
        n_workers=find("n_workers", np.int64(3)),
        smoothness=find("smoothness", 2.5),
    )
    assert [run["concurrency"], run["n_workers"], run["n_workers"]] == [7.0, 3.0, 3.0]
    assert asked == ["n_workers"]
    assert dict(run) == {"concurrency": 7.0, "n_workers": 3.0}
    assert type(run["n_workers"]) is float  # as JSON takes it
    with pytest.raises(KeyError):
        run["variance"]


class Priced(ag.problems.Tridiagonal):
    """A problem that counts how often L is asked for."""

    n_asked = 0

    @property
    def smoothness(self):
        self.n_asked += 1
        return 1.0


@pytest.mark.parametrize(
    ("recipe", "n_asked"),
    [("pure", 0), ("pure+mishchenko", 0), ("pure+koloskova:stale=drop", 0), ("pure+koloskova", 1),
     ("pure+koloskova:smoothness=3", 0), ("pure+mishchenko:convex", 1)],
)  # fmt: skip
def test_the_smoothness_is_computed_only_for_a_rule_that_takes_it(recipe, n_asked):
    """For large data it takes long; a live run's trace has it, so that a replay does without."""
    problem = Priced(4, n_workers=2)
    run = ag.train(problem, recipe, 0.1, steps=3, evaluate_every=None)
    assert problem.n_asked == n_asked
    ag.replay(run.trace, problem, 0.1, evaluations=0)
    assert problem.n_asked == n_asked
