"""Neural networks on images, ready to run; needs the extra `torch`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asgrad.errors import AsgradError, KindError, check_flag, check_integer, shown
from asgrad.problems.data import Dataset, load
from asgrad.problems.holdout import hold_out
from asgrad.problems.torch import TorchProblem

__all__ = ["cifar10_resnet20", "digits_cnn", "digits_mlp"]

_TRAINING_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST_FILE = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue plane
_ARCHIVE = "cifar-10-batches-bin, the folder in the published archive of the binary version"
# Mean and standard deviation of red, green and blue over CIFAR-10's training images, in [0, 1].
_MEAN, _DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def digits_mlp(
    n_workers: int = 10,
    *,
    hidden: int = 32,
    split: str = "shuffled",
    alpha: float | None = None,
    equal: bool = False,
    batch: int | None = 32,
    test: Any = None,
    evaluation_rows: int | None = 10_000,
    evaluation_batch: int | None = None,
    gradient_norm: bool = False,
    device: str = "cpu",
    x0: Any = None,
    seed: int = 0,
) -> TorchProblem:
    """Return a perceptron with one hidden layer on scikit-learn's bundled digits.

    64 pixels in [0, 1] → `hidden` rectified units → 10 classes, cross-entropy. Rows 0, 5, 10, ...
    are the test rows unless there are others, the other 1437 train.

    Parameters
    ----------
    n_workers : int >= 1
    hidden : int >= 1
        Units of the hidden layer.
    split, alpha, equal, batch, evaluation_rows, evaluation_batch, gradient_norm, device, x0
        As in `TorchProblem`.
    test : float in (0, 1), str, path or (features, targets), optional
        Other rows for testing: a share of the digits, drawn at random, or rows of their form.
    seed : int >= 0
        Fixes the split, the test rows that are drawn, and the initial parameters.

    Examples
    --------
    >>> digits_mlp(4).label
    'MLP with 2410 parameters, 4 workers'
    """
    check_integer("digits_mlp", "hidden", hidden, minimum=1)
    module = _seeded("digits_mlp", lambda: MLP(hidden), seed)
    return _on_digits(
        "digits_mlp", module, (64,), n_workers=n_workers, split=split, alpha=alpha, equal=equal,
        batch=batch, test=test, evaluation_rows=evaluation_rows, evaluation_batch=evaluation_batch,
        gradient_norm=gradient_norm, device=device, x0=x0, seed=seed,
    )  # fmt: skip


def digits_cnn(
    n_workers: int = 10,
    *,
    split: str = "shuffled",
    alpha: float | None = None,
    equal: bool = False,
    batch: int | None = 32,
    test: Any = None,
    evaluation_rows: int | None = 10_000,
    evaluation_batch: int | None = None,
    gradient_norm: bool = False,
    device: str = "cpu",
    x0: Any = None,
    seed: int = 0,
) -> TorchProblem:
    """Return a small convolutional network on scikit-learn's bundled digits.

    Two 3×3 convolutions with 16 and 32 channels, each rectified and halved by max pooling, then a
    linear layer; cross-entropy. Rows 0, 5, 10, ... are the test rows unless there are others, the
    other 1437 train.

    Parameters
    ----------
    n_workers : int >= 1
    split, alpha, equal, batch, evaluation_rows, evaluation_batch, gradient_norm, device, x0
        As in `TorchProblem`.
    test : float in (0, 1), str, path or (features, targets), optional
        Other rows for testing: a share of the digits, drawn at random, or rows of their form.
    seed : int >= 0
        Fixes the split, the test rows that are drawn, and the initial parameters.

    Examples
    --------
    >>> digits_cnn(4).label
    'CNN with 6090 parameters, 4 workers'
    """
    module = _seeded("digits_cnn", CNN, seed)
    return _on_digits(
        "digits_cnn", module, (1, 8, 8), n_workers=n_workers, split=split, alpha=alpha, equal=equal,
        batch=batch, test=test, evaluation_rows=evaluation_rows, evaluation_batch=evaluation_batch,
        gradient_norm=gradient_norm, device=device, x0=x0, seed=seed,
    )  # fmt: skip


def cifar10_resnet20(
    folder: str | Path,
    n_workers: int = 10,
    *,
    split: str = "shuffled",
    alpha: float | None = None,
    equal: bool = False,
    batch: int | None = 128,
    augment: bool = True,
    evaluation_rows: int | None = 10_000,
    evaluation_batch: int | None = None,
    gradient_norm: bool = False,
    device: str = "cpu",
    x0: Any = None,
    seed: int = 0,
) -> TorchProblem:
    """Return ResNet-20 on CIFAR-10, read from its published binary form.

    A 3×3 convolution; 3 stages of 3 basic blocks with 16, 32 and 64 channels, the second and third
    at half the resolution of the one before; global average pooling; a linear layer with 10
    outputs: 269 722 parameters. Shortcuts are identities with zeros for the channels that are
    added (option A). Weights begin as He et al. (arXiv 1502.01852) draw them.

    The problem holds the images as bytes; the module's first layer normalises the channels.

    Parameters
    ----------
    folder : str or path
        Holds data_batch_1.bin to data_batch_5.bin for training and test_batch.bin for the accuracy;
        in the published archive it is called cifar-10-batches-bin.
    n_workers : int >= 1
    split, alpha, equal, batch, evaluation_rows, evaluation_batch, gradient_norm, device, x0
        As in `TorchProblem`.
    augment : bool
        Pad the images of a stochastic gradient with 4 black pixels on every side, crop 32×32 at
        random and flip every second one on average; drawn from (seed, worker, draw) of the job.
    seed : int >= 0
        Fixes the split and the initial parameters.

    Raises
    ------
    AsgradError
        If a file is missing or is not of CIFAR-10's binary form.

    References
    ----------
    He, Zhang, Ren, Sun: Deep residual learning for image recognition, arXiv 1512.03385, section
    4.2. Deviations: no weight decay; every channel is normalised, where the paper subtracts a mean
    image; BatchNorm's running statistics are estimated anew at every evaluation, see
    `TorchProblem`.
    """
    check_flag("cifar10_resnet20", "augment", augment)
    training, test = _cifar10(folder)
    return TorchProblem(
        _seeded("cifar10_resnet20", ResNet20, seed),
        nn.functional.cross_entropy,
        training,
        n_workers=n_workers,
        split=split,
        alpha=alpha,
        equal=equal,
        batch=batch,
        augment=_crop_and_flip if augment else None,
        test=test,
        evaluation_rows=evaluation_rows,
        evaluation_batch=evaluation_batch,
        gradient_norm=gradient_norm,
        device=device,
        x0=x0,
        seed=seed,
    )


class MLP(nn.Sequential):
    """64 pixels → hidden units → 10 classes."""

    def __init__(self, hidden: int):
        super().__init__(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class CNN(nn.Sequential):
    """Two convolutions and a linear layer on 8×8 pixels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 2 * 2, 10),
        )


