"""A comparison on disk; what is computed is never computed again, whatever ends the process.

runs/NAME/             config.toml  results.parquet  metrics.parquet  run.json  traces/  figures/
runs/NAME-unfinished/  config.toml  run.json  pieces/    (until the comparison ends)
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import AsgradError
from asgrad.experiments.config import to_toml
from asgrad.experiments.grid import Cell, Found, columns
from asgrad.experiments.training_folder import alone_in, unfinished
from asgrad.experiments.work import Key, join_lanes, take_lanes
from asgrad.files import (
    Kind,
    cannot_write,
    check_target,
    new_folder,
    read_json,
    write_json,
    write_table,
    write_text,
)
from asgrad.numerics import Result, Status
from asgrad.problems.fingerprint import difference, hashed
from asgrad.trace import Trace

__all__ = [
    "FRESH",
    "RunFolder",
    "StoredTraces",
    "digests",
    "is_run",
    "metrics_of",
    "open_run",
    "read_cells",
    "read_facts",
    "read_results",
    "refuse_begun",
    "slug",
    "stored_config",
    "write_run",
]

FRESH = "runs/compare"
"""Where a comparison goes that is given no folder: there, or under this name and a number."""
_CONFIG, _FACTS, _RESULTS, _METRICS = (
    "config.toml",
    "run.json",
    "results.parquet",
    "metrics.parquet",
)
_PIECES, _TRACES = "pieces", "traces"
_SCHEMA_VERSION = 2
_KIND = "asgrad comparison"


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a finished comparison."""
    return (folder / _FACTS).is_file() and (folder / _RESULTS).is_file()


_RUN = Kind("run", is_run, (_CONFIG, _RESULTS, _METRICS, _FACTS, _TRACES, "figures"))


@dataclass
class RunFolder:
    """Where a comparison goes while it is computed, and in the end."""

    target: Path
    working: Path
    resume: bool
    config: dict[str, Any] | None
    known: dict[Key, Result] = field(default_factory=dict)
    """What stands there already."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was asked before."""
    replaces: bool = False
    """Whether what stands at the target is another comparison, which this one overwrites."""
    _pieces: Iterator[int] = field(default_factory=count)

    def begin(
        self, identity: dict[str, Any], asked: dict[str, Any], played: dict[str, str]
    ) -> None:
        """Note what is to be computed; refuse to go on with anything else.

        Raises
        ------
        AsgradError
            If what is resumed is of another problem, other times or another limit, or one of its
            methods makes other decisions now.
        """
        if self.resume:
            _check_identity(self.target, self.facts["identity"], identity)
            for name, before in self.facts.get("played", {}).items():
                if played.get(name, before) != before:
                    raise AsgradError(
                        f"compare: {self.target} cannot go on: {name} makes other decisions than "
                        "it did there; what was computed is not its own. Give it another name."
                    )
        facts = {
            "kind": _KIND,
            "schema_version": _SCHEMA_VERSION,
            "complete": False,
            "replaces": self.replaces,
        }
        if self.config:  # with what the run that goes on had before
            self.config.update(
                methods=asked["methods"],
                stepsizes=asked["stepsizes"],
                extra_stepsizes=asked["extra"] or None,
                seeds=len(asked["seeds"]),
            )
        try:
            (self.working / _PIECES).mkdir(exist_ok=True)
            if self.config:
                write_text(self.working / _CONFIG, to_toml(self.config))
            write_json(
                self.working / _FACTS,
                {**facts, "identity": identity, "asked": asked, "played": played},
            )
        except OSError as error:
            raise cannot_write(str(self.working), error) from error

    def keep(self, key: Key, result: Result) -> None:
        """Write what was computed, at once."""
        folder = self.working / _PIECES
        path = next(p for i in self._pieces if not (p := folder / f"{i:05}.parquet").exists())
        temporary = path.with_suffix(".writing")
        try:
            write_table(temporary, _rows(key, result))
            temporary.rename(path)
        except OSError as error:
            raise AsgradError(f"{cannot_write(str(path), error)} {self.way_on}") from error

    def finish(self, comparison: Found, draw: Callable[[Path], None]) -> Path:
        """Write the whole run in the place where it belongs; return that."""
        try:
            write_run(comparison, self.target, self.config, draw)
        except AsgradError as error:
            raise AsgradError(f"{error} {self.way_on}") from error
        shutil.rmtree(self.working, ignore_errors=True)
        return self.target

    @property
    def way_on(self) -> str:
        """How an interrupted comparison goes on, in words; empty where nothing was kept."""
        if not any((self.working / _PIECES).glob("*.parquet")):
            return ""
        if not self.config:
            return (
                f"What was computed is kept; go on with resume=True and out={str(self.target)!r}."
            )
        command = f"asgrad compare --resume {shlex.quote(str(self.target))}"
        return f"What was computed is kept; go on with: {command}"


