"""What a problem is: f = (1/n) Σ f_i over the workers, and stochastic gradients of every f_i."""

from __future__ import annotations

import inspect
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba import types

from asgrad.errors import (
    AsgradError,
    GradientError,
    KindError,
    as_number,
    check_integer,
    check_kind,
)
from asgrad.streams import job_stream

__all__ = [
    "CompiledProblem",
    "Kernels",
    "Packed",
    "Problem",
    "check_problem",
    "evaluate_type",
    "gradient_type",
]


def gradient_type(f: Any) -> Any:
    """Return the signature of a gradient kernel for float type `f` (numba float32 or float64).

    gradient(values, indices, layout, x, worker, draw, key, out, scratch, picks) writes into `out`,
    of shape (dim, n_lanes), the stochastic gradient of f_worker at each column of `x`. The sampled
    rows and the noise follow from (key, worker, draw) alone and are the same in every lane.
    """
    block = types.Array(f, 2, "C")
    data = (types.Array(f, 1, "C"), types.int32[::1], types.int64[::1])
    job = (types.int64, types.int64, types.int64)
    return types.void(*data, block, *job, block, types.Array(f, 1, "C"), types.int64[::1])


def evaluate_type(f: Any) -> Any:
    """Return the signature of an evaluation kernel for float type `f`.

    evaluate(values, indices, layout, x, metrics, out, scratch, picks) writes f, ‖∇f‖², the share
    of correct predictions (NaN where there are no labels) and the loss on test rows (NaN where
    there are none) for each column of `x` into the rows of `metrics`, float64 of shape
    (4, n_columns), and ∇f into `out`.
    """
    block = types.Array(f, 2, "C")
    data = (types.Array(f, 1, "C"), types.int32[::1], types.int64[::1])
    return types.void(
        *data, block, types.float64[:, ::1], block, types.Array(f, 1, "C"), types.int64[::1]
    )


class Kernels(NamedTuple):
    """What a problem computes, many lanes at a time."""

    gradient: Callable
    """As `gradient_type` says."""
    evaluation: Callable
    """As `evaluate_type` says."""
    local_gradient: Callable | None = None
    """∇f_i without noise, as `gradient_type` says; None where a problem does not give it."""


class Packed(NamedTuple):
    """A compiled problem's data in three flat arrays, so that one walk serves all problems."""

    values: np.ndarray
    """float: parameters, features, targets."""
    indices: np.ndarray
    """int32: columns of sparse features."""
    layout: np.ndarray
    """int64: sizes and offsets."""


