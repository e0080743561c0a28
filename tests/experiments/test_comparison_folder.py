"""A comparison on disk: nothing finished is overwritten, nothing computed is computed again."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

import asgrad as ag
from asgrad.errors import AsgradWarning
from asgrad.experiments import question as question_module
from asgrad.experiments import run as run_module
from asgrad.experiments import stored as stored_module
from asgrad.experiments import work as work_module
from asgrad.experiments.folder import unfinished
from asgrad.experiments.run import FRESH, open_run
from asgrad.experiments.stored import slug
from asgrad.experiments.training_folder import (
    check_training,
    refuse_unfinished,
    resume_training,
)

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
    kept = stored_module.read_results(tmp_path / "run-unfinished")
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
        ({"until_time": 31}, "a run with until_time = 30.0, this one has 31.0"),
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
    "text", ["[]", "null", '{"schema_version": 3}', "{", '{"schema_version": 3, "identity": []}']
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
    """Texts and numbers that could be right; only versions of before wrote no checksum."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    written = (path / "run.json").read_bytes()
    assert written.replace(*change) != written
    (path / "run.json").write_bytes(written.replace(*change))
    assert "is not what was written" in refused(lambda: ag.Comparison.load(path))
    assert "is not what was written" in refused(lambda: compare(path, ["pure"], resume=True))
    bare = json.loads(written)
    del bare["checksum"]
    for version, said in ((3, "is not what was written"), (2, "another version of asgrad")):
        (path / "run.json").write_text(json.dumps({**bare, "schema_version": version}))
        assert said in refused(lambda: ag.Comparison.load(path))


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
        patch.setattr(stored_module, "metrics_of", full)
        text = refused(lambda: compare(path, ["sync"]))
    assert "No space left on device" in text
    assert "go on with resume=True" in text
    computed.clear()
    compare(path, [], resume=True)
    assert computed == []
    with monkeypatch.context() as patch:  # while it runs
        patch.setattr(stored_module, "write_table", full)
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


@pytest.fixture
def cut(tmp_path, monkeypatch) -> Path:
    """The name of a comparison of `sync` that died after its third replay of four."""
    path, real = tmp_path / "cut", run_module.RunFolder.keep

    def die(self, key, result):
        real(self, key, result)
        if len(list(self.working.glob("pieces/*"))) == 3:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(run_module.RunFolder, "keep", die)
        with pytest.raises(SystemExit):
            compare(path, ["sync"])
    return path


def pieces(path: Path) -> list[str]:
    """The pieces that are kept of an unfinished comparison."""
    return sorted(p.name for p in unfinished(path).glob("pieces/*.parquet"))


def test_a_refused_overwriting_loses_nothing(cut, refused, computed):
    """A misspelt method must not cost what is to be replaced."""
    assert "Did you mean 'pure'" in refused(lambda: compare(cut, ["puer"], overwrite=True))
    assert len(pieces(cut)) == 3
    computed.clear()
    compare(cut, [], resume=True)
    assert len(computed) == 1


def test_to_go_on_and_to_overwrite_contradict_each_other(cut, refused):
    """As do flags that are texts."""
    assert "not both" in refused(lambda: compare(cut, [], resume=True, overwrite=True))
    for flag in ("resume", "overwrite", "insist"):
        text = refused(lambda flag=flag: compare(cut, [], **{flag: "no"}))
        assert f"{flag} must be true or false, got 'no'" in text
    assert len(pieces(cut)) == 3


@pytest.mark.parametrize("name", ["", "pieces", "config.toml", "run.json"])
def test_no_link_is_followed_out_of_an_unfinished_comparison(name, cut, tmp_path, refused):
    """What it points to stays as it is."""
    place, outside = unfinished(cut) / name, tmp_path / "outside"
    if place.exists():
        place.rename(outside)
    place.symlink_to(outside)
    before = sorted(outside.rglob("*")) if outside.is_dir() else outside.exists()
    for said in ({"resume": True}, {"overwrite": True}):
        assert "is a link" in refused(lambda said=said: compare(cut, ["sync"], **said))
    assert place.is_symlink()
    assert (sorted(outside.rglob("*")) if outside.is_dir() else outside.exists()) == before


def test_what_somebody_else_put_into_an_unfinished_comparison_stays(cut, refused):
    """It goes along when that ends; where nothing is kept of ours it stands where it stood."""
    (unfinished(cut) / "notes.txt").write_text("mine")
    compare(cut, [], resume=True)
    assert (cut / "notes.txt").read_text() == "mine"
    assert not unfinished(cut).exists()
    unfinished(cut).mkdir()
    (unfinished(cut) / "more.txt").write_text("mine")
    assert "Did you mean" in refused(lambda: compare(cut, ["puer"], resume=True))
    assert [p.name for p in unfinished(cut).iterdir()] == ["more.txt"]


def test_pieces_without_their_facts_are_not_mixed_with_others(cut, refused):
    """They may be of any problem: nothing begins or goes on there, unless they may go."""
    (unfinished(cut) / "run.json").unlink()
    assert "was not finished" in refused(lambda: compare(cut, ["sync"], problem=problem(0.5)))
    assert "is damaged: run.json" in refused(lambda: compare(cut, ["sync"], resume=True))
    assert len(pieces(cut)) == 3
    found = compare(cut, ["sync"], problem=problem(0.5), overwrite=True)
    assert same(found, compare(cut.with_name("other"), ["sync"], problem=problem(0.5)))


