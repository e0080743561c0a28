"""The journal of a live run: written once, read again, on disk beside the checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.simulation.books import Books
from asgrad.training import checkpoint, journal
from asgrad.training.arithmetic import Arithmetic
from asgrad.training.checkpoint import _read_segments, _Segments, list_checkpoints
from asgrad.training.journal import Part, retell
from asgrad.training.server import Server

N_WORKERS = 4


def played(method: ag.Method, n_arrivals: int) -> Server:
    """A server to which gradients of zeros have arrived, of the worker of the oldest job."""
    problem = ag.problems.Quadratic(np.ones(2), n_workers=N_WORKERS)
    opening = method.begin(N_WORKERS, 0)
    numbers = Arithmetic(problem, ag.recipes.Parts(), opening, np.ones(2), 0.5, "float64")
    server = Server(method, opening, N_WORKERS, numbers)
    jobs = list(server.start(0.0).assigned)
    for moment in range(1, n_arrivals + 1):
        jobs += server.arrive(jobs.pop(0), np.zeros((2, 1)), float(moment)).assigned
        jobs = [job for job in jobs if server.expects(job)]
    return server


def columns(parts: list[Part]) -> list[np.ndarray]:
    """The events of all parts, and what was said on them."""
    return [np.concatenate(column) for column in zip(*(p.arrays() for p in parts), strict=True)]


@pytest.fixture
def short_pages(monkeypatch):
    """Pages of seven events, of which one stays in memory."""
    monkeypatch.setattr(journal, "_CHUNK", 7)
    monkeypatch.setattr(journal, "_IN_MEMORY", 1)


@pytest.mark.parametrize("method", [ag.methods.Pure(), ag.methods.Ringleader()])
def test_what_lies_in_files_is_read_again(method, short_pages, monkeypatch):
    """Most pages were spilled; events, decisions and the trace are those of one long page."""
    spilled = played(method, 100)
    in_files = [part.spool is not None for part in spilled.journal.parts()]
    assert sum(in_files) == len(in_files) - 2
    monkeypatch.undo()
    whole = played(method, 100)
    assert len(whole.journal.parts()) == 1
    for found, expected in zip(
        columns(spilled.journal.parts()), columns(whole.journal.parts()), strict=True
    ):
        assert found.tobytes() == expected.tobytes()
    for found, expected in zip(spilled.tables()[:2], whole.tables()[:2], strict=True):
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_full_disk_keeps_pages_in_memory(short_pages, monkeypatch):
    """Nothing is lost."""

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.tempfile, "TemporaryFile", full)
    server = played(ag.methods.Pure(), 100)
    assert all(part.spool is None for part in server.journal.parts())
    assert server.tables().n_steps == 100


def test_parts_do_not_change_when_more_is_written():
    """A checkpoint is written while the run goes on."""
    server = played(ag.methods.Pure(), 10)
    parts = server.journal.parts()
    before = [column.copy() for column in columns(parts)]
    for moment in range(11, 20):
        server.arrive(server.unfinished()[0], np.zeros((2, 1)), float(moment))
    for found, expected in zip(columns(parts), before, strict=True):
        assert found.tobytes() == expected.tobytes()
    assert server.journal.n_events == 20  # the beginning, and every arrival


def test_another_decision_is_noticed():
    """Of a compiled method and of one in Python; a changed job, weight, target or count."""

    class Own(ag.Method):
        name = "own"

        def start(self, server):
            for worker in range(server.n_workers):
                server.assign(worker)

        def arrive(self, server, worker, read_step):
            server.apply(0.5)
            server.take_step()
            server.assign(worker)

    for method in (ag.methods.Pure(), Own()):
        server = played(method, 30)
        events, said = columns(server.journal.parts())

        def repeats(events, said, method=method):
            opening = method.begin(N_WORKERS, 0)
            books = Books(opening, N_WORKERS, record=False)
            return retell(books, opening, [Part.of(events, said)], decide=True)

        assert repeats(events.copy(), said.copy())
        for table, field, value in (
            (said, "weight", 0.25), (said, "target", 3), (said, "code", 1), (events, "n_said", 2),
            (events, "row", 1), (events, "worker", 99), (events, "kind", 77),
        ):  # fmt: skip
            changed = [column.copy() for column in (events, said)]
            mine = changed[0] if table is events else changed[1]
            mine[field][-1] = value
            assert not repeats(*changed), field


def train(folder, steps: int, **options) -> ag.Training:
    """A run in virtual time, saved every ten steps."""
    problem = ag.problems.Quadratic(np.ones(3), n_workers=N_WORKERS)
    return ag.train(
        problem, ag.methods.Random(), 0.1, workers=ag.Virtual("linear"), steps=steps,
        checkpoints=ag.Checkpoints(folder, steps=10), evaluate_every=None, **options,
    )  # fmt: skip


def segments(folder) -> list[str]:
    """The files of the journal."""
    return sorted(path.name for path in (folder / "journal").iterdir())


def edges(written) -> list[list[int]]:
    """From which event to which each segment goes."""
    return [[int(edge) for edge in name[:25].split("-")] for name, *_ in written]


def read(folder, written) -> bytes:
    """All events and decisions of some segments."""
    return b"".join(column.tobytes() for column in columns(_read_segments(folder, written)))


def test_segments_are_appended(tmp_path, short_pages, monkeypatch):
    """A short last segment is written anew with what follows it; a long one stays as it is."""
    monkeypatch.setattr(checkpoint, "_SMALL", 25)
    files = _Segments(tmp_path, [])
    found = []
    for n_arrivals in (9, 19, 39, 39, 49, 99):  # and the beginning, which is an event, too
        parts = played(ag.methods.Ringleader(), n_arrivals).journal.parts()
        written = files.write(parts)
        found.append(edges(written))
        assert read(tmp_path, written) == b"".join(c.tobytes() for c in columns(parts))
    assert found == [
        [[0, 10]], [[0, 20]], [[0, 40]], [[0, 40]], [[0, 40], [40, 50]], [[0, 40], [40, 100]],
    ]  # fmt: skip
    files.prune({name for name, *_ in written})
    assert segments(tmp_path) == [name for name, *_ in written]


def test_segments_that_were_removed_are_written_anew(tmp_path, monkeypatch):
    """Somebody empties the folder under the run: the next checkpoint is whole again."""
    monkeypatch.setattr(checkpoint, "_SMALL", 5)
    files = _Segments(tmp_path, [])
    for n_arrivals in (9, 19):
        written = files.write(played(ag.methods.Pure(), n_arrivals).journal.parts())
    assert edges(written) == [[0, 10], [10, 20]]
    (tmp_path / "journal" / written[0][0]).unlink()
    parts = played(ag.methods.Pure(), 29).journal.parts()
    written = files.write(parts)
    assert edges(written) == [[0, 30]]
    assert read(tmp_path, written) == b"".join(c.tobytes() for c in columns(parts))


def test_a_damaged_segment_damages_what_needs_it(tmp_path, monkeypatch):
    """The checkpoint before it is resumed, and the run is the same in the end."""
    monkeypatch.setattr(checkpoint, "_SMALL", 5)
    whole = train(tmp_path / "whole", 120)
    train(tmp_path, 100)
    newest = tmp_path / "journal" / segments(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 4
    newest.write_bytes(content)
    older = len(list_checkpoints(tmp_path))
    with pytest.warns(checkpoint.CheckpointWarning, match="set aside"):
        run = train(tmp_path, 120, resume=True)
    assert older == 2
    assert run.trace.equals(whole.trace)
