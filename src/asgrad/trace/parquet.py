"""A trace on disk: a folder of Parquet files, one a table, and a JSON header.

Any reader of Parquet opens the tables: pandas.read_parquet("trace/jobs.parquet").
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np

from asgrad.errors import TraceError
from asgrad.trace.tables import COLUMNS, Contributions, Fate, Jobs
from asgrad.trace.trace import SCHEMA_VERSION, Header, Trace

__all__ = ["read", "write"]

_HEADER = "header.json"


def write(trace: Trace, path: str | Path) -> Path:
    """Write `trace` to folder `path`: to a temporary name, flushed, then renamed."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.writing")
    tables = {
        "jobs": trace.jobs._asdict(),
        "contributions": trace.contributions._asdict(),
        "steps": {"time": trace.step_times},
    }
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, columns in tables.items():
            _write_table(columns, temporary / f"{name}.parquet")
        header = json.dumps(dataclasses.asdict(trace.header), indent=1)
        _flush(temporary / _HEADER, header.encode())
        if target.exists():
            _check_is_trace(target)
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TraceError(f"cannot write trace {target}: {error.strerror or error}.") from error
    return target


def read(path: str | Path) -> Trace:
    """Read the trace in folder `path` and check that it is whole and consistent."""
    folder = Path(path)
    _check_is_trace(folder)
    header = _read_header(folder)
    tables = {name: _read_table(folder, name) for name in COLUMNS}
    trace = Trace(
        jobs=Jobs(**tables["jobs"]),
        contributions=Contributions(**tables["contributions"]),
        step_times=tables["steps"]["time"],
        header=header,
    )
    _check(trace, folder)
    return trace


def _write_table(columns: dict[str, np.ndarray], path: Path) -> None:
    """Write one table and flush it to the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(path, "wb") as file:
        pq.write_table(pa.table(columns), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path, content: bytes) -> None:
    """Write a small file and flush it to the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_is_trace(folder: Path) -> None:
    """Refuse a path that holds no trace."""
    if not folder.exists():
        raise TraceError(f"no trace at {folder}.")
    if not (folder.is_dir() and (folder / _HEADER).is_file()):
        raise TraceError(f"{folder} is not a trace: a trace is a folder that holds {_HEADER}.")


def _read_header(folder: Path) -> Header:
    """Read and check the header."""
    try:
        said = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        version = said["schema_version"]
        if version != SCHEMA_VERSION:
            raise TraceError(
                f"trace {folder} has schema version {version}; "
                f"this asgrad reads version {SCHEMA_VERSION}."
            )
        header = Header(**said)
        whole = all(isinstance(n, int) for n in (header.n_workers, header.seed))
        if not (whole and header.n_workers >= 1 and float(header.end_time) >= 0):
            raise ValueError("a value is out of range")
    except TraceError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"trace {folder} is damaged: {_HEADER}: {error}.") from error
    return header


def _read_table(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Read one table and check its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = f"{name}.parquet"
    try:
        table = pq.read_table(folder / file)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(f"trace {folder} is damaged: {file}: {reason}") from error
    wanted = COLUMNS[name]
    found = {column.name: str(column.type).replace("double", "float64") for column in table.schema}
    if found != wanted:
        raise TraceError(f"trace {folder}: {file} has columns {found}, expected {wanted}.")
    if any(column.null_count for column in table.columns):
        raise TraceError(f"trace {folder} is damaged: {file} has empty cells.")
    return {column: table[column].to_numpy().astype(dtype) for column, dtype in wanted.items()}


def _check(trace: Trace, folder: Path) -> None:
    """Refuse a trace whose tables contradict each other."""
    jobs, rows = trace.jobs, trace.contributions
    last_first = np.full(trace.n_jobs, -1, np.int64)
    job_in_range = (rows.job >= 0) & (rows.job < trace.n_jobs)
    if job_in_range.all():
        last_first[rows.job] = rows.first_step
    rules = {
        "jobs: worker must lie in [0, n_workers)": (jobs.worker >= 0)
        & (jobs.worker < trace.n_workers),
        "jobs: fate must be a known one": np.isin(jobs.fate, list(Fate)),
        "jobs: read_step must lie in [0, n_steps]": (jobs.read_step >= 0)
        & (jobs.read_step <= trace.n_steps),
        "jobs: draw must be >= 0": jobs.draw >= 0,
        "jobs: only an applied job has contributions": (last_first >= 0)
        == (jobs.fate == Fate.APPLIED),
        "contributions: job must lie in [0, n_jobs)": job_in_range,
        "contributions: entry must be >= -1": rows.entry >= -1,
        "contributions: first_step < end_step <= n_steps": (rows.first_step < rows.end_step)
        & (rows.end_step <= trace.n_steps),
        "contributions: rows must be sorted by first_step, then entry": np.append(
            True,
            (np.diff(rows.first_step) > 0)
            | ((np.diff(rows.first_step) == 0) & (np.diff(rows.entry) >= 0)),
        ),
        "contributions: weight must be finite": np.isfinite(rows.weight),
        "steps: time must be finite and never fall": np.isfinite(trace.step_times)
        & (np.diff(trace.step_times, prepend=0.0) >= 0),
    }
    for rule, holds in rules.items():
        if not holds.all():
            row = int(np.argmin(holds))
            raise TraceError(f"trace {folder} is damaged: {rule}; row {row} breaks this.")
    early = rows.first_step < jobs.read_step[rows.job]
    if early.any():
        row = int(np.argmax(early))
        raise TraceError(
            f"trace {folder} is damaged: contributions: a job cannot enter a step before the one "
            f"it read; row {row} breaks this."
        )
