"""compare: the choice of a stepsize, what is saved, what an interruption leaves."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pandas as pd
import pytest

import asgrad as ag
from asgrad.experiments import comparison as comparison_module
from asgrad.experiments.grid import choose
from asgrad.experiments.run import load, to_toml


@pytest.fixture(scope="module")
def problem():
    """A small noisy quadratic: noise makes the seeds differ."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 6), n_workers=3, heterogeneity=1.0, noise=0.05
    )


@pytest.fixture(scope="module")
def found(problem):
    """A comparison of three methods, one of them with a stepsize rule."""
    return ag.compare(
        problem,
        ag.times.Normal(),
        ["sync", "pure", "random+koloskova:stale=drop"],
        stepsizes=[1000.0, 0.02, 0.2],
        seeds=3,
        until_time=200,
        evaluations=20,
    )


def test_choice_takes_the_best_median_among_stepsizes_that_no_seed_diverged_at():
    """The rule by hand: medians 3, 1, 0.5, but one seed diverged at the third stepsize."""
    norms = np.array([[3.0, 9.0, 0.5], [3.0, 1.0, np.nan], [3.0, 1.0, 0.5]])
    diverged = np.isnan(norms)
    assert choose(np.array([0.1, 0.2, 0.4]), norms, diverged) == 1
    assert choose(np.array([0.1]), norms[:, 2:], diverged[:, 2:]) is None


def test_every_cell_is_a_replay_of_its_own(problem, found):
    """A cell's numbers are those of simulating and replaying that method, seed and stepsize."""
    cell = next(c for c in found.cells if (c.method, c.seed, c.stepsize) == ("pure", 1, 0.2))
    trace = ag.simulate(ag.methods.Pure(), ag.times.Normal(), n_workers=3, until_time=200, seed=1)
    result = ag.replay(trace, problem, 0.2, evaluations=20)
    assert cell.gradient_norm == result.gradient_norm[-1, 0]
    assert cell.loss == result.loss[-1, 0]
    assert (cell.n_steps, cell.tau_max) == (trace.n_steps, trace.summary.tau_max)


def test_diverged_stepsizes_are_said_and_not_chosen(found):
    """The stepsize 1000 diverges for every method and is never chosen."""
    for cell in found.cells:
        assert (cell.status == "diverged") == (cell.stepsize == 1000.0)
        assert not (cell.chosen and cell.status == "diverged")
    assert {line.method for line in found.lines} == {c.method for c in found.cells}
    assert all(line.stepsize in (0.02, 0.2) for line in found.lines)


def test_grid_is_whole_and_one_stepsize_a_method_is_chosen(found):
    """3 methods × 3 stepsizes × 3 seeds; the chosen stepsize is that of the best median."""
    assert len(found.cells) == 27
    frame = pd.DataFrame([vars(cell) for cell in found.cells])
    for _, cells in frame.groupby("method"):
        medians = cells[cells.status == "finished"].groupby("stepsize").gradient_norm.median()
        assert set(cells[cells.chosen].stepsize) == {medians.idxmin()}


def test_default_target_is_what_tuned_sync_reaches(found):
    """Time to target refers to 1.25 times the final gradient norm of tuned synchronous SGD."""
    chosen = [c.gradient_norm for c in found.cells if c.method == "sync" and c.chosen]
    assert found.target == 1.25 * np.median(chosen)
    for cell in found.cells:
        if cell.chosen and np.isfinite(cell.time_to_target):
            result = found.results[cell.method, cell.seed]
            lane = int(np.flatnonzero(result.stepsizes == cell.stepsize)[0])
            before = result.times < cell.time_to_target
            assert (result.gradient_norm[before, lane] > found.target).all()


