"""Writing files so that nothing half-written is ever left looking whole."""

from __future__ import annotations

import atexit
import errno
import glob
import itertools
import json
import os
import secrets
import shutil
import signal
import threading
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, AsgradWarning, in_one_line

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Kind",
    "NewFolder",
    "cannot_write",
    "check_target",
    "checksum",
    "copy_folder",
    "free_name",
    "hold",
    "locked",
    "move_out",
    "need_safetensors",
    "new_folder",
    "read_arrays",
    "read_json",
    "read_table",
    "remove_left",
    "settle_all",
    "write_arrays",
    "write_json",
    "write_table",
    "write_text",
]

_WRITING, _OLD, _RANDOM = ".writing", ".old", "[0-9a-f]" * 8


@dataclass(frozen=True)
class Kind:
    """A kind of folder that asgrad writes."""

    what: str
    """Its name in error messages: "trace", "run"."""
    may_replace: Callable[[Path], bool]
    """Says of an existing folder whether it is such a one and may be replaced."""
    parts: Collection[str]
    """What is asgrad's in it; what somebody else has put there stays when it is replaced."""


@dataclass
class NewFolder:
    """A folder that is being filled: `new / NAME` is a path in it."""

    folder: Path
    """Where it is filled, under a temporary name of its own."""
    path: Path
    """Where it is to stand; in the end, where it stands."""

    def __truediv__(self, name: str) -> Path:
        """Return the path of a part of it."""
        return self.folder / name


def check_target(path: str | Path, kind: Kind, *, overwrite: bool = False) -> Path:
    """Return `path` if a folder can be written there.

    What is not ours is left as it is, and so is what is, unless it is to be overwritten. A
    replacement that was cut off is brought to its end, or undone.

    Raises
    ------
    AsgradError
    """
    target = Path(path)
    what = kind.what
    if target.name in ("", ".", "..") or "\0" in str(path):
        raise AsgradError(f"cannot write a {what} to {str(path)!r}: give the name of a folder.")
    try:
        with locked(target.parent):
            _settle(target, kind)
        empty = target.is_dir() and not any(target.iterdir())
        if target.is_symlink() or (target.exists() and not empty and not kind.may_replace(target)):
            raise AsgradError(
                f"{target} exists and is no {what} of asgrad; it is left as it is. Choose another "
                "name."
            )
        if target.exists() and not empty and not overwrite:
            raise AsgradError(
                f"{target} holds a {what} already; choose another name, remove it, or say that it "
                "may go: --overwrite, in Python overwrite=True."
            )
        nearest = next(folder for folder in target.absolute().parents if folder.exists())
        with TemporaryFile(dir=nearest) as probe:
            probe.write(b"x")
        probe_folder = _temporary(nearest / target.name)
        probe_folder.mkdir()
        probe_folder.rmdir()
    except OSError as error:
        raise cannot_write(f"{what} {target}", error) from error
    return target


def free_name(path: str | Path) -> Path:
    """Return `path`, or with -2, -3, ... the first name that is free, kept free for this process.

    It is an empty folder until something is written there, or the process ends.
    """
    for candidate in _names(Path(path)):
        try:
            if _is_reserved(candidate):
                return candidate
        except OSError as error:
            raise cannot_write(str(candidate), error) from error
    raise AssertionError("names do not end")


def _is_reserved(folder: Path) -> bool:
    """Make an empty folder, or take one that nobody has taken; say whether that is done."""
    is_new = not os.path.lexists(folder)
    if is_new:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
    elif folder.is_symlink() or not folder.is_dir():
        return False
    if not hold(folder, is_new) or any(folder.iterdir()):
        return False
    if is_new:
        atexit.register(_remove_empty, folder)
    return True


def hold(folder: Path, is_new: bool) -> bool:
    """Hold a folder's lock as long as this process lives, however that ends; say whether it does.

    One that was made just now is taken to be held where there are no locks.
    """
    handle = os.open(folder, os.O_RDONLY)
    held = _lock(handle, wait=False)
    if held or (held is None and is_new):
        _mine.add(_identity_of(os.fstat(handle)))
        return True
    os.close(handle)
    return False


