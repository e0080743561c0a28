"""Resuming a run on disk."""

from __future__ import annotations

import time

import pytest

import asgrad as ag
from asgrad.engines import CheckpointWarning
from asgrad.engines.checkpoint import list_checkpoints, load_checkpoint
from asgrad.experiments import TrainConfig, training
from asgrad.experiments.training import (
    StoredTraining,
    resume_training,
    run_training,
    save_training,
)

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


@pytest.mark.parametrize("method", ["pure", "ringleader", "rennala:batch=3"])
def test_the_models_of_all_checkpoints_are_verified(method, tmp_path):
    """Also of those that newer ones have replaced, and of the part before a resumption."""
    said = {"method": method, "workers": 3, "steps": 40, "checkpoint_steps": 1,
            "out": str(tmp_path / "run")}  # fmt: skip
    config = TrainConfig.read(None, said)
    problem = config.build_problem()
    slowly = {"on_step": lambda step, now: time.sleep(0.005)}  # a checkpoint takes some steps
    save_training(run_training(config, problem, **slowly), config)
    before = StoredTraining.load(tmp_path / "run").verify(problem)
    assert before[0] == 0
    assert before[-1] == 40
    assert len(before) > 3
    longer = resume_training(tmp_path / "run", {"steps": 80})
    save_training(run_training(longer, problem, resume=True, **slowly), longer)
    stored = StoredTraining.load(tmp_path / "run")
    after = stored.verify(problem)
    assert after[: len(before)] == before
    assert after[-1] == 80
    other = TrainConfig.read(None, {**said, "batch": 7}).build_problem()
    with pytest.raises(ag.AsgradError, match=f"the model at step {before[1]} differs"):
        stored.verify(other)


@pytest.mark.parametrize("which", [0, 1])
def test_what_every_kept_checkpoint_holds_is_verified(which, tmp_path, monkeypatch):
    """A bit that differs in the older one, or in the newest, is found."""
    config = TrainConfig.read(None, {"workers": 2, "steps": 20, "out": str(tmp_path / "run")})
    problem = config.build_problem()
    save_training(run_training(config, problem), config)
    stored = StoredTraining.load(tmp_path / "run")
    paths = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert len(paths) == 2

    def altered(path):
        state, head = load_checkpoint(path)
        if path == paths[which]:
            state["models"][-1, 3] += 1.0
        return state, head

    monkeypatch.setattr(training, "load_checkpoint", altered)
    with pytest.raises(ag.AsgradError, match=f"the model at step {[0, 20][which]} differs"):
        stored.verify(problem)
