"""The journal of a live run: what its server was told, and what its method decided on it.

Both fix the run but for its numbers. From the journal the trace is written in the end, and a server
is brought back to where a checkpoint was taken; nothing else is kept of what is past.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import FunctionType
from typing import BinaryIO, NamedTuple

import numpy as np
from numba import typeof, types

from asgrad.kernels import compiled, entry_point, inlined, is_compiled
from asgrad.methods.base import RULE, Opening
from asgrad.simulation.arrays import ledger_type
from asgrad.simulation.books import Books
from asgrad.simulation.ledger import (
    carry_out,
    give_out_waiting,
    job_at,
    join_worker,
    lacks_room,
    lose_job,
    note_leaving,
    unlink_job,
    wrong_decision,
)

__all__ = ["Event", "Journal", "Part", "retell", "tell", "teller"]


class Event(IntEnum):
    """What a server can be told."""

    BEGUN = 0
    """The first jobs are assigned."""
    ARRIVED = 1
    ARRIVED_WITH_OTHERS = 2
    """The jobs that are assigned now wait for ALL_TAKEN."""
    ALL_TAKEN = 3
    LOST = 4
    """A job's worker failed."""
    LEFT = 5
    """A worker takes no more jobs, until it has JOINED."""
    JOINED = 6
    STARTED = 7
    """When a job that was called off had begun, which is heard of later."""
    RANG = 8
    """An alarm of the method went off; its number stands in the worker's place."""
    SENT = 9
    """When a job's gradient was sent, which stands in the place of its start."""
    FORGOT = 10
    """Before the job that arrives next, its worker had forgotten what its encoder remembered."""


_BEGUN, _ARRIVED, _WITH_OTHERS = (
    int(e) for e in (Event.BEGUN, Event.ARRIVED, Event.ARRIVED_WITH_OTHERS)
)
_ALL_TAKEN, _LOST, _LEFT = (int(e) for e in (Event.ALL_TAKEN, Event.LOST, Event.LEFT))
_JOINED, _STARTED, _RANG = int(Event.JOINED), int(Event.STARTED), int(Event.RANG)
_SENT, _FORGOT = int(Event.SENT), int(Event.FORGOT)

EVENTS = np.dtype(
    [
        ("kind", np.int8),
        ("worker", np.int32),
        ("row", np.int64),
        ("time", np.float64),
        ("start_time", np.float64),
        ("n_said", np.int32),
    ]
)
SAID = np.dtype([("code", np.int8), ("target", np.int32), ("weight", np.float64)])
_CHUNK = 1 << 16  # events
_IN_MEMORY = 4  # chunks; older ones lie in temporary files
# How a call ends.
DONE, LEDGER_FULL, JOURNAL_FULL, OVERFLOW, OTHERWISE, WRONG = range(6)
_ASK = -1


class Told(NamedTuple):
    """One event."""

    kind: int
    worker: int
    row: int
    time: float
    start_time: float


class Page(NamedTuple):
    """Where events are written, one chunk."""

    events: np.ndarray
    said: np.ndarray
    filled: np.ndarray
    """int64: how many of either are filled."""


@inlined
def _take(ledger, record, live, told):
    """Do in the ledger what an event says; the decisions on an arrival stand in its `out`."""
    counts, slots, now = ledger.counts, ledger.slots, told.time
    counts[0]["n_acts"] = 0
    if told.kind == _BEGUN:
        carry_out(ledger, record, live, False, now)
    elif told.kind == _RANG:
        ledger.alarms[told.worker] = np.inf
        counts[0]["arriving"] = -1
        carry_out(ledger, record, live, False, now)
    elif told.kind in (_ARRIVED, _WITH_OTHERS):
        slot = counts[0]["arriving"]
        unlink_job(ledger, told.worker, slot)
        slots[slot]["arrived"] = 1
        if record:
            ledger.jobs.start_time[told.row] = told.start_time
            ledger.log[counts[0]["arrived"]]["row"] = told.row
            ledger.log[counts[0]["arrived"]]["time"] = now
        counts[0]["flying"] -= 1
        counts[0]["arrived"] += 1
        carry_out(ledger, record, live, told.kind == _WITH_OTHERS, now)
    elif told.kind == _ALL_TAKEN:
        give_out_waiting(ledger, record, live, now)
    elif told.kind == _LOST:
        if record and told.start_time <= now:
            ledger.jobs.start_time[told.row] = told.start_time
        lose_job(ledger, record, live, job_at(ledger, told.worker, told.row), now)
    elif told.kind == _LEFT:
        note_leaving(ledger, record, told.worker, now)
    elif told.kind == _JOINED:
        join_worker(ledger, record, live, told.worker, now)
    elif told.kind == _STARTED and record:
        ledger.jobs.start_time[told.row] = told.start_time
    elif told.kind == _SENT and record and ledger.jobs.finish_time.size > 0:
        ledger.jobs.finish_time[told.row] = told.start_time


@inlined
def _is_arrival(kind):
    """Say whether an event is the arrival of a gradient."""
    return kind in (_ARRIVED, _WITH_OTHERS)


