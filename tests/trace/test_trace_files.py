"""A trace on disk: what is written comes back, and a save is whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from asgrad.errors import TraceError
from asgrad.methods import ACE, MSync, Pure, Ringleader, Ringmaster
from asgrad.simulation import simulate
from asgrad.times import Exponential, Linear
from asgrad.trace import Contributions, Fate, Header, Jobs, Trace
from asgrad.trace.tables import stored

FILES = {"header.json", "jobs.parquet", "contributions.parquet", "steps.parquet"}


def ringmaster(steps: int = 30) -> Trace:
    """A trace with applied, dropped and cancelled jobs and jobs in flight."""
    return simulate(
        Ringmaster(max_delay=2, stop_stale=True), Exponential(), n_workers=4, steps=steps, seed=2
    )


TRACES = {
    "stops stale jobs": ringmaster,
    "drops stale jobs": lambda: simulate(Ringmaster(max_delay=2), Linear(), n_workers=4, steps=30),
    "cancels": lambda: simulate(MSync(m=2), Exponential(), n_workers=4, steps=9),
    "holds a table": lambda: simulate(Ringleader(), Exponential(), n_workers=3, steps=20),
    "replaces a table": lambda: simulate(ACE(), Linear(), n_workers=3, steps=20),
    "no step": lambda: simulate(Pure(), Linear(), n_workers=3, steps=0),
    "no step, ended by time": lambda: simulate(Pure(), Linear(), n_workers=3, until_time=0.5),
    "one step": lambda: simulate(Pure(), Linear(), n_workers=1, steps=1),
    "large seed": lambda: simulate(Pure(), Linear(), n_workers=2, steps=5, seed=2**62),
}
every_trace = pytest.mark.parametrize("make", TRACES.values(), ids=TRACES)


@every_trace
def test_what_is_saved_is_loaded(tmp_path, make):
    trace = make()
    assert trace.save(tmp_path / "trace") == tmp_path / "trace"
    loaded = Trace.load(tmp_path / "trace")
    for mine, theirs in zip(
        (*loaded.jobs, *loaded.contributions, loaded.step_times),
        (*trace.jobs, *trace.contributions, trace.step_times),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs, strict=True)
        assert mine.tobytes() == theirs.tobytes()
    assert loaded.header == trace.header
    assert loaded.equals(trace)
    assert trace.equals(loaded)


@every_trace
def test_a_folder_holds_its_tables_and_a_header_and_nothing_else(tmp_path, make):
    path = make().save(str(tmp_path / "trace"))
    assert isinstance(path, Path)
    assert set(os.listdir(path)) == FILES
    assert os.listdir(tmp_path) == ["trace"]
    header = json.loads((path / "header.json").read_text())
    assert header["schema_version"] == 1
    assert set(header) == {
        *("method", "times", "n_workers", "seed", "end_time", "stopped_by"),
        *("versions", "schema_version", "recipe", "bound", "may_skip", "checksum"),
    }


@every_trace
def test_pandas_reads_the_tables(tmp_path, make):
    trace = make()
    path = trace.save(tmp_path / "trace")
    tables = {
        "jobs": stored(trace.jobs),
        "contributions": trace.contributions._asdict(),
        "steps": {"time": trace.step_times},
    }
    for name, columns in tables.items():
        frame = pd.read_parquet(path / f"{name}.parquet")
        assert list(frame.columns) == list(columns)
        for column, wanted in columns.items():
            np.testing.assert_array_equal(frame[column].to_numpy(), wanted, strict=True)


def test_the_columns_have_the_documented_types(tmp_path):
    frame = pd.read_parquet(ringmaster().save(tmp_path / "trace") / "jobs.parquet")
    assert dict(frame.dtypes.astype(str)) == {
        "worker": "int32",
        "read_step": "int64",
        "draw": "int64",
        "assign_time": "float64",
        "start_time": "float64",
        "arrival_time": "float64",
        "fate": "int8",
    }


def test_a_trace_made_by_hand_round_trips(tmp_path):
    jobs = Jobs(
        worker=np.array([0, 1, 0], np.int32),
        read_step=np.array([0, 0, 1]),
        draw=np.array([0, 0, 1]),
        assign_time=np.array([0.0, 0.0, 0.1]),
        start_time=np.array([0.0, 0.0, np.nan]),
        arrival_time=np.array([0.1, 1 / 3, np.nan]),
        fate=np.array([Fate.APPLIED, Fate.DROPPED, Fate.IN_FLIGHT], np.int8),
    )
    rows = Contributions(
        np.array([0]), np.array([-1], np.int32), np.array([0]), np.array([1]), np.array([0.1])
    )
    header = Header("mine", "mine:Größe=½", 2, 7, 1 / 3, "jobs", {"asgrad": "0"})
    trace = Trace(jobs, rows, np.array([0.1]), header)
    assert Trace.load(trace.save(tmp_path / "mine")).equals(trace)


def test_traces_that_differ_in_anything_are_not_equal():
    trace = ringmaster()
    assert trace.equals(ringmaster())
    assert not trace.equals(ringmaster(steps=29))
    for table in ("jobs", "contributions"):
        columns = getattr(trace, table)
        for name, column in columns._asdict().items():
            changed = column.copy()
            changed[0] = 1 if name == "finish_time" else changed[0] + 1
            other = columns._replace(**{name: changed})
            assert not trace.equals(Trace(**(vars_of(trace) | {table: other})))
    times = trace.step_times.copy()
    times[-1] = np.nextafter(times[-1], np.inf)
    assert not trace.equals(Trace(**(vars_of(trace) | {"step_times": times})))


def vars_of(trace: Trace) -> dict:
    """The parts that a trace is made of."""
    return {
        name: getattr(trace, name) for name in ("jobs", "contributions", "step_times", "header")
    }


@pytest.mark.parametrize("name", ["a b", "seed=3", "50%", "what?", "größe", "x.parquet", ".hidden"])
def test_any_name_will_do(tmp_path, name):
    trace = ringmaster()
    path = trace.save(tmp_path / name / "trace=1")
    assert Trace.load(path).equals(trace)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    trace = ringmaster()
    assert trace.save("~/runs/a=1") == tmp_path / "home" / "runs" / "a=1"
    assert Trace.load(Path("~/runs/a=1")).equals(trace)
    assert os.listdir(tmp_path) == ["home"]
    trace.save(tmp_path / "~")  # nowhere but at the beginning
    assert Trace.load(tmp_path / "~").equals(trace)


@pytest.mark.parametrize("path", ["n" * 400, "a\0b", "~nobody-of-this-name/trace", "", "\ud800"])
def test_a_path_that_cannot_be_is_no_trace(refused, path):
    assert "trace" in refused(lambda: Trace.load(path), TraceError)


def test_missing_folders_are_made(tmp_path):
    trace = ringmaster()
    trace.save(tmp_path / "runs" / "today" / "trace")
    assert Trace.load(tmp_path / "runs" / "today" / "trace").equals(trace)


def test_a_relative_path_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace = ringmaster()
    trace.save("trace")
    assert Trace.load(tmp_path / "trace").equals(trace)
    assert os.listdir() == ["trace"]


def test_saving_over_a_trace_replaces_it(tmp_path):
    old, new = ringmaster(), simulate(Pure(), Linear(), n_workers=2, steps=3)
    path = old.save(tmp_path / "trace")
    (path / "note.txt").write_text("somebody's own")
    new.save(path)
    assert Trace.load(path).equals(new)
    assert set(os.listdir(path)) == FILES | {"note.txt"}
    assert (path / "note.txt").read_text() == "somebody's own"
    assert os.listdir(tmp_path) == ["trace"]


def test_saving_over_a_damaged_trace_replaces_it(tmp_path):
    trace = ringmaster()
    path = trace.save(tmp_path / "trace")
    (path / "jobs.parquet").write_bytes(b"")
    trace.save(path)
    assert Trace.load(path).equals(trace)


def test_a_trace_survives_being_saved_over_itself(tmp_path):
    path = ringmaster().save(tmp_path / "trace")
    loaded = Trace.load(path)
    loaded.save(path)
    assert Trace.load(path).equals(loaded)


def test_a_folder_that_is_no_trace_is_left_untouched(refused, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    text = refused(lambda: ringmaster().save(folder), TraceError)
    assert str(folder) in text
    assert os.listdir(folder) == ["chapter.txt"]
    assert (folder / "chapter.txt").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["thesis"]


def test_an_empty_folder_is_taken(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    trace = ringmaster()
    trace.save(folder)
    assert Trace.load(folder).equals(trace)
    assert os.listdir(tmp_path) == ["empty"]


def test_a_plain_file_is_left_untouched(refused, tmp_path):
    file = tmp_path / "notes"
    file.write_text("mine")
    assert str(file) in refused(lambda: ringmaster().save(file), TraceError)
    assert file.read_text() == "mine"
    assert os.listdir(tmp_path) == ["notes"]


def test_what_is_behind_a_link_is_left_untouched(refused, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(folder)
    refused(lambda: ringmaster().save(tmp_path / "link"), TraceError)
    assert os.listdir(folder) == ["chapter.txt"]
    assert set(os.listdir(tmp_path)) == {"thesis", "link"}


@pytest.mark.parametrize(
    "below", ["file/trace", "file/deep/er/trace", "n" * 400, "a\0b"], ids=lambda name: name[:12]
)
def test_an_unwritable_target_is_refused(refused, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    refused(lambda: ringmaster().save(str(tmp_path / below)), TraceError)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("path", ["", ".", ".."])
def test_a_path_without_a_name_is_refused(refused, tmp_path, monkeypatch, path):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    refused(lambda: ringmaster().save(path), TraceError)
    assert os.listdir(home) == []
    assert os.listdir(tmp_path) == ["home"]


def test_a_full_disk_leaves_nothing_half_written(refused, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    trace, old = ringmaster(), simulate(Pure(), Linear(), n_workers=2, steps=3)
    path = old.save(tmp_path / "trace")
    monkeypatch.setattr(os, "fsync", full)
    text = refused(lambda: trace.save(path), TraceError)
    assert "No space left on device" in text
    assert os.listdir(tmp_path) == ["trace"]
    assert Trace.load(path).equals(old)


def test_what_an_interrupted_save_left_behind_is_no_hindrance(tmp_path):
    trace = ringmaster()
    left = trace.save(tmp_path / "other")
    left.rename(tmp_path / ".trace.0123abcd.writing")
    (tmp_path / ".trace.0123abcd.writing" / "jobs.parquet").write_bytes(b"half")
    trace.save(tmp_path / "trace")
    assert Trace.load(tmp_path / "trace").equals(trace)
    assert os.listdir(tmp_path) == ["trace"]


def test_a_column_that_a_trace_may_lack_is_written_where_it_says_something(tmp_path):
    plain = simulate(Pure(), Linear(), n_workers=2, steps=4)
    path = plain.save(tmp_path / "plain")
    assert "work" not in pd.read_parquet(path / "jobs.parquet").columns
    assert (Trace.load(path).jobs.work == 1).all()

    local = simulate("pure+local-steps:n=3", Linear(), n_workers=2, steps=4)
    path = local.save(tmp_path / "local")
    assert pd.read_parquet(path / "jobs.parquet")["work"].tolist() == [3] * local.n_jobs
    assert Trace.load(path).equals(local)


def test_a_job_of_several_gradients_takes_so_much_longer_and_has_so_many_draws():
    """Worker 0 needs 1 s a gradient, worker 1 2 s: with 3 and 2 of them 3 s and 4 s a job."""
    trace = simulate("pure+local-steps:n=3/2", Linear(), n_workers=2, until_time=8.0)
    jobs = trace.jobs
    assert jobs.arrival_time[jobs.worker == 0].tolist()[:2] == [3.0, 6.0]
    assert jobs.arrival_time[jobs.worker == 1].tolist()[:2] == [4.0, 8.0]
    assert jobs.draw[jobs.worker == 0].tolist() == [0, 3, 6]
    assert jobs.draw[jobs.worker == 1].tolist() == [0, 2, 4]
