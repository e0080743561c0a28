"""PyTorch models as problems; needs the extra `torch`."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch.utils.flop_counter import FlopCounterMode

from asgrad.errors import (
    AsgradError,
    GradientError,
    KindError,
    check_flag,
    check_integer,
    in_one_line,
    shown,
)
from asgrad.problems.base import Packed, Problem
from asgrad.problems.data import Dataset
from asgrad.problems.split import split as split_rows
from asgrad.problems.split import warn_of_small_shards
from asgrad.problems.start import start
from asgrad.problems.torch_evaluation import Evaluation
from asgrad.problems.torch_module import FlatModule, as_array, own_settings
from asgrad.problems.torch_rows import Rows, generators_kept, generators_state, read_rows
from asgrad.problems.torch_trial import (
    bytes_of_a_row,
    check_outputs,
    check_that_loss_is_a_mean,
    find_classes,
    lanes_work,
    what_training_changes,
)
from asgrad.streams import job_stream

__all__ = ["TorchProblem"]

_FEW_FLOPS = 4_000_000
_AUTO = "auto"
_MEMORY = 1 << 26  # bytes that what is computed together may hold, unless a single batch needs more
_MOST_ROWS = 500  # of a piece of an evaluation, unless asked for
_TRIED_ROWS = 8


class TorchProblem(Problem):
    """Any `nn.Module` with a loss and data: f_i(x) = loss(module(X_i), y_i) over worker i's rows.

    x is the flat vector of the module's parameters that require a gradient, in the order of
    `module.parameters()`; a run starts at the module's own, and computes in their dtype. Frozen
    parameters stay what they are. Parts of the module that were given in evaluation mode stay in
    it, in stochastic gradients as in f.

    Evaluation. f is that of at most `evaluation_rows` training rows, drawn once with `seed`, as
    many of every worker as it has, up to the same number. A worker's are dealt out to pieces of
    nearly equal size, of at most `evaluation_batch` rows: rows k, k + p, k + 2p, ... to piece k of
    p; f_i is the mean of the pieces' losses, weighted by their rows. Where rows do not meet in the
    module this is the loss on all of them; with BatchNorm it is the loss with each piece normalised
    by itself, as a batch of a stochastic gradient is. Test rows are sampled and dealt out likewise.
    A stochastic gradient is never cut up, whatever `batch` is.

    Buffers are no part of x: gradients begin with those that the module was given with, and throw
    changes away. An evaluation keeps them from piece to piece, workers in their order; running
    statistics (BatchNorm's) become the mean of those of all pieces. Accuracy and test loss are
    those of module.eval() with these buffers, and `module_at` returns just that module.

    A gradient's rows, and what `augment` draws, follow from (seed, worker, draw) alone. On the CPU
    each thread computes with one torch thread, so that a job's bits do not depend on who computes
    it, nor on what the caller has set. What draws from a global generator (Dropout that is switched
    on) is not reproducible and refused. A problem can be copied and pickled, if module, loss and
    `augment` can.

    Parameters
    ----------
    module : torch.nn.Module
        Copied; its parameters must all be float32 or all be float64. It takes one tensor and
        returns one.
    loss : callable
        loss(outputs, targets) → scalar, a mean over the rows. A weighted mean (class weights) is
        taken as it is, batch by batch. What it does with parameters is not seen.
    data : (inputs, targets) or torch.utils.data.Dataset
        Tensors or arrays with one row a sample, or a data set of such pairs, read once.
    n_workers : int >= 1
    split, alpha, equal, seed
        How the rows are dealt out, see `asgrad.problems.split`.
    batch : int >= 1, optional
        Rows of a stochastic gradient, drawn without replacement; by default all of the worker's.
    augment : callable, optional
        augment(inputs, rng) → inputs, `rng` a NumPy generator; for stochastic gradients only.
    test : (inputs, targets) or torch.utils.data.Dataset, optional
        Rows on which accuracy and test loss are measured; without them the accuracy is that of the
        training rows. Loss and gradient are those of the training rows in any case.
    evaluation_rows : int >= 1, optional
        Training rows, and test rows, of an evaluation; None: all.
    evaluation_batch : int >= 1, optional
        Rows that go through the module at once in an evaluation; by default as many as need no more
        than about 64 MB, or as a stochastic gradient takes if those are more, and at most 500. As
        many models as fit into that memory are evaluated together.
    gradient_norm : bool
        Whether evaluations compute ∇f too, at two to three times the cost. Without it their ‖∇f‖ is
        NaN, a run has diverged by its loss, and `train` takes no `target`.
    device : str
        "cpu", "cuda", ...; "auto": in every process the GPU if it has one, else the CPU, as for the
        workers of a cluster whose driver has none.
    x0 : str, path or array, optional
        Where a run starts, by default at the module's own parameters: "zeros", "ones", "normal"
        (x_0 ~ N(0, I) under `seed`), a .npy file, or numbers of shape (dim,).

    Raises
    ------
    AsgradError
        If the module or the data are refused.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        data: Any,
        *,
        n_workers: int = 10,
        split: str = "shuffled",
        alpha: float | None = None,
        equal: bool = False,
        batch: int | None = None,
        augment: Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None = None,
        test: Any = None,
        evaluation_rows: int | None = 10_000,
        evaluation_batch: int | None = None,
        gradient_norm: bool = False,
        device: str = "cpu",
        x0: Any = None,
        seed: int = 0,
    ):
        self._module = FlatModule(module, loss)
        self.n_workers = check_integer("TorchProblem", "n_workers", n_workers, minimum=1)
        counts = {
            "batch": batch,
            "evaluation_rows": evaluation_rows,
            "evaluation_batch": evaluation_batch,
        }
        for name, count in counts.items():
            if count is not None:
                check_integer("TorchProblem", name, count, minimum=1)
        self.batch = batch or 0
        self.evaluates_gradient = check_flag("TorchProblem", "gradient_norm", gradient_norm)
        if augment is not None and not callable(augment):
            raise KindError(f"TorchProblem: augment must be a function, got {shown(augment)}.")
        self._augment = augment
        self.dim = self._module.dim
        self.dtype = str(self._module.dtype).removeprefix("torch.")
        self._computes_in = {self.dtype: ""}
        given = start("TorchProblem", x0, self.dim, seed)
        self._x0 = as_array(self._module.start) if given is None else given
        inputs, targets = read_rows(data, "data")
        labels = _labels(targets, split)
        dealt = Dataset(sparse.csr_matrix((len(labels), 1)), labels)
        shards = split_rows(dealt, self.n_workers, split, alpha=alpha, equal=equal, seed=seed)
        warn_of_small_shards("TorchProblem", shards.sizes, self.batch)
        self.notes = tuple(shards.said_of_rows_left(len(labels)))
        order = torch.from_numpy(shards.order)
        training = Rows(inputs[order], targets[order], shards.bounds, evaluation_rows, seed)
        tested = None
        if test is not None:
            rows = read_rows(test, "test")
            _check_alike(*rows, inputs, targets)
            tested = Rows(*rows, np.array([0, len(rows[1])]), evaluation_rows, seed)
        self._evaluation = Evaluation(
            self._module, training, tested, evaluation_batch or _MOST_ROWS
        )
        self._wanted = device
        try:
            self._bring_to(_device(device))
        except (RuntimeError, AssertionError, TypeError) as error:  # no such device, or not here
            here = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu'"
            raise AsgradError(
                f"TorchProblem: the module cannot be brought to device {shown(device)}; here it "
                f"can be {here}: {in_one_line(error)}"
            ) from error
        with own_settings(self.device), generators_kept():
            self._try_out(chooses_piece=evaluation_batch is None)

    def _bring_to(self, device: torch.device) -> None:
        """Bring module and rows to a device."""
        self.device = device
        self._module.bring_to(device)
        self._training = self._evaluation.training.brought_to(device)
        test = self._evaluation.test
        self._evaluation = replace(
            self._evaluation,
            module=self._module,
            training=self._training,
            test=test.brought_to(device) if test else None,
        )

    def _try_out(self, chooses_piece: bool) -> None:
        """Find out on a few rows what the module and its loss are like; refuse what is unfit."""
        module, evaluation = self._module, self._evaluation
        flat = self._flat(self._module.start)
        few = tuple(part[:_TRIED_ROWS] for part in self._training.shard(0))
        try:
            outputs = check_outputs(module, flat, *few)
            self._check_repetition()
            check_that_loss_is_a_mean(module, flat, *few)
            evaluation.counts, evaluation.predicts = what_training_changes(module, flat, few[0])
            self._row_bytes = bytes_of_a_row(module, flat, *few)
            if chooses_piece:
                least = max(self._n_drawn(worker) for worker in range(self.n_workers))
                evaluation.piece = min(_MOST_ROWS, max(least, _MEMORY // self._row_bytes))
            smallest = int(np.argmin([len(rows) for rows in self._training.evaluated]))
            with torch.no_grad():
                module.losses(flat, *next(self._training.pieces(smallest, evaluation.piece)))
        except AsgradError:
            raise
        except Exception as error:
            raise AsgradError(
                "TorchProblem: the gradient of loss(module(inputs), targets) fails on rows of the "
                f"data: {in_one_line(error)}"
            ) from error
        evaluation.classes = find_classes(outputs, few[1], self._training.targets, module.loss)
        self._lanes_work = lanes_work(module, flat, *few)

    def _check_repetition(self) -> None:
        """Compute a gradient twice; refuse what draws from a global generator, or remembers."""
        before = generators_state(self.device)
        first, second = (self.gradient(as_array(self._module.start), 0) for _ in range(2))
        same = generators_state(self.device) == before
        if self.device.type == "cpu":
            same = same and np.array_equal(first, second, equal_nan=True)
        else:  # where sums are not taken in one order, bits may differ for no other reason
            same = same and np.allclose(first, second, rtol=1e-2, atol=1e-4, equal_nan=True)
        if not same:
            raise AsgradError(
                "TorchProblem: module, loss or augment gives something else when it is computed "
                "again, and cannot be replayed: it draws from a global generator (torch's, as "
                "Dropout does, NumPy's or Python's) or remembers. Set the p of a Dropout to 0 or "
                "put it into evaluation mode, and draw from augment's rng."
            )

    def parts(self) -> dict[str, Any]:
        """Return what the numbers follow from; of functions no more than their names is known."""
        module, training, test = self._module, self._training, self._evaluation.test
        frozen = [*module.buffers.values(), *module.module.parameters()]
        return {
            "batch": self.batch,
            "loss": _function_name(module.loss),
            "augment": _function_name(self._augment),
            "module": np.frombuffer(_without_addresses(f"{module.module!r}").encode(), np.uint8),
            "training": np.array([part.training for part in module.module.modules()]),
            "parameters": [_bytes_of(tensor) for tensor in frozen],
            "split": np.asarray(training.bounds),
            "data": (_bytes_of(training.inputs), _bytes_of(training.targets)),
            "test": None if test is None else (_bytes_of(test.inputs), _bytes_of(test.targets)),
        }

    @property
    def measure(self) -> str:
        """The loss, see `Problem`; evaluations need not compute the gradient norm."""
        return "loss"

    @property
    def x0(self) -> np.ndarray:
        """Where a run starts: by default the parameters that the module had, in their dtype."""
        return self._x0.copy()

    @property
    def label(self) -> str:
        """The problem in a few words."""
        kind = type(self._module.module).__name__
        return f"{kind} with {self.dim} parameters, {self.n_workers} workers"

    def __getstate__(self) -> dict[str, Any]:
        """Return all that there is; with device "auto" on the CPU: there may be no other."""
        if self._wanted == _AUTO and self.device.type != "cpu":
            moved = object.__new__(type(self))
            moved.__dict__.update(self.__dict__, _module=copy.deepcopy(self._module))
            moved._bring_to(torch.device("cpu"))
            return moved.__dict__
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        self.__dict__.update(state)
        if self._wanted == _AUTO:
            self._bring_to(_device(_AUTO))

    def pack(self, dtype: Any) -> Packed:
        """Return no data; refuse a dtype in which the module cannot compute."""
        name = np.dtype(dtype).name
        if name not in self._computes_in:
            try:
                self.gradient(as_array(self._module.start).astype(name), 0)
                self._computes_in[name] = ""
            except Exception as error:
                self._computes_in[name] = in_one_line(error)
        if self._computes_in[name]:
            raise AsgradError(
                f"TorchProblem: the module must compute in {name} if a run is to, got "
                f"{self._computes_in[name]}; leave dtype out, its own is {self.dtype}."
            )
        return super().pack(dtype)

    @cached_property
    def gains_by_threads(self) -> bool:
        """Whether a gradient is large enough that it is not mostly torch's own bookkeeping.

        That holds the interpreter's lock, so that lanes are better kept together.
        """
        with FlopCounterMode(display=False) as counter:
            self.gradient(as_array(self._module.start), 0)
        return bool(counter.get_total_flops() > _FEW_FLOPS)

    def gradient(
        self, x: np.ndarray, worker: int, draw: int = 0, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return a stochastic gradient of f_worker at x, of shape (dim,) and the type of x."""
        with own_settings(self.device):
            inputs, targets = self._sample(worker, rng or np.random.default_rng(0))
            flat = self._flat(x).requires_grad_()
            self._module.losses(flat, inputs, targets)[0].backward()
            return as_array(flat.grad)

    def loss(self, x: np.ndarray) -> float:
        """Return f(x)."""
        with own_settings(self.device):
            return float(self._evaluation.objective(self._flat(x))[0])

    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇f(x), of shape (dim,)."""
        with own_settings(self.device):
            flat = self._flat(x).requires_grad_()
            self._evaluation.objective(flat)
            return as_array(flat.grad)

    def test_loss(self, x: np.ndarray) -> float:
        """Return the loss at x on the test rows; NaN where there are none."""
        with own_settings(self.device):
            return float(self._evaluation.measure(self._flat(x))[2])

    def accuracy(self, x: np.ndarray) -> float:
        """Return the share of right predictions, on the test rows if there are any.

        NaN unless targets are classes, or give every class its share of a row.
        """
        with own_settings(self.device):
            return float(self._evaluation.measure(self._flat(x))[1])

    def module_at(self, x: np.ndarray) -> torch.nn.Module:
        """Return a copy of the module with the parameters x, in the modes that it was given in.

        Buffers that training changes, such as BatchNorm's running statistics, are those of an
        evaluation at x: after .eval() it predicts what the accuracy is the share of.
        """
        if np.shape(x) != (self.dim,):
            raise AsgradError(
                f"TorchProblem: a model must have shape ({self.dim},), got {np.shape(x)}."
            )
        with own_settings(self.device):
            flat = self._flat(x)
            buffers = self._evaluation.objective(flat)[2] if self._evaluation.counts else None
            return self._module.with_parameters(flat, buffers)

    def _gradient_of_lanes(
        self, values: Any, indices: Any, layout: Any, x: Any, worker: Any, draw: Any, key: Any,
        out: Any, scratch: Any, picks: Any,
    ) -> None:  # fmt: skip
        """Compute the gradient in as many lanes at once as fit, if the module can."""
        n_lanes, n_rows = x.shape[1], self._n_drawn(int(worker))
        together = min(n_lanes, self._at_once(n_rows)) if self._lanes_work else 1
        if together == 1:
            super()._gradient_of_lanes(
                values, indices, layout, x, worker, draw, key, out, scratch, picks
            )
            return
        rng = np.random.default_rng(job_stream(key, worker, draw) & (2**63 - 1))
        try:
            with own_settings(self.device):
                inputs, targets = self._sample(int(worker), rng)
                for first in range(0, n_lanes, together):
                    lanes = slice(first, first + together)
                    flats = self._flat(np.ascontiguousarray(x[:, lanes].T)).requires_grad_()
                    self._module.losses(flats, inputs, targets)[0].sum().backward()
                    out[:, lanes] = as_array(flats.grad).T
        except RuntimeError:  # an operation without a batching rule, or one by one it fits
            self._lanes_work = False
            self._gradient_of_lanes(
                values, indices, layout, x, worker, draw, key, out, scratch, picks
            )
        except Exception as error:
            raise GradientError.of("TorchProblem", int(worker), int(draw), error) from error

    def _evaluate_columns(
        self, values: Any, indices: Any, layout: Any, x: Any, metrics: Any, out: Any, scratch: Any,
        picks: Any,
    ) -> None:  # fmt: skip
        """Evaluate one by one, models of small networks as many at once as fit."""
        n_columns = x.shape[1]
        can = self._lanes_work and not self._evaluation.counts and not self.gains_by_threads
        together = min(n_columns, self._at_once(self._evaluation.piece)) if can else 1
        try:
            with own_settings(self.device):
                for first in range(0, n_columns, together):
                    columns = slice(first, first + together)
                    self._evaluate_together(
                        x[:, columns], metrics[:, columns], out[:, columns], together > 1
                    )
        except Exception as error:
            if together == 1:
                raise AsgradError(
                    f"TorchProblem: an evaluation failed: {in_one_line(error)}"
                ) from error
            self._lanes_work = False  # an operation without a batching rule, or one by one it fits
            self._evaluate_columns(values, indices, layout, x, metrics, out, scratch, picks)

    def _evaluate_together(self, x: Any, metrics: Any, out: Any, lanes: bool) -> None:
        """Evaluate some columns at once, or a single one."""
        block = np.ascontiguousarray(x.T)
        flat = self._flat(block if lanes else block[0]).requires_grad_(self.evaluates_gradient)
        metrics[0], metrics[2], metrics[3] = self._evaluation.measure(flat)
        metrics[1] = np.nan
        if self.evaluates_gradient:
            out[:] = as_array(flat.grad).reshape(-1, self.dim).T
            metrics[1] = np.square(out, dtype=np.float64).sum(axis=0)

    def _at_once(self, n_rows: int) -> int:
        """Return how many models may go through batches of so many rows together."""
        return max(1, _MEMORY // (n_rows * self._row_bytes))

    def _n_drawn(self, worker: int) -> int:
        """Return how many rows a stochastic gradient takes."""
        size = len(self._training.shard(worker)[1])
        return min(self.batch or size, size)

    def _sample(self, worker: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of one stochastic gradient."""
        inputs, targets = self._training.shard(worker)
        if 0 < self.batch < len(targets):
            picked = rng.choice(len(targets), self.batch, replace=False)
            rows = torch.from_numpy(picked).to(self.device)
            inputs, targets = inputs[rows], targets[rows]
        if self._augment is not None:
            inputs = self._augment(inputs, rng)
        return inputs, targets

    def _flat(self, x: np.ndarray) -> torch.Tensor:
        """Return a copy of x as a tensor on the device."""
        numbers = np.asarray(x)
        if numbers.dtype.kind != "f":
            numbers = numbers.astype(self.dtype)
        return torch.tensor(numbers, device=self.device)


def _labels(targets: torch.Tensor, split: str) -> np.ndarray:
    """Return one label a row, by which rows are dealt out; refuse a split that needs what is not.

    Splits that need none get zeros where a row has several numbers.
    """
    if targets.numel() == len(targets):
        found: np.ndarray = targets.reshape(-1).double().numpy()
        return found
    if split in ("label", "dirichlet"):
        raise AsgradError(
            f"TorchProblem: split {split!r} deals rows out by their one target, got targets of "
            f"shape {tuple(targets.shape)}; take another split."
        )
    return np.zeros(len(targets))


def _function_name(function: Any) -> str:
    """Return a function's name with its module; what a loss that is a module says of itself."""
    if function is None or isinstance(function, torch.nn.Module):
        return _without_addresses(str(function))
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _without_addresses(text: str) -> str:
    """Return what objects say of themselves without where they lie in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """Return the bytes of a tensor: NumPy does not know all of torch's types."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    found: np.ndarray = flat.view(torch.uint8).numpy()
    return found


def _check_alike(
    test_inputs: torch.Tensor,
    test_targets: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> None:
    """Refuse test rows that are not like the training rows."""
    for what, test, training in (
        ("inputs", test_inputs, inputs),
        ("targets", test_targets, targets),
    ):
        if test.shape[1:] != training.shape[1:]:
            raise AsgradError(
                f"TorchProblem: test must have {what} of the data's shape "
                f"{tuple(training.shape[1:])}, got {tuple(test.shape[1:])}."
            )
    if test_targets.is_floating_point() != targets.is_floating_point():
        raise AsgradError(
            f"TorchProblem: test must have targets like the data's, of {targets.dtype}, got "
            f"{test_targets.dtype}."
        )


def _device(wanted: Any) -> torch.device:
    """Return the device of that name in this process."""
    if wanted == _AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