class Problem(ABC):
    """f = (1/n) Σ f_i. Subclass it to write a problem of your own in plain Python.

    Attributes
    ----------
    n_workers, dim : int
    x0 : numpy.ndarray
        float64 of shape (dim,), where a run starts unless told otherwise.
    notes : tuple of str
        What was chosen for the user, and why; a line each, which the command line prints.
    dtype : "float64" or "float32"
        In which a run computes unless told otherwise.
    evaluates_gradient : bool
        Whether an evaluation computes ∇f. If not, ‖∇f‖ is NaN there, and a run has diverged by its
        loss.
    """

    name: ClassVar[str] = ""
    dtype: str = "float64"
    evaluates_gradient: bool = True

    n_workers: int
    dim: int
    notes: tuple[str, ...] = ()

    @abstractmethod
    def gradient(
        self, x: np.ndarray, worker: int, draw: int = 0, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return a stochastic gradient of f_worker at x, of shape (dim,).

        All randomness is to come from `rng`, which follows from the run's seed, the worker and the
        draw; so a job's gradient is the same in every run. `train` calls it from the threads of
        several workers at once.
        """

    @abstractmethod
    def loss(self, x: np.ndarray) -> float:
        """Return f(x)."""

    @abstractmethod
    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇f(x), of shape (dim,)."""

    def accuracy(self, x: np.ndarray) -> float:
        """Return the share of correct predictions at x; NaN where there are no labels."""
        return float("nan")

    def test_loss(self, x: np.ndarray) -> float:
        """Return the loss at x on rows that are none of f's; NaN where there are none."""
        return float("nan")

    @property
    def x0(self) -> np.ndarray:
        """Where a run starts unless told otherwise."""
        return np.zeros(self.dim)

    @property
    def smoothness(self) -> float:
        """L, a smoothness constant of every f_i; NaN where it is not known."""
        return float("nan")

    def parts(self) -> dict[str, Any]:
        """Return, by name, what the numbers follow from beside size and start.

        `asgrad.problems.fingerprint` compares what is a number, a text, an array or several arrays,
        when a run goes on. By default: all attributes that are numbers or arrays. Texts may be
        names of files, which change without the data.
        """
        found = vars(self) if hasattr(self, "__dict__") else {}
        return {
            name: part
            for name, part in found.items()
            if not isinstance(part, str)
            and not isinstance(getattr(type(self), name, None), cached_property)
        }

    @property
    def smoothness_source(self) -> str:
        """How L is got, in a few words."""
        return "the problem's own" if np.isfinite(self.smoothness) else "not known"

    @property
    def measure(self) -> str:
        """The measure by which a stepsize is chosen unless told otherwise.

        The gradient norm, which theory bounds; a network of which a part is dead has a small one
        as well, so that its natural measure is the loss.
        """
        return "gradient_norm"

    @property
    def gains_by_threads(self) -> bool:
        """Whether a replay of many lanes is faster on several threads than in one."""
        return True

    def pack(self, dtype: Any) -> Packed:
        """Return the data that the kernels read, with floats of `dtype`."""
        return Packed(np.zeros(1, dtype), np.zeros(1, np.int32), np.zeros(1, np.int64))

    def packed(self, dtype: Any) -> Packed:
        """Return what `pack` does, for those who only read it."""
        return self.pack(dtype)

    def workspace(self, n_columns: int) -> tuple[int, int]:
        """Return how many floats and how many integers the kernels need beside their arguments."""
        return 1, 1

    def kernels(self) -> Kernels:
        """Return what computes gradients and evaluations."""
        return Kernels(self._gradient_of_lanes, self._evaluate_columns)

    def _gradient_of_lanes(
        self, values: Any, indices: Any, layout: Any, x: Any, worker: Any, draw: Any, key: Any,
        out: Any, scratch: Any, picks: Any,
    ) -> None:  # fmt: skip
        """Compute the gradient lane by lane."""
        stream = job_stream(key, worker, draw) & (2**63 - 1)
        for lane in range(x.shape[1]):
            rng = np.random.default_rng(stream)
            model = np.array(x[:, lane])  # a copy: the stored model must not change
            try:
                found = self.gradient(model, int(worker), int(draw), rng)
            except AsgradError:
                raise
            except Exception as error:
                owner = type(self).__name__
                raise GradientError.of(owner, int(worker), int(draw), error) from error
            out[:, lane] = self._checked("gradient", found)

    def _evaluate_columns(
        self, values: Any, indices: Any, layout: Any, x: Any, metrics: Any, out: Any, scratch: Any,
        picks: Any,
    ) -> None:  # fmt: skip
        """Evaluate column by column."""
        owner = type(self).__name__
        for column in range(x.shape[1]):
            model = x[:, column]  # every function gets a copy: some change it, or keep it
            metrics[1, column] = np.nan
            if self.evaluates_gradient:
                out[:, column] = self._checked("full_gradient", self.full_gradient(model.copy()))
                metrics[1, column] = out[:, column] @ out[:, column]
            for row, name in ((0, "loss"), (2, "accuracy"), (3, "test_loss")):
                found = getattr(self, name)(model.copy())
                metrics[row, column] = as_number(owner, f"what {name} returns", found)

    def _checked(self, name: str, found: Any) -> np.ndarray:
        """Return what a gradient function returned, if it is a real vector of the right shape."""
        vector = np.asarray(found)
        if vector.shape != (self.dim,) or vector.dtype.kind not in "fiu":
            raise AsgradError(
                f"{type(self).__name__}: {name} must return real numbers of shape ({self.dim},), "
                f"got {vector.dtype} of shape {vector.shape}."
            )
        return vector


def check_problem(owner: str, problem: Any) -> None:
    """Refuse what is no problem, or is an unfinished one, before anything is computed with it."""
    check_kind(owner, "problem", problem, Problem, "ag.problems.Softmax('digits')")
    name = type(problem).__name__
    for size in ("n_workers", "dim"):
        check_integer(name, size, getattr(problem, size, None), minimum=1)
    try:
        signature = inspect.signature(problem.gradient, follow_wrapped=False)
    except ValueError:
        return  # written in another language; it will be seen
    try:
        signature.bind(None, 0, 0, None)
    except TypeError as error:
        raise KindError(
            f"{name}: gradient is called as gradient(x, worker, draw, rng): {error}."
        ) from None


_PACKING = threading.RLock()
_PACKED: weakref.WeakKeyDictionary[Problem, dict[str, tuple[weakref.ref, ...]]]
_PACKED = weakref.WeakKeyDictionary()
"""Where the packed data of problems are, as long as somebody holds them. Not kept by the problems:
these may be copied and changed, or sent elsewhere."""


class CompiledProblem(Problem):
    """A problem whose gradients run compiled, many lanes at a time.

    A subclass gives `pack`, `workspace` and `kernels`; the methods for one model follow from them.
    """

    _x0: np.ndarray | None = None
    """Where a run starts; None: at zero."""

    @property
    def x0(self) -> np.ndarray:
        """Where a run starts unless told otherwise."""
        return np.zeros(self.dim) if self._x0 is None else self._x0.copy()

    def parts(self) -> dict[str, Any]:
        """Return nothing: what the kernels read is compared itself. A subclass names settings."""
        return {}

    def packed(self, dtype: Any) -> Packed:
        """Return what `pack` does, for those who only read it: one copy for all threads.

        It is forgotten when nobody holds it any more, so that a run sees what has been changed
        since the last one.
        """
        if type(self).__hash__ is None:  # a subclass that compares by value
            return self.pack(dtype)
        with _PACKING:
            places = _PACKED.setdefault(self, {})
            found: list[Any] = [place() for place in places.get(np.dtype(dtype).name, ())]
            if found and all(array is not None for array in found):
                return Packed(*found)
            packed = self.pack(dtype)
            places[np.dtype(dtype).name] = tuple(weakref.ref(array) for array in packed)
            return packed

    def gradient(
        self, x: np.ndarray, worker: int, draw: int = 0, rng: Any = None, *, key: int = 0
    ) -> np.ndarray:
        """Return the stochastic gradient of f_worker at x for stream `key`, of shape (dim,)."""
        owner = type(self).__name__
        check_integer(owner, "worker", worker, minimum=0, maximum=self.n_workers - 1)
        check_integer(owner, "draw", draw, minimum=0)
        out = np.empty((self.dim, 1))
        scratch, picks = self.buffers(1, np.float64)
        packed = self.pack(np.float64)
        block = self._column(x)
        self.kernels().gradient(*packed, block, worker, draw, key, out, scratch, picks)
        return out[:, 0]

    def loss(self, x: np.ndarray) -> float:
        """Return f(x)."""
        return float(self._evaluate(x)[0][0, 0])

    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇f(x), of shape (dim,)."""
        return self._evaluate(x)[1][:, 0]

    def accuracy(self, x: np.ndarray) -> float:
        """Return the share of correct predictions at x; NaN where there are no labels."""
        return float(self._evaluate(x)[0][2, 0])

    def test_loss(self, x: np.ndarray) -> float:
        """Return the loss at x on the test rows; NaN where there are none."""
        return float(self._evaluate(x)[0][3, 0])

    def buffers(self, n_columns: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return scratch floats and the identity 0, 1, ... that kernels pick rows with."""
        n_floats, n_picks = self.workspace(n_columns)
        return np.empty(n_floats, dtype), np.arange(n_picks)

    def _evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return metrics and gradient at one model."""
        metrics, out = np.full((4, 1), np.nan), np.empty((self.dim, 1))
        scratch, picks = self.buffers(1, np.float64)
        block = self._column(x)
        self.kernels().evaluation(*self.pack(np.float64), block, metrics, out, scratch, picks)
        return metrics, out

    def _column(self, x: np.ndarray) -> np.ndarray:
        """Return a model as a block of one lane."""
        model = np.ascontiguousarray(x, np.float64)
        if model.shape != (self.dim,):
            raise AsgradError(
                f"{type(self).__name__}: a model must have shape ({self.dim},), got {model.shape}."
            )
        return model.reshape(self.dim, 1)
