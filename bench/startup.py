"""How long a newcomer waits: import, help, first compare with nothing compiled yet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator


def _seconds(command: list[str], **environment: str) -> float:
    """Return how long a command takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - start


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
                "first compare, compilation included (goal 90 s)",
                [*asgrad, "compare", "--out", f"{folder}/first"],
                cache,
            ),
            (
                "second compare (goal 60 s)",
                [*asgrad, "compare", "--out", f"{folder}/second"],
                cache,
            ),
        ):
            seconds = f"{_seconds(command, **environment):.2f} s"
            yield {"job": job, "asgrad": seconds, "plain": "", "ratio": None, "goal": None}
