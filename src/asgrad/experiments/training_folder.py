"""Where a live run stands on disk, finished or not; nothing of it is lost, whatever ends it.

What a comparison's folder (run.py) has in common with it stands here too.

runs/NAME/             config.toml  trace/  metrics.parquet  model.safetensors  run.json
                       checkpoints/  tensorboard/
runs/NAME-unfinished/  config.toml  checkpoints/  tensorboard/   (until the run ends)
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asgrad.engines.checkpoint import list_checkpoints
from asgrad.engines.evaluation import OnEvaluation, taking_all
from asgrad.errors import AsgradError, AsgradWarning, in_one_line
from asgrad.experiments.config import TrainConfig, to_toml
from asgrad.files import (
    Kind,
    cannot_write,
    check_target,
    copy_folder,
    hold,
    locked,
    move_out,
    need_safetensors,
    read_json,
    write_json,
    write_text,
)

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "FACTS",
    "KIND",
    "LOGS",
    "METRICS",
    "MODEL",
    "PIECES",
    "TRACE",
    "TRAINING",
    "alone_in",
    "check_config",
    "check_name",
    "check_training",
    "clear_away",
    "is_training_begun",
    "is_training",
    "kept_there",
    "quoted",
    "read_facts",
    "refuse_links",
    "refuse_unfinished",
    "resume_training",
    "stored_config",
    "unfinished",
    "unfinished_run",
    "write_config",
    "write_facts",
]

CONFIG, FACTS, MODEL, METRICS = "config.toml", "run.json", "model.safetensors", "metrics.parquet"
TRACE, CHECKPOINTS, LOGS = "trace", "checkpoints", "tensorboard"
PIECES = "pieces"
"""Of a comparison: by it alone the unfinished folder of one is told from a training's."""
KIND, _UNFINISHED, _WHOLE = "asgrad training", "-unfinished", "# whole: CRC-32 "


def is_training(folder: Path) -> bool:
    """Say whether a folder holds a live run, be it damaged."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except OSError:
        return False
    except (ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict) and facts.get("kind") == KIND:
        return True
    return (folder / MODEL).is_file() and (folder / TRACE).is_dir()  # one bit must not hide it


TRAINING = Kind(
    "training run",
    is_training,
    (CONFIG, FACTS, MODEL, LOGS, TRACE, METRICS, CHECKPOINTS),
)


def unfinished(path: str | Path) -> Path:
    """Return the folder in which the run that is to become `path` lives until it ends."""
    target = Path(path)
    if not target.name:  # the folder in which one stands, or the root
        target = target.absolute()
    return target.parent / f"{target.name}{_UNFINISHED}"


def quoted(path: str | Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def refuse_unfinished(path: Path) -> None:
    """Raise if `path` is the name or the folder of a run that was not finished."""
    run = path.parent / path.name.removesuffix(_UNFINISHED)
    if is_training_begun(unfinished(run)):
        raise AsgradError(
            f"{run} was not finished; go on with it: asgrad train --resume {quoted(run)}."
        )


def is_training_begun(folder: Path) -> bool:
    """Say whether a folder holds an unfinished training."""
    if os.path.lexists(folder / PIECES):
        return False
    return (folder / CONFIG).is_file() or (folder / CHECKPOINTS).is_dir()


def refuse_links(parts: Collection[str], *folders: Path) -> None:
    """Refuse what would be written, moved or removed outside of a run's folder, through a link."""
    for folder in folders:
        for path in (folder, *(folder / name for name in parts)):
            if path.is_symlink():
                raise AsgradError(
                    f"{path} is a link; what asgrad moves and removes must not lie elsewhere. Put "
                    "in its place what it points to, or choose another name."
                )


def _refuse_comparison(folder: Path) -> None:
    """Refuse to train in the folder of a comparison."""
    if os.path.lexists(folder / PIECES):
        raise AsgradError(
            f"{folder} is of a comparison that was not finished; choose another name with --out."
        )


def check_name(target: Path) -> None:
    """Refuse for a run a name that is kept for one that has not ended."""
    if target.name.endswith(_UNFINISHED):
        raise AsgradError(
            f"{target}: names that end in {_UNFINISHED} are for runs that have not ended; choose "
            "another name with --out, or go on with one by its own name: --resume "
            f"{quoted(target.with_name(target.name.removesuffix(_UNFINISHED)))}."
        )


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write run.json, with a checksum."""
    write_json(folder / FACTS, facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """Read run.json.

    Raises
    ------
    AsgradError
        If it is damaged.
    """
    try:
        facts: Any = read_json(folder / FACTS)
    except (OSError, ValueError, RecursionError) as error:
        way = ""
        if list_checkpoints(folder / CHECKPOINTS):
            way = f" Its checkpoints are there: asgrad train --resume {quoted(folder)}."
        text = f"run {folder} is damaged: {FACTS}: {in_one_line(error)}.{way}"
        raise AsgradError(text) from error
    return facts  # type: ignore[no-any-return]


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


def stored_config(folder: Path, said: dict[str, Any]) -> TrainConfig:
    """Read the configuration that stands in a run's folder, as it was written."""
    return TrainConfig.read(check_config(folder, "train"), said)


