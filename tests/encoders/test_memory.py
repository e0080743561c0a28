"""What an encoder remembers: of all that its worker delivered, in order, and of nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest

import asgrad as ag
from asgrad.numerics.blocks import bytes_of_blocks
from asgrad.numerics.plan import SEEN, plan_replay
from asgrad.registry import catalogue
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Fate
from asgrad.workers.base import Computation, Job
from asgrad.workers.memory import Lineage

N, DIM, SEED = 3, 8, 2
RECIPES = [*catalogue(ag.methods), "rennala:batch=5", "rennala:batch=2,stop_stale=true",
           "ringmaster:max_delay=1", "ringmaster:max_delay=1,stop_stale=true",
           "malenia:batch=4,stop_stale=true", "ace:wait=false",
           "rennala+polynomial", "pure+koloskova:stale=drop,concurrency=1",
           "buffered:size=2+delay-compensation:decay=0.9"]  # fmt: skip
ENCODERS = ["top-k:k=2,feedback=true", "rand-k:k=3,feedback=true", "top-k:k=2", "rand-k:k=2"]


def quadratic() -> ag.Problem:
    """Eight numbers, noise, and workers with different data."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, DIM), n_workers=N, heterogeneity=1.0, noise=0.2
    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_virtual_workers_remember_what_a_replay_does(recipe, encoder):
    """Dropped gradients move the memory, those that were called off do not; ties included."""
    problem, text = quadratic(), f"{recipe}+{encoder}"
    for times in ("normal", "linear"):
        run = ag.train(problem, text, 0.05, workers=ag.Virtual(times), steps=40, seed=SEED,
                       evaluate_every=None)  # fmt: skip
        trace = ag.simulate(text, times, n_workers=N, steps=40, seed=SEED)
        assert run.trace.equals(trace)
        again = ag.replay(trace, problem, [0.01, 0.05], evaluations=0)
        np.testing.assert_array_equal(again.models[:, 1], run.model)


