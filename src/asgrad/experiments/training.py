"""A live run on disk, and the proof that its trace gives back its model.

runs/NAME/             config.toml  trace/  metrics.parquet  model.safetensors  run.json
                       checkpoints/  tensorboard/
runs/NAME-unfinished/  config.toml  checkpoints/  tensorboard/   (until the run ends)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asgrad import optimizers as optimizer_room
from asgrad.engines import Checkpoints, Ray, Result, Threads, Training, replay, train
from asgrad.engines.checkpoint import digest, list_checkpoints, load_checkpoint
from asgrad.engines.replay import replayed_models
from asgrad.engines.server import Job
from asgrad.engines.workers import Engine
from asgrad.errors import AsgradError
from asgrad.experiments.comparison import Contender
from asgrad.experiments.config import TrainConfig
from asgrad.experiments.run import to_toml
from asgrad.files import (
    Kind,
    cannot_write,
    check_target,
    move_out,
    need_safetensors,
    new_folder,
    read_arrays,
    read_table,
    write_arrays,
    write_table,
    write_text,
)
from asgrad.methods import Pure
from asgrad.optimizers import Optimizer
from asgrad.problems import Problem
from asgrad.registry import build
from asgrad.report.tensorboard import logged
from asgrad.stepsizes import Stepsize
from asgrad.times.measured import measured_times
from asgrad.trace import Trace

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "StoredTraining",
    "check_training",
    "is_training",
    "profile",
    "refuse_unfinished",
    "resume_training",
    "run_training",
    "save_training",
]

CHECKPOINTS = "checkpoints"
_CONFIG, _FACTS, _MODEL, _LOGS = "config.toml", "run.json", "model.safetensors", "tensorboard"
_TRACE, _METRICS = "trace", "metrics.parquet"
_KIND, _UNFINISHED = "asgrad training", "-unfinished"


@dataclass(frozen=True, eq=False)
class StoredTraining:
    """A live run, read from its folder.

    Attributes
    ----------
    folder : Path
    config : TrainConfig
    trace : Trace
    model : numpy.ndarray
        float of shape (dim,).
    stepsize : float
    status : str
        Why it ended.
    metrics : dict of str to numpy.ndarray
        The evaluations: step, time, loss, gradient_norm, accuracy.
    """

    folder: Path
    config: TrainConfig
    trace: Trace
    model: np.ndarray
    stepsize: float
    status: str
    metrics: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str | Path) -> StoredTraining:
        """Read a run.

        Raises
        ------
        AsgradError
            If there is none at `path`, it was not finished, or it is damaged.
        """
        folder = Path(path)
        if not is_training(folder):
            refuse_unfinished(folder)
            raise AsgradError(f"no training run of asgrad at {folder}.")
        model = read_arrays(folder / _MODEL).get("model")
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            stepsize, status = float(facts["stepsize"]), str(facts["status"])
        except (ValueError, KeyError, TypeError) as error:
            raise AsgradError(f"run {folder} is damaged: {_FACTS}: {error}.") from error
        if model is None or model.ndim != 1:
            raise AsgradError(f"run {folder} is damaged: {_MODEL} holds no model.")
        metrics = read_table(folder / _METRICS)
        config, trace = _stored_config(folder, {}), Trace.load(folder / _TRACE)
        return cls(folder, config, trace, model, stepsize, status, metrics)

    def replay(
        self,
        problem: Problem,
        stepsizes: Any = None,
        method_stepsize: Stepsize | None = None,
        *,
        trace: Trace | None = None,
        **options: Any,
    ) -> Result:
        """Replay the run as it was, or with other stepsizes on the recorded asynchrony."""
        contender, optimizer = parts_of(self.config)
        return replay(
            trace or self.trace,
            problem,
            self.stepsize if stepsizes is None else stepsizes,
            method_stepsize=method_stepsize or contender.stepsize,
            optimizer=optimizer,
            dtype=self.config.dtype,
            **options,
        )

    def verify(self, problem: Problem) -> list[int]:
        """Recompute the run from its trace and compare the bits of its models.

        Returns
        -------
        list of int
            The steps whose models were compared: those of all checkpoints, also of those that newer
            ones have replaced, and the last.

        Raises
        ------
        AsgradError
            If a bit differs.
        """
        known = {self.trace.n_steps: {digest(self.model)}}
        for path in list_checkpoints(self.folder / CHECKPOINTS):
            state, head = load_checkpoint(path)
            known.setdefault(head["step"], set()).add(digest(state["models"][-1]))
            for step, found in head["facts"]["digests"].items():
                known.setdefault(int(step), set()).add(found)
        contender, optimizer = parts_of(self.config)
        steps = sorted(known)
        again = replayed_models(
            self.trace,
            problem,
            self.stepsize,
            steps,
            method_stepsize=contender.stepsize,
            optimizer=optimizer,
            dtype=self.config.dtype,
        )
        for step, model in zip(steps, again, strict=True):
            if {digest(model)} != known[step]:
                raise AsgradError(
                    f"verify: the model at step {step} differs from the replay, the first of the "
                    f"{len(steps)} compared; was the run made on another processor, or with other "
                    "data or versions?"
                )
        return steps


def parts_of(config: TrainConfig) -> tuple[Contender, Optimizer]:
    """Return the method with its stepsize rule, and the optimizer."""
    return Contender.of(config.method), build("optimizer", optimizer_room, config.optimizer)


def unfinished(path: str | Path) -> Path:
    """Return the folder in which the run that is to become `path` lives until it ends."""
    target = Path(path)
    if not target.name:  # the folder in which one stands, or the root
        target = target.absolute()
    return target.parent / f"{target.name}{_UNFINISHED}"


def refuse_unfinished(path: Path) -> None:
    """Raise if `path` is the name or the folder of a run that was not finished."""
    run = path.parent / path.name.removesuffix(_UNFINISHED)
    if _is_begun(unfinished(run)):
        raise AsgradError(f"{run} was not finished; go on with it: asgrad train --resume {run}.")


def _is_begun(folder: Path) -> bool:
    """Say whether a folder holds an unfinished run."""
    return (folder / _CONFIG).is_file() or (folder / CHECKPOINTS).is_dir()


def _stored_config(folder: Path, said: dict[str, Any]) -> TrainConfig:
    """Read the configuration that stands in a run's folder."""
    if not (folder / _CONFIG).is_file():
        raise AsgradError(f"run {folder} is damaged: it has no {_CONFIG}.")
    return TrainConfig.read(folder / _CONFIG, said)


