"""Resuming a run on disk."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import asgrad as ag
from asgrad import files
from asgrad.errors import AsgradWarning
from asgrad.experiments import TrainConfig, folder, training
from asgrad.experiments.folder import write_facts
from asgrad.experiments.training import StoredTraining, run_training, save_training
from asgrad.experiments.training_folder import check_training, read_facts, resume_training
from asgrad.files import read_json, write_json
from asgrad.training import CheckpointWarning, tensorboard
from asgrad.training.checkpoint import list_checkpoints, load_checkpoint

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
    write_json(tmp_path / "other.json", {**read_json(header), "method": "sync"})
    for file, changed in (
        (header, (tmp_path / "other.json").read_bytes()),
        (run / "metrics.parquet", (run / "metrics.parquet").read_bytes().replace(b"loss", b"lost")),
    ):
        whole = file.read_bytes()
        assert whole != changed
        file.write_bytes(changed)
        with pytest.raises(ag.AsgradError, match=f"{file.name} is not what the run wrote"):
            StoredTraining.load(run).verify(problem)
        file.write_bytes(whole)
    facts = read_facts(run)
    facts["digests"]["0"] = facts["digests"]["20"]
    write_facts(run, facts)
    with pytest.raises(ag.AsgradError, match="the model at step 0 differs"):
        StoredTraining.load(run).verify(problem)


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
    assert run.status == "time"
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


def test_a_run_that_another_process_has_ended_meanwhile_is_not_replaced(tmp_path):
    """Both had asked whether the name is free; the second waits for its data, say."""
    config, problem = small(tmp_path)
    check_training(config.out)
    save_training(run_training(config, problem), config)
    before = StoredTraining.load(config.out).trace
    with pytest.raises(ag.AsgradError, match="holds a run already"):
        run_training(config, problem)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert StoredTraining.load(config.out).trace.equals(before)


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
    [(folder, "write_text"), (os, "replace"), (shutil, "copytree"), (training, "train")],
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
    said = config.model_dump(exclude={"dim", "noise", "alpha", "device", "evaluation_rows",
                                      "evaluation_batch"})  # fmt: skip
    config = TrainConfig.read(None, {**said, "data": str(tmp_path / "old.svm"), "batch": 8})
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, to be copied, and its problem."""
    folder = tmp_path_factory.mktemp("finished")
    config, problem = small(folder)
    save_training(run_training(config, problem), config)
    return folder / "run", problem


def flips(file, n_bits):
    """Flip one bit of a file after the other, spread over it; each is turned back."""
    whole = file.read_bytes()
    for number in range(n_bits):
        place = (number * 7919) % (8 * len(whole))
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
        yield
    file.write_bytes(whole)


def test_a_bit_of_run_json_hides_no_run(finished, tmp_path, refused):
    """It is refused in one line that names the way on; the run goes on from its checkpoints."""
    source, problem = finished
    run = Path(shutil.copytree(source, tmp_path / "run"))
    for _ in flips(run / "run.json", 150):
        text = refused(lambda: StoredTraining.load(run))
        assert "is damaged: run.json" in text
        assert text.endswith(f"asgrad train --resume {run}.")
    (run / "run.json").write_bytes(b"\xff" * 99)
    assert go_on(run, 40, problem).trace.n_steps == 40


def test_a_configuration_that_was_cut_or_changed_is_noticed(finished, tmp_path, refused):
    """At every line's end too; a part of it would be another run, without a word."""
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    whole = (run / "config.toml").read_bytes()
    lines = whole.splitlines(keepends=True)
    parts = [b"".join(lines[:count]) for count in range(len(lines))]
    for part in [*parts, whole[:-3], whole.replace(b"batch = 32", b"batch = 0")]:
        (run / "config.toml").write_bytes(part)
        for read in (StoredTraining.load, lambda path: resume_training(path, {})):
            assert "config.toml is not what was written" in refused(lambda read=read: read(run))
    (run / "config.toml").write_bytes(whole)
    assert TrainConfig.read(run / "config.toml", {}) == StoredTraining.load(run).config


def test_what_came_to_stand_there_meanwhile_stays_and_the_run_beside_it(tmp_path):
    """Somebody's folder took the name while the run went on."""
    config, problem = small(tmp_path)
    done = run_training(config, problem)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.warns(AsgradWarning, match="has been taken in the meantime; .* is in .*run-2"):
        assert save_training(done, config) == tmp_path / "run-2"
    assert len(StoredTraining.load(tmp_path / "run-2").verify(problem)) >= 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]


