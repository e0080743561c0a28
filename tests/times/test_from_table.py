"""Times drawn from a table in a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import asgrad as ag
from asgrad import times as room
from asgrad.registry import build
from asgrad.times import FromTable

ROWS = "worker,seconds\n10,4\n2,1.5\n\n10,5\n2,2.5e0\n3,0\n"


@pytest.fixture
def written(tmp_path):
    """A function that writes a text to a file and returns its path."""

    def written(text: str | bytes) -> str:
        path = tmp_path / "times.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return written


def columns(path: str, **more: str) -> list[list[float]]:
    return [took.tolist() for took in FromTable(path, **more).measured()]


def test_integers_are_sorted_as_numbers_and_texts_as_texts(written):
    rows = ROWS.replace("10,", "4,")
    assert columns(written(rows)) == [[1.5, 2.5], [0.0], [4.0, 5.0]]
    assert columns(written("worker,seconds\n10,4\n9,1\n8,2\n")) == [[2.0], [1.0], [4.0]]
    assert columns(written("worker,seconds\nw2,4\nw10,1\n")) == [[1.0], [4.0]]


def test_columns_have_any_name_and_place(written):
    text = '\ufeffid, took ,host\n7,3,b\n8,4,"a, first"\n'
    assert columns(written(text), worker="host", seconds="took") == [[4.0], [3.0]]


@pytest.mark.parametrize(
    "names", [pa.array([1, 0, 1]), pa.array(["y", "x", "y"]), pa.array(["1", "0", "1"]),
              pa.array(["y", "x", "y"]).dictionary_encode()], ids=str
)  # fmt: skip
def test_a_parquet_file_is_read_like_a_csv_file(tmp_path, names):
    path = tmp_path / "times"
    parquet.write_table(pa.table({"seconds": [3.0, 1.0, 2.0], "worker": names}), path)
    assert columns(str(path)) == [[1.0], [3.0, 2.0]]


def test_a_file_is_read_once_and_again_when_it_changes(written, monkeypatch):
    """Whatever asks: runs under several seeds, and the slowest worker."""
    reads = []
    real = FromTable.measured
    monkeypatch.setattr(FromTable, "measured", lambda self: reads.append(self) or real(self))
    times = FromTable(written("worker,seconds\n0,1\n1,2\n"))
    ag.compare(ag.problems.Tridiagonal(4, n_workers=2), times, ["pure"], steps=5, seeds=3)
    assert times.slowest() == 2.0
    assert len(reads) == 1
    written("worker,seconds\n0,1\n1,25\n")
    assert times.slowest() == 25.0
    assert times == FromTable(times.path)


def test_every_job_takes_one_of_its_workers_times(written):
    """Worker 1 took 2 s once and 3 s three times."""
    times = FromTable(written("worker,seconds\n0,1\n1,2\n1,3\n1,3\n1,3\n"))
    trace = ag.simulate("shuffled", times, n_workers=2, steps=4000, seed=3)
    took = room.measured_times(trace)
    np.testing.assert_allclose(took[0], 1.0)
    twos = np.isclose(took[1], 2.0)
    assert (twos | np.isclose(took[1], 3.0)).all()
    assert abs(twos.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / twos.size)
    again = ag.simulate("shuffled", times, n_workers=2, steps=4000, seed=3)
    np.testing.assert_array_equal(trace.step_times, again.step_times)


def test_a_table_is_named_on_the_command_line(written, monkeypatch, tmp_path):
    path = written("host,took\nb,3\na,4\n")
    times = build("worker times", room, f"from-table:{path},worker=host,seconds=took")
    assert times == FromTable(path, "host", "took")
    assert build("worker times", room, times.label) == times
    monkeypatch.setenv("HOME", str(tmp_path))
    assert columns("~/times.csv", worker="host", seconds="took") == [[4.0], [3.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown column of PATH 'worker'."),
        ("worker,seconds\n", "FromTable: PATH has no rows."),
        ("workers,seconds\n0,1\n", "column of PATH 'worker'. Did you mean 'workers'?"),
        ("worker,time\n0,1\n", "unknown column of PATH 'seconds'."),
        ("worker,seconds\n0,1\n0,fast\n", "PATH, line 3: seconds must be a finite number >= 0,"),
        ("worker,seconds\n0,-1\n", "PATH, line 2: seconds must be a finite number >= 0, got '-1'."),
        (
            "worker,seconds\n0,nan\n",
            "PATH, line 2: seconds must be a finite number >= 0, got 'nan'",
        ),
        ("worker,seconds\n\n0,inf\n", "PATH, line 3: seconds must be a finite number >= 0"),
        ("worker,seconds\n0,\n", "PATH, line 2: seconds must be a finite number >= 0, got ''."),
        ("worker,seconds\n0\n", "PATH, line 2: there must be 2 columns, got 1."),
        ("worker,seconds\n,1\n", "PATH, line 2: no worker is named."),
        ("worker,seconds\n0,1\n2,1\n", "there are workers 0 to 2, but worker 1 has no rows"),
        ("worker,seconds\n0,1\n1,1\n", "PATH has 2 workers, 3 are wanted."),
        (b"worker,seconds\n\xff,1\n", "PATH is no CSV file"),
        (b"PAR1 and so on", "PATH is no Parquet file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(refused, written, text, said):
    path = written(text)
    times = FromTable(path)
    assert said.replace("PATH", path) in refused(
        lambda: ag.simulate("pure", times, n_workers=3, steps=1)
    )


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([0.5, 1.5]), "must name workers by integers or texts, got double"),
        (pa.array([0, None]), "row 1: no worker is named"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_refused(refused, tmp_path, column, said):
    path = tmp_path / "times"
    parquet.write_table(pa.table({"seconds": [3.0, 1.0], "worker": column}), path)
    assert said in refused(FromTable(str(path)).measured)
    parquet.write_table(pa.table({"seconds": ["1", None], "worker": [0, 0]}), path)
    wanted = f"{path}, row 1: seconds must be a finite number >= 0, got None."
    assert wanted in refused(FromTable(str(path)).measured)


def test_a_file_that_cannot_be_read_is_refused(refused, tmp_path):
    assert "say from which file" in refused(FromTable().measured)
    assert "No such file" in refused(FromTable(str(tmp_path / "none.csv")).measured)
    assert "Is a directory" in refused(FromTable(str(tmp_path)).measured)


@pytest.mark.parametrize("kind", [ag.times.FromRun, FromTable])
@pytest.mark.parametrize("path", ["n" * 5000, "a\0b", "~nobody-of-this-name/times"])
def test_a_name_that_no_file_can_have_is_refused(refused, kind, path):
    assert path in refused(kind(path).measured)
