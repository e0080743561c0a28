"""Checkpoints of a live run: all that it needs to go on, written beside it.

FOLDER/step-000000001234/  state.safetensors  checkpoint.json
FOLDER/journal/            what happened, in segments; a checkpoint names those that led to it
"""

from __future__ import annotations

import hashlib
import json
import queue
import shutil
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import (
    AsgradError,
    AsgradWarning,
    KindError,
    check_integer,
    check_positive,
    shown,
)
from asgrad.files import (
    Kind,
    cannot_write,
    checksum,
    need_safetensors,
    new_folder,
    read_arrays,
    remove_left,
    settle_all,
    write_arrays,
    write_text,
)
from asgrad.problems.fingerprint import difference
from asgrad.training.journal import EVENTS, SAID, Part

__all__ = [
    "Checkpoints",
    "CheckpointWarning",
    "Keeper",
    "digest",
    "list_checkpoints",
    "load_newest",
]

_STATE, _FACTS, _PREFIX = "state.safetensors", "checkpoint.json", "step-"
_KIND, _VERSION = "asgrad checkpoint", 4
_JOURNAL = "journal"
_SMALL = 1 << 14  # events; a last segment with fewer is written anew, with what follows it


def _is_checkpoint(path: Path) -> bool:
    """Say whether a path is a checkpoint, whole or not."""
    return path.name.startswith(_PREFIX)


_CHECKPOINT = Kind("checkpoint", _is_checkpoint, (_STATE, _FACTS))


class CheckpointWarning(AsgradWarning):
    """A checkpoint could not be written, or is damaged."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a live run is saved, so that it can be resumed.

    Parameters
    ----------
    folder : path
    seconds : float > 0
        Save after so many seconds,
    steps : int >= 1, optional
        or after so many server steps, whichever comes first. The start and the end are always
        saved.
    keep : int >= 1
        How many of the newest stay.
    """

    folder: str | Path
    seconds: float = 10.0
    steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | Path):
            raise KindError(
                "Checkpoints: folder must be a path, for instance 'kept', got "
                f"{shown(self.folder)}."
            )
        check_positive("Checkpoints", "seconds", self.seconds)
        check_integer("Checkpoints", "keep", self.keep, minimum=1)
        if self.steps is not None:
            check_integer("Checkpoints", "steps", self.steps, minimum=1)


class _Segments:
    """The journal on disk: files that are written once, one after the other.

    Parameters
    ----------
    folder : Path
        Of the checkpoints.
    known : list of list
        Of every segment that stands there its name, events, decisions on them, and checksum.
    """

    def __init__(self, folder: Path, known: list[list[Any]]):
        self._folder, self.known = folder / _JOURNAL, known

    def write(self, parts: Sequence[Part]) -> list[list[Any]]:
        """Write what is new in a journal; return all its segments."""
        try:
            return self._written(parts)
        except OSError as error:
            raise cannot_write(str(self._folder), error) from error

    def _written(self, parts: Sequence[Part]) -> list[list[Any]]:
        """Write what is new."""
        self._folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in self._folder.iterdir()}
        if not all(segment[0] in there for segment in self.known):
            self.known = []  # somebody has removed some: all is written anew
        n_events = sum(part.n_events for part in parts)
        first = sum(segment[1] for segment in self.known)
        if first == n_events:
            return list(self.known)
        kept = list(self.known)
        if kept and kept[-1][1] < _SMALL:
            kept.pop()
        skipped = [sum(segment[i] for segment in kept) for i in (1, 2)]
        name = f"{skipped[0]:012d}-{n_events:012d}.safetensors"
        columns = [_rest(parts, i, skipped[i]) for i in (0, 1)]
        temporary = self._folder / f"{name}.writing"
        arrays = dict(zip(("events", "said"), (c.view(np.uint8) for c in columns), strict=True))
        checksum = write_arrays(temporary, arrays)
        temporary.replace(self._folder / name)
        self.known = [*kept, [name, columns[0].size, columns[1].size, checksum]]
        return list(self.known)

    def prune(self, wanted: set[str]) -> None:
        """Remove segments that no checkpoint names."""
        for path in self._folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)


def _rest(parts: Sequence[Part], column: int, skipped: int) -> np.ndarray:
    """Return the events (0) or what was said on them (1) of all parts, without the first."""
    found = []
    for part in parts:
        size = part.n_said if column else part.n_events
        if skipped < size:
            found.append(part.arrays()[column][skipped:])
        skipped = max(skipped - size, 0)
    return np.concatenate(found) if found else np.zeros(0, (EVENTS, SAID)[column])


def _read_segments(folder: Path, segments: list[list[Any]]) -> list[Part]:
    """Return the journal of a checkpoint."""
    parts = []
    for name, _, _, found in segments:
        arrays = read_arrays(folder / _JOURNAL / name, found)
        parts.append(Part.of(arrays["events"].view(EVENTS), arrays["said"].view(SAID)))
    return parts