@contextmanager
def open_run(
    path: str | Path | None,
    *,
    config: dict[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[RunFolder]:
    """Give the folder of a comparison that begins or goes on; it vanishes if nothing is computed.

    Raises
    ------
    AsgradError
        If a run of that name is there and is neither to be overwritten nor to go on, another
        process works at it, or nothing can be written there.
    """
    made = [p for p in Path(FRESH if path is None else path).parents if not p.exists()]
    target = _fresh() if path is None else Path(path)
    working = unfinished(target)
    if path is not None:
        _check_place(target, working, overwrite, resume)
    try:
        working.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(str(working), error) from error
    with alone_in(working):
        run = RunFolder(target, working, resume, config, replaces=overwrite)
        try:
            if path is not None:  # again: another process may have ended it meanwhile
                _check_place(target, working, overwrite, resume)
            if resume:
                run.facts = read_facts(working if (working / _FACTS).is_file() else target)
                run.replaces = bool(run.facts.get("replaces"))
                # What an overwriting comparison was to replace is none of its own.
                places = [working] if run.replaces else [target, working]
                run.known = read_results(*places, skip_damaged=True)
            elif overwrite:
                shutil.rmtree(working / _PIECES, ignore_errors=True)
            yield run
        finally:
            if working.exists() and not any((working / _PIECES).glob("*.parquet")):
                shutil.rmtree(working, ignore_errors=True)
                for folder in made:
                    try:
                        folder.rmdir()
                    except OSError:  # something is in it
                        break


def _check_place(target: Path, working: Path, overwrite: bool, resume: bool) -> None:
    """Refuse a place that holds what must not be lost, or holds nothing to go on from."""
    check_target(target, _RUN, overwrite=True)  # what is there is refused below, in more words
    begun = (working / _FACTS).is_file()
    if resume:
        if not begun and not is_run(target):
            raise AsgradError(f"no comparison of asgrad at {target}; nothing to resume.")
    elif not overwrite and (begun or is_run(target)):
        what = "a comparison that was not finished" if begun else "a finished comparison"
        raise AsgradError(
            f"{target} holds {what}: add to it with --resume {target} (resume=True), replace it "
            "with --overwrite (overwrite=True), or choose another name."
        )


def _fresh() -> Path:
    """Return a name at which nothing stands, and reserve it for this process."""
    for number in count(1):
        path = Path(FRESH if number == 1 else f"{FRESH}-{number}")
        working = unfinished(path)
        if path.exists() or working.exists():
            continue
        try:
            working.parent.mkdir(parents=True, exist_ok=True)
            working.mkdir()
        except FileExistsError:  # another process was quicker
            continue
        except OSError as error:
            raise cannot_write(str(working), error) from error
        return path
    raise AssertionError("unreachable")


def _check_identity(target: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix runs of different problems, times or limits."""
    found = ""
    for name in dict.fromkeys([*before["problems"], *now["problems"]]):
        old, new = before["problems"].get(name), now["problems"].get(name)
        if old is None or new is None:
            found = found or f"a run on other problems than {', '.join(now['problems'])}"
        else:
            found = found or difference(old, new)
    rest = [{k: str(v) for k, v in said.items() if k != "problems"} for said in (before, now)]
    found = found or difference(*rest)
    if found:
        raise AsgradError(
            f"compare: {target} cannot go on: what stands there is of a run with {found}; what was "
            "computed would not compare. Choose another name for this comparison."
        )


def write_run(
    comparison: Found,
    path: str | Path,
    config: dict[str, Any] | None,
    draw: Callable[[Path], None],
) -> Path:
    """Write the run to a temporary name, then rename it; a run of that name is replaced.

    `draw` puts the figures into a folder that it makes.
    """
    with new_folder(path, _RUN, overwrite=True) as folder:
        if config:
            write_text(folder / _CONFIG, to_toml(config))
        write_table(folder / _RESULTS, columns(comparison.cells, Cell))
        write_table(folder / _METRICS, metrics_of(comparison))
        for (method, seed), trace in comparison.traces.items():
            trace.save(folder / _TRACES / _trace_name(method, seed))
        draw(folder / "figures")
        about = {
            "kind": _KIND,
            "schema_version": _SCHEMA_VERSION,
            "complete": comparison.complete,
            "rule": asdict(comparison.rule),
            "horizon": asdict(comparison.horizon),
            "notes": comparison.notes,
            "panels": [_without_nan(asdict(panel)) for panel in comparison.panels],
            "traces": [[method, seed] for method, seed in comparison.traces],
            "played": digests(comparison.traces),
        }
        write_json(folder / _FACTS, {**about, **comparison.origin})
    return folder.path


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read what a finished or unfinished comparison says of itself.

    Raises
    ------
    AsgradError
        If there is no run at `path`, or it is damaged.
    """
    folder = Path(path)
    if not (folder / _FACTS).is_file():
        raise AsgradError(f"no run of asgrad at {folder}.")
    try:
        facts = read_json(folder / _FACTS, bare=True)
        version = facts["schema_version"]
        if version == _SCHEMA_VERSION:
            identity, asked = facts["identity"], facts["asked"]
            dict(identity["problems"]), list(asked["methods"]), list(asked["seeds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, error) from error
    if version != _SCHEMA_VERSION:
        raise AsgradError(f"run {folder} was written by another version of asgrad.")
    return dict(facts)


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
        for path in [folder / _METRICS, *sorted((folder / _PIECES).glob("*.parquet"))]:
            if not path.is_file():
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


def stored_config(path: str | Path) -> Path:
    """Return the config.toml of a comparison, finished or not.

    Raises
    ------
    AsgradError
        If there is none.
    """
    for folder in (unfinished(path), Path(path)):
        if (folder / _CONFIG).is_file():
            return folder / _CONFIG
    raise AsgradError(
        f"no comparison of the command line at {path}: it has no {_CONFIG}; nothing to resume."
    )


def refuse_begun(path: Path) -> None:
    """Raise if `path` is the name or the folder of a comparison that was not finished."""
    target = path.parent / path.name.removesuffix("-unfinished")
    folder = unfinished(target)
    if not (folder / _FACTS).is_file():
        return
    n_pieces = len(list((folder / _PIECES).glob("*.parquet")))
    raise AsgradError(
        f"{target} was not finished, {n_pieces} of its replays are kept; go on with it: "
        f"asgrad compare --resume {shlex.quote(str(target))}."
    )


def slug(label: str) -> str:
    """Return a label as a file name; different labels get different ones."""
    cleaned = re.sub(r"[^\w.+=-]+", "_", label)[:80]
    if cleaned == label and label == label.lower():  # some file systems know no upper case
        return cleaned
    return f"{cleaned}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def digests(traces: Mapping[tuple[str, int], Trace]) -> dict[str, str]:
    """Return what tells every method's decisions, and their moments, from all others."""
    return {
        f"{method} (seed {seed})": hashed([*trace.jobs, *trace.contributions, trace.step_times])
        for (method, seed), trace in traces.items()
    }


def _trace_name(method: str, seed: int) -> str:
    """Return the folder of a trace."""
    return f"{slug(method)}-seed{seed}"


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
