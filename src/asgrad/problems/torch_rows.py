"""Rows for PyTorch modules: how they are read, sampled and dealt out; needs the extra `torch`."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from asgrad.errors import AsgradError, KindError, shown
from asgrad.streams import Purpose, stream_key

__all__ = ["Rows", "generators_kept", "generators_state", "read_rows"]

_READ_TWICE = 100  # items of a data set


def read_rows(data: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets as tensors with one row a sample, finite and of equal length.

    Raises
    ------
    AsgradError
        Also if an item of a data set is another when it is read again.
    """
    is_array = isinstance(data, torch.Tensor | np.ndarray)
    if isinstance(data, tuple) and len(data) == 2:
        inputs, targets = (
            _tensor(part, f"{what} of {name}")
            for part, what in zip(data, ("inputs", "targets"), strict=True)
        )
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not is_array:
        inputs, targets = _read_items(data, name)
    else:
        raise KindError(
            f"TorchProblem: {name} must be (inputs, targets) or a data set, got {shown(data)}."
        )
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or len(inputs) == 0:
        lengths = [len(part) if part.ndim else "no rows of" for part in (inputs, targets)]
        raise AsgradError(
            f"TorchProblem: {name} must have one target a row and at least one row, got "
            f"{lengths[0]} inputs and {lengths[1]} targets."
        )
    for part, what in ((inputs, "inputs"), (targets, "targets")):
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise AsgradError(f"TorchProblem: the {what} of {name} must be finite.")
    return inputs.cpu(), targets.cpu()


def _tensor(part: Any, name: str) -> torch.Tensor:
    """Return an array, a list of numbers or a tensor as a tensor."""
    if isinstance(part, np.ndarray):
        part = np.require(part, requirements="W")  # torch warns of what it might write to
    try:
        if not isinstance(part, torch.Tensor | np.ndarray | list):
            raise TypeError
        return torch.as_tensor(part).detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        why = f": {error}" if str(error) else ""
        raise KindError(
            f"TorchProblem: the {name} must be one tensor or array of numbers, a row a sample, got "
            f"{shown(part)}{why}."
        ) from error


def _read_items(data: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of all items of a data set."""
    if len(data) == 0:
        raise AsgradError(f"TorchProblem: the data set given as {name} is empty.")
    with generators_kept():
        try:
            inputs, targets = _stacked(data, range(len(data)))
            some = np.linspace(0, len(data) - 1, min(len(data), _READ_TWICE)).round().astype(int)
            again = _stacked(data, some.tolist())
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise AsgradError(
                f"TorchProblem: items 0, 1, ... of {name} must be pairs (input, target), inputs as "
                f"arrays of one shape, targets as numbers: {type(error).__name__}: {error}"
            ) from error
    for first, second in zip((inputs[some], targets[some]), again, strict=True):
        if not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True):
            raise AsgradError(
                f"TorchProblem: an item of {name} must be the same whenever it is read; it is drawn"
                " at random, which one reading would freeze. Leave the random transform out of the "
                "data set and give it as augment=, which draws anew for every gradient."
            )
    return inputs, targets


def _stacked(data: Any, items: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some items as two tensors."""
    found = [(item, target) for item, target in (data[i] for i in items)]
    inputs = torch.stack([torch.as_tensor(item) for item, _ in found])
    return inputs, torch.as_tensor([np.asarray(target).tolist() for _, target in found])


@contextmanager
def generators_kept() -> Iterator[None]:
    """Give the global generators of torch, NumPy and Python back as they were."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)


def generators_state(device: torch.device) -> list[bytes]:
    """Return what changes when somebody draws from a global generator."""
    torchs = [torch.random.get_rng_state()]
    if device.type == "cuda":
        torchs.append(torch.cuda.get_rng_state(device))
    numpys: Any = np.random.get_state()  # noqa: NPY002
    others = [numpys[1].tobytes(), bytes(str(numpys[2]), "ascii"), repr(random.getstate()).encode()]
    return [state.numpy().tobytes() for state in torchs] + others


class Rows:
    """Inputs and targets on a device, in order of their shards, and which of them are evaluated.

    Every worker has a shard of its own, or there is one shard for all of them.

    Parameters
    ----------
    inputs, targets : torch.Tensor
    bounds : numpy.ndarray
        int64; rows bounds[i] to bounds[i + 1] − 1 are shard i.
    n_evaluated : int, optional
        At most so many, or one a shard, are evaluated: as many of every shard as it has, up to the
        same number, drawn with `seed`; None: all.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        bounds: np.ndarray,
        n_evaluated: int | None,
        seed: int,
    ):
        self.inputs, self.targets, self.bounds = inputs, targets, bounds
        self.evaluated = [torch.arange(first, end) for first, end in pairwise(bounds)]
        if n_evaluated is not None and n_evaluated < len(targets):
            rng = np.random.default_rng(stream_key(seed, Purpose.EVALUATION) & (2**63 - 1))
            most = max(1, n_evaluated // len(self.evaluated))
            self.evaluated = [
                rows[np.sort(rng.permutation(len(rows))[:most])] for rows in self.evaluated
            ]

    def brought_to(self, device: torch.device) -> Rows:
        """Return the rows on a device."""
        moved = copy.copy(self)
        moved.inputs, moved.targets = self.inputs.to(device), self.targets.to(device)
        return moved

    def shard(self, worker: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of a worker's shard."""
        i = min(worker, len(self.bounds) - 2)
        first, end = self.bounds[i], self.bounds[i + 1]
        return self.inputs[first:end], self.targets[first:end]

    def pieces(self, i: int, most: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the evaluated rows of a shard in pieces of nearly equal size, at most so many rows.

        Row k of p pieces, and every p-th after it, go to piece k, so that each is like the whole if
        rows are sorted.
        """
        n_pieces = -(-len(self.evaluated[i]) // most)
        for k in range(n_pieces):
            rows = self.evaluated[i][k::n_pieces].to(self.inputs.device)
            yield self.inputs[rows], self.targets[rows]
