"""The configuration of a comparison or a training: what a TOML file and options may say."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from asgrad.errors import AsgradError, shown, unknown_name
from asgrad.registry import build

if TYPE_CHECKING:  # the command line makes its options from these classes before it does anything
    from asgrad.problems import Problem

__all__ = ["CompareConfig", "ProblemConfig", "TrainConfig", "to_toml"]

_MODELS = {
    "least-squares": "LeastSquares",
    "logistic": "Logistic",
    "softmax": "Softmax",
}
_NETWORKS = ("cnn", "mlp", "resnet20")
_PANELS = {"shared": "equal data", "label": "different data"}
_PROBLEMS = ("auto", *_MODELS, "tridiagonal", *_NETWORKS)
_UNEQUAL = {"dirichlet", "shared"}
_OF_NETWORKS = ("device", "evaluation_rows", "evaluation_batch")
_OF_LINEAR = ("regularizer", "strength")
_IDLE = {
    "tridiagonal": ("data", "test", *_OF_LINEAR, "split", "equal", "alpha", "batch", *_OF_NETWORKS),
    **dict.fromkeys(_NETWORKS, (*_OF_LINEAR, "dim", "noise")),
    "resnet20": ("test", *_OF_LINEAR, "dim", "noise"),  # CIFAR-10 says which rows are for testing
    **dict.fromkeys(("auto", *_MODELS), ("dim", "noise", *_OF_NETWORKS)),
}
"""Which keys do not apply to a problem."""
_FILES = ("data", "test", "x0")
"""The keys that take the path of a file."""
_MEASURED = {"from-run": "run", "from-table": "path"}
"""The worker times that are read from a file, and the parameter that names it."""


class ProblemConfig(BaseModel):
    """A problem and its workers; every field is a key of CONFIG.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    data: str = Field(
        "digits",
        description="data: digits, breast-cancer, a LIBSVM file; for resnet20 CIFAR-10's folder",
    )
    test: float | str | None = Field(
        None,
        description="rows for accuracy and test loss: a share of the data such as 0.2, or a file",
    )
    problem: str = Field(
        "auto",
        description="what is minimised: auto (logistic for two classes, softmax for several, "
        "least-squares for values), logistic, softmax, least-squares, tridiagonal; with PyTorch "
        "mlp, cnn (on digits), resnet20",
    )
    split: str = Field(
        "label", description="how rows are dealt: contiguous, shuffled, label, dirichlet, shared"
    )
    alpha: float = Field(0.5, gt=0, description="α of the split dirichlet")
    equal: bool = Field(False, description="leave rows out so that all workers have as many")
    batch: int = Field(32, ge=0, description="rows of a stochastic gradient; 0: all")
    x0: str | None = Field(
        None, description="where runs start: zeros, ones, normal, or a .npy file; see the problem"
    )
    regularizer: Literal["l2", "nonconvex"] = Field(
        "l2", description="what is added to the loss: l2 or nonconvex"
    )
    strength: float = Field(1e-3, ge=0, description="λ, the regulariser's strength")
    dim: int = Field(1000, ge=2, description="dimension of the tridiagonal problem")
    noise: float = Field(0.01, ge=0, description="gradient noise of the tridiagonal problem")
    device: str = Field("cpu", description="of a network: cpu, cuda, or auto: a GPU where one is")
    evaluation_rows: int = Field(
        10_000, ge=0, description="of a network: rows of an evaluation at most; 0: all"
    )
    evaluation_batch: int = Field(
        0, ge=0, description="of a network: rows at once in an evaluation; 0: what 64 MB hold"
    )
    gradient_norm: bool = Field(
        False, description="of a network: evaluate ‖∇f‖ too, as other problems always do"
    )
    workers: int = Field(10, ge=1, description="number of workers")

    @classmethod
    def read(cls, path: Path | None, said: dict[str, Any]) -> Self:
        """Read a TOML file, if any, and let `said` override it.

        The problem alone can be read from the file of a comparison or of a training.

        Raises
        ------
        AsgradError
            If the file cannot be read, a key is unknown, or a value is refused.
        """
        values: dict[str, Any] = {}
        if path is not None:
            try:
                values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
            except OSError as error:
                raise AsgradError(f"cannot read {path}: {error.strerror}.") from error
            except RecursionError:
                raise AsgradError(f"{path} is not valid TOML: it is nested too deeply.") from None
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise AsgradError(f"{path} is not valid TOML: {error}.") from error
        known = {**cls.model_fields}
        for kind in cls.__subclasses__():
            known.update(kind.model_fields)
        for key in values:
            if key not in known:
                raise unknown_name(f"key of {path}", key, known)
        values = {key: value for key, value in values.items() if key in cls.model_fields}
        for key in said:
            if key not in cls.model_fields:
                raise unknown_name("option", key, cls.model_fields)
        if path is not None:
            for key in {*_FILES} & values.keys() - said.keys():
                values[key] = _beside(path, key, values[key])
            if "times" in values:
                values["times"] = _whole_times(values["times"], path.parent)
        values.update(said)
        if "times" in said:
            values["times"] = _whole_times(said["times"], Path())
        splits = values.get("split")
        if isinstance(splits, list) and cls.model_fields["split"].annotation is str:
            if values.get("problem") == "tridiagonal":  # nothing is split
                splits = [cls.model_fields["split"].default]
            if len(splits) != 1:  # of a comparison, whose panels have one each
                raise AsgradError(
                    f"split: {path} names several, {', '.join(map(str, splits))}; choose one, on "
                    "the command line as in --split label."
                )
            values["split"] = splits[0]
        cls._complete(values)
        try:
            config = cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            rule = first["msg"].replace("Input should", "must")
            meaning = cls.model_fields[key].description
            raise AsgradError(
                f"{key}: {rule}, got {shown(first['input'])}. It means: {meaning}."
            ) from error
        config._refuse_idle(said)
        return config

    @field_validator(*_FILES)
    @classmethod
    def _whole_path(cls, said: Any, info: ValidationInfo) -> Any:
        """Return the path of a file or folder as it is found from anywhere."""
        if not isinstance(said, str) or said in _names(str(info.field_name)):
            return said
        path = os.path.expanduser(said)
        return os.path.abspath(path) if os.path.exists(path) else said

    @field_validator("out", check_fields=False)
    @classmethod
    def _from_home(cls, out: str | None) -> str | None:
        """Return a folder's path with the user's home in the place of ~."""
        return None if out is None else os.path.expanduser(out)

    @classmethod
    def _complete(cls, values: dict[str, Any]) -> None:
        """Add what follows from what was said."""

    def build_problem(self) -> Problem:
        """Return the problem that this configuration describes."""
        from asgrad import problems
        from asgrad.problems.models import suited_model
        from asgrad.problems.split import SPLITS

        if self.problem not in _PROBLEMS:
            raise unknown_name("problem", self.problem, _PROBLEMS)
        if self.problem == "tridiagonal":
            return problems.Tridiagonal(
                self.dim, n_workers=self.workers, noise=self.noise, x0=self.x0
            )
        if self.split not in SPLITS:
            raise unknown_name("split", self.split, SPLITS)
        alpha = self.alpha if self.split == "dirichlet" else None
        dealt: dict[str, Any] = {
            "split": self.split,
            "alpha": alpha,
            "equal": self.equal and self.split not in _UNEQUAL,
            "batch": self.batch or None,
            "x0": self.x0,
        }
        if self.problem in _NETWORKS:
            return self._network(
                {
                    **dealt,
                    "evaluation_rows": self.evaluation_rows or None,
                    "evaluation_batch": self.evaluation_batch or None,
                    "gradient_norm": self.gradient_norm,
                    "device": self.device,
                }
            )
        data, why = problems.load(self.data), ""
        if self.problem == "auto":
            kind, why = suited_model(data)
        else:
            kind = getattr(problems, _MODELS[self.problem])
        built = kind(
            data,
            n_workers=self.workers,
            test=self.test,
            regularizer=self.regularizer,
            strength=self.strength,
            **dealt,
        )
        if why:
            built.notes = (f"the problem is {kind.name}: {why}", *built.notes)
        return built

    def _refuse_idle(self, said: Collection[str]) -> None:
        """Refuse keys that do not apply, if they were said or are not what they are by default.

        A file may repeat a default: that of a run holds every key.
        """
        splits = {self.split} if isinstance(self.split, str) else set(self.split)
        where = f"problem {self.problem!r}"
        idle = dict.fromkeys(_IDLE.get(self.problem, ()), where)
        if "dirichlet" not in splits:
            idle.setdefault("alpha", f"split {' and '.join(sorted(splits))!r}")
        if splits <= _UNEQUAL:
            idle.setdefault("equal", f"split {' and '.join(sorted(splits))!r}")
        for key, where in idle.items():
            value = getattr(self, key)
            if key in said or value != type(self).model_fields[key].default:
                raise AsgradError(
                    f"{key}: does not apply to {where}, got {shown(value)}; leave it out."
                )

    def _network(self, options: dict[str, Any]) -> Problem:
        """Return a neural network; nothing else imports torch."""
        if self.problem != "resnet20" and self.data != "digits":
            raise AsgradError(
                f"data: must be 'digits' for problem {self.problem!r}, got {self.data!r}."
            )
        try:
            from asgrad.problems import networks
        except ImportError as error:
            raise AsgradError(
                f"problem {self.problem!r} needs PyTorch: pip install 'asgrad[torch]'."
            ) from error
        if self.problem == "resnet20":
            return networks.cifar10_resnet20(self.data, self.workers, **options)
        make = networks.digits_mlp if self.problem == "mlp" else networks.digits_cnn
        return make(self.workers, test=self.test, **options)


