"""What the machine offers to this process."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from asgrad.errors import AsgradError

__all__ = ["available_memory", "check_memory", "processors"]


def processors() -> int:
    """Return how many processors this process may use, which may be fewer than the machine has."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or "max", which is no limit
        pass
    return count


def check_memory(owner: str, what: str, n_bytes: float, remedy: str = "") -> None:
    """Raise if `n_bytes` are more than there are; `what` is a plural, the subject of "would take".

    Called before the memory is taken: a system that gives out more than it has kills the process
    later, without a word.
    """
    free = available_memory()
    if not n_bytes <= free:
        raise AsgradError(
            f"{owner}: {what} would take {_size(n_bytes)} of memory, {_size(free)} are available"
            f"{'; ' + remedy if remedy else ''}."
        )


def available_memory() -> float:
    """Return how many bytes could be taken now, as far as can be known; infinity where not."""
    known = [math.inf]
    with suppress(OSError, ValueError, AttributeError):  # not on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        said = next(line for line in lines if line.startswith("MemAvailable:"))
        known.append(1024 * int(said.split()[1]))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with suppress(OSError, ValueError):  # "max": none
            known.append(int((Path("/sys/fs/cgroup") / limit).read_text(encoding="ascii")))
    return min(number for number in known if number > 0)


def _size(n_bytes: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    unit = 0
    while n_bytes >= 999.5 and unit < 6:
        n_bytes, unit = n_bytes / 1000, unit + 1
    return f"{n_bytes:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[unit]}"
