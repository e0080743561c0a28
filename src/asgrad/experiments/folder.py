"""What the folders of comparisons and of trainings have in common, while they grow and after."""

from __future__ import annotations

import os
import shlex
import shutil
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asgrad.errors import AsgradError
from asgrad.experiments.config import to_toml
from asgrad.files import locked, move_out, write_json, write_text

__all__ = [
    "CONFIG",
    "FACTS",
    "METRICS",
    "PIECES",
    "alone_in",
    "check_config",
    "check_name",
    "clear_away",
    "quoted",
    "refuse_links",
    "run_of",
    "unfinished",
    "write_config",
    "write_facts",
]

CONFIG, FACTS, METRICS = "config.toml", "run.json", "metrics.parquet"
PIECES = "pieces"
"""Of a comparison: by it alone the unfinished folder of one is told from a training's."""
_UNFINISHED, _WHOLE = "-unfinished", "# whole: CRC-32 "


def unfinished(path: str | Path) -> Path:
    """Return the folder in which the run that is to become `path` lives until it ends."""
    target = Path(path)
    if not target.name:  # the folder in which one stands, or the root
        target = target.absolute()
    return target.parent / f"{target.name}{_UNFINISHED}"


def run_of(path: Path) -> Path:
    """Return the name of the run of which `path` is the name or the unfinished folder."""
    return path.parent / path.name.removesuffix(_UNFINISHED)


def quoted(path: str | Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def refuse_links(parts: Collection[str], *folders: Path) -> None:
    """Refuse what would be written, moved or removed outside of a run's folder, through a link."""
    for folder in folders:
        for path in (folder, *(folder / name for name in parts)):
            if path.is_symlink():
                raise AsgradError(
                    f"{path} is a link; what asgrad moves and removes must not lie elsewhere. Put "
                    "in its place what it points to, or choose another name."
                )


def check_name(target: Path) -> None:
    """Refuse for a run a name that is kept for one that has not ended."""
    if target.name.endswith(_UNFINISHED):
        raise AsgradError(
            f"{target}: names that end in {_UNFINISHED} are for runs that have not ended; choose "
            "another name with --out, or go on with one by its own name: --resume "
            f"{quoted(run_of(target))}."
        )


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write run.json, with a checksum."""
    write_json(folder / FACTS, facts)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write the configuration; its last line tells one that is whole from one that was cut."""
    text = to_toml(config)
    write_text(folder / CONFIG, f"{text}{_WHOLE}{zlib.crc32(text.encode()):08x}\n")


def check_config(folder: Path, command: str) -> Path:
    """Return the path of a run's configuration if it is as it was written; `command` wrote it."""
    path = folder / CONFIG
    if not path.is_file():
        raise AsgradError(f"run {folder} is damaged: it has no {CONFIG}.")
    text, mark, found = path.read_bytes().rpartition(_WHOLE.encode())
    if not mark or found.strip() != f"{zlib.crc32(text):08x}".encode():
        raise AsgradError(
            f"run {folder} is damaged: {CONFIG} is not what was written: it was cut or changed. A "
            f"run keeps its settings; with others {command} anew: asgrad {command} "
            f"{quoted(path)} --out NAME."
        )
    return path


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder that another process works in, on systems that have such locks."""
    with locked(folder, wait=False) as held:
        if held is False:
            raise AsgradError(
                f"another process works in {folder}; wait until it ends, or choose another name "
                "with --out."
            )
        yield


def clear_away(folder: Path, target: Path, parts: Collection[str]) -> None:
    """Remove the unfinished folder of a run that is written; what others put there goes to it."""
    if not folder.exists():
        return
    try:
        move_out(folder, target, parts)
        gone = folder.with_name(f".{folder.name}.old")  # at once, or it would look like a run
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError as error:
        raise AsgradError(
            f"{target} is written, but {folder} could not be cleared away: {error}. Take out of it "
            "what is yours, and remove it."
        ) from error