@pytest.mark.parametrize("name", ["", "checkpoints", "tensorboard", "config.toml"])
@pytest.mark.parametrize("of", ["run", "run-unfinished"])
def test_links_out_of_a_run_are_refused(of, name, finished, tmp_path, refused):
    """What they point to is neither moved nor removed nor written."""
    source, problem = finished
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(source, run)
    shutil.copytree(source / name, outside) if (source / name).is_dir() else outside.write_text("")
    before = sorted((path, path.lstat().st_mtime_ns) for path in outside.rglob("*"))
    link = tmp_path / of / name
    link.parent.mkdir(exist_ok=True)
    if of == "run":
        shutil.rmtree(link, ignore_errors=True)
        link.unlink(missing_ok=True)
    link.symlink_to(outside)

    def longer():
        config = TrainConfig.read(source / "config.toml", {"out": str(run), "steps": 40})
        run_training(config, problem, resume=True)

    assert "is a link" in refused(longer)
    assert sorted((path, path.lstat().st_mtime_ns) for path in outside.rglob("*")) == before


def test_a_folder_that_is_removed_under_a_run_is_made_again(tmp_path, monkeypatch):
    """With a warning at once; the run can be resumed, and its result is whole."""
    config, problem = small(tmp_path, steps=60, checkpoint_steps=5, evaluate_every=0.001)
    beside, held = tmp_path / "run-unfinished", []

    def remove(step, now):
        time.sleep(0.002)
        if step == 20:
            shutil.rmtree(beside, ignore_errors=True)
        if step == 55 and files.fcntl is not None:
            monkeypatch.setattr(files, "_mine", set())  # as another process sees it
            with files.locked(beside, wait=False) as is_held:
                held.append(is_held)
            monkeypatch.undo()

    with pytest.warns(AsgradWarning) as caught:
        done = run_training(config, problem, on_step=remove)
    said = [str(warning.message) for warning in caught]
    assert any("was removed while the run goes on; it is made again" in text for text in said)
    assert resume_training(config.out, {}).steps == 60
    if files.fcntl is not None:
        assert held == [False]  # nobody else could train in it
    save_training(done, config)
    assert StoredTraining.load(config.out).verify(problem)[-1] == 60


def test_a_result_that_cannot_be_written_is_saved_elsewhere(tmp_path, monkeypatch):
    """The disk is full at its end; the run stays resumable where it was."""
    config, problem = small(tmp_path / "full")
    done = run_training(config, problem)
    monkeypatch.setattr(training, "gettempdir", lambda: str(tmp_path / "room"))
    (tmp_path / "room").mkdir()
    written = training.write_table

    def full(path, columns):
        if "full" in path.parts:
            raise OSError(28, "No space left on device", str(path))
        written(path, columns)

    monkeypatch.setattr(training, "write_table", full)
    with pytest.warns(AsgradWarning, match=r"No space left .* The run is in .*; move it"):
        path = save_training(done, config)
    assert path == tmp_path / "room" / "asgrad-saved" / "run"
    assert len(StoredTraining.load(path).verify(problem)) >= 2
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["run-unfinished"]
    monkeypatch.setattr(training, "write_table", written)
    assert go_on(config.out, 40, problem).trace.n_steps == 40


class FailingDisk:
    """Calls of the system that fail from the k-th on, below one folder."""

    CALLS = ("open", "mkdir", "fsync", "rename", "replace", "link", "unlink", "rmdir")

    def __init__(self, monkeypatch, folder, number, first):
        self.folder, self.number, self.left = str(folder), number, first
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def failing(self, real):
        """A call that may fail."""

        def call(target, *arguments, **options):
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            if self.folder in str(path):
                self.left -= 1
                if self.left < 0:
                    raise OSError(self.number, os.strerror(self.number), str(path))
            return real(target, *arguments, **options)

        return call


@pytest.mark.parametrize("number", [28, 30], ids=["full", "read-only"])
def test_a_disk_that_fails_at_any_moment_costs_no_result(number, tmp_path, monkeypatch):
    """From the k-th call on: the run is refused before any work, or saved with a word."""
    monkeypatch.setattr(training, "gettempdir", lambda: str(tmp_path / "room"))
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    ends = []
    for first in range(0, 1000, 5 + 6 * (number == 30)):
        disk = tmp_path / f"disk{first}"
        config, problem = small(disk, steps=5)
        done, path = None, None
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            FailingDisk(patch, disk, number, first)
            with suppress(ag.AsgradError):
                done = run_training(config, problem)
            if done is not None:
                path = save_training(done, config)
        if path is None:
            ends.append("refused")
            continue
        ends.append("there" if disk in path.parents else "elsewhere")
        assert said or ends[-1] == "there"
        assert StoredTraining.load(path).verify(problem)[-1] == 5
        if ends[-1] == "there" and not said:  # it came to its end before that moment
            break
    assert set(ends) == {"refused", "elsewhere", "there"}
    assert ends.index("elsewhere") == ends.count("refused")  # nothing is refused after its work
