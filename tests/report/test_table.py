"""The table of a comparison."""

from __future__ import annotations

import math

from asgrad.experiments.grid import Line
from asgrad.report import table_text

NAN, NEVER = math.nan, math.inf


def line(method: str, **changes) -> Line:
    """A line with plain numbers."""
    values = {
        "method": method, "stepsize": 0.5, "at_edge": False, "n_steps": 10.0,
        "time_to_target": 123.4, "gradient_norm": 0.25, "loss": 1.5, "accuracy": 0.875,
        "n_computed": 40.0, "wasted": 0.125, "tau_avg": 2.25, "tau_max": 7.0,
    }  # fmt: skip
    return Line(**{**values, **changes})


def test_best_first_and_diverged_last():
    """Sorted by final gradient norm; a method that diverged everywhere stands last."""
    lines = [
        line("gone", stepsize=NAN, gradient_norm=NAN, loss=NAN, accuracy=NAN, time_to_target=NEVER),
        line("worse", gradient_norm=0.5, at_edge=True),
        line("better", gradient_norm=0.125, time_to_target=1.234, accuracy=NAN),
    ]
    rows = table_text(lines, 0.3, 4.0).splitlines()
    assert "time to ‖∇f‖≤0.3" in rows[0]
    assert "stepsize·L" in rows[0]
    assert [row.split()[0] for row in rows[1:4]] == ["better", "worse", "gone"]
    shown = [" ".join(row.split()[1:]) for row in rows[1:4]]
    assert shown[0] == "2 10 1.23 s 1.25e-01 1.5 — 40 12% 2.2 7"
    assert shown[1] == "2* 10 123 s 5.00e-01 1.5 87.5% 40 12% 2.2 7"
    assert shown[2] == "diverged 10 — — — — 40 12% 2.2 7"

    assert "a wider grid may do better" in rows[5]
    assert rows[6] == "Diverged at every stepsize: gone."


def test_a_narrow_terminal_gets_fewer_whole_columns():
    """Nothing is cut short: columns are left out, and named."""
    from io import StringIO

    from rich.console import Console

    from asgrad.report import print_comparison

    for width in (60, 80, 100):
        text = StringIO()
        print_comparison(Console(file=text, width=width), [line("pure")], 0.3, 4.0)
        rows = text.getvalue().splitlines()
        assert "…" not in text.getvalue()
        assert "2.50e-01" in rows[1]
        assert max(len(row) for row in rows) <= width
        assert "Not shown in this width: gradients" in text.getvalue()


def test_without_smoothness_stepsizes_are_plain():
    """And without a target the column has no number."""
    rows = table_text([line("pure")], NAN, NAN).splitlines()
    assert "stepsize·L" not in rows[0]
    assert "time to target" in rows[0]
    assert rows[1].split()[1] == "0.5"
