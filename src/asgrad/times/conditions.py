"""What workers meet beside the time that a gradient takes: links, outages, slow phases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from asgrad.errors import AsgradError, KindError, check_kind, shown
from asgrad.registry import build, label, split
from asgrad.times.base import AnyTimes, Clock, CodeBytes

__all__ = ["Condition", "Conditions", "times_of"]

_REMEDY = 'ag.times.Linear(), or a text such as "linear" or "linear+outages:uptime=100"'


class Condition(ABC):
    """One thing that workers meet beside the time that a gradient takes; a part of worker times."""

    name: ClassVar[str] = ""
    about: ClassVar[str] = ""
    """Worker times take one condition about each thing."""

    @abstractmethod
    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with this condition, for a run of `n_workers` workers."""

    def sized(self, code: CodeBytes, dim: int | None, itemsize: int) -> Condition:
        """Return the same where messages have the bytes that are left open, as far as known."""
        return self

    @property
    def label(self) -> str:
        """The condition with its parameters, as the command line takes it."""
        return label(self)


@dataclass(frozen=True)
class Conditions(AnyTimes):
    """Worker times under conditions: links to the server, outages, phases, mixtures.

    As a text TIMES+CONDITION+…, "linear:scale=sqrt+links:latency=0.1+outages:uptime=100".

    Parameters
    ----------
    times : worker times
        How long a gradient takes where no condition makes it longer.
    conditions : conditions
        `Links`, `Outages`, `Away`, `Availability`, `Phases`, `Mixture`; one of each kind at most.
    """

    times: AnyTimes
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        check_kind("Conditions", "times", self.times, AnyTimes, "ag.times.Linear()")
        if isinstance(self.times, Conditions):
            raise KindError("Conditions: times must be worker times without conditions.")
        if not isinstance(self.conditions, tuple | list):
            raise KindError(
                f"Conditions: conditions must be several, as in (ag.times.Outages(100),), got "
                f"{shown(self.conditions)}."
            )
        object.__setattr__(self, "conditions", tuple(self.conditions))
        taken: dict[str, Condition] = {}
        for condition in self.conditions:
            check_kind("Conditions", "a condition", condition, Condition, "ag.times.Outages(100)")
            if condition.about in taken:
                raise AsgradError(
                    f"Conditions: {taken[condition.about].name!r} and {condition.name!r} are both "
                    f"about {condition.about}; give one of them."
                )
            taken[condition.about] = condition

    @property
    def label(self) -> str:
        """The times and their conditions, as the command line takes them."""
        return "+".join([self.times.label, *(condition.label for condition in self.conditions)])

    def sized(self, code: CodeBytes, dim: int | None = None, itemsize: int = 8) -> Conditions:
        """Return the times where messages have the bytes that are left open, as far as known."""
        sized = tuple(condition.sized(code, dim, itemsize) for condition in self.conditions)
        return Conditions(self.times, sized)

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; all that is random follows from `seed`."""
        clock = self.times.begin(n_workers, seed)
        for condition in self.conditions:
            clock = condition.add_to(clock, n_workers)
        return clock


def times_of(owner: str, said: Any) -> AnyTimes:
    """Return the worker times that an argument is: an object, a text, or a tuple with conditions.

    Raises
    ------
    AsgradError
        If a name or a parameter is unknown, a value is refused, or it is none.
    """
    parts = _parts(owner, said)
    if len(parts) == 1 and isinstance(parts[0], AnyTimes):
        return parts[0]
    if parts and isinstance(parts[0], Condition):
        raise AsgradError(
            f"{owner}: times {shown(said)}: {parts[0].name!r} is a condition; it follows worker "
            f"times, as in linear+{parts[0].name}."
        )
    check_kind(owner, "times", parts[0] if parts else said, AnyTimes, _REMEDY)
    for part in parts[1:]:
        check_kind(owner, "a condition", part, Condition, "ag.times.Outages(100)")
    first, rest = parts[0], tuple(parts[1:])
    if isinstance(first, Conditions):
        return Conditions(first.times, (*first.conditions, *rest))
    return Conditions(first, rest)


def _parts(owner: str, said: Any) -> list[Any]:
    """Return the objects that an argument consists of."""
    if isinstance(said, tuple):
        return [part for each in said for part in _parts(owner, each)]
    if not isinstance(said, str):
        return [said]
    room = import_module("asgrad.times")
    texts = [text.strip() for text in split(said, r"\+(?![\d.])")]
    if not all(texts):
        raise AsgradError(f"{owner}: times {said!r}: a '+' joins two parts; one is missing.")
    return [build("worker times", room, text) for text in texts]
