"""make bench keeps what it has measured, whatever comes between."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROW = {"job": "a", "asgrad": "1 s", "plain": "2 s", "ratio": 2.0, "goal": None}


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            RuntimeError("no more\nmemory"),
            1,
            "broken: could not be measured: RuntimeError: no more",
        ),
        (None, 0, "without: skipped, it needs nowhere: pip install 'asgrad[nowhere]'."),
    ],
)
def test_what_was_measured_is_kept(ending, code, said, tmp_path, monkeypatch, capsys):
    """A suite that cannot run, or breaks, is told of in a line; the others run."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    bench = importlib.import_module("bench.__main__")
    out = tmp_path / "new" / "bench.json"

    def breaks(path):
        assert json.loads(out.read_text())["rows"] == [ROW]  # it is there already
        yield ROW
        if ending:
            raise ending

    suites = {
        "good": SimpleNamespace(run=lambda path: [ROW]),
        "without": None,
        "broken": SimpleNamespace(run=breaks),
        "last": SimpleNamespace(run=lambda path: [ROW]),
    }
    monkeypatch.setattr(bench, "SUITES", suites)
    monkeypatch.setattr(bench, "NEEDS", {"without": "nowhere"})
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(out)])
    assert bench.main() == code
    assert said in capsys.readouterr().out.splitlines()
    measured = json.loads(out.read_text())["rows"]
    assert measured == [ROW] * (2 if code == 130 else 3)
