"""The line that follows a live run."""

from __future__ import annotations

from types import SimpleNamespace

from asgrad.report.live import _Line


def test_the_line_says_speed_delays_and_loss():
    """Delay of the newest arrival, average over all, steps a second since the first step seen."""
    shown = []
    line = _Line("pure", shown.append)
    for step in range(29):
        line.on_arrival(SimpleNamespace(read_step=max(step - (2 if step % 2 else 4), 0)))
        line.on_step(step, 10.0 + step / 8)
    line.on_evaluation(29, 14.0, 0.5, 0.25)
    delays = [min(step, 2 if step % 2 else 4) for step in range(29)]
    assert shown[-1] == (
        f"pure: step 29, 7 steps/s, delay 4 (average {sum(delays) / 29:.1f}), ‖∇f‖ 2.50e-01, "
        "loss 0.5"
    )
    assert len(shown) == 30  # an eighth of a second apart
    line.on_evaluation(30, 15.0, 0.5, float("nan"), 0.875, 0.625)
    assert shown[-1].endswith("), loss 0.5, test loss 0.625, accuracy 87.5%")


def test_the_line_of_a_slow_run_moves_with_every_step():
    """And with every evaluation; that of a fast one no more than ten times a second."""
    shown = []
    line = _Line("slow", shown.append)
    line.on_evaluation(0, 0.0, 2.0, 1.0)
    line.on_step(0, 20.0)
    line.on_step(1, 60.0)
    assert [text.split(",")[0] for text in shown] == [f"slow: step {step}" for step in (0, 1, 2)]
    assert "0.025 steps/s" in shown[-1]
    shown.clear()
    for step in range(2, 1002):
        line.on_step(step, 61.0 + step / 1000)
    assert len(shown) == 10


def test_the_line_of_a_resumed_run_counts_from_where_it_goes_on():
    """Jobs whose delay cannot be told yet are not counted."""
    shown = []
    line = _Line("pure", shown.append)
    line.on_evaluation(3000, 599.0, 2.0, 1.0)
    assert "step 3000, 0 steps/s" in shown[-1]
    for step in range(3000, 3100):
        line.on_arrival(SimpleNamespace(read_step=step - 2))
        line.on_step(step, step / 5)
    assert "delay 2 (average 2.0)" in shown[-1]
    assert "step 3100, 5 steps/s" in shown[-1]
