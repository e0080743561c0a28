"""A PyTorch module and its loss as functions of one flat vector; needs the extra `torch`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap
from torch.nn.parameter import UninitializedParameter

from asgrad.errors import AsgradError, KindError, in_one_line, shown

__all__ = ["COUNTS", "LEARNS", "PREDICTS", "Buffers", "FlatModule", "as_array", "own_settings"]

# What a copy of the module is for: stochastic gradients; an evaluation that also updates buffers,
# in the modes that the module was given in; predictions, all of it in evaluation mode.
LEARNS, COUNTS, PREDICTS = "learns", "counts", "predicts"

_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class Buffers:
    """The buffers of a module as they change, call by call."""

    def __init__(self, values: dict[str, torch.Tensor]):
        self.values, self.n_calls = values, 0


class FlatModule:
    """A module whose parameters are one vector, and that is the same before and after every call.

    functional_call changes a module while it runs, so that every thread has its own copies, of the
    layers only: parameters and buffers are put in at every call.

    Parameters
    ----------
    module : torch.nn.Module
        Copied.
    loss : callable

    Attributes
    ----------
    dim : int
    dtype : torch.dtype
        float32 or float64, of the parameters that require a gradient.
    start : torch.Tensor
        Those parameters, of shape (dim,).
    """

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ):
        if not callable(loss):
            raise KindError(f"TorchProblem: loss must be a function, got {shown(loss)}.")
        self.loss = loss
        if not isinstance(module, torch.nn.Module):
            raise KindError(f"TorchProblem: module must be an nn.Module, got {shown(module)}.")
        try:
            self.module = copy.deepcopy(module)
        except Exception as error:
            raise AsgradError(
                f"TorchProblem: the module must be one that can be copied: {in_one_line(error)}"
            ) from error
        if any(isinstance(part, UninitializedParameter) for part in self.module.parameters()):
            raise AsgradError(
                "TorchProblem: the module has parameters without a shape; call it once on some "
                "inputs."
            )
        parameters = list(self.module.named_parameters())
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        if not named:
            raise AsgradError("TorchProblem: the module has no parameters that require a gradient.")
        kinds = sorted({str(parameter.dtype).removeprefix("torch.") for _, parameter in named})
        if kinds not in (["float32"], ["float64"]):
            raise AsgradError(
                "TorchProblem: the module's parameters must all be float32 or all be float64, got "
                f"{' and '.join(kinds)}; bring them to one, for instance with module.float()."
            )
        self.dtype: torch.dtype = named[0][1].dtype
        self._names = [name for name, _ in named]
        self._shapes = [parameter.shape for _, parameter in named]
        self._sizes = [parameter.numel() for _, parameter in named]
        self.dim = sum(self._sizes)
        self.start = torch.cat([parameter.detach().reshape(-1) for _, parameter in named]).cpu()
        self._local = threading.local()

    def bring_to(self, device: torch.device) -> None:
        """Bring the module to a device."""
        self.device = device
        self.module.to(device)
        named = self.module.named_parameters()
        self.frozen = {name: part.detach() for name, part in named if not part.requires_grad}
        self.buffers = dict(self.module.named_buffers())

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the threads' own copies, which are made again where they are needed."""
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        self.__dict__.update(state)
        self._local = threading.local()

    def new_buffers(self, dtype: torch.dtype) -> Buffers:
        """Return the buffers that the module was given with, for a model of this dtype."""
        return Buffers({name: self._as(part, dtype).clone() for name, part in self.buffers.items()})

    def losses(
        self,
        flat: torch.Tensor,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        use: str = LEARNS,
        buffers: Buffers | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loss and outputs on some rows, for parameters `flat` or for each row of it."""
        if flat.ndim == 2:
            each = vmap(partial(self.losses, use=use), in_dims=(0, None, None))
            return each(flat, inputs, targets)  # type: ignore[no-any-return]
        outputs = self.outputs(flat, inputs, use, buffers)
        if targets.is_floating_point():
            targets = targets.to(flat.dtype)
        return self.loss(outputs, targets), outputs

    def outputs(
        self,
        flat: torch.Tensor,
        inputs: torch.Tensor,
        use: str = LEARNS,
        buffers: Buffers | None = None,
    ) -> Any:
        """Return what the module says with the parameters `flat`.

        Buffers are those that the module was given with, unless there are others; with COUNTS,
        `buffers` are updated: running statistics become the mean of those of all calls so far.
        """
        module = self._copy_for(use)
        pieces = torch.split(flat, self._sizes)
        tensors = {
            name: piece.view(shape)
            for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True)
        }
        tensors.update({name: self._as(part, flat.dtype) for name, part in self.frozen.items()})
        tensors.update((buffers or self.new_buffers(flat.dtype)).values)
        if inputs.is_floating_point():
            inputs = inputs.to(flat.dtype)
        if use == COUNTS and buffers is not None:
            buffers.n_calls += 1
            for part in module.modules():
                if hasattr(part, "track_running_stats") and hasattr(part, "momentum"):
                    part.momentum = 1.0 / buffers.n_calls
        said = functional_call(module, tensors, (inputs,))
        if use == COUNTS and buffers is not None:  # a module may also set new tensors
            buffers.values = {name: tensors[name].detach() for name in buffers.values}
        return said

    def with_parameters(self, flat: torch.Tensor, buffers: Buffers | None) -> torch.nn.Module:
        """Return a module of its own with these parameters, and buffers where there are others."""
        module = copy.deepcopy(self.module)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        torch.nn.utils.vector_to_parameters(flat.to(self.dtype), trained)
        for name, value in (buffers.values if buffers else {}).items():
            place, _, leaf = name.rpartition(".")
            given = self.buffers[name].dtype
            module.get_submodule(place).register_buffer(leaf, value.to(given, copy=True))
        return module

    def _as(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of the parameters' dtype in that of the model; others stay as they are.

        So a module computes in its own dtype just as it does without asgrad.
        """
        return tensor.to(dtype) if tensor.dtype == self.dtype else tensor

    def _copy_for(self, use: str) -> torch.nn.Module:
        """Return this thread's copy of the module for a use."""
        if not hasattr(self._local, use):
            shared = chain(self.module.parameters(), self.module.buffers())
            made = copy.deepcopy(self.module, {id(part): part for part in shared})
            if use == PREDICTS:
                made.eval()
            if use == LEARNS:  # what it would count is thrown away, and stands in the way of vmap
                for part in made.modules():
                    if type(part) in _BATCH_NORMS and part.training:
                        part.track_running_stats = False
            setattr(self._local, use, made)
        module: torch.nn.Module = getattr(self._local, use)
        return module


@contextmanager
def own_settings(device: torch.device) -> Iterator[None]:
    """Compute with one torch thread, with autograd and without autocast; give the settings back.

    Bits depend on all of them, and a caller may have set any in one thread and not in another.
    """
    with ExitStack() as given_back:
        n_threads = torch.get_num_threads()
        if n_threads != 1:
            torch.set_num_threads(1)
            given_back.callback(torch.set_num_threads, n_threads)
        if torch.is_inference_mode_enabled():
            given_back.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            given_back.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled(device.type):
            given_back.enter_context(torch.autocast(device.type, enabled=False))
        yield


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's numbers."""
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
