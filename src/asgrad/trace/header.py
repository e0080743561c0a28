"""What a trace says of its run."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SCHEMA_VERSION", "Header"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a trace says of its run.

    Attributes
    ----------
    method, times : str
        The method and the worker times, as the command line takes them.
    n_workers : int
    seed : int
        Fixes the method's choices, the times, and, on replay, the sampled rows and the noise.
    end_time : float
        When the run ended, in seconds.
    stopped_by : str
        "steps", "jobs" or "time": the limit that ended the run.
    versions : dict
        Versions of asgrad, NumPy and Numba that made the trace.
    schema_version : int
    """

    method: str
    times: str
    n_workers: int
    seed: int
    end_time: float
    stopped_by: str
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