class CompareConfig(ProblemConfig):
    """A comparison, as `asgrad compare` takes it; every field is a key of CONFIG.toml."""

    split: str | list[str] = Field(  # type: ignore[assignment]
        ["shared", "label"],
        description="how rows are dealt, or several ways side by side: shared, contiguous, "
        "shuffled, label, dirichlet",
    )
    times: str = Field(
        "linear", description="worker times, for instance normal:scale=sqrt+outages:uptime=100"
    )
    methods: list[str] = Field(
        [
            "sync",
            "m-sync",
            "pure",
            "pure+mishchenko",
            "random",
            "shuffled",
            "ringmaster",
            "rennala",
            "ringleader",
            "ace",
        ],
        min_length=1,
        description="recipes, each METHOD[:PARAMETERS][+PART[:PARAMETERS]]…; a value 1|2 makes two",
    )
    stepsizes: list[float] | None = Field(None, description="grid; by default 2^k/L, k = -5..2")
    extra_stepsizes: list[float] | None = Field(
        None, description="stepsizes beside the grid, as those that were added to a finished run"
    )
    widen: int | None = Field(
        None,
        ge=0,
        description="by how many stepsizes the grid may grow on either side where the best is at "
        "its edge; by default 6, and 0 for stepsizes that are given",
    )
    steps: int | None = Field(None, ge=1, description="compare at this many server steps")
    until_time: float | None = Field(
        None,
        gt=0,
        description="compare at this time, in seconds; by default 600, or where times are measured "
        "60 times the mean of the slowest worker",
    )
    seeds: int = Field(3, ge=1, description="how many seeds")
    best: str | None = Field(
        None,
        description="what stepsizes are chosen by: gradient_norm, loss, test_loss, accuracy, "
        "time_to_target; by default the loss for networks, else gradient_norm",
    )
    window: float = Field(
        0.2, gt=0, le=1, description="the last share of the evaluations whose median counts"
    )
    target: float | list[float] | None = Field(
        None, description="one or several values of what is chosen by, for time to target"
    )
    evaluations: int = Field(60, ge=1, description="evaluations of each run")
    out: str | None = Field(None, description="folder of the run; by default a fresh one")

    def build_problems(self) -> Problem | dict[str, Problem]:
        """Return the problem, or one for every split by the name under which it is shown."""
        splits = [self.split] if isinstance(self.split, str) else self.split
        if len(set(splits)) < len(splits) or not splits:
            raise AsgradError(f"split: name every split once, got {', '.join(splits) or 'none'}.")
        if self.problem == "tridiagonal" or len(splits) == 1:
            return self.model_copy(update={"split": splits[0]}).build_problem()
        return {
            _PANELS.get(split, f"split {split}"): self.model_copy(
                update={"split": split}
            ).build_problem()
            for split in splits
        }

    @classmethod
    def _complete(cls, values: dict[str, Any]) -> None:
        """Without a limit, compare at 600 seconds, or at 60 jobs of the slowest measured worker."""
        if values.get("best") == "gradient_norm":
            values["gradient_norm"] = True
        if values.get("steps") is None and values.get("until_time") is None:
            values["until_time"] = _virtual_end(str(values.get("times", "")))


