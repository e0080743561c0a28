"""A comparison on disk: nothing finished is overwritten, nothing computed is computed again."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

import asgrad as ag
from asgrad.experiments import run as run_module
from asgrad.experiments import work as work_module
from asgrad.experiments.run import FRESH, open_run, slug

TIMES = ag.times.Linear()
ASKED = {"stepsizes": [0.1, 0.2], "seeds": 2, "until_time": 30, "evaluations": 5, "threads": 1}


def problem(noise: float = 0.05) -> ag.Problem:
    """A small noisy quadratic."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 4), n_workers=3, heterogeneity=1.0, noise=noise
    )


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take a second each, and have tests of their own."""
    monkeypatch.setattr("asgrad.report.write_figures", lambda _, folder: folder.mkdir())


@pytest.fixture
def computed(monkeypatch) -> list[tuple[str, int, float]]:
    """What is replayed, in order: method, seed and stepsize."""
    real = work_module.replay
    lanes: list[tuple[str, int, float]] = []

    def replay(trace, problem, stepsizes, *, seeds, **options):
        lanes.extend((trace.header.method, seeds, float(s)) for s in stepsizes)
        return real(trace, problem, stepsizes, seeds=seeds, **options)

    monkeypatch.setattr(work_module, "replay", replay)
    return lanes


def compare(path: Path, methods: list, **said) -> ag.Comparison:
    """Compare on the quadratic."""
    return ag.compare(said.pop("problem", problem()), TIMES, methods, out=path, **{**ASKED, **said})


def same(one: ag.Comparison, other: ag.Comparison) -> bool:
    """Say whether two comparisons have equal numbers."""
    return repr(one.cells) == repr(other.cells) and repr(one.lines) == repr(other.lines)


def test_methods_seeds_and_stepsizes_are_added_and_nothing_is_computed_twice(tmp_path, computed):
    """The sum is what one comparison of all gives."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    assert len(computed) == 2 * 2
    computed.clear()
    compare(path, ["pure"], resume=True)
    assert computed == [("pure", seed, s) for seed in (0, 1) for s in (0.1, 0.2)]
    computed.clear()
    compare(path, ["sync"], resume=True, seeds=3)
    assert computed == [(m, 2, s) for m in ("sync", "pure") for s in (0.1, 0.2)]
    computed.clear()
    found = compare(path, ["sync"], resume=True, stepsizes=[0.4])
    assert {lane[2] for lane in computed} == {0.4}
    assert len(computed) == 2 * 3
    computed.clear()
    again = compare(path, [], resume=True)
    assert computed == []
    whole = compare(tmp_path / "whole", ["sync", "pure"], seeds=3, stepsizes=[0.1, 0.2, 0.4])
    assert same(found, whole)
    assert same(again, whole)
    assert same(ag.Comparison.load(path), whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "whole"]


def test_what_a_killed_comparison_had_computed_stays(tmp_path, computed, monkeypatch):
    """It dies when its third replay ends; going on computes the other half, to the same end."""
    path = tmp_path / "run"
    real = work_module.Work._take

    def die(self, key, result):
        if len(list((tmp_path / "run-unfinished" / "pieces").glob("*.parquet"))) == 2:
            raise SystemExit("killed")
        real(self, key, result)

    with monkeypatch.context() as patch:
        patch.setattr(work_module.Work, "_take", die)
        with pytest.raises(SystemExit):
            compare(path, ["sync", "pure"])
    assert not path.exists()
    kept = run_module.read_results(tmp_path / "run-unfinished")
    done = {(k.method, k.seed, float(s)) for k, r in kept.items() for s in r.stepsizes}
    assert len(done) == 4
    assert done <= set(computed)
    computed.clear()
    found = compare(path, [], resume=True)
    assert len(computed) == 8 - 4
    assert not set(computed) & done
    assert same(found, compare(tmp_path / "other", ["sync", "pure"]))
    assert not (tmp_path / "run-unfinished").exists()


