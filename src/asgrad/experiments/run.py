"""A comparison on disk: a folder that is whole or not there.

runs/NAME/  config.toml  results.parquet  metrics.parquet  run.json  traces/  figures/
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asgrad.errors import AsgradError
from asgrad.experiments.grid import RULE, Cell, Line, columns, summarize_method
from asgrad.files import Kind, check_target, new_folder, write_table, write_text

if TYPE_CHECKING:
    from asgrad.experiments.comparison import Comparison

__all__ = ["StoredRun", "check_writable", "is_run", "load", "save"]

_FACTS, _RESULTS = "run.json", "results.parquet"
_SCHEMA_VERSION = 1


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a finished comparison."""
    return (folder / _FACTS).is_file() and (folder / _RESULTS).is_file()


_RUN = Kind(
    "run", is_run, ("config.toml", _RESULTS, "metrics.parquet", _FACTS, "traces", "figures")
)


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """What `asgrad show` needs of a run on disk."""

    lines: list[Line]
    target: float
    smoothness: float
    complete: bool


def check_writable(path: str | Path) -> None:
    """Refuse, before any work is done, a folder that could not be written at the end."""
    check_target(path, _RUN, overwrite=True)


def save(
    comparison: Comparison,
    path: str | Path,
    config: dict[str, Any] | None,
    said: dict[str, Any],
) -> Path:
    """Write the run to a temporary name, then rename it; a run of that name is replaced."""
    from asgrad.report import write_figures

    with new_folder(path, _RUN, overwrite=True) as folder:
        if config:
            write_text(folder / "config.toml", to_toml(config))
        write_table(folder / _RESULTS, columns(comparison.cells, Cell))
        write_table(folder / "metrics.parquet", _metrics(comparison))
        for (method, seed), trace in comparison.traces.items():
            trace.save(folder / "traces" / f"{slug(method)}-seed{seed}")
        write_figures(comparison, folder / "figures")
        facts = {
            "kind": "asgrad comparison",
            "schema_version": _SCHEMA_VERSION,
            "said": said,
            "rule": RULE,
            "target": _or_null(comparison.target),
            "smoothness": _or_null(comparison.smoothness),
            "complete": comparison.complete,
        }
        write_text(folder / _FACTS, json.dumps(facts, indent=1))
    return folder.path


def load(path: str | Path) -> StoredRun:
    """Read the results of a run.

    Raises
    ------
    AsgradError
        If there is no run at `path`, or it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(path)
    if not is_run(folder):
        raise AsgradError(f"no run of asgrad at {folder}.")
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts.get("schema_version") != _SCHEMA_VERSION:
            raise AsgradError(f"run {folder} was written by another version of asgrad.")
        rows = pq.read_table(folder / _RESULTS).to_pylist()
        cells = [Cell(**row) for row in rows]
        names = dict.fromkeys(cell.method for cell in cells)
        return StoredRun(
            [summarize_method([c for c in cells if c.method == name]) for name in names],
            _or_nan(facts["target"]),
            _or_nan(facts["smoothness"]),
            bool(facts["complete"]),
        )
    except AsgradError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise AsgradError(f"run {folder} is damaged: {str(error).splitlines()[0]}.") from error


def slug(method: str) -> str:
    """Return a method's label as a file name."""
    return re.sub(r"[^\w.+-]+", "_", method)


def to_toml(config: dict[str, Any]) -> str:
    """Return a configuration as TOML."""
    said = {key: value for key, value in config.items() if value is not None}
    return "".join(f"{key} = {_toml(value)}\n" for key, value in said.items())


def _toml(value: Any) -> str:
    """Return a value in one line; JSON's scalars are TOML's too."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(v)}' for key, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _metrics(comparison: Comparison) -> dict[str, np.ndarray]:
    """Return the metrics of every lane at every evaluation, as long columns."""
    parts: list[dict[str, np.ndarray]] = []
    for (method, seed), result in comparison.results.items():
        n_evaluations, n_lanes = result.loss.shape
        parts.append(
            {
                "method": np.full(result.loss.size, method),
                "stepsize": np.tile(result.stepsizes, n_evaluations),
                "seed": np.full(result.loss.size, seed),
                "step": np.repeat(result.steps, n_lanes),
                "time": np.repeat(result.times, n_lanes),
                "gradients": np.repeat(result.gradients, n_lanes),
                "gradient_norm": result.gradient_norm.ravel(),
                "loss": result.loss.ravel(),
                "accuracy": result.accuracy.ravel(),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _or_null(number: float) -> float | None:
    """Return a number as JSON can hold it."""
    return number if math.isfinite(number) else None


def _or_nan(number: float | None) -> float:
    """Return what `_or_null` wrote as a number."""
    return float("nan") if number is None else float(number)