_LEDGER = ledger_type()
_TOLD = typeof(Told(0, 0, 0, 0.0, 0.0))
_PAGE = typeof(Page(np.zeros(1, EVENTS), np.zeros(1, SAID), np.zeros(2, np.int64)))
_TELL = types.int64(_LEDGER, _PAGE, _TOLD)


@compiled(_TELL)
def _tell(ledger, page, told):
    """Write an event and what was decided on it into the journal, and carry it out; or say why not.

    Nothing is done where there is no room.
    """
    out, filled = ledger.out, page.filled
    n_said = int(out[0, 0])
    if n_said >= out.shape[0]:
        return OVERFLOW
    asked = told.kind in (_ARRIVED, _WITH_OTHERS, _RANG)
    ledger.counts[0]["arriving"] = -1 if told.kind == _RANG else ledger.counts[0]["arriving"]
    if asked and wrong_decision(ledger) > 0:
        return WRONG
    if filled[0] + 1 > page.events.size or filled[1] + n_said > page.said.size:
        return JOURNAL_FULL
    if lacks_room(ledger, False, True):
        return LEDGER_FULL
    event = page.events[filled[0]]
    event["kind"] = told.kind
    event["worker"] = told.worker
    event["row"] = told.row
    event["time"] = told.time
    event["start_time"] = told.start_time
    event["n_said"] = n_said
    for i in range(n_said):
        said = page.said[filled[1] + i]
        said["code"] = int(out[i + 1, 0])
        said["target"] = int(out[i + 1, 1])
        said["weight"] = out[i + 1, 2]
    filled[0] += 1
    filled[1] += n_said
    _take(ledger, False, True, told)
    return DONE


@inlined
def _find(ledger, page, decide):
    """Find the job of the next event; return whether its method is to be asked, or what is wrong.

    `filled` counts the events, and what was said on them, that are done.
    """
    event = page.events[page.filled[0]]
    counts = ledger.counts
    counts[0]["pending"] = 1
    kind, worker = int(event["kind"]), int(event["worker"])
    if kind != _BEGUN:
        ledger.out[0, 0] = 0
    if _is_arrival(kind) or kind == _LOST:
        slot = -1
        if 0 <= worker < ledger.workers.size:
            slot = job_at(ledger, worker, event["row"])
        if slot < 0:
            return OTHERWISE
        counts[0]["arriving"] = slot
        if _is_arrival(kind) and decide:
            return _ASK
    most = ledger.alarms.size if kind == _RANG else ledger.workers.size
    if kind < 0 or kind > _FORGOT or not 0 <= worker < most:
        return OTHERWISE
    return _ASK if kind == _RANG and decide else DONE


@inlined
def _repeat(ledger, page, decide, record, live):
    """Carry out the next event; what was decided on it now must be what was said then."""
    out, filled = ledger.out, page.filled
    event = page.events[filled[0]]
    n_said = int(event["n_said"])
    if not decide and (_is_arrival(event["kind"]) or event["kind"] == _RANG):
        out[0, 0] = n_said
    if n_said != int(out[0, 0]) or n_said >= out.shape[0]:
        return OTHERWISE
    for i in range(n_said):
        said = page.said[filled[1] + i]
        if not decide:
            out[i + 1, 0] = said["code"]
            out[i + 1, 1] = said["target"]
            out[i + 1, 2] = said["weight"]
        same = out[i + 1, 0] == said["code"] and out[i + 1, 1] == said["target"]
        if not (same and out[i + 1, 2] == said["weight"]):
            return OTHERWISE
    if lacks_room(ledger, record, live):
        return LEDGER_FULL
    told = Told(
        int(event["kind"]), int(event["worker"]), event["row"], event["time"], event["start_time"]
    )
    _take(ledger, record, live, told)
    ledger.counts[0]["pending"] = 0
    filled[0] += 1
    filled[1] += n_said
    return DONE


_RETELL = types.int64(
    types.FunctionType(RULE),
    _LEDGER,
    types.int64[::1],  # the method's state
    _PAGE,
    *(types.boolean,) * 3,
)


@compiled(_RETELL)
def _retell(rule, ledger, state, page, decide, record, live):
    """Carry the events of a page out once more; with `decide`, the method is asked again."""
    counts, slots, filled = ledger.counts, ledger.slots, page.filled
    while filled[0] < page.events.size:
        if counts[0]["pending"] == 0:
            found = _find(ledger, page, decide)
            if found == _ASK:
                event = page.events[filled[0]]
                ledger.out[0, 1] = event["time"]
                ledger.out[0, 2] = event["time"] - event["start_time"]
                worker, read_step = -1 - int(event["worker"]), -1
                if event["kind"] != _RANG:
                    slot = counts[0]["arriving"]
                    worker, read_step = int(slots[slot]["worker"]), slots[slot]["read_step"]
                rule(state, worker, read_step, counts[0]["steps"], ledger.out)
            elif found != DONE:
                return found
        status = _repeat(ledger, page, decide, record, live)
        if status != DONE:
            return status
    return DONE