def test_a_damaged_piece_is_computed_again(tmp_path, computed, monkeypatch):
    """And said to be damaged."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunFolder, "finish", lambda *_: None)
        compare(path, ["sync"])
    computed.clear()
    piece = sorted((tmp_path / "run-unfinished" / "pieces").iterdir())[1]
    piece.write_bytes(piece.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="is damaged; its part is computed again"):
        found = compare(path, [], resume=True)
    assert len(computed) == 1
    assert same(found, compare(tmp_path / "other", ["sync"]))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"problem": problem(noise=0.06)}, "a run with noise = 0.05, this one has 0.06"),
        ({"until_time": 31}, "a run with until_time = 30, this one has 31"),
        ({"evaluations": 6}, "a run with evaluations = 5, this one has 6"),
    ],
)
def test_what_would_not_compare_is_not_mixed(tmp_path, refused, said, text):
    """Another problem, limit or moments: named, and the run stays as it is."""
    compare(tmp_path / "run", ["sync"])
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    assert text in refused(lambda: compare(tmp_path / "run", ["pure"], resume=True, **said))
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_method_that_decides_otherwise_is_no_longer_the_same(tmp_path, refused):
    """Of one name, but another method: its numbers are not mixed with those that stand there."""

    @dataclasses.dataclass(frozen=True)
    class Eager(ag.methods.Pure):
        name: str = "mine"

    @dataclasses.dataclass(frozen=True)
    class Patient(ag.methods.Sync):
        name: str = "mine"

    compare(tmp_path / "run", [Eager()])
    text = refused(lambda: compare(tmp_path / "run", [Patient()], resume=True))
    assert "mine (seed 0) makes other decisions than it did there" in text
    compare(tmp_path / "run", [Eager(), "sync"], resume=True)


def test_stepsizes_are_added_to_the_default_grid(tmp_path):
    """Every method has all of it then, those that come later too, and the grid may still grow."""
    path = tmp_path / "run"
    compare(path, ["sync"], stepsizes=None)
    compare(path, [], stepsizes=[0.3], resume=True)
    found = compare(path, ["pure"], stepsizes=None, resume=True)
    base = {2.0**k for k in range(-5, 3)} | {0.3}  # L = 1
    for method in ("sync", "pure"):
        assert base <= set(found.results["", method, 0].stepsizes.tolist())
    assert any("k = -5..2, 0.3, grown" in note for note in found.notes)
    assert found.panels[0].in_units


def test_damaged_metrics_are_computed_again(tmp_path, computed, refused):
    """Those of a run that goes on; to be looked at they are refused in a line."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    computed.clear()
    whole = (path / "metrics.parquet").read_bytes()
    (path / "metrics.parquet").write_bytes(whole[:500])
    assert "is damaged" in refused(lambda: ag.Comparison.load(path))
    with pytest.warns(UserWarning, match="is damaged; its part is computed again"):
        found = compare(path, ["pure"], resume=True)
    assert len(computed) == 8
    assert same(found, compare(tmp_path / "other", ["sync", "pure"]))


def test_a_method_that_is_not_asgrads_is_to_be_given_again(tmp_path, refused):
    """A stored label cannot make it."""

    class Mine(ag.Method):
        """Pure, by hand."""

        def start(self, server):
            """Assign to all."""
            for worker in range(server.n_workers):
                server.assign(worker)

        def arrive(self, server, worker, read_step):
            """Step."""
            server.apply()
            server.take_step()
            server.assign(worker)

    compare(tmp_path / "run", [Mine()])
    text = refused(lambda: compare(tmp_path / "run", ["sync"], resume=True))
    assert "has the method 'Mine', which is none of asgrad's; give it again" in text
    found = compare(tmp_path / "run", ["sync", Mine()], resume=True)
    assert {line.method for line in found.lines} == {"Mine", "sync"}


def test_nothing_finished_or_begun_is_overwritten_unless_told(tmp_path, refused, monkeypatch):
    path = tmp_path / "run"
    assert "nothing to resume" in refused(lambda: compare(path, ["sync"], resume=True))
    compare(path, ["sync"])
    assert f"holds a finished comparison: add to it with --resume {path}" in refused(
        lambda: compare(path, ["sync"])
    )
    compare(path, ["pure"], overwrite=True)
    assert {c.method for c in ag.Comparison.load(path).cells} == {"pure"}
    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunFolder, "finish", lambda *_: None)
        compare(tmp_path / "other", ["sync"])
    assert "a comparison that was not finished" in refused(
        lambda: compare(tmp_path / "other", ["sync"])
    )
    with pytest.raises(ag.AsgradError, match="4 of its replays are kept; go on with it: asgrad"):
        run_module.refuse_begun(tmp_path / "other")


def test_an_interrupted_overwriting_goes_on_without_what_it_replaces(tmp_path, monkeypatch):
    """Another problem's numbers stand at the name; none of them comes into the new comparison."""
    path, other = tmp_path / "run", problem(noise=0.5)
    compare(path, ["sync", "pure"])
    real = run_module.RunFolder.keep

    def die(self, key, result):
        real(self, key, result)
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunFolder, "keep", die)
        with pytest.raises(SystemExit):
            compare(path, ["sync", "pure"], problem=other, overwrite=True)
    found = compare(path, [], problem=other, resume=True)
    whole = compare(tmp_path / "whole", ["sync", "pure"], problem=other)
    assert same(found, whole)
    assert same(ag.Comparison.load(path), whole)
    found = compare(path, ["random"], problem=other, resume=True)  # now it is its own
    assert {c.method for c in found.cells} == {"sync", "pure", "random"}


