"""PyTorch models as problems; needs the extra `torch`."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch.func import functional_call, vmap
from torch.utils.flop_counter import FlopCounterMode

from asgrad.errors import AsgradError, KindError, check_integer, in_one_line, shown
from asgrad.problems.base import Problem
from asgrad.problems.data import Dataset
from asgrad.problems.split import split as split_rows
from asgrad.problems.start import start
from asgrad.streams import job_stream

__all__ = ["TorchProblem"]

_FEW_FLOPS = 4_000_000
_AUTO = "auto"
_PIECE = 500  # rows: at most so many go through the module at once in an evaluation


class TorchProblem(Problem):
    """Any `nn.Module` with a loss and data: f_i(x) = loss(module(X_i), y_i) over worker i's rows.

    x is the flat vector of the module's parameters that require a gradient, in the order of
    `module.parameters()`; a run starts at the module's own. Frozen parameters stay what they are.
    Buffers are no part of x: every call begins with those the module
    had when it was given, and changes to them are thrown away; so BatchNorm in training mode
    normalises with the batch at hand, in gradients and in evaluation alike.

    f is evaluated in pieces: a shard of more than 500 rows is dealt out to as few pieces of nearly
    equal size as it takes, rows k, k + p, k + 2p, ... to piece k of p, and f_i is the mean of the
    pieces' losses, weighted by their rows. Where rows do not meet in the module this is the loss on
    the whole shard; with BatchNorm it is the loss with each piece normalised by itself. Test rows
    are dealt out likewise. A stochastic gradient is never cut up, whatever `batch` is.

    A gradient's rows, and what `augment` draws, follow from (seed, worker, draw) alone. On the CPU
    each thread computes with one torch thread, so that a job's bits do not depend on who computes
    it. Layers that draw from torch's global generator (Dropout) are not reproducible and refused.
    A problem can be copied and pickled, if module, loss and `augment` can.

    Parameters
    ----------
    module : torch.nn.Module
        Copied; its parameters must be of one floating type.
    loss : callable
        loss(outputs, targets) → scalar, a mean over the rows.
    data : (inputs, targets) or torch.utils.data.Dataset
        Tensors or arrays with one row a sample, or a data set of such pairs.
    n_workers : int >= 1
    split, alpha, seed
        How the rows are dealt out, see `asgrad.problems.split`.
    batch : int >= 1, optional
        Rows of a stochastic gradient, drawn without replacement; by default all of the worker's.
    augment : callable, optional
        augment(inputs, rng) → inputs, `rng` a NumPy generator; for stochastic gradients only.
    test : (inputs, targets) or torch.utils.data.Dataset, optional
        Rows, with classes as targets, on which the accuracy is measured; by default the training
        rows. Loss and gradient are those of the training rows in any case.
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
        batch: int | None = None,
        augment: Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None = None,
        test: Any = None,
        device: str = "cpu",
        x0: Any = None,
        seed: int = 0,
    ):
        if not isinstance(module, torch.nn.Module):
            raise KindError(f"TorchProblem: module must be an nn.Module, got {shown(module)}.")
        self.n_workers = check_integer("TorchProblem", "n_workers", n_workers, minimum=1)
        self.batch = 0
        if batch is not None:
            self.batch = check_integer("TorchProblem", "batch", batch, minimum=1)
        try:
            self._module = copy.deepcopy(module)
        except Exception as error:
            raise AsgradError(
                f"TorchProblem: the module must be one that can be copied: {in_one_line(error)}"
            ) from error
        self._loss, self._augment = loss, augment
        parameters = self._module.named_parameters()
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        if not named:
            raise AsgradError("TorchProblem: the module has no parameters that require a gradient.")
        for part in self._module.modules():
            if isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0:
                raise AsgradError(
                    "TorchProblem: Dropout draws from torch's global generator and cannot be "
                    "replayed; set its p to 0, or augment the inputs instead."
                )
        self._names = [name for name, _ in named]
        self._shapes = [parameter.shape for _, parameter in named]
        self._sizes = [parameter.numel() for _, parameter in named]
        self.dim = sum(self._sizes)
        flat = torch.cat([parameter.detach().reshape(-1) for _, parameter in named])
        self._x0 = flat.double().cpu().numpy()
        if x0 is not None:
            self._x0 = start("TorchProblem", x0, self.dim, seed)
        inputs, targets = _tensors(data, "data")
        self._test = None if test is None else self._checked_test(test, inputs)
        labels = targets.double().numpy() if targets.ndim == 1 else np.zeros(len(targets))
        rows = Dataset(sparse.csr_matrix((len(labels), 1)), labels)
        shards = split_rows(rows, self.n_workers, split, alpha=alpha, seed=seed)
        order = torch.from_numpy(shards.order)
        self._inputs, self._targets = inputs[order], targets[order]
        self._bounds = shards.bounds
        self._local = threading.local()
        self._lanes_work = True
        self._wanted = device
        try:
            self._bring_to(_device(device))
        except (RuntimeError, AssertionError, TypeError) as error:  # no such device, or not here
            here = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu'"
            raise AsgradError(
                f"TorchProblem: the module cannot be brought to device {shown(device)}; here it "
                f"can be {here}: {in_one_line(error)}"
            ) from error
        self._try_out()

    def _bring_to(self, device: torch.device) -> None:
        """Bring module and data to a device."""
        self.device = device
        self._module.to(device)
        frozen = [(name, parameter.detach()) for name, parameter in self._module.named_parameters()
                  if not parameter.requires_grad]  # fmt: skip
        self._buffers = [*self._module.named_buffers(), *frozen]
        self._inputs, self._targets = self._inputs.to(device), self._targets.to(device)
        if self._test is not None:
            self._test = (self._test[0].to(device), self._test[1].to(device))

    def _try_out(self) -> None:
        """Compute a gradient twice; refuse what fails, and what torch's generator has a hand in."""
        found = []
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices), ThreadPoolExecutor(1) as thread:  # of its own settings
            for seed in (0, 1):
                torch.manual_seed(seed)
                try:
                    found.append(thread.submit(self.gradient, self._x0, 0).result())
                except Exception as error:
                    raise AsgradError(
                        "TorchProblem: the gradient of loss(module(inputs), targets) fails on rows "
                        f"of the data: {in_one_line(error)}"
                    ) from error
        first, second = found
        if self.device.type == "cpu":
            same = np.array_equal(first, second, equal_nan=True)
        else:  # where sums are not taken in one order, bits may differ for no other reason
            same = np.allclose(first, second, rtol=1e-2, atol=1e-4, equal_nan=True)
        if not same:
            raise AsgradError(
                "TorchProblem: module, loss or augment gives something else when it is computed "
                "again, and cannot be replayed: it draws from a global generator (torch's, as "
                "dropout does, or NumPy's) or remembers. Set dropout's p to 0, and draw from "
                "augment's rng."
            )

    def parts(self) -> dict[str, Any]:
        """Return what the numbers follow from; of functions no more than their names is known."""
        modules = [module.training for module in self._module.modules()]
        frozen = [*self._buffers, *self._module.named_parameters()]
        return {
            "batch": self.batch,
            "loss": _function_name(self._loss),
            "augment": _function_name(self._augment),
            "module": np.frombuffer(_without_addresses(f"{self._module!r}").encode(), np.uint8),
            "training": np.array(modules),
            "parameters": [_bytes_of(tensor) for _, tensor in frozen],
            "split": np.asarray(self._bounds),
            "data": (_bytes_of(self._inputs), _bytes_of(self._targets)),
            "test": None if self._test is None else tuple(map(_bytes_of, self._test)),
        }

    @property
    def x0(self) -> np.ndarray:
        """The parameters that the module had, unless told otherwise."""
        return self._x0.copy()

    @property
    def label(self) -> str:
        """The problem in a few words."""
        kind = type(self._module).__name__
        return f"{kind} with {self.dim} parameters, {self.n_workers} workers"

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the threads' own modules, which are made again where they are needed.

        With device "auto" all is on the CPU: it may be read where there is no other.
        """
        state = {name: value for name, value in self.__dict__.items() if name != "_local"}
        if self._wanted == _AUTO and self.device.type != "cpu":
            moved = object.__new__(type(self))
            moved.__dict__.update(state, _module=copy.deepcopy(self._module))
            moved._bring_to(torch.device("cpu"))
            state = moved.__dict__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        self.__dict__.update(state)
        self._local = threading.local()
        if self._wanted == _AUTO:
            self._bring_to(_device(_AUTO))

    @cached_property
    def gains_by_threads(self) -> bool:
        """Whether a gradient is large enough that it is not mostly torch's own bookkeeping.

        That holds the interpreter's lock, so that lanes are better kept together.
        """
        with FlopCounterMode(display=False) as counter:
            self.gradient(self._x0, 0)
        return bool(counter.get_total_flops() > _FEW_FLOPS)

    def gradient(
        self, x: np.ndarray, worker: int, draw: int = 0, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return a stochastic gradient of f_worker at x, of shape (dim,) and the type of x."""
        inputs, targets = self._sample(worker, rng or np.random.default_rng(0))
        flat = self._flat(x).requires_grad_()
        self._losses(flat, inputs, targets)[0].backward()
        return self._array(flat.grad)

    def loss(self, x: np.ndarray) -> float:
        """Return f(x)."""
        with torch.no_grad():
            return float(self._objective(self._flat(x))[0])

    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return ∇f(x), of shape (dim,)."""
        flat = self._flat(x).requires_grad_()
        self._objective(flat)
        return self._array(flat.grad)

    def accuracy(self, x: np.ndarray) -> float:
        """Return the share of right predictions, on the test rows if there are any.

        NaN unless targets are classes.
        """
        flat = self._flat(x)
        with torch.no_grad():
            share = self._objective(flat)[1] if self._test is None else self._test_accuracy(flat)
            return float(share)

    def module_at(self, x: np.ndarray) -> torch.nn.Module:
        """Return a copy of the module with the parameters x."""
        if np.shape(x) != (self.dim,):
            raise AsgradError(
                f"TorchProblem: a model must have shape ({self.dim},), got {np.shape(x)}."
            )
        module = copy.deepcopy(self._module)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        torch.nn.utils.vector_to_parameters(self._flat(x).to(trained[0].dtype), trained)
        return module

    def _gradient_of_lanes(
        self, values: Any, indices: Any, layout: Any, x: Any, worker: Any, draw: Any, key: Any,
        out: Any, scratch: Any, picks: Any,
    ) -> None:  # fmt: skip
        """Compute the gradient in all lanes at once where the module can, else one by one."""
        if x.shape[1] > 1 and self._lanes_work:
            rng = np.random.default_rng(job_stream(key, worker, draw) & (2**63 - 1))
            inputs, targets = self._sample(int(worker), rng)
            flats = self._flat(np.ascontiguousarray(x.T)).requires_grad_()
            try:
                values, _ = self._losses(flats, inputs, targets)
            except RuntimeError:  # an operation without a batching rule
                self._lanes_work = False
            else:
                values.sum().backward()
                out[:] = self._array(flats.grad).T
                return
        super()._gradient_of_lanes(
            values, indices, layout, x, worker, draw, key, out, scratch, picks
        )

    def _evaluate_columns(
        self, values: Any, indices: Any, layout: Any, x: Any, metrics: Any, out: Any, scratch: Any,
        picks: Any,
    ) -> None:  # fmt: skip
        """Evaluate one by one, small networks in all columns at once."""
        n_columns = x.shape[1]
        together = n_columns > 1 and self._lanes_work and not self.gains_by_threads
        columns = [slice(None)] if together else [slice(i, i + 1) for i in range(n_columns)]
        for column in columns:
            block = np.ascontiguousarray(x[:, column].T)
            flat = self._flat(block if together else block[0]).requires_grad_()
            try:
                metrics[0, column], share = self._objective(flat)
            except RuntimeError:
                if not together:
                    raise
                self._lanes_work = False  # an operation without a batching rule
                self._evaluate_columns(values, indices, layout, x, metrics, out, scratch, picks)
                return
            out[:, column] = self._array(flat.grad).reshape(-1, self.dim).T
            metrics[1, column] = np.square(out[:, column], dtype=np.float64).sum(axis=0)
            if self._test is not None:
                with torch.no_grad():
                    share = self._test_accuracy(flat)
            metrics[2, column] = share

    def _losses(
        self, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loss and outputs on some rows, for parameters `flat` or for each row of it."""
        if flat.ndim == 2:
            each = vmap(self._losses, in_dims=(0, None, None))
            return each(flat, inputs, targets)  # type: ignore[no-any-return]
        outputs = self._outputs(flat, inputs)
        return self._loss(outputs, targets), outputs

    def _outputs(self, flat: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the module says with the parameters `flat`."""
        module = self._own_module()
        pieces = torch.split(flat, self._sizes)
        parameters = {
            name: piece.view(shape)
            for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True)
        }
        buffers = {
            name: buffer.to(flat.dtype, copy=True) if buffer.is_floating_point() else buffer.clone()
            for name, buffer in self._buffers
        }
        if inputs.is_floating_point():
            inputs = inputs.to(flat.dtype)
        said: torch.Tensor = functional_call(module, {**parameters, **buffers}, (inputs,))
        return said

    def _objective(self, flat: torch.Tensor) -> tuple[Any, Any]:
        """Return f and the share of right predictions on the training rows, for each row of `flat`.

        Where `flat` requires a gradient, ∇f is added to flat.grad piece by piece, so that no more
        than one piece's activations are held.
        """
        value, n_right = 0.0, 0.0
        n_shards = len(self._bounds) - 1
        for worker in range(n_shards):
            shard = self._shard(worker)
            for inputs, targets in _pieces(*shard):
                piece, outputs = self._losses(flat, inputs, targets)
                weight = len(targets) / len(shard[1]) / n_shards
                if flat.requires_grad:
                    (piece * weight).sum().backward()
                value = value + weight * piece.detach().double().cpu().numpy()
                n_right = n_right + _n_right(outputs, targets)
        return value, n_right / len(self._targets)

    def _test_accuracy(self, flat: torch.Tensor) -> Any:
        """Return the share of right predictions on the test rows, for each row of `flat`."""
        assert self._test is not None
        n_right = 0.0
        for inputs, targets in _pieces(*self._test):
            n_right = n_right + _n_right(self._losses(flat, inputs, targets)[1], targets)
        return n_right / len(self._test[1])

    def _checked_test(self, test: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the test rows; they must be like the training rows."""
        found, targets = _tensors(test, "test")
        if found.shape[1:] != inputs.shape[1:]:
            raise AsgradError(
                f"TorchProblem: test must have inputs of the data's shape {tuple(inputs.shape[1:])}"
                f", got {tuple(found.shape[1:])}."
            )
        if targets.is_floating_point() or targets.ndim != 1:
            raise AsgradError(
                "TorchProblem: test must have classes as targets, one integer a row, got "
                f"{targets.dtype} of shape {tuple(targets.shape)}; accuracy is all it is for."
            )
        return found, targets

    def _shard(self, worker: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a worker's rows: those of its number, or all, where all workers share them."""
        shard = min(worker, len(self._bounds) - 2)
        first, end = self._bounds[shard], self._bounds[shard + 1]
        return self._inputs[first:end], self._targets[first:end]

    def _sample(self, worker: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of one stochastic gradient."""
        inputs, targets = self._shard(worker)
        if 0 < self.batch < len(targets):
            picked = rng.choice(len(targets), self.batch, replace=False)
            rows = torch.from_numpy(picked).to(self.device)
            inputs, targets = inputs[rows], targets[rows]
        if self._augment is not None:
            inputs = self._augment(inputs, rng)
        return inputs, targets

    def _own_module(self) -> torch.nn.Module:
        """Return this thread's copy of the module: functional_call changes it while it runs."""
        if not hasattr(self._local, "module"):
            torch.set_num_threads(1)
            self._local.module = copy.deepcopy(self._module)
        module: torch.nn.Module = self._local.module
        return module

    def _flat(self, x: np.ndarray) -> torch.Tensor:
        """Return a copy of x as a tensor on the device."""
        return torch.tensor(x, device=self.device)

    def _array(self, tensor: torch.Tensor | None) -> np.ndarray:
        """Return a gradient as an array; parameters that the loss ignores have gradient 0."""
        assert tensor is not None
        found: np.ndarray = tensor.detach().cpu().numpy()
        return found


def _device(wanted: Any) -> torch.device:
    """Return the device of that name in this process."""
    if wanted == _AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


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


def _pieces(
    inputs: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the rows in pieces; strided, so that each is like the whole if rows are sorted."""
    n_pieces = -(-len(targets) // _PIECE)
    for k in range(n_pieces):
        yield inputs[k::n_pieces], targets[k::n_pieces]


def _n_right(outputs: torch.Tensor, targets: torch.Tensor) -> Any:
    """Return how many predictions are right; NaN unless targets are classes, one score each.

    `outputs` has shape (rows, classes), or (lanes, rows, classes).
    """
    if targets.is_floating_point() or targets.ndim != 1 or outputs.ndim not in (2, 3):
        return float("nan")
    if outputs.shape[-2] != len(targets):
        return float("nan")
    return (outputs.argmax(dim=-1) == targets).sum(dim=-1).double().cpu().numpy()


def _tensors(data: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets as tensors with one row a sample, finite and of equal length."""
    is_array = isinstance(data, torch.Tensor | np.ndarray)
    if isinstance(data, tuple) and len(data) == 2:
        inputs, targets = (torch.as_tensor(part) for part in data)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not is_array:
        if len(data) == 0:
            raise AsgradError(f"TorchProblem: the data set given as {name} is empty.")
        try:
            found = [(item, target) for item, target in (data[i] for i in range(len(data)))]
            inputs = torch.stack([torch.as_tensor(item) for item, _ in found])
            targets = torch.as_tensor([np.asarray(target).tolist() for _, target in found])
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise AsgradError(
                f"TorchProblem: items 0, 1, ... of {name} must be pairs (input, target), inputs as "
                f"arrays of one shape, targets as numbers: {type(error).__name__}: {error}"
            ) from error
    else:
        raise KindError(
            f"TorchProblem: {name} must be (inputs, targets) or a data set, got {shown(data)}."
        )
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise AsgradError(
            f"TorchProblem: {name} must have one target a row and at least one row, got "
            f"{len(inputs)} inputs and {len(targets)} targets."
        )
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise AsgradError(f"TorchProblem: the inputs of {name} must be finite.")
    return inputs.cpu(), targets.cpu()
