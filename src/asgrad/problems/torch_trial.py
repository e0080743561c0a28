"""What a few rows tell of a module and its loss before a run; needs the extra `torch`."""

from __future__ import annotations

import copy
import warnings
from typing import Any, NamedTuple

import torch

from asgrad.errors import AsgradError
from asgrad.problems.torch_module import COUNTS, PREDICTS, FlatModule

__all__ = [
    "Classes",
    "bytes_of_a_row",
    "check_outputs",
    "check_that_loss_is_a_mean",
    "find_classes",
    "lanes_work",
    "what_training_changes",
]


class Classes(NamedTuple):
    """How an output becomes a class."""

    threshold: float | None
    """Above it a row's one output says class 1; None: the largest of several outputs counts, and
    where targets are shares of the classes, the largest share."""

    def n_right(self, outputs: torch.Tensor, targets: torch.Tensor, lanes: bool) -> Any:
        """Return how many predictions are right, for each lane if `outputs` begins with lanes."""
        if self.threshold is None:
            right = outputs.argmax(dim=-1) == (targets.argmax(-1) if targets.ndim > 1 else targets)
        else:
            of_rows = outputs.reshape(*outputs.shape[:lanes], len(targets))
            right = (of_rows > self.threshold) == (targets.reshape(-1) == 1)
        return right.sum(dim=-1).double().cpu().numpy()


def check_outputs(
    module: FlatModule, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the module's outputs; refuse those and a loss that are not of the needed kind."""
    loss = module.loss
    if targets.is_floating_point():
        targets = targets.to(flat.dtype)
    outputs = module.outputs(flat.detach().requires_grad_(), inputs)
    if not isinstance(outputs, torch.Tensor):
        raise AsgradError(
            f"TorchProblem: module must return a tensor, got {type(outputs).__name__}; wrap it in "
            "a module that returns the tensor which loss takes."
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = loss(outputs.detach(), targets)
    if any("Using a target size" in str(warning.message) for warning in said):
        raise AsgradError(
            f"TorchProblem: targets must have the outputs' shape {tuple(outputs.shape)} for this "
            f"loss, got {tuple(targets.shape)}; it would pair every row with every other one. Give "
            "targets of that shape, or let the module return outputs of the targets'."
        )
    if not isinstance(value, torch.Tensor):
        got = type(value).__name__
    elif value.ndim > 0:
        got = f"one of shape {tuple(value.shape)}"
    elif not value.is_floating_point():
        got = f"one of {value.dtype}"
    else:
        got = ""
    if got:
        raise AsgradError(
            "TorchProblem: loss must return a real tensor without dimensions, the mean over the "
            f"rows, got {got}."
        )
    if value.requires_grad:
        raise AsgradError(
            "TorchProblem: loss must depend on parameters through the module's outputs alone, got "
            "one that has parameters at hand itself; a copy of the module is trained, so let the "
            "module return what a regulariser needs."
        )
    if not loss(outputs, targets).requires_grad:
        raise AsgradError(
            "TorchProblem: loss(module(inputs), targets) must depend on the module's parameters, "
            "got one without a gradient; is it detached?"
        )
    return outputs.detach()


def check_that_loss_is_a_mean(
    module: FlatModule, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> None:
    """Refuse a loss that changes when every row stands there twice; a mean of any kind does not.

    Class weights pass, and so does BatchNorm: mean and variance of a batch stay what they are.
    """
    with torch.no_grad():
        once = float(module.losses(flat, inputs, targets)[0])
        doubled = torch.cat([inputs, inputs]), torch.cat([targets, targets])
        twice = float(module.losses(flat, *doubled)[0])
    if abs(twice - once) > 1e-3 * abs(once) + 1e-9:  # NaN passes: the run will show it
        raise AsgradError(
            "TorchProblem: loss(module(inputs), targets) must be a mean over the rows, got "
            f"{once:.4g} for {len(targets)} rows and {twice:.4g} for the same rows twice; use "
            "reduction='mean', or divide by their number."
        )


def what_training_changes(
    module: FlatModule, flat: torch.Tensor, inputs: torch.Tensor
) -> tuple[bool, bool]:
    """Say whether a call changes buffers, and whether module.eval() may predict something else."""
    with torch.no_grad():
        buffers, before = (module.new_buffers(flat.dtype) for _ in range(2))
        outputs = module.outputs(flat, inputs, COUNTS, buffers)
        predicted = module.outputs(flat, inputs, PREDICTS)
    counts = any(not _equal(buffers.values[name], old) for name, old in before.values.items())
    return counts, counts or not _equal(outputs, predicted)


def find_classes(
    outputs: torch.Tensor, some: torch.Tensor, targets: torch.Tensor, loss: Any
) -> Classes | None:
    """Return how the outputs for rows with targets `some` become classes; None if they do not.

    Several outputs a row, and integers, or as many shares of 1 (one-hot or soft labels): the
    largest. One output and targets 0 and 1, or -1 and 1:
    above 0 it says 1, unless the loss likes no output above 1 (probabilities, least squares): then
    above the middle of the targets.
    """
    n_rows = len(some)
    if outputs.ndim == 0 or outputs.shape[0] != n_rows:
        return None
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        whole = not targets.is_floating_point() and targets.ndim == 1
        return Classes(None) if whole or _are_shares(targets, outputs.shape[1]) else None
    if outputs.numel() != n_rows or some.numel() != n_rows:
        return None
    values = {float(value) for value in torch.unique(targets)}
    if values <= {-1.0, 1.0} and -1.0 in values:
        return Classes(0.0)
    if not values <= {0.0, 1.0}:
        return None
    if isinstance(loss, torch.nn.Module):
        loss = copy.deepcopy(loss).cpu()
    output, target = outputs[:1].cpu(), torch.ones_like(some[:1].cpu())
    if target.is_floating_point():
        target = target.to(output.dtype)
    try:
        at_one, beyond = (float(loss(torch.full_like(output, at), target)) for at in (1.0, 2.0))
    except Exception:  # no loss beyond 1: probabilities
        return Classes(0.5)
    return Classes(0.0 if beyond < at_one else 0.5)


def _are_shares(targets: torch.Tensor, n_classes: int) -> bool:
    """Say whether targets have a share >= 0 for each class, which sum to 1 in every row."""
    if targets.ndim != 2 or targets.shape[1] != n_classes:
        return False
    sums = targets.double().sum(dim=1)
    return bool((targets >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def bytes_of_a_row(
    module: FlatModule, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> int:
    """Return how many bytes autograd holds for a row of a batch; an evaluation needs about them."""
    flat = flat.detach().requires_grad_()
    held: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        value, outputs = module.losses(flat, inputs, targets)
    held[outputs.untyped_storage().data_ptr()] = outputs
    for known in (flat, inputs):
        held.pop(known.untyped_storage().data_ptr(), None)
    total = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    del value
    return max(1, total // len(targets))


def lanes_work(
    module: FlatModule, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> bool:
    """Say whether vmap takes several models at once, without falling back to a slow loop."""
    both = torch.stack([flat, flat]).requires_grad_()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            module.losses(both, inputs, targets)[0].sum().backward()
        except Exception:
            return False
    return not any("batching rule" in str(warning.message) for warning in said)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors hold the same, NaN included."""
    return one.shape == other.shape and torch.allclose(
        one.to(other.dtype), other, rtol=0, atol=0, equal_nan=True
    )
