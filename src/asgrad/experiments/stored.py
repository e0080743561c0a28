"""What stands in the folder of a comparison, written and read: results, curves, traces, facts."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, in_one_line
from asgrad.experiments.folder import CONFIG, FACTS, METRICS, PIECES, write_config, write_facts
from asgrad.experiments.grid import Cell, Found, columns
from asgrad.experiments.work import Key, join_lanes, take_lanes
from asgrad.files import Kind, new_folder, read_json, write_table
from asgrad.numerics import Result, Status
from asgrad.problems.fingerprint import hashed
from asgrad.trace import Trace
from asgrad.trace.tables import stored

__all__ = [
    "KIND",
    "RUN",
    "SCHEMA_VERSION",
    "StoredTraces",
    "digests",
    "is_begun",
    "is_run",
    "metrics_of",
    "read_cells",
    "read_facts",
    "read_results",
    "slug",
    "write_piece",
    "write_run",
]

_RESULTS, _TRACES, _FIGURES = "results.parquet", "traces", "figures"
SCHEMA_VERSION = 3
KIND = "asgrad comparison"


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a finished comparison."""
    return (folder / FACTS).is_file() and (folder / _RESULTS).is_file()


RUN = Kind("run", is_run, (CONFIG, _RESULTS, METRICS, FACTS, _TRACES, _FIGURES))


def is_begun(folder: Path) -> bool:
    """Say whether a folder holds an unfinished comparison, be it damaged."""
    return (folder / FACTS).is_file() or any((folder / PIECES).glob("*.parquet"))


def write_run(
    comparison: Found,
    path: str | Path,
    config: dict[str, Any] | None,
    draw: Callable[[Path], None],
    *,
    elsewhere: bool = False,
) -> Path:
    """Write the run to a temporary name, then rename it; a run of that name is replaced.

    `draw` puts the figures into a folder that it makes. With `elsewhere` the run takes a free name
    beside `path` where something else stands there.
    """
    with new_folder(path, RUN, overwrite=True, elsewhere=elsewhere) as folder:
        if config:
            write_config(folder.folder, config)
        write_table(folder / _RESULTS, columns(comparison.cells, Cell))
        write_table(folder / METRICS, metrics_of(comparison))
        for (method, seed), trace in comparison.traces.items():
            trace.save(folder / _TRACES / _trace_name(method, seed))
        draw(folder / _FIGURES)
        about = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "complete": comparison.complete,
            "rule": asdict(comparison.rule),
            "horizon": asdict(comparison.horizon),
            "notes": comparison.notes,
            "panels": [_without_nan(asdict(panel)) for panel in comparison.panels],
            "traces": [[method, seed] for method, seed in comparison.traces],
            "played": digests(comparison.traces),
        }
        write_facts(folder.folder, {**about, **comparison.origin})
    return folder.path


def write_piece(path: Path, key: Key, result: Result) -> None:
    """Write one replay of a comparison that has not ended; nothing half-written has its name."""
    temporary = path.with_suffix(".writing")
    write_table(temporary, _rows(key, result))
    temporary.rename(path)


def metrics_of(comparison: Found) -> dict[str, np.ndarray]:
    """Return the metrics of every lane at every evaluation, the chosen ones marked."""
    chosen = {(c.panel, c.method): c.stepsize for c in comparison.cells if c.chosen}
    parts = []
    for key, result in comparison.results.items():
        rows = _rows(key, result)
        rows["chosen"] = rows["stepsize"] == chosen.get((key.panel, key.method))
        parts.append(rows)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _without_nan(value: Any) -> Any:
    """Return what JSON can hold: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digests(traces: Mapping[tuple[str, int], Trace]) -> dict[str, str]:
    """Return what tells every method's decisions, and their moments, from all others."""
    return {
        f"{method} (seed {seed})": hashed(
            [*stored(trace.jobs).values(), *trace.contributions, trace.step_times]
        )
        for (method, seed), trace in traces.items()
    }


def slug(label: str) -> str:
    """Return a label as a file name; different labels get different ones."""
    cleaned = re.sub(r"[^\w.+=-]+", "_", label)[:80]
    if cleaned == label and label == label.lower():  # some file systems know no upper case
        return cleaned
    return f"{cleaned}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _trace_name(method: str, seed: int) -> str:
    """Return the folder of a trace."""
    return f"{slug(method)}-seed{seed}"


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read what a finished or unfinished comparison says of itself.

    Raises
    ------
    AsgradError
        If there is no run at `path`, or it is damaged.
    """
    folder = Path(path)
    if not (folder / FACTS).is_file() and not is_begun(folder):
        raise AsgradError(f"no run of asgrad at {folder}.")
    try:
        facts = _read_facts(folder / FACTS)
    except (OSError, ValueError, RecursionError) as error:
        text = f"run {folder} is damaged: {FACTS}: {in_one_line(error)}."
        raise AsgradError(text) from error
    if facts.get("kind") != KIND:
        raise AsgradError(f"no comparison of asgrad at {folder}.")
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise AsgradError(f"run {folder} was written by another version of asgrad.")
    return facts


def _read_facts(path: Path) -> dict[str, Any]:
    """Read run.json; the first versions wrote it without a checksum."""
    try:
        facts: dict[str, Any] = read_json(path)
    except ValueError:
        facts = read_json(path, bare=True)
        if not isinstance(facts, dict) or facts.get("schema_version") not in (1, 2):
            raise
    return facts


def read_cells(folder: Path) -> list[Cell]:
    """Read results.parquet of a finished comparison."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(folder / _RESULTS, page_checksum_verification=True).to_pylist()
        return [Cell(**row) for row in rows]
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise _damaged(folder, error) from error


