"""A comparison on disk; what is computed is never computed again, whatever ends the process.

runs/NAME/             config.toml  results.parquet  metrics.parquet  run.json  traces/  figures/
runs/NAME-unfinished/  config.toml  run.json  pieces/    (until the comparison ends)
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, in_one_line
from asgrad.experiments.grid import Cell, Found, columns
from asgrad.experiments.training_folder import (
    CONFIG,
    FACTS,
    METRICS,
    PIECES,
    alone_in,
    check_config,
    check_name,
    clear_away,
    is_training_begun,
    quoted,
    refuse_links,
    unfinished,
    write_config,
    write_facts,
)
from asgrad.experiments.work import Key, join_lanes, take_lanes
from asgrad.files import Kind, cannot_write, check_target, new_folder, read_json, write_table
from asgrad.numerics import Result, Status
from asgrad.problems.fingerprint import difference, hashed
from asgrad.trace import Trace
from asgrad.trace.tables import stored

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
_RESULTS, _TRACES, _FIGURES = "results.parquet", "traces", "figures"
_UNFINISHED = (CONFIG, FACTS, PIECES)
"""What is asgrad's in the folder of a comparison that has not ended."""
_SCHEMA_VERSION = 3
_KIND = "asgrad comparison"


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a finished comparison."""
    return (folder / FACTS).is_file() and (folder / _RESULTS).is_file()


_RUN = Kind("run", is_run, (CONFIG, _RESULTS, METRICS, FACTS, _TRACES, _FIGURES))


@dataclass
class RunFolder:
    """Where a comparison goes while it is computed, and in the end."""

    target: Path
    working: Path
    resume: bool
    config: dict[str, Any] | None
    """What config.toml says; in Python only if the command line has begun the comparison."""
    known: dict[Key, Result] = field(default_factory=dict)
    """What stands there already."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was asked before."""
    by_command: bool = False
    """Whether the command line computes it, not Python."""
    replaces: bool = False
    """Whether what stands at the target is another comparison, which this one overwrites."""
    _pieces: Iterator[int] = field(default_factory=count)

    def begin(
        self,
        identity: dict[str, Any],
        asked: dict[str, Any],
        played: dict[str, str],
        said: dict[str, Any],
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
            "identity": identity,
            "asked": asked,
            "played": played,
        }
        if self.config:  # with what the run that goes on had before
            self.config.update(
                methods=asked["methods"],
                stepsizes=asked["stepsizes"],
                extra_stepsizes=asked["extra"] or None,
                seeds=len(asked["seeds"]),
                **said,
            )
        try:
            if not self.resume:  # of what is overwritten; not before the question is accepted
                shutil.rmtree(self.working / PIECES, ignore_errors=True)
            (self.working / PIECES).mkdir(exist_ok=True)
            if self.config:
                write_config(self.working, self.config)
            write_facts(self.working, facts)
        except OSError as error:
            raise cannot_write(str(self.working), error) from error

    def keep(self, key: Key, result: Result) -> None:
        """Write what was computed, at once."""
        folder = self.working / PIECES
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
            self.target = write_run(comparison, self.target, self.config, draw, elsewhere=True)
        except AsgradError as error:
            raise AsgradError(f"{error} {self.way_on}") from error
        clear_away(self.working, self.target, _UNFINISHED)
        return self.target

    @property
    def way_on(self) -> str:
        """How an interrupted comparison goes on, in words; empty where nothing was kept."""
        if not any((self.working / PIECES).glob("*.parquet")):
            return ""
        if not self.by_command:
            return (
                f"What was computed is kept; go on with resume=True and out={str(self.target)!r}."
            )
        command = f"asgrad compare --resume {quoted(self.target)}"
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
    if resume and overwrite:
        raise AsgradError("compare: a run goes on or is overwritten, not both; leave one out.")
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
        by_command = config is not None
        run = RunFolder(target, working, resume, config, by_command=by_command, replaces=overwrite)
        try:
            if path is not None:  # again: another process may have ended it meanwhile
                _check_place(target, working, overwrite, resume)
            if resume:
                run.facts = read_facts(working if _is_begun(working) else target)
                run.replaces = bool(run.facts.get("replaces"))
                # What an overwriting comparison was to replace is none of its own.
                places = [working] if run.replaces else [target, working]
                run.known = read_results(*places, skip_damaged=True)
                run.config = config or _config_of(working, target)
            yield run
        finally:
            if not any((working / PIECES).glob("*.parquet")):
                _remove_unused(working, made)