class TrainConfig(ProblemConfig):
    """A live run, as `asgrad train` takes it; every field is a key of CONFIG.toml."""

    method: str = Field("pure", description="a recipe: METHOD[:PARAMETERS][+PART[:PARAMETERS]]…")
    stepsize: float | None = Field(None, gt=0, description="γ; by default 1/(4L)")
    steps: int | None = Field(None, ge=0, description="stop after this many server steps")
    until_time: float | None = Field(None, gt=0, description="stop after this many seconds")
    target: float | None = Field(None, gt=0, description="stop at this gradient norm")
    seed: int = Field(0, ge=0, description="fixes rows, noise and the method's choices")
    dtype: Literal["auto", "float64", "float32"] = Field(
        "auto", description="numbers: float64, float32, or auto: a network's own, else float64"
    )
    on: Literal["threads", "ray", "virtual"] = Field(
        "threads", description="what the workers run on: threads, ray, or virtual time"
    )
    times: str | None = Field(
        None, description="worker times in virtual time, e.g. normal:scale=sqrt; by default linear"
    )
    address: str | None = Field(None, description="of a Ray cluster; by default Ray starts here")
    cpus: float | list[float] = Field(1.0, description="CPUs of a Ray actor, or a list of them")
    gpus: float | list[float] = Field(0.0, description="GPUs of a Ray actor, or a list of them")
    resources: dict[str, float] | list[dict[str, float]] = Field(
        {}, description="custom resources of a Ray actor, or a list of them"
    )
    strategy: str = Field("DEFAULT", description="how Ray places actors: DEFAULT or SPREAD")
    patience: float = Field(60.0, gt=0, description="seconds to wait for workers of Ray")
    start_deadline: float = Field(
        300.0, gt=0, description="seconds for a Ray actor to load data and compute a gradient"
    )
    sleep: str | None = Field(None, description="times that a thread sleeps in a job, e.g. poisson")
    slowdown: list[float] | None = Field(None, description="a factor >= 1 for every worker")
    deadline: float = Field(50.0, gt=0, description="a job's limit, in median job times")
    least_deadline: float = Field(10.0, gt=0, description="seconds below which no job is late")
    first_deadline: float = Field(3600.0, gt=0, description="seconds for each of the first jobs")
    restarts: int = Field(3, ge=0, description="how often a worker may fail")
    max_refused: int = Field(10, ge=0, description="gradients with NaN or infinity before the end")
    evaluate_every: float = Field(
        0.5, ge=0, description="seconds between evaluations; 0: never, not even at the end"
    )
    checkpoint_seconds: float = Field(10.0, gt=0, description="seconds between checkpoints")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints")
    out: str = Field("runs/train", description="folder of the run")

    @classmethod
    def _complete(cls, values: dict[str, Any]) -> None:
        """Without a limit, train for ten seconds, or as long as one compares in virtual time.

        A target is one on ‖∇f‖.
        """
        in_virtual_time = values.get("on") == "virtual"
        if in_virtual_time and values.get("times") is None:
            values["times"] = "linear"
        if values.get("target") is not None:
            values["gradient_norm"] = True
        if all(values.get(name) is None for name in ("steps", "until_time", "target")):
            end = _virtual_end(str(values["times"])) if in_virtual_time else 10.0
            values["until_time"] = end


