"""What a trace says of its run.

A reader refuses only what it cannot understand. On disk a header is a table of its fields:

- a field that is not there has its default, where one is stated here;
- one that a reader does not know is refused, since it may change what the tables mean, unless its
  writer has named it in the list `may_skip`: whoever adds a field without which a replay gives the
  same numbers puts it there. So neither asks for a new version number.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["MAY_SKIP", "SCHEMA_VERSION", "Header"]

SCHEMA_VERSION = 1
_SKIPPED = {"may_skip": True}


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
    recipe : str
        The method with its parts, with which a replay is made unless told otherwise; by default the
        method alone.
    bound : dict of str to float
        What the parts took from a live run (concurrency, n_workers, smoothness), by name: there a
        replay reads it. Empty where nothing was computed yet, as in a simulation: a replay then
        takes it from trace and problem.
    """

    method: str
    times: str
    n_workers: int
    seed: int
    end_time: float
    stopped_by: str
    versions: dict[str, str] = field(default_factory=dict, metadata=_SKIPPED)
    schema_version: int = SCHEMA_VERSION
    recipe: str = ""
    bound: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.recipe:
            object.__setattr__(self, "recipe", self.method)


MAY_SKIP = [each.name for each in fields(Header) if each.metadata.get("may_skip")]
"""The fields that a reader which does not know them may pass over."""