def test_saved_run_is_whole_and_can_be_shown(found, tmp_path):
    """The folder holds grid, metrics, traces and figures; what is loaded is what was found."""
    folder = found.save(tmp_path / "deep" / "run", {"methods": ["a"], "steps": None, "seeds": 3})
    results = pd.read_parquet(folder / "results.parquet")
    assert len(results) == 27
    assert results.chosen.sum() == 9
    metrics = pd.read_parquet(folder / "metrics.parquet")
    assert len(metrics) == 3 * 3 * 3 * 21
    facts = json.loads((folder / "run.json").read_text())
    assert "median" in facts["rule"]
    assert facts["complete"]
    for name in ("gradient_norm", "delays", "gantt"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    for (method, seed), trace in found.traces.items():
        saved = [p for p in (folder / "traces").iterdir() if p.name.endswith(f"seed{seed}")]
        assert any(ag.Trace.load(path).equals(trace) for path in saved), method
    stored = load(folder)
    assert repr(stored.lines) == repr(found.lines)  # NaN accuracies are equal as text
    assert [p.name for p in folder.parent.iterdir()] == ["run"]


def test_saving_replaces_a_run_and_nothing_else(found, tmp_path):
    """A run is replaced; a folder that is no run is left as it is."""
    found.save(tmp_path / "run")
    found.save(tmp_path / "run")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ag.AsgradError, match="is no run of asgrad"):
        found.save(mine)
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_full_disk_is_one_line_and_leaves_nothing(found, tmp_path, monkeypatch):
    """ENOSPC while a file is flushed: an AsgradError, and no folder that looks like a run."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ag.AsgradError, match="No space left on device"):
        found.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_damaged_run_is_refused(found, tmp_path):
    """A run without its results, or with broken ones, is one clear line."""
    folder = found.save(tmp_path / "run")
    (folder / "results.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ag.AsgradError, match="is damaged"):
        load(folder)
    (folder / "results.parquet").unlink()
    with pytest.raises(ag.AsgradError, match="no run of asgrad"):
        load(folder)


def test_interruption_keeps_what_is_finished(problem, monkeypatch):
    """Ctrl-C once sync is finished and pure is not: sync is there, the comparison not complete."""
    real_replay, real_wait = comparison_module.replay, comparison_module.wait
    interrupted = threading.Event()
    finished = []

    def replay(trace, *arguments, **options):
        if trace.header.method == "pure":
            interrupted.wait(20)
            raise comparison_module.Interrupted
        finished.append(real_replay(trace, *arguments, **options))
        return finished[-1]

    def wait(pending, **options):
        if sum(result.stepsizes.size for result in finished) == 4:  # all four lanes of sync
            interrupted.set()
            raise KeyboardInterrupt
        return real_wait(pending, timeout=0.01, **options)

    monkeypatch.setattr(comparison_module, "replay", replay)
    monkeypatch.setattr(comparison_module, "wait", wait)
    found = ag.compare(
        problem, ag.times.Linear(), ["sync", "pure"], stepsizes=[0.1, 0.2, 0.3, 0.4],
        seeds=1, until_time=100, threads=2,
    )  # fmt: skip
    assert not found.complete
    assert {line.method for line in found.lines} == {"sync"}
    assert len(found.cells) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": []}, "at least one method"),
        ({"methods": ["pure", "pure"]}, "given twice"),
        ({"stepsizes": []}, "at least one stepsize"),
        ({"stepsizes": [0.0]}, "stepsize must be finite and > 0"),
        ({"seeds": 0}, "seeds must be an integer >= 1"),
        ({"seeds": [1, 1]}, "each only once"),
        ({"target": -1.0}, "target must be finite and > 0"),
        ({"until_time": None}, "give a limit"),
        ({"methods": ["ringmster"]}, "Did you mean 'ringmaster'"),
    ],
)
def test_bad_arguments_are_one_clear_line(problem, change, said):
    """Each wrong argument is named with its rule."""
    arguments = {"methods": ["pure"], "stepsizes": [0.1], "until_time": 10.0, **change}
    methods = arguments.pop("methods")
    with pytest.raises(ag.AsgradError, match=said) as caught:
        ag.compare(problem, ag.times.Linear(), methods, **arguments)
    assert "\n" not in str(caught.value)


def test_default_stepsizes_need_smoothness():
    """Without L there is no default grid."""

    class Flat(ag.Problem):
        """f = 0."""

        n_workers, dim = 2, 1

        def gradient(self, x, worker, draw=0, rng=None):
            """0."""
            return np.zeros(1)

        def loss(self, x):
            """0."""
            return 0.0

        def full_gradient(self, x):
            """0."""
            return np.zeros(1)

    with pytest.raises(ag.AsgradError, match="give the stepsizes"):
        ag.compare(Flat(), ag.times.Linear(), ["pure"], until_time=5)


def test_toml_of_a_config_reads_back():
    """What to_toml writes, tomllib reads; absent values are left out."""
    import tomllib

    config = {"data": 'a "b" \\ c', "methods": ["pure:wait=2", "ä"], "steps": None, "alpha": 0.5,
              "resources": [{"a 100": 1.0, "b": 0.5}, {}]}  # fmt: skip
    assert tomllib.loads(to_toml(config)) == {k: v for k, v in config.items() if v is not None}