def _virtual_end(times: str) -> float:
    """Return where runs end by default: at 600 s, or 60 jobs of the slowest measured worker."""
    if times.strip().partition(":")[0] not in _MEASURED:
        return 600.0
    measured: Any = import_module("asgrad.times").times_of("times", times)
    return 60 * float(getattr(measured, "times", measured).slowest())


def _names(key: str) -> Collection[str]:
    """Return the names that a key takes which are no paths of files."""
    from asgrad.problems.data import BUNDLED
    from asgrad.problems.start import STARTS

    return STARTS if key == "x0" else BUNDLED


def _whole_times(said: Any, folder: Path) -> Any:
    """Return measured times with a path that is found from anywhere; others as they are."""
    kind = said.partition(":")[0] if isinstance(said, str) else ""
    parameter = _MEASURED.get(kind)
    if parameter is None:
        return said
    said, plus, conditions = said.partition("+")
    times = build("worker times", import_module("asgrad.times"), said)
    found = os.path.abspath(folder / os.path.expanduser(str(getattr(times, parameter))))
    if not os.path.exists(found):
        return said + plus + conditions  # it is refused where it is read
    return dataclasses.replace(times, **{parameter: found}).label + plus + conditions


def _beside(config: Path, key: str, said: Any) -> Any:
    """Return the path of a file that a configuration names: relative to the folder it stands in."""
    if not isinstance(said, str) or said in _names(key):
        return said
    path = Path(os.path.expanduser(said))
    found = os.path.abspath(config.parent / path)
    if path.is_absolute() or os.path.exists(found):
        return found
    if path.suffix or len(path.parts) > 1 or os.path.exists(path):
        raise AsgradError(
            f"{key}: no file {shown(found)}; paths in {config} are relative to its folder."
        )
    return said  # a misspelt name


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
    text = json.dumps(value, ensure_ascii=False)  # TOML knows no surrogates, which JSON writes
    if not text.isascii() and text.encode(errors="replace").decode() != text:
        raise AsgradError(
            f"{shown(value)} cannot be written to a configuration: it is no text in Unicode. "
            "Rename the file."
        )
    return text.replace("\x7f", "\\u007f")