def check_training(path: str | Path) -> None:
    """Refuse, before any work is done, a run that could not be written in the end.

    Raises
    ------
    AsgradError
        Also if there is another run of that name, finished or not: it may have cost days.
    """
    need_safetensors()
    target, folder = check_target(path, _TRAINING), unfinished(path)
    if target.name.endswith(_UNFINISHED):
        raise AsgradError(
            f"{target}: names that end in {_UNFINISHED} are for runs that have not ended; choose "
            "another name with --out."
        )
    if list_checkpoints(folder / CHECKPOINTS):
        raise AsgradError(
            f"{folder} holds a run that was not finished: go on with --resume {path}, remove it, "
            "or choose another name with --out."
        )
    if is_training(target):
        raise AsgradError(
            f"{target} holds a run already: go on with --resume {path}, remove it, or choose "
            "another name with --out."
        )


@contextmanager
def _unfinished_run(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """Give the folder of a run that begins or goes on; it vanishes if the run is refused.

    A finished run that goes on stays as it is: its continuation begins with a copy.
    """
    folder = unfinished(config.out)
    is_new = not _is_begun(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(str(folder), error) from error
    before = list[Path]()
    with _alone_in(folder):
        try:
            try:
                write_text(folder / _CONFIG, to_toml(config.model_dump()))
                if resume:
                    _copy_finished(Path(config.out), folder)
            except OSError as error:
                raise cannot_write(str(folder), error) from error
            before += list_checkpoints(folder / CHECKPOINTS)
            yield folder
        except AsgradError:
            if is_new and list_checkpoints(folder / CHECKPOINTS) == before:
                (folder / _CONFIG).unlink(missing_ok=True)
                for name in (CHECKPOINTS, _LOGS):
                    for path in (folder / name, _being_copied(folder, name)):
                        shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):  # somebody else has put something there
                    for path in made:
                        path.rmdir()
            raise


def _copy_finished(target: Path, folder: Path) -> None:
    """Begin the continuation of a finished run, unless it has begun; the checkpoints come last."""
    if list_checkpoints(folder / CHECKPOINTS):
        return
    for name in (_LOGS, CHECKPOINTS):
        if (target / name).is_dir():
            copy = _being_copied(folder, name)
            for left in (copy, folder / name):
                shutil.rmtree(left, ignore_errors=True)
            shutil.copytree(target / name, copy)
            os.replace(copy, folder / name)


def _being_copied(folder: Path, name: str) -> Path:
    """Return where a folder in `folder` stands while it is copied."""
    return folder / f".{name}.writing"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder that another process works in, on systems that have such locks."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AsgradError(
                f"another process trains in {folder}; wait until it ends, or choose another name "
                "with --out."
            ) from error
        yield
    finally:
        os.close(handle)  # the lock goes with it, also when the process is killed


def resume_training(path: str | Path, said: dict[str, Any]) -> TrainConfig:
    """Return the configuration of the run at `path`, ready to go on.

    `said` are new limits, which take the place of all that the run had, and where the data are now.

    Raises
    ------
    AsgradError
        If there is no such run, or nothing from which it can go on.
    """
    target, folder = Path(path), unfinished(path)
    kept = folder / CHECKPOINTS
    if not _is_begun(folder) and not is_training(target):
        refuse_unfinished(target)
        raise AsgradError(f"no training run of asgrad at {target}; nothing to resume.")
    check_target(path, _TRAINING)
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
    if said.keys() - {"data"}:
        said = {"steps": None, "until_time": None, "target": None, **said}
    return _stored_config(folder, {**said, "out": str(path)})