@pytest.mark.parametrize(
    "recipe",
    [
        "pure",
        "rennala:batch=4",
        "ringmaster:max_delay=1",
        "ringmaster:max_delay=1,stop_stale=true",
        "random",
        "malenia",
    ],
)
def test_the_model_is_that_of_error_feedback_by_hand(recipe):
    """a = g + e, c the two largest of a, e = a − c, over all that each worker delivered."""
    problem, gamma = quadratic(), 0.1
    text = f"{recipe}+top-k:k=2,feedback=true"
    trace = ag.simulate(text, "normal", n_workers=N, steps=50, seed=SEED)
    jobs, rows = trace.jobs, trace.contributions
    key = stream_key(SEED, Purpose.GRADIENT)
    came = np.isin(jobs.fate, (Fate.APPLIED, Fate.DROPPED))
    order = [np.flatnonzero(came & (jobs.worker == worker)).tolist() for worker in range(N)]
    if recipe in ("rennala:batch=4", "ringmaster:max_delay=1", "malenia"):
        assert (jobs.fate == Fate.DROPPED).any()
    errors, codes, models = [np.zeros(DIM) for _ in range(N)], {}, [problem.x0]

    def code(job: int) -> np.ndarray:
        worker = int(jobs.worker[job])
        while job not in codes:  # all that came before it of its worker
            turn = order[worker].pop(0)
            read = models[jobs.read_step[turn]]
            a = errors[worker] + problem.gradient(read, worker, int(jobs.draw[turn]), key=key)
            c = np.zeros(DIM)
            places = np.argsort(-abs(a), kind="stable")[:2]
            c[places] = a[places]
            codes[turn], errors[worker] = c, a - c
        return codes[job]

    for step in range(trace.n_steps):
        used = (rows.first_step <= step) & (step < rows.end_step)
        total = sum(w * code(job) for job, w in zip(rows.job[used], rows.weight[used], strict=True))
        models.append(models[-1] - gamma * total)
    found = ag.replay(trace, problem, gamma, evaluations=0).models[:, 0]
    np.testing.assert_allclose(found, models[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "recipe",
    ["pure", "rennala:batch=2,stop_stale=true", "ringmaster:max_delay=1,stop_stale=true", "random"],
)
def test_a_run_on_threads_replays_bit_for_bit(recipe):
    """Workers may be at the next job before the last is dealt with."""
    problem = quadratic()
    run = ag.train(problem, f"{recipe}+top-k:k=2,feedback=true", 0.05, steps=400,
                   evaluate_every=None)  # fmt: skip
    assert not run.trace.jobs.fresh.any()
    again = ag.replay(run.trace, problem, 0.05, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_threads_have_forgotten_after_a_resume_and_the_trace_says_so(tmp_path):
    """Their checkpoint does not hold what they remember; each has one fresh job a resume, if any.

    Virtual workers remember: a law of their own says so.
    """
    pytest.importorskip("safetensors")
    workers = ag.Threads()
    problem, kept = quadratic(), ag.Checkpoints(tmp_path)
    text = "ringmaster:max_delay=2+top-k:k=1,feedback=true"
    for steps in (30, 60, 90):
        run = ag.train(problem, text, 0.05, steps=steps, workers=workers, checkpoints=kept,
                       resume=steps > 30)  # fmt: skip
    fresh = run.trace.jobs.fresh
    assert 2 <= fresh.sum() <= 2 * N
    assert np.isin(
        run.trace.jobs.fate[fresh == 1], (Fate.APPLIED, Fate.DROPPED, Fate.IN_FLIGHT)
    ).all()
    again = ag.replay(run.trace, problem, 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    run.trace.save(tmp_path / "trace")
    again = ag.replay(ag.Trace.load(tmp_path / "trace"), problem, 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    jobs = run.trace.jobs._replace(fresh=np.zeros_like(fresh))
    without = ag.replay(ag.Trace(jobs, run.trace.contributions, run.trace.step_times,
                                 run.trace.header), problem, 0.05)  # fmt: skip
    assert (without.models[:, 0] != run.model).any()


class Failing(ag.Problem):
    """A gradient that fails, or is not finite, at some draws."""

    n_workers, dim = N, DIM

    def gradient(self, x, worker, draw=0, rng=None):
        if draw % 7 == 3:
            raise RuntimeError("no")
        found = x - worker + 0.1 * np.sin(np.arange(DIM) * (draw + 1))
        return found * (np.inf if draw % 11 == 5 else 1.0)

    def loss(self, x):
        return float(x @ x)

    def full_gradient(self, x):
        return 2 * x


@pytest.mark.parametrize("workers", [ag.Virtual("normal", restarts=99), ag.Threads(restarts=99)],
                         ids=["virtual", "threads"])  # fmt: skip
def test_a_job_that_failed_has_moved_nothing(workers):
    problem = Failing()
    run = ag.train(problem, "random+top-k:k=2,feedback=true", 0.05, steps=80, workers=workers,
                   max_refused=99)  # fmt: skip
    assert (run.trace.jobs.fate == Fate.LOST).any()
    assert not run.trace.jobs.fresh.any()
    again = ag.replay(run.trace, problem, 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


class Given(Failing):
    """The gradient is x."""

    n_workers, dim = 1, 2

    def gradient(self, x, worker, draw=0, rng=None):
        return x


def a_job(draw: int) -> Job:
    """A job of worker 0."""
    return Job(draw, 0, 0, draw, 0.0)


def test_what_was_called_off_is_undone_and_what_was_delivered_is_not():
    """Draw 0 delivered; 1 and 2 started before anybody said that they are called off; then 3.

    The larger number of a = g + e is sent, and the other kept.
    """
    problem = Given()
    encoder, lineage = ag.encoders.TopK(k=1, feedback=True), Lineage(fresh=False)
    compute = Computation(problem, "float64", 0, 0, encoder)
    jobs = [a_job(draw) for draw in range(4)]

    def sent(job: Job, *x: float) -> list[float]:
        out = np.empty((2, 1))
        assert compute(np.array(x)[:, None], job.draw, out, 1, lineage.follow(job))
        return out[:, 0].tolist()

    assert sent(jobs[0], 2, 1) == [2, 0]  # e = (0, 1)
    jobs[0].delivered = True
    assert sent(jobs[1], 0, 2) == [0, 3]  # e = (0, 0)
    assert sent(jobs[2], 5, 1) == [5, 0]  # e = (0, 1)
    jobs[1].fate = jobs[2].fate = Fate.CANCELLED
    assert sent(jobs[3], 0, 4) == [0, 5]  # on e = (0, 1) of draw 0
    assert not any(job.fresh for job in jobs)


def test_the_first_job_that_counts_is_fresh():
    """Of a worker that was started anew: until one of its jobs has been delivered."""
    lineage = Lineage(fresh=True)
    jobs = [a_job(draw) for draw in range(5, 10)]
    assert lineage.follow(jobs[0]) == (-1, -1)
    jobs[0].fate = Fate.CANCELLED
    assert lineage.follow(jobs[1]) == (-1, -1)
    assert lineage.follow(jobs[2]) == (-1, 6)
    lineage.drop(jobs[2])
    jobs[1].delivered = True
    assert lineage.follow(jobs[3]) == (6, 6)
    assert lineage.follow(jobs[4]) == (6, 8)
    assert [job.fresh for job in jobs] == [True, True, False, False, False]


def test_rows_that_no_step_uses_stand_between_those_of_their_worker():
    """And there are none where nothing is remembered, nor after the last step."""
    trace = ag.simulate("rennala:batch=3", "normal", n_workers=N, steps=20, seed=SEED)
    steps = np.array([0, 20])
    assert not (plan_replay(trace, steps)[0].computes == SEEN).any()
    plan, _, _ = plan_replay(trace, steps, remembers=True)
    seen = plan.computes == SEEN
    dropped = trace.jobs.fate == Fate.DROPPED
    assert 0 < seen.sum() <= dropped.sum()
    for worker in range(N):
        draws = plan.draw[plan.worker == worker]
        assert (np.diff(draws) == 1).all()
    row_steps = np.searchsorted(plan.first_row, np.arange(plan.entry.size), side="right") - 1
    assert (plan.read_step <= row_steps).all()


class Backwards(ag.Method):
    """Holds a worker's first gradient, and uses the second before it."""

    name = "backwards"

    def n_entries(self, n_workers):
        return 1

    def start(self, server):
        self.count = 0
        server.assign(0)

    def arrive(self, server, worker, read_step):
        self.count += 1
        if self.count == 1:
            server.hold(0)
        else:
            server.apply(1.0)
            server.take_step()
            server.weigh(0, 1.0)
        server.assign(worker)


def test_gradients_that_are_used_in_another_order_are_refused(refused):
    """A replay would encode them in that of their use."""
    problem = ag.problems.Tridiagonal(4, n_workers=1)
    trace = ag.simulate(Backwards(), "fixed", n_workers=1, steps=3)
    ag.replay(trace, problem, 0.1, recipe="top-k:k=1")
    said = refused(lambda: ag.replay(trace, problem, 0.1, recipe="top-k:k=1,feedback=true"))
    assert "worker 0 draw 2 does before draw 0" in said


def test_what_is_remembered_is_counted():
    """A block of every worker and lane, beside the kernel's own space."""
    problem = ag.problems.Tridiagonal(1000, n_workers=7)
    sizes = [
        bytes_of_blocks(problem, ag.recipes.Parts(encoder=encoder), 5, "float64", 4, 0)
        for encoder in (ag.encoders.TopK(feedback=True), ag.encoders.TopK())
    ]
    assert sizes[0] - sizes[1] == 8 * 7 * 1000 * 5
    assert math.isfinite(sizes[0])
