"""compare: the choice of a stepsize, what is saved, what an interruption leaves."""

from __future__ import annotations

import dataclasses
import os
import threading

import numpy as np
import pandas as pd
import pytest

import asgrad as ag
from asgrad.experiments import work as work_module
from asgrad.experiments.config import to_toml


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


def test_every_cell_is_a_replay_of_its_own(problem, found):
    """A cell's numbers are those of simulating and replaying that method, seed and stepsize, looked
    at every ten seconds; the last four looks of twenty count."""
    cell = next(c for c in found.cells if (c.method, c.seed, c.stepsize) == ("pure", 1, 0.2))
    trace = ag.simulate(ag.methods.Pure(), ag.times.Normal(), n_workers=3, until_time=200, seed=1)
    result = ag.replay(trace, problem, 0.2, evaluations=trace.n_steps)  # every model
    there = [int((trace.step_times <= 10.0 * k).sum()) for k in range(21)]
    norms = result.gradient_norm[there, 0]
    assert cell.gradient_norm == np.median(norms[-4:])
    assert cell.loss == np.median(result.loss[there, 0][-4:])
    assert (cell.n_steps, cell.tau_max) == (trace.n_steps, trace.summary.tau_max)
    kept = found.results["", "pure", 1]
    lane = kept.stepsizes.tolist().index(0.2)
    np.testing.assert_array_equal(kept.gradient_norm[:, lane], norms)
    np.testing.assert_array_equal(kept.times, np.linspace(0, 200, 21))
    np.testing.assert_array_equal(kept.steps, there)


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


def test_a_network_is_compared_by_its_loss(tmp_path, refused):
    """Its evaluations leave ‖∇f‖ out: the best median loss is chosen, figures show the loss."""
    networks = pytest.importorskip("asgrad.problems.networks")
    problem, times = networks.digits_mlp(2), ag.times.Linear()
    options = {"stepsizes": [0.02, 0.3], "steps": 30, "seeds": 2, "evaluations": 2}
    found = ag.compare(problem, times, ["sync", "pure"], out=tmp_path / "run", **options)
    for method in ("sync", "pure"):
        cells = [cell for cell in found.cells if cell.method == method]
        medians = {
            stepsize: np.median([cell.loss for cell in cells if cell.stepsize == stepsize])
            for stepsize in (0.02, 0.3)
        }
        assert {c.stepsize for c in cells if c.chosen} == {min(medians, key=medians.get)}
    assert (tmp_path / "run" / "figures" / "convergence.png").stat().st_size > 10_000
    text = refused(lambda: ag.compare(problem, times, ["pure"], best="gradient_norm", **options))
    assert "build it with gradient_norm=True" in text


def test_default_target_is_what_tuned_sync_reaches(found):
    """Time to target refers to 1.25 times the gradient norm that tuned synchronous SGD ends at."""
    chosen = [c.gradient_norm for c in found.cells if c.method == "sync" and c.chosen]
    (panel,) = found.panels
    assert panel.targets == [1.25 * np.median(chosen)]
    for cell in found.cells:
        if cell.chosen and np.isfinite(cell.times_to_target[0]):
            result = found.results["", cell.method, cell.seed]
            lane = int(np.flatnonzero(result.stepsizes == cell.stepsize)[0])
            met = result.gradient_norm[:, lane] <= panel.targets[0]
            first = int(np.flatnonzero(met)[0])
            trace = found.traces[cell.method, cell.seed]
            assert cell.times_to_target[0] == trace.step_times[result.steps[first] - 1]


