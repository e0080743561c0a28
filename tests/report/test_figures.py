"""What the figures of a comparison draw."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
from matplotlib import cbook

import asgrad as ag
from asgrad.report.figures import _curves, _styles, write_figures


def test_no_two_methods_share_colour_and_dash():
    """Of fifty."""
    styles = _styles([f"method {i}" for i in range(50)])
    assert len({str(style) for style in styles.values()}) == 50


def test_every_seed_holds_its_last_model_on_a_common_grid():
    """Two seeds of different length, by hand: the shorter one goes on at its last value."""
    short = SimpleNamespace(
        stepsizes=np.array([0.1, 0.2]), steps=np.array([0, 2]), loss=np.array([[9.0, 5], [9, 4]])
    )
    long = SimpleNamespace(
        stepsizes=np.array([0.1, 0.2]), steps=np.array([0, 1, 3]),
        loss=np.array([[9.0, 5], [9, 3], [9, 2]]),
    )  # fmt: skip
    grid, curves = _curves([short, long], 0.2, "loss", "steps")
    assert grid.tolist() == [0, 1, 2, 3]
    assert curves.tolist() == [[5, 5, 4, 4], [5, 3, 3, 2]]


def test_curves_go_from_the_start_to_the_horizon_and_name_their_problem():
    """Also those of a method that takes few steps; a row a panel."""
    problems = {
        name: ag.problems.Quadratic(np.ones(3), n_workers=3, heterogeneity=h, noise=0.1)
        for name, h in (("equal data", 0.0), ("different data", 1.0))
    }
    found = ag.compare(
        problems, "linear", ["sync", "pure"], stepsizes=[0.1], seeds=2, until_time=20,
        evaluations=7,
    )  # fmt: skip
    figure = found.plot()
    assert len(figure.axes) == 4
    for (by_step, by_time), name in zip(np.reshape(figure.axes, (2, 2)), problems, strict=True):
        assert by_step.get_title().startswith(f"{name}: quadratic")
        for line in by_time.lines[:2]:  # the third is the target
            assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0.0, 20.0)
        for line, steps in zip(by_step.lines, (6, 36), strict=True):  # 20/3; 20 + 10 + 6
            assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, steps)


def test_names_are_drawn_as_they_are(tmp_path):
    """A formula that is none would cost the run its end; legends leave out what begins with _."""

    @dataclasses.dataclass(frozen=True)
    class Named(ag.methods.Pure):
        """Pure by another name."""

        name: str = ""

    names = ["$x^^$", "a$b$", "_hidden", r"\frac", "漢字🙂", "x" * 500]
    problem = ag.problems.Quadratic(np.ones(2), n_workers=2)
    said = {"stepsizes": [0.1], "seeds": 1, "until_time": 5, "evaluations": 2}
    found = ag.compare({"of $^^$": problem}, "fixed", [Named(name=n) for n in names], **said)
    write_figures(found, tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("*.png"))) == 3
    drawn = [text.get_text() for text in found.plot().legends[0].get_texts()]
    assert not any(cbook.is_math_text(text) for text in drawn)
    assert [text.strip().replace(r"\$", "$") for text in drawn[:5]] == names[:5]
    assert len(drawn[5]) < 80