def check_training(path: str | Path) -> None:
    """Refuse, before any work is done, a run that could not be written in the end.

    Raises
    ------
    AsgradError
        Also if there is another run of that name, finished or not: it may have cost days.
    """
    need_safetensors()
    target, folder = check_target(path, TRAINING, overwrite=True), unfinished(path)
    check_name(target)
    _refuse_comparison(folder)
    if list_checkpoints(folder / CHECKPOINTS):
        raise AsgradError(
            f"{folder} holds a run that was not finished: go on with --resume {quoted(path)}, "
            "remove it, or choose another name with --out."
        )
    if is_training(target):
        raise AsgradError(
            f"{target} holds a run already: go on with --resume {quoted(path)}, remove it, or "
            "choose another name with --out."
        )


def resume_training(path: str | Path, said: dict[str, Any]) -> TrainConfig:
    """Return the configuration of the run at `path`, ready to go on.

    `said` are new limits, which take the place of all that the run had, and where files are now.

    Raises
    ------
    AsgradError
        If there is no such run, or nothing from which it can go on.
    """
    target, folder = Path(path), unfinished(path)
    kept = folder / CHECKPOINTS
    if not is_training_begun(folder) and not is_training(target):
        refuse_unfinished(target)
        raise AsgradError(f"no training run of asgrad at {target}; nothing to resume.")
    _refuse_comparison(folder)
    check_target(path, TRAINING, overwrite=True)
    damaged = any(kept.glob("damaged-*"))
    if is_training(target) and not list_checkpoints(kept) and not damaged:
        if not list_checkpoints(target / CHECKPOINTS):
            raise AsgradError(f"{target} holds no checkpoint to go on from; it stays as it is.")
        folder = target
    if damaged and not list_checkpoints(kept):
        raise AsgradError(
            f"{target} cannot be resumed: all its checkpoints are damaged; they stand in {kept}. "
            f"Remove {folder} to train anew."
        )
    if said.keys() - {"data", "test", "x0"}:
        said = {"steps": None, "until_time": None, "target": None, **said}
    return stored_config(folder, {**said, "out": str(path)})


@contextmanager
def unfinished_run(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """Give the folder of a run that begins or goes on; it vanishes if the run is refused.

    A finished run that goes on stays as it is: its continuation begins with a copy.
    """
    folder = unfinished(config.out)
    refuse_links(TRAINING.parts, folder, Path(config.out))
    is_new = not is_training_begun(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(str(folder), error) from error
    before = list[Path]()
    with alone_in(folder):
        try:
            try:
                if not resume:  # again: another process may have ended one of that name
                    check_training(config.out)
                write_config(folder, config.model_dump())
                if resume:
                    _copy_finished(Path(config.out), folder)
            except OSError as error:
                raise cannot_write(str(folder), error) from error
            before += list_checkpoints(folder / CHECKPOINTS)
            yield folder
        except AsgradError:
            if is_new and list_checkpoints(folder / CHECKPOINTS) == before:
                for name in (CHECKPOINTS, LOGS):
                    for path in (folder / name, _being_copied(folder, name)):
                        shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):  # somebody else has put something there
                    (folder / CONFIG).unlink(missing_ok=True)
                    for path in made:
                        path.rmdir()
            raise


def kept_there(
    folder: Path, config: TrainConfig, on_evaluation: OnEvaluation | None
) -> OnEvaluation:
    """Return an `on_evaluation` that sees to it that the run's folder stays one to go on from.

    If somebody removes it under the run, it is made again: checkpoints alone would not do.
    """

    tell = taking_all(on_evaluation)

    def look(
        step: int, now: float, loss: float, norm: float, accuracy: float, test_loss: float
    ) -> None:
        if not (folder / CONFIG).exists():
            text = f"{folder} was removed while the run goes on; it is made again."
            with suppress(OSError, AsgradWarning):  # the next checkpoint warns if it cannot be
                folder.mkdir(parents=True, exist_ok=True)
                hold(folder, is_new=True)  # the lock went with the old one
                write_config(folder, config.model_dump())
                warnings.warn(text, AsgradWarning, stacklevel=1)
        if tell:
            tell(step, now, loss, norm, accuracy, test_loss)

    return look


def _copy_finished(target: Path, folder: Path) -> None:
    """Begin the continuation of a finished run, unless it has begun; the checkpoints come last."""
    if list_checkpoints(folder / CHECKPOINTS):
        return
    for name in (LOGS, CHECKPOINTS):
        if (target / name).is_dir():
            copy = _being_copied(folder, name)
            for left in (copy, folder / name):
                shutil.rmtree(left, ignore_errors=True)
            copy_folder(target / name, copy)
            os.replace(copy, folder / name)


def _being_copied(folder: Path, name: str) -> Path:
    """Return where a folder in `folder` stands while it is copied."""
    return folder / f".{name}.writing"


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