def _is_begun(folder: Path) -> bool:
    """Say whether a folder holds an unfinished comparison, be it damaged."""
    return (folder / FACTS).is_file() or any((folder / PIECES).glob("*.parquet"))


def _config_of(*folders: Path) -> dict[str, Any] | None:
    """Return the settings in the first of some folders that has them; None if none has."""
    for folder in folders:
        with suppress(AsgradError):  # not there, or damaged
            return tomllib.loads(check_config(folder, "compare").read_text(encoding="utf-8"))
    return None


def _remove_unused(working: Path, made: list[Path]) -> None:
    """Remove the folder of a comparison of which nothing was computed, and those made for it."""
    if working.is_symlink() or is_training_begun(working):
        return  # none of ours
    shutil.rmtree(working / PIECES, ignore_errors=True)
    with suppress(OSError):  # something else is in it
        for path in (working / CONFIG, working / FACTS, *working.glob(".*.writing")):
            path.unlink(missing_ok=True)
        for folder in (working, *made):
            folder.rmdir()


def _check_place(target: Path, working: Path, overwrite: bool, resume: bool) -> None:
    """Refuse a place that holds what must not be lost, or holds nothing to go on from."""
    check_name(target)
    check_target(target, _RUN, overwrite=True)  # what is there is refused below, in more words
    refuse_links(_UNFINISHED, working)
    if is_training_begun(working):
        raise AsgradError(f"{working} is of a training that was not finished; choose another name.")
    begun = _is_begun(working)
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
    *,
    elsewhere: bool = False,
) -> Path:
    """Write the run to a temporary name, then rename it; a run of that name is replaced.

    `draw` puts the figures into a folder that it makes. With `elsewhere` the run takes a free name
    beside `path` where something else stands there.
    """
    with new_folder(path, _RUN, overwrite=True, elsewhere=elsewhere) as folder:
        if config:
            write_config(folder.folder, config)
        write_table(folder / _RESULTS, columns(comparison.cells, Cell))
        write_table(folder / METRICS, metrics_of(comparison))
        for (method, seed), trace in comparison.traces.items():
            trace.save(folder / _TRACES / _trace_name(method, seed))
        draw(folder / _FIGURES)
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
        write_facts(folder.folder, {**about, **comparison.origin})
    return folder.path


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read what a finished or unfinished comparison says of itself.

    Raises
    ------
    AsgradError
        If there is no run at `path`, or it is damaged.
    """
    folder = Path(path)
    if not (folder / FACTS).is_file() and not _is_begun(folder):
        raise AsgradError(f"no run of asgrad at {folder}.")
    try:
        facts = _read_facts(folder / FACTS)
    except (OSError, ValueError, RecursionError) as error:
        text = f"run {folder} is damaged: {FACTS}: {in_one_line(error)}."
        raise AsgradError(text) from error
    if facts.get("kind") != _KIND:
        raise AsgradError(f"no comparison of asgrad at {folder}.")
    if facts.get("schema_version") != _SCHEMA_VERSION:
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


def stored_config(path: str | Path) -> Path:
    """Return the config.toml of a comparison, finished or not.

    Raises
    ------
    AsgradError
        If there is none.
    """
    check_name(Path(path))
    beside, target = unfinished(path), Path(path)
    for folder, stands in ((beside, _is_begun(beside)), (target, is_run(target))):
        if stands:
            read_facts(folder)  # of another version, say
            if not (folder / CONFIG).is_file():
                raise AsgradError(
                    f"the comparison at {path} has no {CONFIG}: it is one of Python, and goes on "
                    f"there, with resume=True and out={str(path)!r}."
                )
            return check_config(folder, "compare")
    raise AsgradError(f"no comparison of asgrad at {path}; nothing to resume.")


def refuse_begun(path: Path) -> None:
    """Raise if `path` is the name or the folder of a comparison that was not finished."""
    target = path.parent / path.name.removesuffix("-unfinished")
    folder = unfinished(target)
    if not _is_begun(folder):
        return
    n_pieces = len(list((folder / PIECES).glob("*.parquet")))
    raise AsgradError(
        f"{target} was not finished, {n_pieces} of its replays are kept; go on with it: "
        f"asgrad compare --resume {quoted(target)}."
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
        f"{method} (seed {seed})": hashed(
            [*stored(trace.jobs).values(), *trace.contributions, trace.step_times]
        )
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
