"""A comparison on disk; what is computed is never computed again, whatever ends the process.

runs/NAME/             config.toml  results.parquet  metrics.parquet  run.json  traces/  figures/
runs/NAME-unfinished/  config.toml  run.json  pieces/    (until the comparison ends)
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from asgrad.errors import AsgradError
from asgrad.experiments.folder import (
    CONFIG,
    FACTS,
    PIECES,
    alone_in,
    check_config,
    check_name,
    clear_away,
    quoted,
    refuse_links,
    run_of,
    unfinished,
    write_config,
    write_facts,
)
from asgrad.experiments.grid import Found
from asgrad.experiments.stored import (
    KIND,
    RUN,
    SCHEMA_VERSION,
    is_begun,
    is_run,
    read_facts,
    read_results,
    write_piece,
    write_run,
)
from asgrad.experiments.training_folder import is_training_begun
from asgrad.experiments.work import Key
from asgrad.files import cannot_write, check_target
from asgrad.numerics import Result
from asgrad.problems.fingerprint import difference

__all__ = ["FRESH", "RunFolder", "open_run", "refuse_begun", "stored_config"]

FRESH = "runs/compare"
"""Where a comparison goes that is given no folder: there, or under this name and a number."""
_PARTS = (CONFIG, FACTS, PIECES)
"""What is asgrad's in the folder of a comparison that has not ended."""


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
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
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
        try:
            write_piece(path, key, result)
        except OSError as error:
            raise AsgradError(f"{cannot_write(str(path), error)} {self.way_on}") from error

    def finish(self, comparison: Found, draw: Callable[[Path], None]) -> Path:
        """Write the whole run in the place where it belongs; return that."""
        try:
            self.target = write_run(comparison, self.target, self.config, draw, elsewhere=True)
        except AsgradError as error:
            raise AsgradError(f"{error} {self.way_on}") from error
        clear_away(self.working, self.target, _PARTS)
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
                run.facts = read_facts(working if is_begun(working) else target)
                run.replaces = bool(run.facts.get("replaces"))
                # What an overwriting comparison was to replace is none of its own.
                places = [working] if run.replaces else [target, working]
                run.known = read_results(*places, skip_damaged=True)
                run.config = config or _config_of(working, target)
            yield run
        finally:
            if not any((working / PIECES).glob("*.parquet")):
                _remove_unused(working, made)


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
    check_target(target, RUN, overwrite=True)  # what is there is refused below, in more words
    refuse_links(_PARTS, working)
    if is_training_begun(working):
        raise AsgradError(f"{working} is of a training that was not finished; choose another name.")
    begun = is_begun(working)
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


def stored_config(path: str | Path) -> Path:
    """Return the config.toml of a comparison, finished or not.

    Raises
    ------
    AsgradError
        If there is none.
    """
    check_name(Path(path))
    beside, target = unfinished(path), Path(path)
    for folder, stands in ((beside, is_begun(beside)), (target, is_run(target))):
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
    target = run_of(path)
    folder = unfinished(target)
    if not is_begun(folder):
        return
    n_pieces = len(list((folder / PIECES).glob("*.parquet")))
    raise AsgradError(
        f"{target} was not finished, {n_pieces} of its replays are kept; go on with it: "
        f"asgrad compare --resume {quoted(target)}."
    )