def test_saved_run_is_whole_and_can_be_loaded(found, tmp_path):
    """The folder holds grid, metrics, traces and figures; what is loaded is what was found."""
    folder = found.save(tmp_path / "deep" / "run")
    results = pd.read_parquet(folder / "results.parquet")
    assert len(results) == 27
    assert results.chosen.sum() == 9
    metrics = pd.read_parquet(folder / "metrics.parquet")
    assert len(metrics) == 3 * 3 * 3 * 21
    marked = metrics[metrics.chosen].groupby(["method", "time"])
    assert (marked.seed.nunique() == 3).all()  # at common times: ready to plot
    assert len(marked) == 3 * 21
    for name in ("convergence", "delays", "gantt"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    stored = ag.Comparison.load(folder)
    assert repr(stored.lines) == repr(found.lines)  # NaN accuracies are equal as text
    assert str(stored) == str(found)
    assert stored.complete
    assert dict(stored.traces).keys() == found.traces.keys()
    assert all(stored.traces[key].equals(trace) for key, trace in found.traces.items())
    assert stored.results.keys() == found.results.keys()
    for key, result in found.results.items():
        for name in ("steps", "times", "gradients", "loss", "gradient_norm", "stepsizes", "status"):
            np.testing.assert_array_equal(getattr(stored.results[key], name), getattr(result, name))
    assert [p.name for p in folder.parent.iterdir()] == ["run"]


def test_saving_overwrites_only_when_told_and_only_a_run(found, tmp_path, refused):
    """A finished run is refused, or replaced; a folder that is no run is left as it is."""
    found.save(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").stat().st_ino
    assert "overwrite=True" in refused(lambda: found.save(tmp_path / "run"))
    assert (tmp_path / "run" / "run.json").stat().st_ino == before
    found.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "run.json").stat().st_ino != before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    assert "is no run of asgrad" in refused(lambda: found.save(mine, overwrite=True))
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
        ag.Comparison.load(folder)
    (folder / "results.parquet").unlink()
    with pytest.raises(ag.AsgradError, match="no finished comparison of asgrad"):
        ag.Comparison.load(folder)
    (folder / "run.json").unlink()
    with pytest.raises(ag.AsgradError, match="no run of asgrad"):
        ag.Comparison.load(folder)


def test_interruption_keeps_what_is_finished(problem, monkeypatch):
    """Ctrl-C once sync is finished and pure is not: sync is there, the comparison not complete."""
    real_replay, real_wait = work_module.replay, work_module.wait
    interrupted = threading.Event()
    ended = set()

    def replay(trace, *arguments, **options):
        if trace.header.method == "pure":
            interrupted.wait(20)
            raise work_module.Interrupted
        return real_replay(trace, *arguments, **options)

    def wait(pending, **options):
        found = real_wait(pending, timeout=0.01, **options)
        ended.update(found.done)
        if sum(future.result().stepsizes.size for future in ended) == 4:  # all lanes of sync
            interrupted.set()
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(work_module, "replay", replay)
    monkeypatch.setattr(work_module, "wait", wait)
    found = ag.compare(
        problem, ag.times.Linear(), ["sync", "pure"], stepsizes=[0.1, 0.2, 0.3, 0.4],
        seeds=1, until_time=100, threads=2,
    )  # fmt: skip
    assert not found.complete
    assert {line.method for line in found.lines} == {"sync"}
    assert len(found.cells) == 4
    assert set(found.traces) == {("sync", 0)}


def test_a_grid_grows_where_its_best_lies_at_the_edge(problem):
    """Exact gradients of f = x²/2: every doubling up to γ = 1 is better, 2 stands still.

    From 1/16, 1/8 the grid grows by 1/4, 1/2, then 1 and 2, of which 1 is best; with room for two
    only it stops at 1/2, which is its edge.
    """
    exact = ag.problems.Quadratic(np.ones(2), n_workers=2, noise=0.0)
    asked = {"stepsizes": [1 / 16, 1 / 8], "seeds": 1, "steps": 12}
    (line,) = ag.compare(exact, "fixed", "sync", widen=6, **asked).lines
    assert (line.stepsize, line.edge) == (1.0, "")
    found = ag.compare(exact, "fixed", "sync", widen=2, **asked)
    assert found.results["", "sync", 0].stepsizes.tolist() == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert (found.lines[0].stepsize, found.lines[0].edge) == (0.5, "largest")
    (line,) = ag.compare(exact, "fixed", "sync", **asked).lines  # stepsizes given: not at all
    assert (line.stepsize, line.edge) == (1 / 8, "largest")
    down = ag.compare(exact, "fixed", "sync", widen=3, **{**asked, "stepsizes": [4.0, 8.0]})
    assert down.lines[0].stepsize == 1.0  # 4 and 8 only harm, 2 stands still


def test_a_method_that_no_stepsize_helps_is_said_to_be_so():
    """Started at the optimum of a noisy problem every step does harm: no growth, no target."""

    class Done(ag.problems.Quadratic):
        """Starts where f is least."""

        @property
        def x0(self):
            """Of f = ‖x‖²/2 − b·x."""
            return self.vectors.mean(axis=0)

    noisy = Done(np.ones(2), n_workers=2, noise=1.0)
    found = ag.compare(noisy, "fixed", ["sync", "pure"], seeds=1, until_time=20)
    assert [line.helps for line in found.lines] == [False, False]
    assert found.panels[0].start["gradient_norm"] < 1e-15
    assert found.panels[0].targets == []
    sizes = {result.stepsizes.size for result in found.results.values()}
    assert max(sizes) == 8 + 6  # smaller ones were tried
    text = str(found)
    assert "No stepsize helps: " in text
    assert "there is no target" in text
    assert text.splitlines()[1].startswith("(start)")


def test_several_problems_stand_side_by_side(problem):
    """The same traces serve both; every panel has its own L, start, target and choice."""
    other = ag.problems.Quadratic(np.linspace(0.2, 2.0, 6), n_workers=3, noise=0.05)
    asked = {"seeds": 2, "until_time": 60, "evaluations": 10}
    both = ag.compare({"one": problem, "two": other}, "linear", ["sync", "pure"], **asked)
    for name, alone in (("one", problem), ("two", other)):
        single = ag.compare(alone, "linear", ["sync", "pure"], **asked)
        mine = [dataclasses.replace(c, panel="") for c in both.cells if c.panel == name]
        assert repr(mine) == repr(single.cells)
    assert [panel.name for panel in both.panels] == ["one", "two"]
    assert list(both.traces) == [(m, s) for m in ("sync", "pure") for s in (0, 1)]
    assert "one: " in str(both)
    assert "<caption>two</caption>" in both._repr_html_()
    uneven = ag.problems.Quadratic(np.ones(2), n_workers=2)
    with pytest.raises(ag.AsgradError, match="the same number of workers"):
        ag.compare({"one": problem, "two": uneven}, "linear", ["sync"], **asked)


def test_the_time_to_a_target_can_decide(problem):
    """By hand from the curves: least median time, over all stepsizes, of the first target."""
    found = ag.compare(
        problem, "linear", ["pure"], stepsizes=[0.02, 0.1, 0.5], seeds=3, until_time=100,
        best="time_to_target", target=[0.9, 1.5],
    )  # fmt: skip
    assert found.panels[0].targets == [1.5, 0.9]  # the easiest first
    times = np.array([[c.times_to_target[0] for c in found.cells if c.seed == s] for s in range(3)])
    medians = np.median(times, axis=0)
    best = int(np.argmin(medians))
    (line,) = found.lines
    assert line.stepsize == [0.02, 0.1, 0.5][best]
    column = times[:, best]
    assert line.times_to_target[0] == (medians[best], column.min(), column.max())


def test_a_network_is_tuned_by_its_loss(problem):
    """A problem whose natural measure is the loss: here the two measures disagree, made so."""

    class Dead(type(problem)):
        """Its gradient norm says nothing."""

        measure = "loss"

    twin = Dead(np.linspace(0.1, 1.0, 6), n_workers=3, heterogeneity=1.0, noise=0.05)
    asked = {"stepsizes": [0.02, 0.2], "seeds": 1, "until_time": 50}
    found = ag.compare(twin, "linear", ["sync"], **asked)
    assert (found.rule.best, found.rule.measure) == ("loss", "loss")
    assert ag.compare(twin, "linear", "sync", best="gradient_norm", **asked).rule.best == (
        "gradient_norm"
    )
    with pytest.raises(ag.AsgradError, match="its accuracy is not defined"):
        ag.compare(twin, "linear", "sync", best="accuracy", **asked)


def test_a_name_that_a_method_sets_itself_counts(problem):
    """Two of one class, told apart by what their __init__ calls them."""

    class Every(ag.Method):
        """Step with every k-th gradient, drop the others."""

        def __init__(self, k):
            self.k, self.name = k, f"every-{k}"

        def start(self, server):
            """All begin."""
            self.n = 0
            for worker in range(server.n_workers):
                server.assign(worker)

        def arrive(self, server, worker, read_step):
            """Count."""
            self.n += 1
            if self.n % self.k == 0:
                server.apply()
                server.take_step()
            else:
                server.drop()
            server.assign(worker)

    found = ag.compare(
        problem, "linear", [Every(1), Every(2)], stepsizes=[0.1], seeds=1, until_time=20
    )
    assert {line.method: line.n_steps for line in found.lines} == {"every-1": 36, "every-2": 18}
    broken = Every(1)
    broken.name = "two\nlines"
    with pytest.raises(ag.AsgradError, match="a method's name must be in one line"):
        ag.compare(problem, "linear", [broken], stepsizes=[0.1], seeds=1, until_time=20)


def test_methods_hold_their_model_between_steps(problem):
    """Sync steps at 3, 6 and 9 s; looked at every second its curve is a staircase up to 10 s."""
    found = ag.compare(
        problem, "linear", "sync", stepsizes=[0.1], seeds=1, until_time=10, evaluations=10
    )
    result = found.results["", "sync", 0]
    assert result.steps.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert result.times.tolist() == list(range(11))
    assert len(set(result.loss[:, 0])) == 4


def test_representations_are_short_and_frames_tidy(found):
    """One line for a console; for pandas a row a seed and evaluation."""
    assert len(repr(found)) < 200
    assert "3 methods over 3 seeds; best" in repr(found)
    frame = found.to_frame()
    assert len(frame) == 3 * 3 * 3 * 21
    assert {"method", "seed", "stepsize", "time", "step", "gradient_norm", "chosen"} <= {*frame}
    figure = found.plot()
    assert len(figure.axes) == 2


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
        ({"methods": None}, "methods must be a list of methods, got None"),
        ({"methods": 3}, "methods must be a list of methods, got 3"),
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


NONE = [("pure", "sync"), (), (ag.methods.Pure(), None), (ag.methods.Pure(),) * 2, ["pure"], 3]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        *(({"methods": [said]}, "compare: a recipe is a text such as") for said in NONE[1:3]),
        *(({"methods": [said]}, "compare: a recipe is a text such as") for said in NONE[4:]),
        *(({"methods": [NONE[i]]}, "is a method, not a part; a recipe has one") for i in (0, 3)),
        ({"stepsizes": [[1, 2], [3]]}, "stepsizes must be a list of numbers, got [[1, 2], [3]]"),
        ({"seeds": [[0], [1, 2]]}, "seeds must be an integer, got [[0], [1, 2]]"),
        ({"seeds": 10**9}, "seeds must be an integer <= 1000000"),
        ({"target": [[0.1, 0.2], 0.3]}, "target must be a number, got [0.1, 0.2]"),
        ({"evaluations": 10**9}, "evaluations would take"),
        ({"until_time": 1e300}, "would take"),
        ({"until_time": "9"}, "until_time must be a number"),
        ({"steps": 2.0}, "steps must be an integer"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once_in_a_line(said, text, problem, refused):
    """Also lists of unequal length, and what would fill the memory."""
    asked = {"methods": ["pure"], "stepsizes": [0.1], "seeds": 1, "until_time": 9, **said}
    assert text in refused(lambda: ag.compare(problem, "linear", **asked))


@pytest.mark.parametrize("name", ["a\nb", "nul\0", "\ud800"])
def test_a_problem_whose_name_cannot_be_stored_is_refused(name, problem, refused):
    """It would break the table, or come back as another."""
    text = refused(lambda: ag.compare({name: problem}, "linear", ["pure"], until_time=9))
    assert "a problem's name must be in one line" in text


@pytest.mark.parametrize(
    ("attribute", "value", "text"),
    [
        ("smoothness", "3", "Mine: smoothness must be a number, got '3'"),
        ("measure", "speed", "unknown measure of a problem 'speed'"),
    ],
)
def test_a_problem_of_ones_own_that_is_not_what_it_says(attribute, value, text, refused):
    """Named, with what it must be."""
    kind = type("Mine", (ag.problems.Quadratic,), {attribute: value})
    mine = kind(np.ones(2), n_workers=2)
    said = {"stepsizes": [0.1], "until_time": 9}
    assert text in refused(lambda: ag.compare(mine, "linear", ["pure"], **said))


def test_numbers_of_other_kinds_can_be_stored(problem, tmp_path):
    """NumPy's are none of JSON's."""
    ag.compare(
        problem, "linear", ["pure"], stepsizes=np.array([0.1], np.float32), seeds=np.int64(1),
        steps=np.int64(5), until_time=np.float32(9), window=np.float32(0.5), target=np.float32(0.5),
        evaluations=np.int64(2), out=tmp_path / "run",
    )  # fmt: skip
    assert ag.Comparison.load(tmp_path / "run").horizon == work_module.Horizon(5, 9.0, 2)


def test_ctrl_c_as_a_grid_is_about_to_grow_keeps_what_all_seeds_have(problem, monkeypatch):
    """One seed already has, from before, the stepsize that the other is to be tried at."""
    asked = {"stepsizes": [0.01], "until_time": 50, "threads": 1}
    before = ag.compare(problem, "linear", ["sync"], **{**asked, "stepsizes": [0.02]}, seeds=1)
    real, known = work_module.Work._pieces, before.results["", "sync", 0]

    def pieces(self, pair, stepsizes):
        if 0.02 in stepsizes:
            self.known[work_module.Key("", "sync", 0)] = known
            yield from real(self, pair, stepsizes[:1])
            raise KeyboardInterrupt
        yield from real(self, pair, stepsizes)

    monkeypatch.setattr(work_module.Work, "_pieces", pieces)
    found = ag.compare(problem, "linear", ["sync"], **asked, seeds=2, widen=1)
    assert not found.complete
    kept = [result.stepsizes.tolist() for result in found.results.values()]
    assert kept == [[0.005, 0.01]] * 2  # it has grown downwards, too


def test_links_carry_what_the_recipes_encoder_makes_of_a_gradient(tmp_path):
    """40 numbers of 8 bytes at 100 bytes a second: a model takes 3.2 s, and so does a gradient;
    top-k of 2 sends two numbers and two int32, 24 bytes, in 0.24 s. A gradient of worker 0 is
    computed in 1 s. The run keeps all that; from its settings the same comes again.
    """
    problem = ag.problems.Tridiagonal(40, n_workers=2)
    recipes = ["pure", "pure+top-k:k=2,feedback=true", "fedbuff:size=2,local_steps=3+rand-k:k=4"]
    found = ag.compare(
        problem, "linear+links:bandwidth=100+away:workers=1,begins=20,ends=30", recipes,
        stepsizes=[0.1], seeds=1, until_time=60, out=tmp_path / "run",
    )  # fmt: skip
    first = {label: trace.jobs.arrival_time[0] for (label, _), trace in found.traces.items()}
    code = 4 * (8 + 4) / 100
    np.testing.assert_allclose(
        list(first.values()), [3.2 + 1 + 3.2, 3.2 + 1 + 0.24, 3.2 + 3 + code]
    )
    assert all(trace.absences.worker.tolist() == [1] for trace in found.traces.values())
    loaded = ag.Comparison.load(tmp_path / "run")
    for key, trace in found.traces.items():
        assert loaded.traces[key].equals(trace)
        assert found.results["", key[0], 0].loss.tobytes() == (
            loaded.results["", key[0], 0].loss.tobytes()
        )
