"""Resuming a run on disk."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import asgrad as ag
from asgrad.engines import CheckpointWarning
from asgrad.engines.checkpoint import list_checkpoints, load_checkpoint
from asgrad.experiments import TrainConfig, training, training_folder
from asgrad.experiments.training import StoredTraining, run_training, save_training
from asgrad.experiments.training_folder import check_training, resume_training

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
    with pytest.raises(ag.AsgradError, match="of a run with batch = 32, this one has 7; it"):
        stored.verify(other)


def test_what_no_replay_proves_is_verified_too(tmp_path):
    """The trace's header, the evaluations, and the models of checkpoints that are gone."""
    config = TrainConfig.read(None, {"workers": 2, "steps": 20, "out": str(tmp_path / "run")})
    problem = config.build_problem()
    save_training(run_training(config, problem), config)
    run = tmp_path / "run"
    shutil.rmtree(run / "checkpoints")
    assert StoredTraining.load(run).verify(problem) == [0, 20]
    header = run / "trace" / "header.json"
    for file, changed in (
        (header, header.read_bytes().replace(b'"pure"', b'"sync"')),
        (run / "metrics.parquet", (run / "metrics.parquet").read_bytes().replace(b"loss", b"lost")),
    ):
        whole = file.read_bytes()
        assert whole != changed
        file.write_bytes(changed)
        with pytest.raises(ag.AsgradError, match=f"{file.name} is not what the run wrote"):
            StoredTraining.load(run).verify(problem)
        file.write_bytes(whole)
    facts = json.loads((run / "run.json").read_text())
    facts["digests"]["0"] = facts["digests"]["20"]
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ag.AsgradError, match="the model at step 0 differs"):
        StoredTraining.load(run).verify(problem)
    del facts["digests"]
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ag.AsgradError, match=r"damaged: run\.json"):
        StoredTraining.load(run)


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
    with pytest.raises(ag.AsgradError, match="another process works in"):
        run_training(resume_training(config.out, {}), problem, resume=True)
    assert sorted(beside.rglob("*")) == before
    os.close(handle)
    save_training(run, config)


@pytest.mark.parametrize(
    "moment",
    [(training_folder, "write_text"), (os, "replace"), (shutil, "copytree"), (training, "train")],
    ids=lambda moment: moment[1],
)
def test_a_continuation_that_is_killed_at_once_goes_on(moment, tmp_path, monkeypatch):
    """While the finished run is copied, or just after it."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    longer = resume_training(config.out, {"steps": 40})

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*moment, killed)
        with pytest.raises(KeyboardInterrupt):
            run_training(longer, problem, resume=True)
    assert (tmp_path / "run-unfinished").is_dir()
    again = resume_training(config.out, {"steps": 40})
    run = run_training(again, problem, resume=True)
    assert run.trace.n_steps == 40
    assert run.steps[0] == 0  # it went on, and kept what was evaluated
    assert run.stepsize == again.stepsize
    save_training(run, again)
    assert len(StoredTraining.load(tmp_path / "run").verify(problem)) >= 3


def go_on(out, steps, problem):
    """Prolong a run."""
    longer = resume_training(out, {"steps": steps})
    save_training(run_training(longer, problem, resume=True), longer)
    return StoredTraining.load(out)


def test_what_somebody_else_put_into_a_run_stays(tmp_path):
    """Notes, figures, a link, in the finished folder and in the unfinished one; both of two."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    run = tmp_path / "run"
    (run / "notes.txt").write_text("mine")
    (run / "figures").mkdir()
    (run / "figures" / "one.png").write_bytes(b"1")
    (run / "link").symlink_to("nowhere")
    os.mkfifo(run / "pipe")
    longer = resume_training(config.out, {"steps": 40})
    done = run_training(longer, problem, resume=True)
    (tmp_path / "run-unfinished" / "notes.txt").write_text("mine too")
    (tmp_path / "run-unfinished" / "link").symlink_to("elsewhere")
    save_training(done, longer)
    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "notes.txt-kept").read_text() == "mine too"
    assert (run / "figures" / "one.png").read_bytes() == b"1"
    assert os.readlink(run / "link") == "nowhere"
    assert os.readlink(run / "link-kept") == "elsewhere"
    assert (run / "pipe").is_fifo()
    assert go_on(config.out, 60, problem).trace.n_steps == 60
    assert (run / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_notes_survive_whenever_the_end_of_a_run_is_cut_off(tmp_path, monkeypatch):
    """A process that is killed at any of the renames; the next one ends what it began."""
    problem = small(tmp_path)[1]

    class Killed(BaseException):
        """As good as SIGKILL: nothing catches it, and nothing after it is written."""

    def is_alive(count=0):
        moments.extend([None] * count)
        return len(moments) < moment

    def replace(source, target):
        if "checkpoints" not in str(target) and not is_alive(1):
            raise Killed
        real_replace(source, target)

    def remove(path, **options):
        if is_alive():
            real_remove(path, **options)

    real_replace, real_remove, n_kills, moments = os.replace, shutil.rmtree, 0, []
    for moment in range(1, 20):
        config = small(tmp_path)[0].model_copy(update={"out": str(tmp_path / f"run{moment}")})
        save_training(run_training(config, problem), config)
        (Path(config.out) / "notes.txt").write_text("mine")
        longer = resume_training(config.out, {"steps": 40})
        done = run_training(longer, problem, resume=True)
        moments.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            patch.setattr(os, "rename", replace)
            patch.setattr(shutil, "rmtree", remove)
            try:
                save_training(done, longer)
            except Killed:
                n_kills += 1
            else:
                break
        assert go_on(config.out, 60, problem).trace.n_steps == 60
        kept = sorted(path.name for path in Path(config.out).glob("notes*"))
        assert kept == ["notes.txt"]
        assert (Path(config.out) / "notes.txt").read_text() == "mine"
    assert n_kills >= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"run{i}" for i in range(1, n_kills + 2)
    ]


