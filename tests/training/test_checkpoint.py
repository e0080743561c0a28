"""Checkpoints: a run that was cut off anywhere goes on, and replays bit for bit."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest

import asgrad as ag
from asgrad.registry import catalogue
from asgrad.trace import Fate
from asgrad.training import CheckpointWarning, Ending
from asgrad.training.checkpoint import list_checkpoints, load_newest

pytest.importorskip("safetensors")

METHODS = [cls() for cls in catalogue(ag.methods).values()] + [
    ag.methods.Shuffled(wait=2),
    ag.methods.Ringmaster(max_delay=2, stop_stale=True),
    ag.methods.Rennala(batch=5, stop_stale=True),
]


class Alternating(ag.Method):
    """A method in plain Python with a memory and random choices of its own."""

    any_worker = True

    def start(self, server):
        """A job for everyone."""
        self.seen = 0
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        """Every third gradient is dropped; who computes next is drawn."""
        self.seen += 1
        if self.seen % 3:
            server.apply()
            server.take_step()
        else:
            server.drop()
        server.assign(int(server.rng.integers(server.n_workers)))


def quadratic(n_workers: int = 3) -> ag.Problem:
    """A small problem."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 12), n_workers=n_workers, heterogeneity=1.0, noise=0.1
    )


class Stop(Exception):
    """Stands for whatever ends a process."""


def cut_off(folder, method, at_step: int, **options) -> None:
    """Train with a checkpoint at every step until the run dies in the middle."""

    def die(step: int, now: float) -> None:
        time.sleep(0.002)  # a checkpoint takes about as long as this
        if step == at_step:
            raise Stop

    with pytest.raises(Stop):
        ag.train(
            quadratic(), method, 0.05, steps=10**6, on_step=die,
            checkpoints=ag.Checkpoints(folder, steps=3, keep=3), **options,
        )  # fmt: skip


