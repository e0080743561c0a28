"""The engines: simulate in virtual time, train over real workers, replay a trace."""

from asgrad.engines.replay import Interrupted, Result, Status, replay
from asgrad.engines.simulate import simulate
from asgrad.engines.threads import Threads
from asgrad.engines.train import Ending, Training, train

__all__ = [
    "Ending",
    "Interrupted",
    "Result",
    "Status",
    "Threads",
    "Training",
    "replay",
    "simulate",
    "train",
]
