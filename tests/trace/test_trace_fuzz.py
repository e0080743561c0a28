"""Whatever happens to its bytes, a trace loads as a valid one or is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from asgrad.errors import TraceError
from asgrad.methods import Ringleader, Ringmaster
from asgrad.simulation import simulate
from asgrad.times import Exponential, Linear
from asgrad.trace import Fate, Trace

N_CHANGES = 120
FILES = ("header.json", "jobs.parquet", "contributions.parquet", "steps.parquet")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flip a bit, overwrite some bytes, put some in, or take some out."""
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for spot in rng.integers(len(data), size=3):
            data[spot] = int(rng.integers(256))
    elif kind == 3:
        data[place:place] = rng.bytes(int(rng.integers(1, 6)))
    else:
        del data[place : place + int(rng.integers(1, 6))]
    return bytes(data)


def assert_valid(trace: Trace) -> None:
    """What every reader of a trace relies on."""
    jobs, rows, header = trace.jobs, trace.contributions, trace.header
    n_steps = trace.step_times.size
    assert header.n_workers >= 1
    assert header.end_time >= 0
    assert ((jobs.worker >= 0) & (jobs.worker < header.n_workers)).all()
    assert ((jobs.read_step >= 0) & (jobs.read_step <= n_steps)).all()
    assert (jobs.draw >= 0).all()
    assert np.isin(jobs.fate, list(Fate)).all()
    assert ((rows.job >= 0) & (rows.job < jobs.worker.size)).all()
    assert (rows.first_step >= jobs.read_step[rows.job]).all()
    assert (rows.first_step < rows.end_step).all()
    assert (rows.end_step <= n_steps).all()
    assert (np.diff(rows.first_step) >= 0).all()
    assert (rows.entry >= -1).all()
    assert np.isfinite(rows.weight).all()
    assert np.isfinite(trace.step_times).all()
    assert (np.diff(trace.step_times) >= 0).all()
    used = np.zeros(jobs.worker.size, bool)
    used[rows.job] = True
    np.testing.assert_array_equal(used, jobs.fate == Fate.APPLIED)
    assert trace.summary.n_jobs == jobs.worker.size


TRACES = {
    "plain": lambda: simulate(
        Ringmaster(max_delay=2, stop_stale=True), Linear(), n_workers=4, steps=12
    ),
    "table": lambda: simulate(Ringleader(), Exponential(), n_workers=3, steps=12),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("make", TRACES.values(), ids=TRACES)
def test_changed_bytes_are_harmless_or_refused(tmp_path: Path, make, file: str):
    whole = make().save(tmp_path / "whole")
    content = (whole / file).read_bytes()
    rng = np.random.default_rng([FILES.index(file), len(content)])
    refusals, header = [], Trace.load(whole).header
    shutil.copytree(whole, tmp_path / "changed")
    for _ in range(N_CHANGES):
        (tmp_path / "changed" / file).write_bytes(damage(content, rng))
        try:
            loaded = Trace.load(tmp_path / "changed")
        except TraceError as error:
            refusals.append(str(error))
        else:
            assert_valid(loaded)
            assert loaded.header == header
    assert not any("\n" in text for text in refusals)
    assert len(refusals) > N_CHANGES / 4  # the changes are felt