@cache
def _retell_in_python() -> Callable[..., int]:
    """Return `_retell` as plain Python, for a method that is a plain Python class."""
    flag = types.boolean
    pieces = {
        _find: types.int64(_LEDGER, _PAGE, flag),
        _repeat: types.int64(_LEDGER, _PAGE, flag, flag, flag),
    }
    names = {piece.py_func.__name__: entry_point(piece, kind) for piece, kind in pieces.items()}
    return FunctionType(_retell.py_func.__code__, {**globals(), **names})


@compiled(RULE)
def _silent(state, worker, read_step, step, out):
    """A rule that is not asked."""


def retell(books: Books, opening: Opening, parts: Iterable[Part], *, decide: bool) -> bool:
    """Carry out in new books what a journal tells; say whether all of it could happen so.

    With `decide`, the method decides again, and must decide as it did; then the books are those of
    a live run. Without, the books record the trace.
    """
    rule = opening.rule if decide else _silent
    loop = _retell if is_compiled(rule) else _retell_in_python()
    for part in parts:
        page = Page(*part.arrays(), np.zeros(2, np.int64))
        status = LEDGER_FULL
        while status == LEDGER_FULL:
            status = loop(rule, books.ledger, opening.state, page, decide, books.record, decide)
            if status == LEDGER_FULL:
                books.grow()
                if decide:
                    books.grow_acts()
        if status != DONE:
            return False
    return True


class _Spool:
    """A temporary file of filled pages, one after the other; it vanishes with the process."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()  # a checkpoint may be written beside the run
        weakref.finalize(self, self._file.close)

    def append(self, arrays: Sequence[np.ndarray]) -> int:
        """Write arrays; return where they begin."""
        with self._lock:
            begin = self._file.seek(0, os.SEEK_END)
            for array in arrays:
                self._file.write(array.tobytes())
            self._file.flush()
        return begin

    def read(self, begin: int, size: int) -> np.ndarray:
        """Return so many bytes, uint8."""
        with self._lock:
            self._file.seek(begin)
            return np.frombuffer(bytearray(self._file.read(size)), np.uint8)


@dataclass(frozen=True)
class Part:
    """A part of a journal, which is written to no more; in memory, or in a file."""

    n_events: int
    n_said: int
    events: np.ndarray | None = None
    said: np.ndarray | None = None
    spool: _Spool | None = None
    begin: int = 0
    """Where it stands in the file."""

    @classmethod
    def of(cls, events: np.ndarray, said: np.ndarray) -> Part:
        """Return a part in memory."""
        return cls(events.size, said.size, events, said)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the events, EVENTS, and what was said on them, SAID."""
        if self.spool is not None:
            edge = self.n_events * EVENTS.itemsize
            content = self.spool.read(self.begin, edge + self.n_said * SAID.itemsize)
            return content[:edge].view(EVENTS), content[edge:].view(SAID)
        assert self.events is not None
        assert self.said is not None
        return self.events, self.said


class Journal:
    """The journal of a run that is under way: filled parts, and a page."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._spool: _Spool | None = None
        self.page = Page(np.empty(0, EVENTS), np.empty(0, SAID), np.zeros(2, np.int64))

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return sum(part.n_events for part in self._parts) + int(self.page.filled[0])

    def parts(self) -> list[Part]:
        """Return all that was written; what is written later changes none of it."""
        n_events, n_said = self.page.filled.tolist()
        return [*self._parts, Part.of(self.page.events[:n_events], self.page.said[:n_said])]

    def read(self, parts: list[Part]) -> None:
        """Begin with what another journal held."""
        self._parts = parts

    def turn(self, n_said: int) -> None:
        """Turn to a new page, with room for so many decisions on one event."""
        if self.page.filled[0]:
            self._parts = self.parts()
        size = max(4 * _CHUNK, n_said)
        self.page = Page(np.empty(_CHUNK, EVENTS), np.empty(size, SAID), np.zeros(2, np.int64))
        old = len(self._parts) - _IN_MEMORY
        if old > 0:
            self._parts[old - 1] = self._spilled(self._parts[old - 1])

    def _spilled(self, part: Part) -> Part:
        """Return a part that lies in the journal's temporary file, of which there is one."""
        try:
            self._spool = self._spool or _Spool()
            begin = self._spool.append(part.arrays())
        except OSError:  # a full disk: memory may yet do
            return part
        return Part(part.n_events, part.n_said, spool=self._spool, begin=begin)


def tell(books: Books, journal: Journal, told: Told) -> int:
    """Tell a live run's books and journal of an event; return DONE, OVERFLOW or WRONG."""
    status = LEDGER_FULL
    call = teller()
    while status in (LEDGER_FULL, JOURNAL_FULL):
        status = call(books.ledger, journal.page, told)
        if status == LEDGER_FULL:
            books.grow()
            books.grow_acts()
        elif status == JOURNAL_FULL:
            journal.turn(int(books.ledger.out[0, 0]))
    return status


@cache
def teller() -> Callable[..., int]:
    """Return the entry point of `_tell`, compiled or loaded when it is first asked for."""
    return entry_point(_tell, _TELL)