@contextmanager
def new_folder(
    path: str | Path, kind: Kind, *, overwrite: bool = False, elsewhere: bool = False
) -> Iterator[NewFolder]:
    """Give a temporary folder to fill; at the end it takes the place of `path`, or vanishes.

    With `overwrite` it replaces what is there now. If another process writes there while it is
    filled, it takes a free name beside it, NAME-2: `path` of what is given here says which. With
    `elsewhere` it does so too where `check_target` would refuse `path`: what has been computed
    since that was asked is not to be lost.

    Raises
    ------
    AsgradError
        If it cannot be written, for instance on a full disk.
    """
    try:
        target = check_target(path, kind, overwrite=overwrite)
    except AsgradError:
        if not elsewhere:
            raise
        target = free_name(path)
    new = NewFolder(_temporary(target), target)
    old = _identity(target) if overwrite and kind.may_replace(target) else None
    try:
        with _uninterrupted(), ExitStack() as stack:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_left(target.parent, target.name)
            with locked(target.parent):  # nobody takes it for one that was left
                new.folder.mkdir()
                stack.enter_context(_filled(new.folder))
            yield new
            for folder, _, _ in os.walk(new.folder):
                _flush(Path(folder))
            with locked(target.parent):
                new.path = _put(new.folder, target, kind, old)
            _flush(target.parent)
        if new.path != Path(path):
            text = f"{path} has been taken in the meantime; the {kind.what} is in {new.path}."
            with suppress(AsgradWarning):  # where warnings are errors
                warnings.warn(text, AsgradWarning, stacklevel=3)
    except OSError as error:
        raise cannot_write(f"{kind.what} {target}", error) from error
    finally:
        shutil.rmtree(new.folder, ignore_errors=True)


def _put(temporary: Path, target: Path, kind: Kind, old: tuple[int, int] | None) -> Path:
    """Rename a folder that is whole; return its name. Only the folder `old` makes way for it."""
    try:
        if old is not None and _identity(target) == old:
            os.rename(target, _beside(target, _OLD))
        for candidate in _names(target):
            try:
                os.rename(temporary, candidate)  # an empty folder gives way, nothing else does
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                return candidate
    finally:
        with suppress(OSError):  # what is left is dealt with when this folder is written again
            _settle(target, kind)
    raise AssertionError("names do not end")


def remove_left(folder: Path, name: str | None = None) -> None:
    """Remove from `folder` what processes that are dead left when they wrote `name`, or anything.

    Where there are no locks nobody knows who is dead, and it stays.
    """
    pattern = "*" if name is None else glob.escape(name)
    for left in folder.glob(f".{pattern}.{_RANDOM}{_WRITING}"):
        if left.is_symlink() or _identity(left) in _mine:
            continue
        with suppress(OSError), locked(folder), locked(left, wait=False) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)


def settle_all(folder: Path, kind: Kind) -> None:
    """End all replacements in a folder that were cut off, as far as it can be written."""
    olds = [path for path in folder.glob(f".*.{_RANDOM}{_OLD}") if not path.is_symlink()]
    if olds:
        with suppress(OSError), locked(folder):
            for name in {path.name[1 : -len(".12345678" + _OLD)] for path in olds}:
                _settle(folder / name, kind)


def move_out(source: Path, target: Path, parts: Collection[str]) -> None:
    """Move what somebody else has put into `source` to `target`, under a free name."""
    for path in sorted(source.iterdir()):
        if path.name in parts or (path.name.startswith(".") and path.suffix == _WRITING):
            continue
        free = target / path.name
        while os.path.lexists(free):
            free = free.with_name(f"{free.name}-kept")
        os.rename(path, free)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder whose files are never changed in place: as links, where that can be done.

    Symbolic links are copied as such.
    """
    shutil.copytree(source, target, copy_function=_linked, symlinks=True)


def _linked(source: str, target: str) -> None:
    """Give a file a second name, or copy it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target)


def cannot_write(what: str, error: OSError) -> AsgradError:
    """Return the error that says what could not be written, why, and at which file."""
    where = f": {error.filename}" if error.filename else ""
    return AsgradError(f"cannot write {what}: {error.strerror or error}{where}.")


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool | None]:
    """Hold a folder's lock; it goes with the process, also when that is killed.

    Yields whether it is held: False if another has it, None where there are no such locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not there, or not to be read
        yield None
        return
    try:
        yield _identity_of(os.fstat(handle)) in _mine or _lock(handle, wait)
    finally:
        os.close(handle)


_mine: set[tuple[int, int]] = set()
"""Folders that this process holds for itself; what it writes into them needs no lock."""


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """Hold a temporary folder as long as it is filled."""
    with locked(folder):
        identity = _identity(folder)
        assert identity is not None
        _mine.add(identity)
        try:
            yield
        finally:
            _mine.discard(identity)


def _lock(handle: int, wait: bool) -> bool | None:
    """Take the lock of an open folder, as `locked` does."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without them
        return None
    return True


