"""Runs that are killed at random moments and go on: `train` is verified bit for bit, and what
`compare` found in the end is what it finds undisturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

import asgrad as ag
from asgrad.trace import Fate

pytest.importorskip("safetensors")

RUN = [sys.executable, "-m", "asgrad", "train"]
COMPARE = [sys.executable, "-m", "asgrad", "compare"]
CONFIG = """
method = "{method}+heavy-ball"
workers = 3
steps = {steps}
stepsize = 0.2
checkpoint_steps = 20
slowdown = [1, 2, 3]
on = "{on}"
out = "{out}"
"""


def kill_after(arguments: Sequence[str], seconds: float) -> bool:
    """Start a process and kill it; say whether it was still running."""
    process = subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


def check_run(folder: Path, steps: int) -> None:
    """The run is whole: its books balance and the bits of its models come back."""
    done = subprocess.run(
        [sys.executable, "-m", "asgrad", "verify", str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout
    trace = ag.Trace.load(folder / "trace")
    assert trace.n_steps == steps
    jobs = trace.jobs
    assert sum(int((jobs.fate == fate).sum()) for fate in Fate) == trace.n_jobs
    keys = set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))
    assert len(keys) == trace.n_jobs
    assert not folder.with_name(f"{folder.name}-unfinished").exists()


def survive(
    folder: Path, method: str, steps: int, moments: Sequence[float], on: str = "threads"
) -> int:
    """Train with a kill at each of the moments, in seconds after a start; return the kills."""
    folder.mkdir()
    config, run = folder / "config.toml", folder / "run"
    config.write_text(CONFIG.format(method=method, steps=steps, out=run, on=on))
    kills = 0
    for moment in moments:
        if not kill_after(how_to_go_on(run, config), moment):
            break
        kills += 1
    if not run.exists():
        last = subprocess.run([*RUN, *how_to_go_on(run, config)], capture_output=True, text=True)
        assert last.returncode == 0, last.stderr
    check_run(run, steps)
    return kills


def how_to_go_on(run: Path, config: Path) -> list[str]:
    """Return what a user says: a run has begun once its settings are written."""
    begun = run.exists() or (run.with_name("run-unfinished") / "config.toml").exists()
    return ["--resume", str(run)] if begun else [str(config)]


def test_a_killed_run_goes_on(tmp_path):
    """Killed once in the middle, once soon after its resumption."""
    config, run = tmp_path / "config.toml", tmp_path / "run"
    config.write_text(
        CONFIG.format(method="ringmaster:max_delay=2", steps=20_000, out=run, on="threads")
    )
    process = subprocess.Popen([*RUN, str(config)])
    kept = tmp_path / "run-unfinished" / "checkpoints"
    limit = time.monotonic() + 60
    while len(list(kept.glob("step-*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    newest = max(path.name for path in kept.glob("step-*"))
    assert newest > "step-000000000000"
    refused = subprocess.run([*RUN, str(config)], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    last = subprocess.run(
        [*RUN, "--resume", str(run), "--steps", "21000"], capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    check_run(run, 21_000)


@pytest.mark.soak
@pytest.mark.parametrize("method", ["pure", "ringleader", "rennala:batch=4", "shuffled:wait=2"])
def test_many_kills_at_random_moments(method, tmp_path):
    """At each of them the run survives; most kills land while it trains."""
    random.seed(method)
    kills = sum(
        survive(tmp_path / f"{i}", method, 40_000, [random.uniform(0.3, 4.0) for _ in range(6)])
        for i in range(3)
    )
    assert kills >= 6


@pytest.mark.soak
def test_many_kills_of_a_server_on_ray(tmp_path):
    """Its actors die with it."""
    pytest.importorskip("ray")
    random.seed(1)
    moments = [random.uniform(8.0, 14.0) for _ in range(4)]
    assert survive(tmp_path / "run", "pure", 12_000, moments, on="ray") >= 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_many_ends_of_a_comparison_at_random_moments(seed, tmp_path):
    """By Ctrl-C, kill -9 and the like; then methods and seeds are added, and it dies again."""
    rng = random.Random(seed)
    settings = ["--until-time", "150", "--batch", "16", "--widen", "2"]
    one_go = [*settings, "--methods", "sync pure ringmaster", "--seeds", "3"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    subprocess.run([*COMPARE, *one_go, "--out", whole], check=True, capture_output=True)

    def end_it_until_done(first: Sequence[str], again: Sequence[str]) -> int:
        """Start, and go on, under signals that come sooner or later; return how many came."""
        arguments, n_ends = first, 0
        while True:
            process = subprocess.Popen([*COMPARE, *arguments], stderr=subprocess.PIPE, text=True,
                                       stdout=subprocess.DEVNULL)  # fmt: skip
            name = rng.choice(("SIGINT", "SIGINT", "SIGKILL", "SIGTERM", "SIGHUP"))
            try:
                process.wait(rng.uniform(0.2, 4.0) if n_ends < 12 else None)
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, name))
            _, errors = process.communicate()
            assert "Traceback" not in errors
            if process.returncode == 0:
                return n_ends
            assert process.returncode in (130, -getattr(signal, name)), errors
            n_ends += 1
            begun = run.exists() or (tmp_path / "run-unfinished" / "run.json").exists()
            arguments = again if begun else first

    few = [*settings, "--methods", "pure", "--seeds", "2", "--out", run]
    n_ends = end_it_until_done(few, ["--resume", run])
    more = ["--resume", run, "--methods", "ringmaster sync", "--seeds", "3"]
    n_ends += end_it_until_done(more, more)
    assert n_ends >= 3
    order = ["panel", "method", "seed", "stepsize", "evaluation"]
    found, expected = (
        pd.read_parquet(folder / "metrics.parquet").sort_values(order, ignore_index=True)
        for folder in (run, whole)
    )
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    found, expected = (ag.Comparison.load(folder) for folder in (run, whole))
    assert {repr(line) for line in found.lines} == {repr(line) for line in expected.lines}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]
