"""What an evaluation of a PyTorch module computes; needs the extra `torch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asgrad.problems.torch_module import COUNTS, LEARNS, PREDICTS, Buffers, FlatModule
from asgrad.problems.torch_rows import Rows
from asgrad.problems.torch_trial import Classes

__all__ = ["Evaluation"]


@dataclass
class Evaluation:
    """f, accuracy and test loss of a module, piece by piece of its rows.

    Attributes
    ----------
    module : FlatModule
    training : Rows
    test : Rows, optional
    piece : int
        At most so many rows go through the module at once.
    classes : Classes, optional
        How outputs become classes, if they do.
    counts : bool
        Whether training changes buffers.
    predicts : bool
        Whether module.eval() may predict something else than the module in the modes it has.
    """

    module: FlatModule
    training: Rows
    test: Rows | None
    piece: int
    classes: Classes | None = None
    counts: bool = False
    predicts: bool = False

    def objective(self, flat: torch.Tensor) -> tuple[Any, Any, Buffers | None]:
        """Return f, the share of right predictions, and the buffers after all pieces.

        For each row of `flat` if it has two axes. ∇f is added to flat.grad where flat requires a
        gradient.
        """
        buffers = self.module.new_buffers(flat.dtype) if self.counts else None
        with torch.set_grad_enabled(flat.requires_grad):
            use = COUNTS if self.counts else LEARNS
            value, share = self._mean(flat, self.training, use, buffers)
        return value, share, buffers

    def measure(self, flat: torch.Tensor) -> tuple[Any, Any, Any]:
        """Return f, the share of right predictions, and the loss on the test rows, likewise."""
        value, share, buffers = self.objective(flat)
        test_loss: Any = np.nan
        with torch.no_grad():
            if self.test is not None:
                use = PREDICTS if self.predicts else LEARNS
                test_loss, share = self._mean(flat, self.test, use, buffers)
            elif self.predicts and self.classes is not None:
                share = self._mean(flat, self.training, PREDICTS, buffers)[1]
        return value, share, test_loss

    def _mean(
        self, flat: torch.Tensor, rows: Rows, use: str, buffers: Buffers | None
    ) -> tuple[Any, Any]:
        """Return the mean over shards of the mean loss, and the share of right predictions.

        Gradients are added piece by piece, so that no more than one piece's activations are held.
        """
        value: Any = 0.0
        share: Any = 0.0 if self.classes is not None else np.nan
        n_shards, lanes = len(rows.evaluated), flat.ndim == 2
        for i, evaluated in enumerate(rows.evaluated):
            n_right: Any = 0.0
            for inputs, targets in rows.pieces(i, self.piece):
                losses, outputs = self.module.losses(flat, inputs, targets, use, buffers)
                weight = len(targets) / len(evaluated) / n_shards
                if losses.requires_grad:
                    (losses * weight).sum().backward()
                value = value + weight * losses.detach().double().cpu().numpy()
                if self.classes is not None:
                    n_right = n_right + self.classes.n_right(outputs.detach(), targets, lanes)
            of_all = (rows.bounds[i + 1] - rows.bounds[i]) / len(evaluated)
            share = share + n_right * of_all
        return value, share / len(rows.targets)
