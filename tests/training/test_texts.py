"""Methods, worker times and the parts of a replay may be given as texts, as on the command line."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag


def test_a_text_stands_for_the_object():
    """The trace and the replay are those of the objects."""
    said = ag.simulate("ringmaster:max_delay=2", "normal:scale=sqrt", n_workers=3, steps=30)
    made = ag.simulate(
        ag.methods.Ringmaster(max_delay=2), ag.times.Normal("sqrt"), n_workers=3, steps=30
    )
    assert said.equals(made)
    problem = ag.problems.Tridiagonal(4, n_workers=3)
    by_text = ag.replay(said, problem, 0.1, recipe="heavy-ball+koloskova:stale=drop+clip:0.5")
    by_object = ag.replay(
        made, problem, 0.1,
        recipe=(ag.encoders.Clip(0.5), ag.stepsizes.Koloskova("drop"), ag.optimizers.HeavyBall()),
    )  # fmt: skip
    np.testing.assert_array_equal(by_text.models, by_object.models)


def test_train_takes_texts():
    """Also in what the trace says of itself."""
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    run = ag.train(problem, "random:wait=2+heavy-ball:momentum=0.5", 0.1, steps=3)
    assert run.trace.header.method == "random:wait=2"
    assert run.trace.header.recipe == "random:wait=2+heavy-ball:momentum=0.5"


@pytest.mark.parametrize(
    ("method", "times", "options", "said"),
    [
        ("ringmastr", "linear", {}, "unknown method 'ringmastr'. Did you mean 'ringmaster'?"),
        ("pure", "linaer", {}, "unknown worker times 'linaer'. Did you mean 'linear'?"),
        ("pure", "linear", {"recipe": "kolskova"}, "Did you mean 'koloskova' (stepsize rule)?"),
        ("pure", "linear", {"recipe": "heavy-bal"}, "Did you mean 'heavy-ball' (optimizer)?"),
        ("pure", "linear", {"recipe": 3}, "replay: a recipe is a text such as"),
        (3, "linear", {}, "simulate: a recipe is a text such as 'pure+koloskova', or an object"),
    ],
)
def test_a_misspelt_text_is_refused(refused, method, times, options, said):
    """With the closest name."""

    def run():
        trace = ag.simulate(method, times, n_workers=2, steps=3)
        ag.replay(trace, ag.problems.Tridiagonal(4, n_workers=2), 0.1, **options)

    assert said in refused(run)
