"""A live run on disk, and the proof that its trace gives back its model.

runs/NAME/  config.toml  trace/  metrics.parquet  model.safetensors  run.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asgrad import optimizers as optimizer_room
from asgrad.engines import Result, Threads, Training, replay, train
from asgrad.errors import AsgradError
from asgrad.experiments.comparison import Contender
from asgrad.experiments.config import TrainConfig
from asgrad.experiments.run import to_toml
from asgrad.files import check_target, new_folder, write_table, write_text
from asgrad.optimizers import Optimizer
from asgrad.problems import Problem
from asgrad.registry import build
from asgrad.stepsizes import Stepsize
from asgrad.trace import Trace

__all__ = ["StoredTraining", "is_training", "run_training", "save_training"]

_FACTS, _MODEL = "run.json", "model.safetensors"
_KIND = "asgrad training"


@dataclass(frozen=True, eq=False)
class StoredTraining:
    """A live run, read from its folder.

    Attributes
    ----------
    config : TrainConfig
    trace : Trace
    model : numpy.ndarray
        float of shape (dim,).
    stepsize : float
    """

    config: TrainConfig
    trace: Trace
    model: np.ndarray
    stepsize: float

    @classmethod
    def load(cls, path: str | Path) -> StoredTraining:
        """Read a run.

        Raises
        ------
        AsgradError
            If there is none at `path`, or it is damaged.
        """
        folder = Path(path)
        if not is_training(folder):
            raise AsgradError(f"no training run of asgrad at {folder}.")
        load_file, _ = _safetensors()
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            stepsize = float(facts["stepsize"])
            model = load_file(folder / _MODEL)["model"]
        except Exception as error:  # safetensors raises its own kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise AsgradError(f"run {folder} is damaged: {reason}.") from error
        config = TrainConfig.read(folder / "config.toml", {})
        return cls(config, Trace.load(folder / "trace"), model, stepsize)

    def replay(
        self,
        problem: Problem,
        stepsizes: Any = None,
        method_stepsize: Stepsize | None = None,
        **options: Any,
    ) -> Result:
        """Replay the run as it was, or with other stepsizes on the recorded asynchrony."""
        contender, optimizer = parts_of(self.config)
        return replay(
            self.trace,
            problem,
            self.stepsize if stepsizes is None else stepsizes,
            method_stepsize=method_stepsize or contender.stepsize,
            optimizer=optimizer,
            dtype=self.config.dtype,
            **options,
        )

    def verify(self, problem: Problem) -> None:
        """Recompute the run from its trace and compare the bits of the model.

        Raises
        ------
        AsgradError
            If a bit differs.
        """
        again = self.replay(problem, evaluations=1).models[:, 0]
        if again.dtype != self.model.dtype or again.tobytes() != self.model.tobytes():
            n_different = int(np.sum(again != self.model))
            raise AsgradError(
                f"verify: {n_different} of {self.model.size} numbers of the model differ from the "
                "replay; was the run made on another processor, or with other data or versions?"
            )


def parts_of(config: TrainConfig) -> tuple[Contender, Optimizer]:
    """Return the method with its stepsize rule, and the optimizer."""
    return Contender.of(config.method), build("optimizer", optimizer_room, config.optimizer)


def run_training(config: TrainConfig, problem: Problem, **callbacks: Any) -> Training:
    """Run what the configuration says."""
    contender, optimizer = parts_of(config)
    stepsize = config.stepsize
    if stepsize is None:
        if not problem.smoothness > 0:
            raise AsgradError("train: the problem's smoothness is not known; give --stepsize.")
        stepsize = 0.25 / problem.smoothness
    return train(
        problem,
        contender.method,
        stepsize,
        engine=Threads(slowdown=config.slowdown),
        steps=config.steps,
        until_time=config.until_time,
        target=config.target,
        seed=config.seed,
        method_stepsize=contender.stepsize,
        optimizer=optimizer,
        dtype=config.dtype,
        evaluate_every=config.evaluate_every,
        **callbacks,
    )


def is_training(folder: Path) -> bool:
    """Say whether a folder holds a live run."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return isinstance(facts, dict) and facts.get("kind") == _KIND
    except (OSError, ValueError):
        return False


def check_training_target(path: str | Path) -> None:
    """Refuse, before any work is done, a folder that could not be written at the end."""
    _safetensors()
    check_target(path, "training run", is_training)


def save_training(training: Training, config: TrainConfig, path: str | Path) -> Path:
    """Write the run to a temporary name, then rename it; a live run of that name is replaced."""
    _, save_file = _safetensors()
    with new_folder(path, "training run", is_training) as folder:
        write_text(folder / "config.toml", to_toml(config.model_dump()))
        training.trace.save(folder / "trace")
        write_table(
            folder / "metrics.parquet",
            {
                "step": training.steps,
                "time": training.times,
                "loss": training.loss,
                "gradient_norm": training.gradient_norm,
                "accuracy": training.accuracy,
            },
        )
        save_file({"model": training.model}, folder / _MODEL)
        facts = {
            "kind": _KIND,
            "status": str(training.status),
            "stepsize": training.stepsize,
            "failures": training.failures,
            "n_refused": training.n_refused,
        }
        write_text(folder / _FACTS, json.dumps(facts, indent=1))
    return Path(path)


def _safetensors() -> tuple[Any, Any]:
    """Return safetensors' load_file and save_file."""
    try:
        from safetensors.numpy import load_file, save_file
    except ImportError as error:
        raise AsgradError(
            "live runs are stored as safetensors: pip install 'asgrad[train]'."
        ) from error
    return load_file, save_file
