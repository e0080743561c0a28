"""Resuming a run on disk."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

import asgrad as ag
from asgrad.engines import CheckpointWarning
from asgrad.engines.checkpoint import list_checkpoints, load_checkpoint
from asgrad.experiments import TrainConfig, training
from asgrad.experiments.training import (
    StoredTraining,
    check_training,
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


def small(tmp_path, **said):
    """A run's configuration and problem."""
    config = TrainConfig.read(
        None, {"workers": 2, "steps": 20, "out": str(tmp_path / "run"), **said}
    )
    return config, config.build_problem()


def test_a_run_is_not_replaced_by_another_one(tmp_path):
    config, problem = small(tmp_path)
    check_training(config.out)
    save_training(run_training(config, problem), config)
    with pytest.raises(ag.AsgradError, match="holds a run already: go on with --resume"):
        check_training(config.out)


def test_new_limits_take_the_place_of_the_old(tmp_path):
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    longer = resume_training(config.out, {"until_time": 0.5})
    assert (longer.steps, longer.until_time) == (None, 0.5)
    run = run_training(longer, problem, resume=True)
    assert run.status == ag.engines.Ending.TIME
    assert run.trace.n_steps > 20
    save_training(run, longer)
    same = resume_training(config.out, {})
    assert same == longer
    again = run_training(same, problem, resume=True)  # its limit is passed already
    assert again.trace.n_steps == run.trace.n_steps
    np.testing.assert_array_equal(again.model, run.model)


def test_a_run_without_checkpoints_is_not_begun_anew(tmp_path):
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ag.AsgradError, match="holds no checkpoint to go on from"):
        resume_training(config.out, {})


def test_a_continuation_that_is_refused_leaves_nothing(tmp_path):
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    other = config.model_copy(update={"seed": 5, "steps": 40})
    with pytest.raises(ag.AsgradError, match="is of a run with seed = 0, this one has 5"):
        run_training(other, problem, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    longer = resume_training(config.out, {"steps": 40})
    assert run_training(longer, problem, resume=True).trace.n_steps == 40


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    config, problem = small(tmp_path)
    run = run_training(config, problem)
    beside = tmp_path / "run-unfinished"
    handle = os.open(beside, os.O_RDONLY)  # locks of one process exclude each other too
    fcntl.flock(handle, fcntl.LOCK_EX)
    before = sorted(beside.rglob("*"))
    with pytest.raises(ag.AsgradError, match="another process trains in"):
        run_training(resume_training(config.out, {}), problem, resume=True)
    assert sorted(beside.rglob("*")) == before
    os.close(handle)
    save_training(run, config)


def test_a_continuation_that_is_killed_at_once_goes_on(tmp_path, monkeypatch):
    """Between the copy of the finished run and the first thing written into it."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    longer = resume_training(config.out, {"steps": 40})

    def killed(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_alone_in", killed)
        with pytest.raises(KeyboardInterrupt):
            run_training(longer, problem, resume=True)
    assert (tmp_path / "run-unfinished").is_dir()
    again = resume_training(config.out, {"steps": 40})
    assert run_training(again, problem, resume=True).trace.n_steps == 40


def test_what_somebody_else_put_into_a_run_stays(tmp_path):
    """Notes, figures, a link: in the finished folder, and in the unfinished one."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    run = tmp_path / "run"
    (run / "notes.txt").write_text("mine")
    (run / "figures").mkdir()
    (run / "figures" / "one.png").write_bytes(b"1")
    (run / "link").symlink_to("nowhere")
    longer = resume_training(config.out, {"steps": 40})
    done = run_training(longer, problem, resume=True)
    (tmp_path / "run-unfinished" / "later.txt").write_text("mine too")
    save_training(done, longer)
    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "figures" / "one.png").read_bytes() == b"1"
    assert (run / "link").is_symlink()
    assert (run / "later.txt").read_text() == "mine too"
    assert StoredTraining.load(run).trace.n_steps == 40
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_unfinished_run_is_named_with_the_way_on(tmp_path, refused):
    """Whichever of its two names is given."""
    config, problem = small(tmp_path)
    run_training(config, problem)  # it is cut off before it is saved
    run, folder = tmp_path / "run", tmp_path / "run-unfinished"
    for path in (run, folder):
        assert f"asgrad train --resume {run}." in refused(lambda p=path: StoredTraining.load(p))
    assert f"asgrad train --resume {run}." in refused(lambda: resume_training(folder, {}))
    (folder / "config.toml").unlink()
    assert "it has no config.toml" in refused(lambda: resume_training(run, {}))


def test_a_run_writes_down_the_stepsize_that_followed_from_its_data(tmp_path):
    """So that going on with other data is refused for the data, not for the stepsize."""
    config, problem = small(tmp_path)
    assert config.stepsize is None
    run_training(config, problem)
    assert resume_training(config.out, {}).stepsize == 0.25 / problem.smoothness
