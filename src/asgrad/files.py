"""Writing files so that nothing half-written is ever left looking whole."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, in_one_line

__all__ = [
    "Kind",
    "cannot_write",
    "check_target",
    "copy_folder",
    "move_out",
    "need_safetensors",
    "new_folder",
    "read_arrays",
    "read_table",
    "write_arrays",
    "write_table",
    "write_text",
]


@dataclass(frozen=True)
class Kind:
    """A kind of folder that asgrad writes."""

    what: str
    """Its name in error messages: "trace", "run"."""
    may_replace: Callable[[Path], bool]
    """Says of an existing folder whether it is such a one and may be replaced."""
    parts: Collection[str]
    """What is asgrad's in it; what somebody else has put there stays when it is replaced."""


def check_target(path: str | Path, kind: Kind) -> Path:
    """Return `path` if a folder can be written there; what is not ours is left as it is.

    A replacement that was cut off is brought to its end, or undone.

    Raises
    ------
    AsgradError
    """
    target = Path(path)
    what = kind.what
    if target.name in ("", ".", "..") or "\0" in str(path):
        raise AsgradError(f"cannot write a {what} to {str(path)!r}: give the name of a folder.")
    try:
        _settle(target, kind)
        empty = target.is_dir() and not any(target.iterdir())
        if target.is_symlink() or (target.exists() and not empty and not kind.may_replace(target)):
            raise AsgradError(
                f"{target} exists and is no {what} of asgrad; it is left as it is. Choose another "
                "name."
            )
        nearest = next(folder for folder in target.absolute().parents if folder.exists())
        with TemporaryFile(dir=nearest) as probe:
            probe.write(b"x")
    except OSError as error:
        raise cannot_write(f"{what} {target}", error) from error
    return target


@contextmanager
def new_folder(path: str | Path, kind: Kind) -> Iterator[Path]:
    """Give a temporary folder to fill; at the end it takes the place of `path`, or vanishes.

    Raises
    ------
    AsgradError
        If it cannot be written, for instance on a full disk.
    """
    target = check_target(path, kind)
    temporary = target.with_name(f".{target.name}.writing")
    try:
        with _uninterrupted():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for folder, _, _ in os.walk(temporary):
                _flush(Path(folder))
            if target.exists():  # the old one makes way only for one that is whole
                os.replace(target, _aside(target))
            os.replace(temporary, target)
            _flush(target.parent)
    except OSError as error:
        raise cannot_write(f"{kind.what} {target}", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # what is left is dealt with when this folder is written again
            _settle(target, kind)


def move_out(source: Path, target: Path, parts: Collection[str]) -> None:
    """Move what somebody else has put into `source` to `target`, under a free name."""
    for path in sorted(source.iterdir()):
        if path.name in parts or (path.name.startswith(".") and path.suffix == ".writing"):
            continue
        free = target / path.name
        while os.path.lexists(free):
            free = free.with_name(f"{free.name}-kept")
        os.rename(path, free)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder whose files are never changed in place: as links, where that can be done."""
    shutil.copytree(source, target, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    """Give a file a second name, or copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def cannot_write(what: str, error: OSError) -> AsgradError:
    """Return the error that says what could not be written, why, and at which file."""
    where = f": {error.filename}" if error.filename else ""
    return AsgradError(f"cannot write {what}: {error.strerror or error}{where}.")


def _aside(target: Path) -> Path:
    """Return where a folder waits while its replacement takes its place."""
    return target.with_name(f".{target.name}.old")


def _settle(target: Path, kind: Kind) -> None:
    """End a replacement: the old folder comes back, or gives what is not ours to the new one."""
    aside = _aside(target)
    if not aside.is_dir():
        return
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
    temporary = path.with_name(f".{path.name}.writing")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> int:
    """Write arrays as a safetensors file, flush it to the disk, and return its checksum."""
    need_safetensors()
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
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
