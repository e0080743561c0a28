"""Where a live run stands on disk, finished or not; nothing of it is lost, whatever ends it.

runs/NAME/             config.toml  trace/  metrics.parquet  model.safetensors  run.json
                       checkpoints/  tensorboard/
runs/NAME-unfinished/  config.toml  checkpoints/  tensorboard/   (until the run ends)
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asgrad.errors import AsgradError, AsgradWarning, in_one_line
from asgrad.experiments.config import TrainConfig
from asgrad.experiments.folder import (
    CONFIG,
    FACTS,
    METRICS,
    PIECES,
    alone_in,
    check_config,
    check_name,
    quoted,
    refuse_links,
    run_of,
    unfinished,
    write_config,
)
from asgrad.files import (
    Kind,
    cannot_write,
    check_target,
    copy_folder,
    hold,
    need_safetensors,
    read_json,
)
from asgrad.training.checkpoint import list_checkpoints
from asgrad.training.evaluation import OnEvaluation, taking_all

__all__ = [
    "CHECKPOINTS",
    "KIND",
    "LOGS",
    "MODEL",
    "TRACE",
    "TRAINING",
    "check_training",
    "is_training",
    "is_training_begun",
    "kept_there",
    "read_facts",
    "refuse_unfinished",
    "resume_training",
    "stored_config",
    "unfinished_run",
]

MODEL, TRACE, CHECKPOINTS, LOGS = "model.safetensors", "trace", "checkpoints", "tensorboard"
KIND = "asgrad training"


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


def refuse_unfinished(path: Path) -> None:
    """Raise if `path` is the name or the folder of a run that was not finished."""
    run = run_of(path)
    if is_training_begun(unfinished(run)):
        raise AsgradError(
            f"{run} was not finished; go on with it: asgrad train --resume {quoted(run)}."
        )


def is_training_begun(folder: Path) -> bool:
    """Say whether a folder holds an unfinished training."""
    if os.path.lexists(folder / PIECES):
        return False
    return (folder / CONFIG).is_file() or (folder / CHECKPOINTS).is_dir()


def _refuse_comparison(folder: Path) -> None:
    """Refuse to train in the folder of a comparison."""
    if os.path.lexists(folder / PIECES):
        raise AsgradError(
            f"{folder} is of a comparison that was not finished; choose another name with --out."
        )


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
