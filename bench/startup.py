"""How long a newcomer waits: import, help, first compare with nothing compiled yet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator


def _seconds(command: list[str], **environment: str) -> tuple[float, float]:
    """Return how long a command takes, and its processor time; it must succeed."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure in fresh processes; an empty cache folder stands for a fresh installation."""
    asgrad = [sys.executable, "-m", "asgrad"]
    with tempfile.TemporaryDirectory() as folder:
        cache = {"NUMBA_CACHE_DIR": folder}
        for job, command, environment in (
            ("import asgrad (goal 1 s)", [sys.executable, "-c", "import asgrad"], {}),
            (
                "import all of its rooms (goal 1 s)",
                [sys.executable, "-c", "import asgrad; asgrad.compare; asgrad.problems"],
                {},
            ),
            ("asgrad --help (goal 0.5 s)", [*asgrad, "--help"], {}),
            (
                "first compare, compilation included (goal 30 s)",
                [*asgrad, "compare", "--out", f"{folder}/first"],
                cache,
            ),
            (
                "second compare (goal 15 s)",
                [*asgrad, "compare", "--out", f"{folder}/second"],
                cache,
            ),
        ):
            seconds, used = _seconds(command, **environment)
            taken = f"{seconds:.2f} s ({used:.2f} s of processors)"
            yield {"job": job, "asgrad": taken, "plain": "", "ratio": None, "goal": None}