class ResNet20(nn.Module):
    """The residual network of 20 layers on images of bytes, shape (rows, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = _Normalize()
        self.first = _convolution(3, 16, stride=1)
        self.blocks = nn.Sequential(
            *(_Block(16, 16, stride=1) for _ in range(3)),
            _Block(16, 32, stride=2),
            *(_Block(32, 32, stride=1) for _ in range(2)),
            _Block(32, 64, stride=2),
            *(_Block(64, 64, stride=1) for _ in range(2)),
        )
        self.last = nn.Linear(64, 10)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return ten scores an image."""
        features = self.blocks(torch.relu(self.first(self.normalize(images))))
        scores: torch.Tensor = self.last(features.mean(dim=(2, 3)))
        return scores


class _Normalize(nn.Module):
    """Bytes → channels with mean 0 and deviation 1 over the training images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images in the type of the parameters."""
        return (images.to(self.mean.dtype) - self.mean) / self.deviation


class _Block(nn.Module):
    """Two convolutions beside an identity shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.one = _convolution(n_in, n_out, stride)
        self.two = _convolution(n_out, n_out, 1)
        self.stride, self.n_added = stride, n_out - n_in

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return relu(F(images) + shortcut(images))."""
        shortcut = images[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.n_added))
        return torch.relu(self.two(torch.relu(self.one(images))) + shortcut)


