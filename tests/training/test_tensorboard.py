"""TensorBoard logs: what was evaluated can be read back from them."""

from __future__ import annotations

import shutil

import pytest

from asgrad.errors import AsgradWarning
from asgrad.training.tensorboard import logged


def test_evaluations_are_logged_and_passed_on(tmp_path):
    """What there is, and the speed, at their steps; the callback is called as well."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = []
    with logged(tmp_path, lambda *values: seen.append(values)) as log:
        log(0, 0.0, 2.0, 1.0)
        log(50, 0.5, 1.5, 0.25)
        log(80, 1.5, 1.25, 0.125, accuracy=0.75, test_loss=2.5)
    assert seen == [(0, 0.0, 2.0, 1.0), (50, 0.5, 1.5, 0.25), (80, 1.5, 1.25, 0.125)]
    events = EventAccumulator(str(tmp_path))
    events.Reload()

    def values(name: str) -> list[tuple[int, float]]:
        return [(e.step, e.value) for e in events.Scalars(name)]

    assert values("loss") == [(0, 2.0), (50, 1.5), (80, 1.25)]
    assert values("gradient norm") == [(0, 1.0), (50, 0.25), (80, 0.125)]
    assert values("accuracy") == [(80, 0.75)]
    assert values("test loss") == [(80, 2.5)]
    assert values("steps a second") == [(50, 100.0), (80, 30.0)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    """The callback itself is given."""
    monkeypatch.setattr("asgrad.training.tensorboard.find_spec", lambda name: None)

    def callback(*values):
        """Not called."""

    with logged(tmp_path / "logs", callback) as log:
        assert log is callback
    assert not (tmp_path / "logs").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, refused):
    pytest.importorskip("tensorboard")
    (tmp_path / "logs").write_text("mine")
    assert "is a file; give the name of a folder" in refused(
        lambda: logged(tmp_path / "logs").__enter__()
    )


def test_logs_that_fail_cost_nothing_but_the_logs(tmp_path):
    """One warning; the callback is called all the same."""
    pytest.importorskip("tensorboard")
    seen = []
    with logged(tmp_path / "logs", lambda *values: seen.append(values)) as log:
        log(0, 0.0, 2.0, 1.0)
        shutil.rmtree(tmp_path / "logs")
        log(10, 0.1, 2.0, 1.0)  # the folder is made again
        assert len(list((tmp_path / "logs").iterdir())) == 1
        shutil.rmtree(tmp_path / "logs")
        (tmp_path / "logs").write_text("in the way")
        with pytest.warns(
            AsgradWarning, match=r"TensorBoard are given up, the run goes on: .*logs"
        ):
            log(50, 0.5, 1.5, 0.25)
        log(60, 0.6, 1.5, 0.25)
    assert [values[0] for values in seen] == [0, 10, 50, 60]
