"""The table of a comparison."""

from __future__ import annotations

import math
from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from asgrad.experiments.choice import MEASURES, Rule
from asgrad.experiments.grid import Line, Panel
from asgrad.report import print_comparison, table_html, table_text

NAN, NEVER = math.nan, math.inf


def line(method: str, **changes) -> Line:
    """A line with plain numbers."""
    values = {
        "panel": "", "method": method, "stepsize": 0.5, "edge": "", "helps": True, "n_steps": 10.0,
        "times_to_target": [(123.4, 123.4, 123.4)], "gradient_norm": 0.25, "loss": 1.5,
        "test_loss": NAN, "accuracy": 0.875, "n_computed": 40.0, "wasted": 0.125, "tau_avg": 2.25,
        "tau_max": 7.0,
    }  # fmt: skip
    return Line(**{**values, **changes})


def panel(**changes) -> Panel:
    """A panel with L = 4."""
    values = {
        "name": "", "problem": "toy", "smoothness": 4.0, "smoothness_source": "made up",
        "in_units": True, "targets": [0.3], "target_source": "as given",
        "start": {"gradient_norm": 0.4, "loss": 2.0, "test_loss": NAN, "accuracy": 0.1},
    }  # fmt: skip
    return Panel(**{**values, **changes})


def comparison(lines, best="gradient_norm", **changes) -> SimpleNamespace:
    """What the table reads of a comparison."""
    return SimpleNamespace(
        panels=[panel(**changes)],
        lines=lines,
        rule=Rule.of(best, 0.2, "gradient_norm"),
        measures=list(MEASURES.values()),
        notes=["Horizon: 9 s."],
    )


def test_the_start_stands_where_it_belongs_and_diverged_last():
    """Lines come sorted; a method below the start has gained, one after it has not."""
    lines = [
        line("better", gradient_norm=0.125, times_to_target=[(1.234, 1.0, 2.5)]),
        line("worse", gradient_norm=0.5, edge="largest", times_to_target=[(NEVER, 99.0, NEVER)]),
        line("stuck", gradient_norm=0.75, helps=False, edge="smallest"),
        line("gone", stepsize=NAN, gradient_norm=NAN, loss=NAN, accuracy=NAN, helps=False,
             times_to_target=[(NEVER, NEVER, NEVER)]),
    ]  # fmt: skip
    rows = table_text(comparison(lines)).splitlines()
    assert rows[0].split() == [
        "method", "stepsize·L", "steps", "time", "to", "‖∇f‖≤0.3", "‖∇f‖", "loss", "accuracy",
        "gradients", "wasted", "τ_avg", "τ_max",
    ]  # fmt: skip
    shown = [" ".join(row.split()) for row in rows[1:6]]
    assert shown == [
        "better 2 10 1.23 s (1–2.5) 1.25e-01 1.5 87.5% 40 12% 2.2 7",
        "(start) 0 4.00e-01 2 10.0% 0",
        "worse 2* 10 — (99–—) 5.00e-01 1.5 87.5% 40 12% 2.2 7",
        "stuck 2 10 123 s 7.50e-01 1.5 87.5% 40 12% 2.2 7",
        "gone diverged 10 — — — — 40 12% 2.2 7",
    ]
    assert rows[6] == "First at ‖∇f‖≤0.3: better, after 1.23 s."
    assert rows[7] == "* largest stepsize tried (worse): one beyond it may do better."
    assert rows[8] == "No stepsize helps: stuck; at best ‖∇f‖ ends no better than it began."
    assert rows[9] == "Diverged at every stepsize: gone."
    assert rows[10] == "Horizon: 9 s."


def test_who_is_first_is_said_beside_sync():
    """Also where sync never gets there, or is first itself."""

    def said(**times) -> str:
        lines = [line(name, times_to_target=[(t, t, t)]) for name, t in times.items()]
        return table_text(comparison(lines))

    assert "First at ‖∇f‖≤0.3: ace, after 5 s; sync after 9 s." in said(sync=9.0, ace=5.0)
    assert "First at ‖∇f‖≤0.3: ace, after 5 s; sync never." in said(sync=NEVER, ace=5.0)
    assert "First at ‖∇f‖≤0.3: sync, after 4 s." in said(sync=4.0, ace=5.0)
    assert "First at ‖∇f‖≤0.3: ace, pure, after 5 s; sync" in said(sync=9.0, ace=5.0, pure=5.0)
    assert "First at ‖∇f‖≤0.3: sync, ace, after 4 s." in said(sync=4.0, ace=4.0)
    assert "First at" not in said(sync=NEVER, ace=NEVER)


def test_a_narrow_terminal_gets_fewer_whole_columns():
    """Nothing is cut short: columns are left out, and named; what is judged by stays."""
    for width in (60, 80, 100):
        for best, symbol in (("gradient_norm", "‖∇f‖"), ("loss", "loss")):
            text = StringIO()
            print_comparison(Console(file=text, width=width), comparison([line("pure")], best))
            rows = text.getvalue().splitlines()
            assert "…" not in text.getvalue()
            assert symbol in rows[0].split()
            assert max(len(row) for row in rows) <= width
            assert "Not shown in this width: gradients" in text.getvalue()


def test_stepsizes_that_were_given_are_shown_as_given():
    """Not times L; several targets have a column each, none has none."""
    rows = table_text(comparison([line("pure")], in_units=False)).splitlines()
    assert "stepsize·L" not in rows[0]
    assert rows[1].split()[1] == "0.5"
    two = line("pure", times_to_target=[(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
    header = table_text(comparison([two], targets=[0.3, 0.2])).splitlines()[0]
    assert "time to ‖∇f‖≤0.3  time to ‖∇f‖≤0.2" in header
    without = table_text(comparison([line("pure", times_to_target=[])], targets=[]))
    assert "time to" not in without.splitlines()[0]


def test_accuracies_are_reached_from_below():
    """And written as shares."""
    text = table_text(comparison([line("pure")], best="accuracy", targets=[0.9]))
    assert "time to accuracy≥90.0%" in text.splitlines()[0]


def test_notebooks_get_the_same_cells():
    """As HTML, escaped."""
    html = table_html(comparison([line("a<b")]))
    assert "<td>a&lt;b</td><td>2</td><td>10</td>" in html
    assert "<p>Horizon: 9 s.</p>" in html


def test_names_that_look_like_markup_are_printed_as_they_are():
    """Those of methods, and of files in the problem's description."""
    names = ["[/b]", "[red]x", ":smile:"]
    found = comparison(
        [line(name, panel="[/x]", helps=False) for name in names],
        name="[/x]", problem="softmax on [1].svm",
    )  # fmt: skip
    text = table_text(found)
    assert "[/x]: softmax on [1].svm" in text
    assert "No stepsize helps: [/b], [red]x, :smile:" in text
    assert [row.split()[0] for row in text.splitlines()[2:5]] == names
