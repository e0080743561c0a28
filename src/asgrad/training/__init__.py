"""A method over real workers, recorded as a trace."""

from asgrad.training.checkpoint import Checkpoints, CheckpointWarning
from asgrad.training.live import Ending
from asgrad.training.train import Training, train

__all__ = ["CheckpointWarning", "Checkpoints", "Ending", "Training", "train"]
