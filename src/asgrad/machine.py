"""What the machine offers to this process."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["processors"]


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