def run_training(
    config: TrainConfig,
    problem: Problem,
    *,
    resume: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_arrival: Callable[[Job], None] | None = None,
    on_evaluation: Callable[[int, float, float, float], None] | None = None,
) -> Training:
    """Run what the configuration says, with checkpoints in its unfinished folder."""
    contender, optimizer = parts_of(config)
    stepsize = config.stepsize
    if stepsize is None:
        if not problem.smoothness > 0:
            raise AsgradError("train: the problem's smoothness is not known; give --stepsize.")
        stepsize = 0.25 / problem.smoothness
    config = config.model_copy(update={"stepsize": stepsize})
    engine = engine_of(config)
    with (
        _unfinished_run(config, resume) as folder,
        logged(folder / _LOGS, on_evaluation) as log_evaluation,
    ):
        checkpoints = Checkpoints(
            folder / CHECKPOINTS, seconds=config.checkpoint_seconds, steps=config.checkpoint_steps
        )
        return train(
            problem,
            contender.method,
            stepsize,
            engine=engine,
            steps=config.steps,
            until_time=config.until_time,
            target=config.target,
            seed=config.seed,
            method_stepsize=contender.stepsize,
            optimizer=optimizer,
            dtype=config.dtype,
            evaluate_every=config.evaluate_every,
            checkpoints=checkpoints,
            resume=resume and bool(list_checkpoints(checkpoints.folder)),
            on_step=on_step,
            on_arrival=on_arrival,
            on_evaluation=log_evaluation,
        )


def profile(config: TrainConfig, problem: Problem, seconds: float, **callbacks: Any) -> Training:
    """Run the workers that the configuration asks for, only to see how long they take.

    Raises
    ------
    AsgradError
        If one delivers nothing.
    """
    run = train(
        problem,
        Pure(),
        1e-9,  # the model hardly moves
        engine=engine_of(config),
        until_time=seconds,
        dtype=config.dtype,
        seed=config.seed,
        evaluate_every=seconds,
        **callbacks,
    )
    silent = [worker for worker, took in enumerate(measured_times(run.trace)) if took.size == 0]
    if silent:
        why = run.failures[0] if run.failures else "it needs more time: --seconds"
        raise AsgradError(
            f"profile: worker {silent[0]} delivered nothing in {run.trace.header.end_time:.3g} s: "
            f"{why}."
        )
    return run


def engine_of(config: TrainConfig) -> Engine:
    """Return the workers that the configuration asks for."""
    shared: dict[str, Any] = {
        "slowdown": config.slowdown,
        "deadline": config.deadline,
        "least_deadline": config.least_deadline,
        "first_deadline": config.first_deadline,
        "restarts": config.restarts,
    }
    if config.engine == "ray":
        return Ray(address=config.address, cpus=config.cpus, gpus=config.gpus, **shared)
    for key in ("address", "cpus", "gpus"):
        if getattr(config, key) != TrainConfig.model_fields[key].default:
            raise AsgradError(
                f"{key}: is for the engine ray only, got {getattr(config, key)!r}; leave it out, "
                "or choose that engine: --engine ray."
            )
    return Threads(**shared)


def is_training(folder: Path) -> bool:
    """Say whether a folder holds a live run."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return isinstance(facts, dict) and facts.get("kind") == _KIND
    except (OSError, ValueError):
        return False


def save_training(training: Training, config: TrainConfig) -> Path:
    """Write the finished run; it takes the place of its unfinished folder."""
    path, beside = Path(config.out), unfinished(config.out)
    with _alone_in(beside), new_folder(path, _TRAINING) as folder:
        config = config.model_copy(update={"stepsize": training.stepsize})
        write_text(folder / _CONFIG, to_toml(config.model_dump()))
        training.trace.save(folder / _TRACE)
        write_table(
            folder / _METRICS,
            {
                "step": training.steps,
                "time": training.times,
                "loss": training.loss,
                "gradient_norm": training.gradient_norm,
                "accuracy": training.accuracy,
            },
        )
        write_arrays(folder / _MODEL, {"model": training.model})
        for name in (CHECKPOINTS, _LOGS):
            if (beside / name).is_dir():
                shutil.copytree(beside / name, folder / name)
        facts = {
            "kind": _KIND,
            "status": str(training.status),
            "stepsize": training.stepsize,
            "failures": training.failures,
            "n_refused": training.n_refused,
        }
        write_text(folder / _FACTS, json.dumps(facts, indent=1))
    try:
        move_out(beside, path, _TRAINING.parts)
        gone = beside.with_name(f".{beside.name}.old")  # at once, or it would look like a run
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(beside, gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError as error:
        raise AsgradError(
            f"{path} is written, but {beside} could not be cleared away: {error}. Take out of it "
            "what is yours, and remove it."
        ) from error
    return path


_TRAINING = Kind(
    "training run",
    is_training,
    (_CONFIG, _FACTS, _MODEL, _LOGS, _TRACE, _METRICS, CHECKPOINTS),
)