def read_results(*folders: Path, skip_damaged: bool = False) -> dict[Key, Result]:
    """Read all that was computed, from metrics.parquet and pieces; models are not stored.

    What is damaged is refused, or left out with a warning.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[Key, Result] = {}
    for folder in folders:
        for path in [folder / METRICS, *sorted((folder / PIECES).glob("*.parquet"))]:
            if not path.is_file() and not (path.name == METRICS and is_run(folder)):
                continue
            try:
                table = pq.read_table(path, page_checksum_verification=True)
                rows = {name: table[name].to_numpy() for name in table.column_names}
                for key, result in _results(rows):
                    if key in found:
                        lanes = ~np.isin(result.stepsizes, found[key].stepsizes)
                        result = join_lanes([found[key], take_lanes(result, lanes)])
                    found[key] = result
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
                if not skip_damaged:
                    raise _damaged(path, error) from error
                warnings.warn(f"{path} is damaged; its part is computed again.", stacklevel=2)
    return found


def _damaged(path: Path, error: BaseException) -> AsgradError:
    """Return the error for a run that cannot be read."""
    said = str(error).splitlines() or [type(error).__name__]
    return AsgradError(f"run {path} is damaged: {said[0].rstrip('.')}.")


class StoredTraces(Mapping[tuple[str, int], Trace]):
    """The traces of a stored comparison by method and seed, read when they are asked for."""

    def __init__(self, folder: Path, keys: list[tuple[str, int]]):
        self._folder, self._keys = folder / _TRACES, keys

    def __getitem__(self, key: tuple[str, int]) -> Trace:
        """Read one trace."""
        if key not in self._keys:
            raise KeyError(key)
        return Trace.load(self._folder / _trace_name(*key))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Go through methods and seeds."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._keys)


def _rows(key: Key, result: Result) -> dict[str, Any]:
    """Return a result as long columns, one row a lane and evaluation, lane by lane."""
    n_evaluations, n_lanes = result.loss.shape
    size = n_evaluations * n_lanes
    return {
        "panel": np.full(size, key.panel),
        "method": np.full(size, key.method),
        "stepsize": np.repeat(result.stepsizes, n_evaluations),
        "seed": np.full(size, key.seed),
        "status": np.repeat([str(status) for status in result.status], n_evaluations),
        "evaluation": np.tile(np.arange(n_evaluations), n_lanes),
        "time": np.tile(result.times, n_lanes),
        "step": np.tile(result.steps, n_lanes),
        "gradients": np.tile(result.gradients, n_lanes),
        "gradient_norm": result.gradient_norm.T.ravel(),
        "loss": result.loss.T.ravel(),
        "test_loss": result.test_loss.T.ravel(),
        "accuracy": result.accuracy.T.ravel(),
    }


def _results(rows: dict[str, np.ndarray]) -> Iterator[tuple[Key, Result]]:
    """Yield what `_rows` made, key by key."""
    codes = [np.unique(rows[name], return_inverse=True)[1] for name in ("panel", "method", "seed")]
    new_key = np.any([code[1:] != code[:-1] for code in codes], axis=0)
    edges = [0, *(np.flatnonzero(new_key) + 1).tolist(), rows["seed"].size]
    for first, end in pairwise(edges):
        mine = {name: column[first:end] for name, column in rows.items()}
        n_evaluations = int(mine["evaluation"].max()) + 1
        lane = {name: column.reshape(-1, n_evaluations) for name, column in mine.items()}
        n_lanes = len(lane["loss"])
        key = Key(str(mine["panel"][0]), str(mine["method"][0]), int(mine["seed"][0]))
        measures = ("loss", "gradient_norm", "accuracy", "test_loss")
        yield (
            key,
            Result(
                stepsizes=lane["stepsize"][:, 0].copy(),
                seeds=np.full(n_lanes, key.seed, np.int64),
                status=[Status(status) for status in lane["status"][:, 0]],
                steps=lane["step"][0].astype(np.int64),
                times=lane["time"][0].copy(),
                gradients=lane["gradients"][0].copy(),
                models=np.zeros((0, n_lanes)),
                **{name: np.ascontiguousarray(lane[name].T) for name in measures},
            ),
        )
