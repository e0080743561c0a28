"""The engines: simulate in virtual time, train over real workers, replay a trace."""

from asgrad.engines.checkpoint import Checkpoints, CheckpointWarning
from asgrad.engines.live import Ending
from asgrad.engines.ray import Ray
from asgrad.engines.replay import Interrupted, Result, Status, replay
from asgrad.engines.simulate import simulate
from asgrad.engines.threads import Threads
from asgrad.engines.train import Training, train

__all__ = [
    "CheckpointWarning",
    "Checkpoints",
    "Ending",
    "Interrupted",
    "Ray",
    "Result",
    "Status",
    "Threads",
    "Training",
    "replay",
    "simulate",
    "train",
]
