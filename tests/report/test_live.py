"""The line that follows a live run."""

from __future__ import annotations

from types import SimpleNamespace

from asgrad.report.live import _Line


def test_the_line_says_speed_delays_and_loss():
    """Delay of the newest arrival, average over all, steps a second since the first step seen."""
    shown = []
    line = _Line("pure", shown.append)
    line.on_evaluation(100, 10.0, 0.5, 0.25)  # a resumed run begins at step 100
    for step in range(100, 129):
        line.on_arrival(SimpleNamespace(read_step=step - 2 if step % 2 else step - 4))
        line.on_step(step, 10.0 + (step - 100) / 8)
    assert shown == ["pure: step 128, 8 steps/s, delay 4 (average 3.0), ‖∇f‖ 2.50e-01, loss 0.5"]