@pytest.mark.parametrize("method", [*METHODS, Alternating()], ids=lambda m: m.label)
def test_a_resumed_run_replays_bit_for_bit(method, tmp_path):
    """With momentum and a rule that depends on the delay; twice cut off; books in order."""
    recipe = ag.Recipe(
        method, stepsize=ag.stepsizes.Mishchenko(), optimizer=ag.optimizers.HeavyBall(0.5)
    )
    cut_off(tmp_path, recipe, 25, seed=5)
    options = {"seed": 5, "checkpoints": ag.Checkpoints(tmp_path), "resume": True}
    first = ag.train(quadratic(), recipe, 0.05, steps=40, **options)
    assert first.status == Ending.STEPS
    run = ag.train(quadratic(), recipe, 0.05, steps=60, **options)
    assert run.trace.n_steps == 60
    assert run.trace.header.end_time > first.trace.header.end_time
    jobs = run.trace.jobs
    keys = set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))
    assert len(keys) == run.trace.n_jobs
    again = ag.replay(run.trace, quadratic(), 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    # What had happened before is still the same.
    early = first.trace.jobs
    settled = np.flatnonzero(early.fate == Fate.APPLIED)
    for name in ("worker", "draw", "read_step", "arrival_time", "start_time"):
        np.testing.assert_array_equal(getattr(jobs, name)[settled], getattr(early, name)[settled])
    assert (np.diff(run.trace.step_times) >= 0).all()
    run.trace.save(tmp_path / "trace")
    assert ag.Trace.load(tmp_path / "trace").equals(run.trace)


@pytest.mark.parametrize(
    "parts",
    [
        "delay-compensation:strength=2.0,decay=0.9",
        "nesterov",
        "adam",
        "clip+amsgrad:max_delay=1",
    ],
)
def test_what_parts_remember_is_restored(parts, tmp_path):
    """A replay remembers all of the run, so the resumed part must, too; others are refused."""
    recipe = f"pure+{parts}"
    cut_off(tmp_path, recipe, 25)
    again = {"checkpoints": ag.Checkpoints(tmp_path), "resume": True}
    run = ag.train(quadratic(), recipe, 0.05, steps=50, **again)
    replayed = ag.replay(run.trace, quadratic(), 0.05)
    np.testing.assert_array_equal(replayed.models[:, 0], run.model)
    with pytest.raises(ag.AsgradError, match="is of a run with recipe = "):
        ag.train(quadratic(), "pure", 0.05, steps=60, **again)


def test_state_taken_anywhere_restores_the_same_run(tmp_path):
    """One worker is deterministic: cut off and resumed, the run equals one that was never cut."""
    problem = quadratic(1)
    whole = ag.train(problem, ag.methods.Pure(), 0.05, steps=50)
    kept = ag.Checkpoints(tmp_path / "kept", steps=7)
    ag.train(problem, ag.methods.Pure(), 0.05, steps=23, checkpoints=kept)
    resumed = ag.train(problem, ag.methods.Pure(), 0.05, steps=50, checkpoints=kept, resume=True)
    assert resumed.model.tobytes() == whole.model.tobytes()


def test_evaluations_failures_and_counts_go_on(tmp_path):
    """What was seen before the checkpoint is part of the resumed run."""
    cut_off(tmp_path, ag.methods.Pure(), 30, evaluate_every=0.0001)
    _, _, head = load_newest(tmp_path)
    facts = head["facts"]
    run = ag.train(
        quadratic(), ag.methods.Pure(), 0.05, steps=50, checkpoints=ag.Checkpoints(tmp_path),
        resume=True,
    )  # fmt: skip
    assert run.steps[0] == 0
    assert run.steps[-1] == 50
    assert (np.diff(run.steps) > 0).all()
    assert run.steps.size >= len(facts["evaluations"])


def test_a_method_that_raised_is_mended_and_the_run_goes_on(tmp_path):
    """The checkpoint before the error is the newest; what the method raised is raised."""
    method = Alternating()
    arrive = method.arrive

    def breaks(server, worker, read_step):
        if server.step == 30:
            raise ZeroDivisionError("a mistake")
        arrive(server, worker, read_step)

    method.arrive = breaks
    kept = ag.Checkpoints(tmp_path, steps=4)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        ag.train(
            quadratic(), method, 0.05, steps=60, checkpoints=kept,
            on_step=lambda step, now: time.sleep(0.002),
        )  # fmt: skip
    run = ag.train(quadratic(), Alternating(), 0.05, steps=60, checkpoints=kept, resume=True)
    again = ag.replay(run.trace, quadratic(), 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


@pytest.mark.parametrize("name", ["on_step", "on_arrival", "on_evaluation"])
def test_what_a_callback_raises_ends_the_run_as_kept(name, tmp_path):
    """It reaches who called, with the way on; the run goes on from where it was."""
    n_calls = 0

    def breaks(*of):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise ZeroDivisionError("a mistake")

    kept = ag.Checkpoints(tmp_path, seconds=1000.0)  # none but the first and the last
    options = {"evaluate_every": 0.001, "checkpoints": kept}
    with pytest.raises(ZeroDivisionError, match="a mistake") as raised:
        ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=10**6, **{name: breaks}, **options)
    (note,) = raised.value.__notes__
    assert note.startswith(f"asgrad: the run is kept in {tmp_path}; go on with resume=True")
    at = int(list_checkpoints(tmp_path)[-1].name.removeprefix("step-"))
    assert at >= 1
    run = ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=at + 20, resume=True, **options)
    assert run.trace.n_steps == at + 20
    again = ag.replay(run.trace, quadratic(), 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_oldest_checkpoints_go(tmp_path):
    """`keep` of them stay, the last of them at the end of the run."""
    rule = ag.Checkpoints(tmp_path, steps=5, keep=3)
    ag.train(
        quadratic(), ag.methods.Sync(), 0.05, steps=100, checkpoints=rule,
        on_step=lambda step, now: time.sleep(0.002),
    )  # fmt: skip
    found = list_checkpoints(tmp_path)
    assert len(found) == 3
    assert found[-1].name == "step-000000000100"


def damage_state(path):
    """Flip one bit of the numbers."""
    file = path / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def cut_state(path):
    """Half a file."""
    file = path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_head(path):
    """No head."""
    (path / "checkpoint.json").unlink()


def change_head(path):
    """Another number in the head."""
    file = path / "checkpoint.json"
    head = json.loads(file.read_text())
    head["facts"]["n_arrived"] += 1
    file.write_text(json.dumps(head))


@pytest.mark.parametrize("damage", [damage_state, cut_state, lose_head, change_head])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(damage, tmp_path):
    """With a warning; if all are damaged, the run is refused."""
    cut_off(tmp_path, ag.methods.Pure(), 40)
    found = list_checkpoints(tmp_path)
    damage(found[-1])
    options = {"checkpoints": ag.Checkpoints(tmp_path), "resume": True}
    with pytest.warns(CheckpointWarning, match="damaged"):
        run = ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=60, **options)
    again = ag.replay(run.trace, quadratic(), 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    for path in list_checkpoints(tmp_path):
        damage(path)
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(ag.AsgradError, match=r"every checkpoint in .* is damaged"),
    ):
        ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=60, **options)


