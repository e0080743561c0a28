"""Resuming a run on disk."""

from __future__ import annotations

import pytest

import asgrad as ag
from asgrad.engines import CheckpointWarning
from asgrad.experiments import TrainConfig
from asgrad.experiments.training import resume_training, run_training

pytest.importorskip("safetensors")


def test_a_run_whose_checkpoints_are_all_damaged_is_never_begun_anew(tmp_path):
    """The first attempt sets them aside; the second must not take the run for a new one."""
    out = tmp_path / "run"
    config = TrainConfig.read(None, {"workers": 2, "steps": 20, "out": str(out)})
    problem = config.build_problem()
    run_training(config, problem)  # it is cut off before it is saved
    kept = tmp_path / "run-unfinished" / "checkpoints"
    damaged = sorted(kept.glob("step-*"))
    assert damaged
    for path in damaged:
        (path / "state.safetensors").write_bytes(b"")
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(ag.AsgradError, match="is damaged"),
    ):
        run_training(resume_training(out, {}), problem, resume=True)
    with pytest.raises(ag.AsgradError, match="all its checkpoints are damaged"):
        resume_training(out, {})
    assert len(list(kept.glob("damaged-*"))) == len(damaged)