def test_comparisons_and_trainings_leave_each_others_folders_alone(cut, tmp_path, refused):
    """Both live in NAME-unfinished: neither takes the other's for one of its own."""
    for call in (check_training, lambda path: resume_training(path, {})):
        refused(lambda call=call: call(cut))
    with pytest.raises(ag.AsgradError, match="asgrad compare --resume"):
        run_module.refuse_begun(cut)
    refuse_unfinished(cut)  # says nothing of what is no training
    assert len(pieces(cut)) == 3
    kept = unfinished(tmp_path / "trained") / "checkpoints" / "step-0"
    kept.mkdir(parents=True)
    (kept.parent.parent / "config.toml").write_text("a training's")
    for said in ({}, {"overwrite": True}):
        text = refused(lambda said=said: compare(tmp_path / "trained", ["sync"], **said))
        assert "is of a training that was not finished" in text
    assert kept.is_dir()
    assert (kept.parent.parent / "config.toml").read_text() == "a training's"


def test_names_of_unfinished_runs_are_refused_with_the_way_on(cut, refused):
    """A run there would be taken for the beginning of another."""
    for call in (
        lambda: compare(unfinished(cut), ["sync"]),
        lambda: compare(unfinished(cut), [], resume=True),
        lambda: run_module.stored_config(unfinished(cut)),
    ):
        assert f"--resume {cut}" in refused(call)


def test_a_bit_of_run_json_is_noticed(tmp_path, refused):
    """None of it is shown, or gone on from, as if it were what was written."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    whole = (path / "run.json").read_bytes()
    for place in range(0, 8 * len(whole), 397):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        (path / "run.json").write_bytes(changed)
        refused(lambda: ag.Comparison.load(path))
        refused(lambda: compare(path, ["pure"], resume=True))
    (path / "run.json").write_bytes(whole)
    assert len(ag.Comparison.load(path).cells) == 4


def test_missing_metrics_are_said_and_computed_again(tmp_path, refused, computed):
    """A comparison without its curves is none."""
    path = tmp_path / "run"
    compare(path, ["sync"])
    (path / "metrics.parquet").unlink()
    assert "is damaged" in refused(lambda: ag.Comparison.load(path))
    computed.clear()
    with pytest.warns(UserWarning, match="is damaged; its part is computed again"):
        compare(path, [], resume=True)
    assert len(computed) == 4


@pytest.fixture
def by_command(tmp_path) -> Path:
    """A finished comparison with a configuration, as the command line makes it."""
    config = {"methods": ["sync"], "window": 0.2, "target": None, "seeds": 2, "stepsizes": [0.1]}
    with open_run(tmp_path / "run", config=config) as folder:
        asked = {**ASKED, "stepsizes": [0.1]}
        ag.compare(problem(), TIMES, ["sync"], out=folder, **asked)
    return tmp_path / "run"


def test_what_python_adds_to_a_comparison_of_the_command_line_keeps_its_settings(by_command):
    """Or that could not go on with it."""
    compare(by_command, ["pure"], resume=True, stepsizes=[0.2], window=0.5, target=1.5)
    assert tomllib.loads(run_module.stored_config(by_command).read_text()) == {
        "methods": ["sync", "pure"], "window": 0.5, "target": [1.5], "seeds": 2,
        "stepsizes": [0.1, 0.2],
    }  # fmt: skip


def test_a_configuration_that_was_cut_or_changed_is_noticed(by_command, refused):
    """At the end of every line: without `window`, say, others stepsizes would be best."""
    path = by_command / "config.toml"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for text in ["".join(lines[:i]) for i in range(len(lines))] + [whole.replace("0.2", "0.3")]:
        path.write_text(text)
        assert "config.toml is not what was written" in refused(
            lambda: run_module.stored_config(by_command)
        )


def test_what_goes_on_is_not_refused_for_its_size(by_command, monkeypatch):
    """By the command line, which opens the folder itself: most of it stands there already."""
    monkeypatch.setattr(question_module.Question, "check_cost", lambda *_: 1 / 0)
    with open_run(by_command, config={"methods": []}, resume=True) as folder:
        found = ag.compare(problem(), TIMES, ["pure"], out=folder, **{**ASKED, "stepsizes": [0.1]})
    assert {cell.method for cell in found.cells} == {"sync", "pure"}


def test_a_smoothness_that_differs_in_its_last_bit_makes_no_other_stepsizes(tmp_path):
    """As that of another machine may: later seeds and methods have the stored stepsizes."""

    class Elsewhere(ag.problems.Quadratic):
        """L, a bit further."""

        @property
        def smoothness(self):
            """The next float64 number."""
            return float(np.nextafter(super().smoothness, 2.0))

    there = Elsewhere(np.linspace(0.1, 1.0, 4), n_workers=3, heterogeneity=1.0, noise=0.05)
    there.__class__.__name__ = "Quadratic"
    asked = {"stepsizes": None, "widen": 0}
    compare(tmp_path / "run", ["sync"], seeds=1, **asked)
    found = compare(tmp_path / "run", ["sync"], problem=there, seeds=2, resume=True, **asked)
    assert len({cell.stepsize for cell in found.cells}) == 8
    frame = found.to_frame()
    assert set(frame[frame.chosen].seed) == {0, 1}


def test_somebody_elses_folder_that_took_its_name_meanwhile_stays(tmp_path):
    """The comparison stands beside it, and its folder says where."""
    with open_run(tmp_path / "run") as folder:

        def take_the_name(_):
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / "thesis.txt").write_text("mine")

        with pytest.warns(AsgradWarning, match="has been taken in the meantime"):
            ag.compare(problem(), TIMES, "sync", out=folder, **ASKED, progress=take_the_name)
    assert folder.target == tmp_path / "run-2"
    assert len(ag.Comparison.load(tmp_path / "run-2").cells) == 4
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2"]
