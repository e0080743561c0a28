"""How long a newcomer waits: import, help, first compare with nothing compiled yet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time


def _seconds(command: list[str], **environment: str) -> float:
    """Return how long a command takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - start


def run(path: str | None) -> list[dict[str, object]]:
    """Measure in fresh processes; an empty cache folder stands for a fresh installation."""
    asgrad = [sys.executable, "-m", "asgrad"]
    with tempfile.TemporaryDirectory() as folder:
        first = _seconds([*asgrad, "compare", "--out", f"{folder}/run"], NUMBA_CACHE_DIR=folder)
        again = _seconds([*asgrad, "compare", "--out", f"{folder}/run"], NUMBA_CACHE_DIR=folder)
    measured = {
        "import asgrad (goal 1 s)": _seconds([sys.executable, "-c", "import asgrad"]),
        "import all of its rooms (goal 1 s)": _seconds(
            [sys.executable, "-c", "import asgrad; asgrad.compare; asgrad.problems"]
        ),
        "asgrad --help (goal 0.5 s)": _seconds([*asgrad, "--help"]),
        "first compare, compilation included (goal 90 s)": first,
        "second compare (goal 60 s)": again,
    }
    return [
        {"job": job, "asgrad": f"{seconds:.2f} s", "plain": "", "ratio": None, "goal": None}
        for job, seconds in measured.items()
    ]