class Keeper:
    """Writes checkpoints in a thread of its own; one that fails is reported, and the run goes on.

    Parameters
    ----------
    rule : Checkpoints
    settings : dict
        What a resumed run must agree with.
    step, now : int, float
        Where the run begins.
    digests : dict of str to str
        Of the models at the checkpoints before, by step; those to come are added.
    segments : list of list
        Of the journal, as the checkpoint names them from which the run goes on.
    """

    def __init__(
        self,
        rule: Checkpoints,
        settings: dict[str, Any],
        step: int,
        now: float,
        digests: dict[str, str],
        segments: list[list[Any]],
    ):
        need_safetensors()
        self._rule, self._settings = rule, settings
        self.folder = Path(rule.folder)
        self._step, self._time, self._digests = step, now, digests
        self._segments = _Segments(self.folder, segments)
        self._waiting: queue.Queue[Any] = queue.Queue()
        self.failures: list[str] = []
        remove_left(self.folder)
        self._thread = threading.Thread(target=self._work, daemon=True, name="asgrad-checkpoints")
        self._thread.start()

    def due(self, step: int, now: float) -> bool:
        """Say whether it is time for another, and the one before is written."""
        late = now - self._time >= self._rule.seconds
        far = self._rule.steps is not None and step - self._step >= self._rule.steps
        return (late or far) and self._waiting.unfinished_tasks == 0

    def save(
        self,
        step: int,
        now: float,
        state: dict[str, np.ndarray],
        journal: Sequence[Part],
        facts: Any,
    ) -> None:
        """Have a checkpoint written; `facts` is what JSON can hold."""
        self._step, self._time = step, now
        self._waiting.put((step, state, journal, facts))

    def close(self) -> None:
        """Wait until all is written."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        """Write one after the other."""
        is_warned = False
        while (item := self._waiting.get()) is not None:
            try:
                self._write(*item)
                is_warned = False
            except Exception as error:  # whatever it is, the run goes on
                self.failures.append(f"checkpoint at step {item[0]}: {error}")
                text = f"{self.failures[-1]} The run goes on, and tries again."
                with suppress(CheckpointWarning):  # where warnings are errors
                    if not is_warned:  # once until one succeeds
                        warnings.warn(text, CheckpointWarning, stacklevel=1)
                is_warned = True
            finally:
                self._waiting.task_done()

    def _write(
        self, step: int, state: dict[str, np.ndarray], journal: Sequence[Part], facts: Any
    ) -> None:
        """Write a checkpoint and remove the oldest."""
        segments = self._segments.write(journal)
        self._digests[str(step)] = digest(state["models"][-1])
        with new_folder(
            self.folder / f"{_PREFIX}{step:012d}", _CHECKPOINT, overwrite=True
        ) as folder:
            head = {
                "kind": _KIND,
                "version": _VERSION,
                "step": step,
                "state_checksum": write_arrays(folder / _STATE, state),
                "journal": segments,
                "settings": self._settings,
                "facts": {**facts, "digests": self._digests},
            }
            head["head_checksum"] = checksum(head)
            write_text(folder / _FACTS, json.dumps(head, indent=1))
        there = list_checkpoints(self.folder)
        for old in there[: -self._rule.keep]:
            shutil.rmtree(old, ignore_errors=True)
        wanted = {name for name, *_ in segments}
        for path in there[-self._rule.keep :]:
            with suppress(AsgradError):  # damaged: what it names is of no use
                wanted |= {name for name, *_ in load_head(path)["journal"]}
        self._segments.prune(wanted)


def digest(model: np.ndarray) -> str:
    """Return what tells a model's bits from all others: their SHA-256, in hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(model).data).hexdigest()


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in a folder, the oldest first."""
    settle_all(Path(folder), _CHECKPOINT)
    return sorted(Path(folder).glob(f"{_PREFIX}*"))


def load_newest(
    folder: str | Path, settings: dict[str, Any] | None = None
) -> tuple[dict[str, np.ndarray], list[Part], dict[str, Any]]:
    """Return state, journal and head of the newest checkpoint that is whole.

    Those that are damaged are warned of and renamed.

    Raises
    ------
    AsgradError
        If there is none, or it is one of a run with other settings.
    """
    found = list_checkpoints(folder)
    if not found:
        raise AsgradError(f"there is no checkpoint in {folder}; nothing to resume.")
    for path in reversed(found):
        try:
            state, head = load_checkpoint(path)
            parts = _read_segments(Path(folder), head["journal"])
        except AsgradError as error:
            message = f"{error} It is set aside and the one before is tried."
            warnings.warn(message, CheckpointWarning, stacklevel=2)
            with suppress(OSError):
                path.rename(path.with_name(f"damaged-{path.name}"))
            continue
        if settings is not None:
            _check_same(path, head["settings"], settings)
        return state, parts, head
    raise AsgradError(f"every checkpoint in {folder} is damaged; the run cannot be resumed.")


def _check_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a checkpoint of a run with other settings, or of another problem."""
    problems = then["problem"], now["problem"]
    text = difference(*problems) or difference({**then, "problem": 0}, {**now, "problem": 0})
    if text:
        raise AsgradError(f"{path} is of a run with {text}; a resumed run must have the same.")


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the state in a checkpoint and its head.

    Raises
    ------
    AsgradError
        If it is damaged or of another version.
    """
    head = load_head(path)
    return read_arrays(path / _STATE, head["state_checksum"]), head


def load_head(path: Path) -> dict[str, Any]:
    """Return the head of a checkpoint, likewise."""
    try:
        head: Any = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        if not isinstance(head, dict) or head.pop("head_checksum", None) != checksum(head):
            raise ValueError(f"{_FACTS} is not what was written")
    except (OSError, ValueError, RecursionError) as error:
        raise AsgradError(f"checkpoint {path} is damaged: {error}.") from error
    if head.get("kind") != _KIND or head.get("version") != _VERSION:
        raise AsgradError(
            f"{path} is a {head.get('kind')} of version {head.get('version')}, this asgrad reads a "
            f"{_KIND} of version {_VERSION}."
        )
    return head  # type: ignore[no-any-return]
