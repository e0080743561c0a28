"""A trace on disk: a folder of Parquet files, one a table, and a JSON header.

Any reader of Parquet opens the tables: pandas.read_parquet("trace/jobs.parquet").
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np

from asgrad.errors import AsgradError, TraceError, shown
from asgrad.files import Kind, new_folder, read_json, write_json, write_table
from asgrad.machine import check_memory
from asgrad.trace.consistency import check
from asgrad.trace.header import MAY_SKIP, SCHEMA_VERSION, Header
from asgrad.trace.tables import (
    COLUMNS,
    OPTIONAL,
    Absences,
    Contributions,
    Jobs,
    Tables,
    completed,
    stored,
)

__all__ = ["TRACE", "is_trace", "read", "write"]

_HEADER = "header.json"


def write(
    tables: Tables, header: Header, path: str | Path, *, overwrite: bool, elsewhere: bool
) -> Path:
    """Write a trace to folder `path`, as `new_folder` does; return where it stands."""
    path = os.path.expanduser(path)
    try:
        with new_folder(path, TRACE, overwrite=overwrite, elsewhere=elsewhere) as folder:
            write_table(folder / _file("jobs"), stored(tables.jobs))
            write_table(folder / _file("contributions"), tables.contributions._asdict())
            write_table(folder / _file("steps"), {"time": tables.step_times})
            if tables.absences.worker.size:
                write_table(folder / _file("absences"), tables.absences._asdict())
            write_json(folder / _HEADER, {**dataclasses.asdict(header), "may_skip": MAY_SKIP})
    except TraceError:
        raise
    except AsgradError as error:
        raise TraceError(str(error)) from error
    return folder.path


def read(path: str | Path) -> tuple[Tables, Header]:
    """Read the trace in folder `path` and check that it is whole and consistent."""
    folder = Path(os.path.expanduser(path))
    try:
        is_there = folder.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise TraceError(f"no trace at {folder}: {error.strerror}.") from error
    if not is_there:
        raise TraceError(f"no trace at {folder}.")
    if not is_trace(folder):
        raise TraceError(f"{folder} is not a trace: a trace is a folder that holds {_HEADER}.")
    header = _read_header(folder)
    lacks_absences = not (folder / _file("absences")).exists()
    names = [name for name in COLUMNS if not (name == "absences" and lacks_absences)]
    found = {name: _read_table(folder, name) for name in names}
    tables = Tables(
        jobs=completed(Jobs(**found["jobs"])),
        contributions=Contributions(**found["contributions"]),
        step_times=found["steps"]["time"],
        absences=Absences(**found.get("absences", {})),
    )
    check(tables, header.n_workers, f"trace {folder} is damaged")
    return tables, header


def is_trace(folder: Path) -> bool:
    """Say whether a path holds a trace."""
    return folder.is_dir() and (folder / _HEADER).is_file()


def _may_replace(folder: Path) -> bool:
    """Say whether a path holds a trace that stands by itself, not in a run."""
    return is_trace(folder) and not (folder.parent / "run.json").exists()


def _file(name: str) -> str:
    """Return the name of a table's file."""
    return f"{name}.parquet"


TRACE = Kind("trace", _may_replace, (_HEADER, *map(_file, COLUMNS)))


def _read_header(folder: Path) -> Header:
    """Read and check the header."""
    try:
        said = read_json(folder / _HEADER, bare=True)
    except RecursionError as error:
        raise TraceError(f"trace {folder} is damaged: {_HEADER} is nested too deeply.") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"trace {folder} is damaged: {_HEADER}: {reason}.") from error
    damaged = f"trace {folder} is damaged: {_HEADER}"
    if not isinstance(said, dict):
        raise TraceError(f"{damaged} must hold a table, {{...}}, got {shown(said)}.")
    optional = {"versions", "recipe", "bound"}
    names = {field.name for field in dataclasses.fields(Header)}
    skipped = said.pop("may_skip", [])
    if not (isinstance(skipped, list) and all(isinstance(name, str) for name in skipped)):
        raise TraceError(f"{damaged}: may_skip must be a list of texts, got {shown(skipped)}.")
    version = said.get("schema_version")
    if "schema_version" in said and (type(version) is not int or version != SCHEMA_VERSION):
        raise TraceError(
            f"trace {folder} has schema version {shown(version)}; "
            f"this asgrad reads version {SCHEMA_VERSION}."
        )
    if lacking := sorted(names - said.keys() - optional):
        raise TraceError(f"{damaged} lacks {', '.join(lacking)}.")
    if foreign := sorted(said.keys() - names - set(skipped)):
        raise TraceError(
            f"{damaged} has an entry {shown(foreign[0])} that this asgrad does not know; it may "
            "change what the trace means."
        )
    header = Header(**{name: value for name, value in said.items() if name in names})
    _check_header(header, folder)
    return header


def _check_header(header: Header, folder: Path) -> None:
    """Refuse a header with a value of the wrong kind or out of range."""
    texts = (header.method, header.times, header.stopped_by, header.recipe)
    rules = {
        "n_workers must be an integer >= 1": _is_whole(header.n_workers, 1),
        "seed must be an integer >= 0": _is_whole(header.seed, 0),
        "end_time must be finite and >= 0": _is_number(header.end_time) and header.end_time >= 0,
        "method, recipe, times and stopped_by must be texts": all(
            isinstance(t, str) for t in texts
        ),
        "versions must be a table of texts": isinstance(header.versions, dict)
        and all(isinstance(text, str) for text in header.versions.values()),
        "bound must be a table of finite numbers": isinstance(header.bound, dict)
        and all(_is_number(number) for number in header.bound.values()),
    }
    for rule, holds in rules.items():
        if not holds:
            raise TraceError(f"trace {folder} is damaged: {_HEADER}: {rule}.")
    try:
        check_memory(f"trace {folder}", f"{header.n_workers} workers", 100 * header.n_workers)
    except AsgradError as error:  # a summary has numbers for each
        raise TraceError(str(error)) from error


def _is_whole(value: object, minimum: int) -> bool:
    """Say whether a value is an integer in [minimum, 2^62]."""
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= 2**62


def _is_number(value: object) -> bool:
    """Say whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _read_table(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Read one table and check its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = _file(name)
    if not (folder / file).is_file():
        raise TraceError(f"trace {folder} is damaged: {file} is missing.")
    wanted = dict(COLUMNS[name])
    try:
        table = pq.read_table(folder / file, page_checksum_verification=True)
        found = {c.name: str(c.type).replace("double", "float64") for c in table.schema}
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"trace {folder} is damaged: {file}: {reason}") from error
    optional = {column: kind for column, (kind, _) in OPTIONAL.get(name, {}).items()}
    wanted |= {column: kind for column, kind in optional.items() if column in found}
    if found != wanted:
        wrong = {name: kind for name, kind in found.items() if wanted.get(name) != kind}
        has = f"has columns {shown(wrong)}" if wrong else "lacks columns"
        raise TraceError(f"trace {folder}: {file} {has}, expected {wanted}.")
    if any(column.null_count for column in table.columns):
        raise TraceError(f"trace {folder} is damaged: {file} has empty cells.")
    return {column: table[column].to_numpy().astype(dtype) for column, dtype in wanted.items()}