def test_one_that_another_process_ends_meanwhile_is_not_replaced(tmp_path, refused, monkeypatch):
    """It is looked at again once nobody else works there."""
    path, real = tmp_path / "run", run_module.alone_in

    def late(folder):
        monkeypatch.setattr(run_module, "alone_in", real)
        compare(path, ["sync"])
        folder.mkdir(exist_ok=True)
        return real(folder)

    monkeypatch.setattr(run_module, "alone_in", late)
    assert "holds a finished comparison" in refused(lambda: compare(path, ["pure"]))
    assert {c.method for c in ag.Comparison.load(path).cells} == {"sync"}


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"schema_version": 2}', "{", '{"schema_version": 2, "identity": []}']
)
def test_damaged_facts_are_one_line(tmp_path, refused, text):
    """Through every door."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    (path / "run.json").write_text(text)
    assert "is damaged" in refused(lambda: compare(path, ["pure"], resume=True))
    assert "is damaged" in refused(lambda: ag.Comparison.load(path))


@pytest.mark.parametrize("change", [(b'"best"', b'"bess"'), (b'"L = ', b'"M = ')])
def test_facts_that_were_changed_are_noticed(tmp_path, refused, change):
    """Texts and numbers that could be right; those of before, without a checksum, are read."""
    path = tmp_path / "run"
    whole = compare(path, ["sync"])
    written = (path / "run.json").read_bytes()
    assert written.replace(*change) != written
    (path / "run.json").write_bytes(written.replace(*change))
    assert "is not what was written" in refused(lambda: ag.Comparison.load(path))
    assert "is not what was written" in refused(lambda: compare(path, ["pure"], resume=True))
    bare = json.loads(written)
    del bare["checksum"]
    (path / "run.json").write_text(json.dumps(bare))
    assert same(ag.Comparison.load(path), whole)


def test_two_at_one_name_do_not_mix(tmp_path, refused):
    """The second is refused before it computes anything."""
    with open_run(tmp_path / "run"):
        assert "another process" in refused(lambda: compare(tmp_path / "run", ["sync"]))
    compare(tmp_path / "run", ["sync"])


def test_without_a_name_a_fresh_one_is_found(tmp_path, monkeypatch):
    """Those of finished and of running comparisons are left alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / FRESH).mkdir(parents=True)
    with open_run(None) as second, open_run(None) as third:
        assert [run.target for run in (second, third)] == [Path(f"{FRESH}-2"), Path(f"{FRESH}-3")]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["compare"]


def test_a_disk_that_is_full_keeps_what_was_computed(tmp_path, monkeypatch, refused, computed):
    """Writing the end fails: what is said names the way on, and going on computes nothing."""
    path = tmp_path / "run"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "metrics_of", full)
        text = refused(lambda: compare(path, ["sync"]))
    assert "No space left on device" in text
    assert "go on with resume=True" in text
    computed.clear()
    compare(path, [], resume=True)
    assert computed == []
    with monkeypatch.context() as patch:  # while it runs
        patch.setattr(run_module, "write_table", full)
        assert "No space left" in refused(lambda: compare(tmp_path / "other", ["sync"]))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_labels_do_not_collide_as_files():
    """Those that differ in punctuation, case or at their far end."""
    labels = ["a:b=1,c=2", "a:b=1_c=2", "a_b=1,c=2", "A", "a", "x" * 300, "x" * 299 + "y", "ä/ö"]
    names = [slug(label) for label in labels]
    assert len({name.lower() for name in names}) == len(labels)
    assert max(map(len, names)) < 100
    assert not any("/" in name or os.sep in name for name in names)


def test_methods_that_differ_in_punctuation_only_are_stored_apart(tmp_path):
    """Both traces can be read again."""

    @dataclasses.dataclass(frozen=True)
    class Named(ag.methods.Pure):
        """Pure by another name."""

        name: str = "p"

    found = compare(tmp_path / "run", [Named(name="a b"), Named(name="a_b")])
    stored = ag.Comparison.load(tmp_path / "run")
    assert len(stored.traces) == 4
    assert all(stored.traces[key].equals(trace) for key, trace in found.traces.items())


def test_a_comparison_that_dies_at_any_rename_goes_on_or_begins_anew(tmp_path, monkeypatch):
    """Killed at its k-th rename, for every k: whatever is left, the next run ends as ever."""
    whole = compare(tmp_path / "whole", ["sync"])
    real, left = (os.rename, os.replace), [0]

    def dying(call):
        def rename(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise SystemExit("killed")
            return call(*arguments, **options)

        return rename

    k = 0
    while True:
        k += 1
        left[0], path = k, tmp_path / f"run{k}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", dying(real[0]))
            patch.setattr(os, "replace", dying(real[1]))
            try:
                compare(path, ["sync"])
            except SystemExit:
                pass
            else:
                break
        begun = (tmp_path / f"run{k}-unfinished" / "run.json").is_file()
        found = compare(path, ["sync"], resume=begun or path.exists())
        assert same(found, whole), k
        assert same(ag.Comparison.load(path), whole), k
    assert k > 8  # the pieces, the config, the facts, the traces, the folder
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"whole", *(f"run{i}" for i in range(1, k + 1))}
