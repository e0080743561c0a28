"""A live run that is stored, and the proof that its trace gives back its model."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, AsgradWarning
from asgrad.experiments.config import TrainConfig
from asgrad.experiments.folder import (
    METRICS,
    alone_in,
    clear_away,
    unfinished,
    write_config,
    write_facts,
)
from asgrad.experiments.training_folder import (
    CHECKPOINTS,
    KIND,
    LOGS,
    MODEL,
    TRACE,
    TRAINING,
    is_training,
    kept_there,
    read_facts,
    refuse_unfinished,
    stored_config,
    unfinished_run,
)
from asgrad.files import (
    copy_folder,
    new_folder,
    read_arrays,
    read_table,
    write_arrays,
    write_table,
)
from asgrad.methods import Pure
from asgrad.numerics import Result, replay
from asgrad.numerics.replay import replayed_models
from asgrad.problems import Problem
from asgrad.problems.fingerprint import difference, fingerprint
from asgrad.stepsizes.base import usable_smoothness
from asgrad.times import times_of
from asgrad.times.measured import measured_times
from asgrad.trace import Trace
from asgrad.training import Checkpoints, Training, train
from asgrad.training.checkpoint import digest, list_checkpoints, load_checkpoint, load_head
from asgrad.training.evaluation import OnEvaluation
from asgrad.training.tensorboard import logged
from asgrad.workers import Ray, Threads, Virtual
from asgrad.workers.base import Job, Workers

__all__ = ["StoredTraining", "profile", "run_training", "save_training"]


_OF_RAY = ("address", "cpus", "gpus", "resources", "strategy", "patience", "start_deadline")
_OF_REAL = ("slowdown", "deadline", "least_deadline", "first_deadline")
_KNOWN_ON = {
    **dict.fromkeys(_OF_REAL, ("threads", "ray")),
    **dict.fromkeys(_OF_RAY, ("ray",)),
    "sleep": ("threads",),
    "times": ("virtual",),
}
"""Of the keys that not all workers know, which do."""
_WRITTEN = (f"{TRACE}/header.json", METRICS)  # which no replay proves


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
    facts : dict
        What run.json holds: status, stepsize, failures, n_refused, ...
    metrics : dict of str to numpy.ndarray
        The evaluations: step, time, loss, gradient_norm, accuracy, test_loss.
    """

    folder: Path
    config: TrainConfig
    trace: Trace
    model: np.ndarray
    stepsize: float
    facts: dict[str, Any]
    metrics: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """What it is, in one line."""
        return f"<StoredTraining in {self.folder}: stepsize {self.stepsize:g}; {self.trace!r}>"

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
        facts = read_facts(folder)
        model = read_arrays(folder / MODEL).get("model")
        if model is None or model.ndim != 1:
            raise AsgradError(f"run {folder} is damaged: {MODEL} holds no model.")
        metrics = read_table(folder / METRICS)
        config, trace = stored_config(folder, {}), Trace.load(folder / TRACE)
        return cls(folder, config, trace, model, facts["stepsize"], facts, metrics)

    def replay(
        self,
        problem: Problem,
        stepsizes: Any = None,
        *,
        trace: Trace | None = None,
        **options: Any,
    ) -> Result:
        """Replay the run as it was, or with other stepsizes or parts on its asynchrony."""
        return replay(
            trace or self.trace,
            problem,
            self.stepsize if stepsizes is None else stepsizes,
            dtype=dtype_of(self.config),
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
            If the problem is another one, or a bit differs.
        """
        if text := difference(self.facts["problem"], fingerprint(problem)):
            raise AsgradError(
                f"verify: {self.folder} is of a run with {text}; it is verified with its own "
                "problem only."
            )
        for name, found in self.facts["written"].items():
            if _file_digest(self.folder / name) != found:
                raise AsgradError(f"verify: {self.folder / name} is not what the run wrote.")
        known = {self.trace.n_steps: {digest(self.model)}}
        for step, found in self.facts["digests"].items():
            known.setdefault(int(step), set()).add(found)
        for path in list_checkpoints(self.folder / CHECKPOINTS):
            state, head = load_checkpoint(path)
            known.setdefault(head["step"], set()).add(digest(state["models"][-1]))
            for step, found in head["facts"]["digests"].items():
                known.setdefault(int(step), set()).add(found)
        steps = sorted(known)
        again = replayed_models(
            self.trace,
            problem,
            self.stepsize,
            steps,
            dtype=dtype_of(self.config),
        )
        for step, model in zip(steps, again, strict=True):
            if {digest(model)} != known[step]:
                raise AsgradError(
                    f"verify: the model at step {step} differs from the replay, the first of the "
                    f"{len(steps)} compared; was the run made on another processor, or with other "
                    "data or versions?"
                )
        return steps


def _digests(checkpoints: Path) -> dict[str, str]:
    """Return the digests of the models of all checkpoints, as the newest whole one has them."""
    for path in reversed(list_checkpoints(checkpoints)):
        with suppress(AsgradError):
            found: dict[str, str] = load_head(path)["facts"]["digests"]
            return found
    return {}


def _file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def dtype_of(config: TrainConfig) -> str | None:
    """Return the dtype that is asked for; None: the problem's own."""
    return None if config.dtype == "auto" else config.dtype


def run_training(
    config: TrainConfig,
    problem: Problem,
    *,
    resume: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_arrival: Callable[[Job], None] | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Training:
    """Run what the configuration says, with checkpoints in its unfinished folder."""
    stepsize = config.stepsize
    if stepsize is None:
        stepsize = 0.25 / usable_smoothness("train", problem.smoothness, "--stepsize")
    config = config.model_copy(update={"stepsize": stepsize})
    workers = workers_of(config)
    with (
        unfinished_run(config, resume) as folder,
        logged(folder / LOGS, kept_there(folder, config, on_evaluation)) as log_evaluation,
    ):
        checkpoints = Checkpoints(
            folder / CHECKPOINTS, seconds=config.checkpoint_seconds, steps=config.checkpoint_steps
        )
        return train(
            problem,
            config.method,
            stepsize,
            workers=workers,
            steps=config.steps,
            until_time=config.until_time,
            target=config.target,
            seed=config.seed,
            dtype=dtype_of(config),
            evaluate_every=config.evaluate_every or None,
            max_refused=config.max_refused,
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
        If one delivers nothing, or their times are known without measuring.
    """
    if config.on == "virtual":
        raise AsgradError(
            "profile: it measures workers on threads or ray, got on = 'virtual', whose times are "
            "given; leave it out."
        )
    run = train(
        problem,
        Pure(),
        1e-9,  # the model hardly moves
        workers=workers_of(config),
        until_time=seconds,
        dtype=dtype_of(config),
        seed=config.seed,
        evaluate_every=None,
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


def workers_of(config: TrainConfig) -> Workers:
    """Return the workers that the configuration asks for."""
    for key, on in _KNOWN_ON.items():
        said = getattr(config, key)
        if config.on not in on and said != TrainConfig.model_fields[key].default:
            raise AsgradError(
                f"{key}: is for workers on {' or '.join(on)} only, got {said!r}; leave it out, or "
                f"choose those: --on {on[0]}."
            )
    if config.on == "virtual":
        return Virtual(times_of("train", config.times or "linear"), restarts=config.restarts)
    shared = {key: getattr(config, key) for key in (*_OF_REAL, "restarts")}
    if config.on == "ray":
        return Ray(**{key: getattr(config, key) for key in _OF_RAY}, **shared)
    sleep = times_of("sleep", config.sleep) if config.sleep else None
    return Threads(sleep=sleep, **shared)


def save_training(training: Training, config: TrainConfig) -> Path:
    """Write the finished run; it takes the place of its unfinished folder. Return where it is.

    Where it cannot be written, on a full disk for instance, it is saved among the temporary files
    of the system, and its unfinished folder stays.

    Raises
    ------
    AsgradError
        If neither can be written.
    """
    beside = unfinished(config.out)
    with alone_in(beside):
        try:
            path = _written(training, config, Path(config.out), beside)
        except AsgradError as error:
            name = Path(config.out).name
            path = _written(training, config, Path(gettempdir(), "asgrad-saved", name), beside)
            text = f"{error} The run is in {path}; move it to where there is room."
            with suppress(AsgradWarning):  # where warnings are errors
                warnings.warn(text, AsgradWarning, stacklevel=2)
        else:
            clear_away(beside, path, TRAINING.parts)
    return path


def _written(training: Training, config: TrainConfig, path: Path, beside: Path) -> Path:
    """Write a finished run to `path`, or beside it; return where it is."""
    with new_folder(path, TRAINING, overwrite=True, elsewhere=True) as folder:
        write_config(folder.folder, {**config.model_dump(), "stepsize": training.stepsize})
        training.trace.save(folder / TRACE)
        write_table(
            folder / METRICS,
            {
                "step": training.steps,
                "time": training.times,
                "loss": training.loss,
                "gradient_norm": training.gradient_norm,
                "accuracy": training.accuracy,
                "test_loss": training.test_loss,
            },
        )
        write_arrays(folder / MODEL, {"model": training.model})
        for name in (CHECKPOINTS, LOGS):
            if (beside / name).is_dir():
                copy_folder(beside / name, folder / name)
        facts = {
            "kind": KIND,
            "status": str(training.status),
            "stepsize": training.stepsize,
            "failures": training.failures,
            "n_refused": training.n_refused,
            "problem": training.settings["problem"],
            "digests": _digests(beside / CHECKPOINTS),
            "written": {name: _file_digest(folder / name) for name in _WRITTEN},
        }
        write_facts(folder.folder, facts)
    return folder.path