def test_remains_of_an_unfinished_folder_do_not_take_a_finished_runs_place(tmp_path):
    """Killed while it was cleared away: the finished run goes on, not a new one."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    for name in ("config.toml", "other.txt"):
        (tmp_path / "run-unfinished").mkdir()
        if name == "config.toml":
            shutil.copy(tmp_path / "run" / name, tmp_path / "run-unfinished")
        else:
            (tmp_path / "run-unfinished" / name).write_text("mine")
        before = StoredTraining.load(tmp_path / "run").trace.n_steps
        after = go_on(config.out, before + 20, problem)
        assert after.trace.n_steps == before + 20
        assert after.verify(problem)[0] == 0
    assert (tmp_path / "run" / "other.txt").read_text() == "mine"


def test_a_configuration_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    """A full disk must not cost a run its settings."""
    config, problem = small(tmp_path)
    run_training(config, problem)  # it is cut off before it is saved
    written = (tmp_path / "run-unfinished" / "config.toml").read_text()
    again = resume_training(config.out, {"steps": 40})

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ag.AsgradError, match=r"cannot write .*No space left"):
            run_training(again, problem, resume=True)
    assert (tmp_path / "run-unfinished" / "config.toml").read_text() == written
    assert go_on(config.out, 40, problem).trace.n_steps == 40


def test_a_refused_run_takes_nothing_of_its_neighbours_along(tmp_path, monkeypatch, refused):
    """Both were the first in a folder that was not there."""
    config, problem = small(tmp_path)
    config = config.model_copy(update={"out": str(tmp_path / "runs" / "a")})
    neighbour = tmp_path / "runs" / "b-unfinished"

    def begun(*arguments, **options):
        if neighbours:
            neighbour.mkdir()
        raise ag.AsgradError("not today")

    monkeypatch.setattr(training, "train", begun)
    for neighbours in (False, True):
        assert "not today" in refused(lambda: run_training(config, problem))
        assert list(tmp_path.rglob("*")) == ([tmp_path / "runs", neighbour] if neighbours else [])


def test_names_and_links_that_could_not_be_written_are_refused_at_once(tmp_path, refused):
    """Not after the training."""
    config, problem = small(tmp_path)
    save_training(run_training(config, problem), config)
    (tmp_path / "alias").symlink_to("run")
    assert "is no training run" in refused(lambda: resume_training(tmp_path / "alias", {}))
    assert "names that end in" in refused(lambda: check_training(tmp_path / "a-unfinished"))


def test_data_that_have_moved_are_named(tmp_path, refused):
    """Where they are now; the limits stay, and other data are refused."""
    rows = np.random.default_rng(0).normal(size=(60, 3))
    for name, shift in (("old", 0.0), ("other", 1.0)):
        lines = (f"{1 - 2 * (row.sum() > shift)} 1:{row[0]} 2:{row[1]} 3:{row[2]}" for row in rows)
        (tmp_path / f"{name}.svm").write_text("\n".join(lines))
    config, _ = small(tmp_path)
    config = TrainConfig.read(None, {**config.model_dump(exclude={"dim", "noise"}),
                                     "data": str(tmp_path / "old.svm")})  # fmt: skip
    save_training(run_training(config, config.build_problem()), config)
    (tmp_path / "old.svm").rename(tmp_path / "new.svm")
    assert "no file" in refused(resume_training(config.out, {}).build_problem)
    moved = resume_training(config.out, {"data": str(tmp_path / "new.svm")})
    assert moved.steps == config.steps
    longer = moved.model_copy(update={"steps": 40})
    assert run_training(longer, moved.build_problem(), resume=True).trace.n_steps == 40
    other = resume_training(config.out, {"data": str(tmp_path / "other.svm")})
    text = refused(lambda: run_training(other, other.build_problem(), resume=True))
    assert "is of a run with other" in text


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