def test_what_is_refused(tmp_path):
    """Nothing to resume, other settings, another run's checkpoints, a method that changed."""
    kept = ag.Checkpoints(tmp_path / "kept")
    pure = ag.methods.Pure()
    with pytest.raises(ag.AsgradError, match="no checkpoint in"):
        ag.train(quadratic(), pure, 0.05, steps=9, checkpoints=kept, resume=True)
    with pytest.raises(ag.AsgradError, match="from which checkpoints"):
        ag.train(quadratic(), pure, 0.05, steps=9, resume=True)
    ag.train(quadratic(), pure, 0.05, steps=9, checkpoints=kept)
    with pytest.raises(ag.AsgradError, match="holds the checkpoints of another run"):
        ag.train(quadratic(), pure, 0.05, steps=9, checkpoints=kept)
    with pytest.raises(ag.AsgradError, match=r"stepsize = 0\.05, this one has 0\.06"):
        ag.train(quadratic(), pure, 0.06, steps=9, checkpoints=kept, resume=True)
    with pytest.raises(ag.AsgradError, match="recipe = pure, this one has sync"):
        ag.train(quadratic(), ag.methods.Sync(), 0.05, steps=9, checkpoints=kept, resume=True)

    kept = ag.Checkpoints(tmp_path / "changed")
    ag.train(quadratic(), Alternating(), 0.05, steps=30, checkpoints=kept)
    changed = Alternating()
    changed.arrive = lambda server, worker, read_step: (server.drop(), server.assign(worker))
    with pytest.raises(ag.AsgradError, match="decides otherwise"):
        ag.train(quadratic(), changed, 0.05, steps=60, checkpoints=kept, resume=True)
    for options, said in (
        ({"seconds": 0}, "seconds must be finite and > 0"),
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"keep": 0}, "keep must be an integer >= 1"),
        ({"folder": 3}, "folder must be a path, for instance 'kept', got 3"),
    ):
        with pytest.raises(ag.AsgradError, match=said):
            ag.Checkpoints(**{"folder": tmp_path, **options})


def test_a_run_goes_on_with_its_own_problem_and_start_only(tmp_path):
    """What f and its gradient at x_0 do not show would lead to other bits as well."""
    rows, labels = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2 * 2 - 1.0
    same, other = rows.copy(), rows.copy()
    other[7, 2] = np.nextafter(other[7, 2], 1.0)
    options = {"steps": 20, "checkpoints": ag.Checkpoints(tmp_path / "kept")}
    pure = ag.methods.Pure()

    def problem(rows, **changed):
        said = {"n_workers": 2, "split": "shuffled", "batch": 4, "strength": 0.1, **changed}
        return ag.problems.Logistic((rows, labels), **said)

    ag.train(problem(rows), pure, 0.1, **options)
    options |= {"steps": 30, "resume": True}
    for changed, start, said in (
        (problem(other), None, "other data"),
        (problem(rows, batch=None), None, "batch = 4, this one has 0"),
        (problem(rows, strength=0.2), None, "strength = 0.1, this one has 0.2"),
        (problem(rows), np.full(4, 1e-12), "another x0"),
    ):
        with pytest.raises(ag.AsgradError, match=f"of a run with {said}"):
            ag.train(changed, pure, 0.1, x0=start, **options)
    assert ag.train(problem(same), pure, 0.1, **options).trace.n_steps == 30


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("mine")
    with pytest.warns(CheckpointWarning, match="cannot write"):
        run = ag.train(
            quadratic(), ag.methods.Pure(), 0.05, steps=20,
            checkpoints=ag.Checkpoints(tmp_path / "taken"),
        )  # fmt: skip
    assert run.status == Ending.STEPS
    assert any("cannot write" in failure for failure in run.failures)
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_a_killed_process_left_half_written_is_ignored(tmp_path):
    """And removed by the next."""
    cut_off(tmp_path, ag.methods.Pure(), 20)
    newest = list_checkpoints(tmp_path)[-1]
    half = tmp_path / f".{newest.name}.0123abcd.writing"
    shutil.copytree(newest, half)
    run = ag.train(
        quadratic(), ag.methods.Pure(), 0.05, steps=40, checkpoints=ag.Checkpoints(tmp_path),
        resume=True,
    )  # fmt: skip
    assert run.trace.n_steps == 40
    assert not half.exists()


def test_a_rewritten_checkpoint_is_whole_whenever_it_is_cut_off(tmp_path):
    """Between the two renames the old one is the newest that is whole: it comes back."""
    kept = ag.Checkpoints(tmp_path)
    first = ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=20, checkpoints=kept)
    newest = list_checkpoints(tmp_path)[-1]
    newest.rename(tmp_path / f".{newest.name}.0123abcd.old")
    assert list_checkpoints(tmp_path)[-1] == newest
    run = ag.train(quadratic(), ag.methods.Pure(), 0.05, steps=30, checkpoints=kept, resume=True)
    assert run.trace.step_times[:20].tolist() == first.trace.step_times.tolist()


def test_until_is_the_run_up_to_a_step():
    """Replaying it gives the model of that step."""
    problem = quadratic()
    run = ag.train(problem, ag.methods.Ringleader(), 0.05, steps=40)
    early = run.trace.until(17)
    longer = ag.replay(run.trace, problem, 0.05, evaluations=40)
    short = ag.replay(early, problem, 0.05, evaluations=1)
    assert short.gradient_norm[-1, 0] == longer.gradient_norm[17, 0]
    with pytest.raises(ag.TraceError, match="no step 41"):
        run.trace.until(41)