def _temporary(target: Path) -> Path:
    """Return a name under which nobody else writes."""
    return _beside(target, _WRITING)


def _beside(target: Path, suffix: str) -> Path:
    """Return a hidden name beside `target` that nobody has."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{suffix}")


def _names(target: Path) -> Iterator[Path]:
    """Yield a name and its successors."""
    yield target
    for number in itertools.count(2):
        yield target.with_name(f"{target.name}-{number}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one of its name; None if there is none."""
    try:
        return _identity_of(os.lstat(path))
    except OSError:
        return None


def _identity_of(stat: os.stat_result) -> tuple[int, int]:
    """Return a file's device and inode."""
    return stat.st_dev, stat.st_ino


def _remove_empty(folder: Path) -> None:
    """Remove a folder if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()


def _settle(target: Path, kind: Kind) -> None:
    """End replacements: an old folder comes back, or gives what is not ours to the new one."""
    for aside in target.parent.glob(f".{glob.escape(target.name)}.{_RANDOM}{_OLD}"):
        if aside.is_symlink() or not aside.is_dir():
            continue
        if target.exists():
            move_out(aside, target, kind.parts)
            shutil.rmtree(aside)
        else:
            os.replace(aside, target)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: what is being written is worth more than the second it takes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write_text(path: Path, text: str) -> None:
    """Write a text file and flush it to the disk; one that is there stays until it is whole."""
    temporary = _temporary(path)
    try:
        with open(temporary, "x", encoding="utf-8") as file:  # never through a link
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write facts as a JSON file with a checksum of theirs, as `write_text` does."""
    write_text(path, json.dumps({**facts, "checksum": checksum(facts)}, indent=1))


def read_json(path: Path, *, bare: bool = False) -> Any:
    """Read what `write_json` wrote; with `bare` also what has no checksum, as files had before.

    Raises
    ------
    OSError, ValueError, RecursionError
        If it cannot be read, is no JSON, or is not what was written.
    """
    facts = json.loads(path.read_bytes())
    if bare and not (isinstance(facts, dict) and "checksum" in facts):
        return facts
    if not isinstance(facts, dict) or facts.pop("checksum", None) != checksum(facts):
        raise ValueError("it is not what was written")
    return facts


def checksum(facts: dict[str, Any]) -> int:
    """Return the CRC-32 of what JSON holds."""
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> int:
    """Write arrays as a safetensors file, flush it to the disk, and return its checksum."""
    need_safetensors()
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except OSError:
        raise
    except Exception as error:  # safetensors raises its own kinds
        raise AsgradError(f"cannot write {path}: {in_one_line(error)}.") from error
    _flush(path)
    return _checksum(path)


def read_arrays(path: Path, checksum: int | None = None) -> dict[str, np.ndarray]:
    """Read a safetensors file.

    Raises
    ------
    AsgradError
        If it is damaged, or its checksum is another one.
    """
    need_safetensors()
    from safetensors.numpy import load_file

    try:
        if checksum is not None and _checksum(path) != checksum:
            raise AsgradError(f"{path} is damaged: its checksum is not the one written down.")
        arrays: dict[str, np.ndarray] = load_file(path)
    except AsgradError:
        raise
    except Exception as error:  # safetensors raises its own kinds
        raise AsgradError(f"{path} is damaged: {in_one_line(error)}") from error
    return arrays


def need_safetensors() -> None:
    """Refuse what needs safetensors where it is not installed."""
    if find_spec("safetensors") is None:
        raise AsgradError("models are stored as safetensors: pip install 'asgrad[train]'.")


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            value = zlib.crc32(piece, value)
    return value


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a Parquet file.

    Raises
    ------
    AsgradError
        If it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        return {name: table[name].to_numpy() for name in table.column_names}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise AsgradError(f"{path} is damaged: {in_one_line(error)}") from error


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write columns as a Parquet file with checksums, and flush it to the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(path, "wb") as file:
        pq.write_table(pa.table(columns), file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
