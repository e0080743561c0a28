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
    by_text = ag.replay(
        said, problem, 0.1, method_stepsize="koloskova:stale=drop", optimizer="heavy-ball",
        encoder="clip:0.5",
    )  # fmt: skip
    by_object = ag.replay(
        made, problem, 0.1, method_stepsize=ag.stepsizes.Koloskova(stale="drop"),
        optimizer=ag.optimizers.HeavyBall(), encoder=ag.encoders.Clip(0.5),
    )  # fmt: skip
    np.testing.assert_array_equal(by_text.models, by_object.models)


def test_train_takes_texts():
    """Also in what the trace says of itself."""
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    run = ag.train(problem, "random:wait=2", 0.1, steps=3, optimizer="heavy-ball:momentum=0.5")
    assert run.trace.header.method == "random:wait=2"


@pytest.mark.parametrize(
    ("method", "times", "options", "said"),
    [
        ("ringmastr", "linear", {}, "unknown method 'ringmastr'. Did you mean 'ringmaster'?"),
        ("pure", "linaer", {}, "unknown times 'linaer'. Did you mean 'linear'?"),
        ("pure", "linear", {"method_stepsize": "kolskova"}, "Did you mean 'koloskova'?"),
        ("pure", "linear", {"optimizer": "heavy-bal"}, "Did you mean 'heavy-ball'?"),
        ("pure", "linear", {"encoder": 3}, "encoder must be an Encoder, for instance"),
        (3, "linear", {}, "method must be a Method, for instance ag.methods.Pure(), got 3"),
    ],
)
def test_a_misspelt_text_is_refused(refused, method, times, options, said):
    """With the closest name."""

    def run():
        trace = ag.simulate(method, times, n_workers=2, steps=3)
        ag.replay(trace, ag.problems.Tridiagonal(4, n_workers=2), 0.1, **options)

    assert said in refused(run)