def _convolution(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    """Return a 3×3 convolution and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out)
    )


def _seeded(owner: str, make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a module drawn from `seed`; torch's global generator is left as it was."""
    check_integer(owner, "seed", seed, minimum=0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


_Rows = tuple[torch.Tensor, torch.Tensor]


def _on_digits(
    owner: str, module: nn.Module, shape: tuple[int, ...], *, test: Any, seed: int, **options: Any
) -> TorchProblem:
    """Return cross-entropy on the digits, each image of the given shape, but for the test rows."""
    data = load("digits")
    in_test = np.arange(data.targets.size) % 5 == 0
    training, notes = data.take(np.flatnonzero(~in_test)), list[str]()
    held: Dataset | None = data.take(np.flatnonzero(in_test))
    if test is not None:
        training, held, notes = hold_out(owner, data, test, seed)
    assert held is not None
    unknown = ~np.isin(held.targets, data.targets)
    if unknown.any():
        raise AsgradError(
            f"{owner}: labels of test rows must be 0 to 9, got {held.targets[unknown][0]:g}."
        )
    built = TorchProblem(
        module,
        nn.functional.cross_entropy,
        _images_of(training, shape),
        test=_images_of(held, shape),
        seed=seed,
        **options,
    )
    built.notes = (*notes, *built.notes)
    return built


def _images_of(data: Dataset, shape: tuple[int, ...]) -> _Rows:
    """Return rows of features as images of a shape, and their labels as int64."""
    images = torch.tensor(data.features.toarray(), dtype=torch.float32).view(-1, *shape)
    return images, torch.tensor(data.targets, dtype=torch.int64)


def _crop_and_flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return every image moved by up to 4 pixels each way, and mirrored with probability 1/2."""
    n_rows, n_channels, height, width = images.shape
    top, left = torch.from_numpy(rng.integers(0, 9, (2, n_rows))).to(images.device)
    mirrored = torch.from_numpy(rng.integers(0, 2, n_rows)).to(images.device) == 1
    columns = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(0), columns)
    rows = top[:, None] + torch.arange(height, device=images.device)
    image = torch.arange(n_rows, device=images.device)[:, None, None, None]
    channel = torch.arange(n_channels, device=images.device)[:, None, None]
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cifar10(folder: str | Path) -> tuple[_Rows, _Rows]:
    """Return training and test rows of CIFAR-10: images as bytes, labels as int64."""
    if not isinstance(folder, str | os.PathLike):
        raise KindError(f"CIFAR-10: the folder must be a path, got {shown(folder)}.")
    path = Path(folder)
    if not path.is_dir():
        raise AsgradError(f"CIFAR-10: data must be a folder, got {path}; give {_ARCHIVE}.")
    for name in (*_TRAINING_FILES, _TEST_FILE):
        if not (path / name).is_file():
            raise AsgradError(f"CIFAR-10: {path} must hold {name}, got none; give {_ARCHIVE}.")
    records = np.concatenate([_records(path / name) for name in _TRAINING_FILES])
    return _rows(records), _rows(_records(path / _TEST_FILE))


def _records(path: Path) -> np.ndarray:
    """Return the records of one file, uint8 of shape (n_records, 3073)."""
    try:
        read = np.fromfile(path, np.uint8)
    except OSError as error:
        raise AsgradError(f"CIFAR-10: cannot read {path}: {error.strerror}.") from error
    if not (read.size > 0 and read.size % _RECORD == 0):
        raise AsgradError(
            f"CIFAR-10: the size of {path} must be a positive multiple of {_RECORD} bytes, got "
            f"{read.size}; the file is cut off or of another form, unpack the archive again."
        )
    records = read.reshape(-1, _RECORD)
    labels = records[:, 0]
    if not (labels <= 9).all():
        record = int(np.argmax(labels > 9))
        raise AsgradError(
            f"CIFAR-10: labels must be 0 to 9, got {labels[record]} in record {record} of {path}; "
            "the file is damaged or of another form, unpack the archive again."
        )
    return records


def _rows(records: np.ndarray) -> _Rows:
    """Return the images and labels of some records."""
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32))
    return images, torch.from_numpy(records[:, 0].astype(np.int64))
