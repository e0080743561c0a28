"""Recipes put together by chance: any method, parts of every kind, any workers, any limits."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import asgrad as ag
from asgrad import methods
from asgrad.encoders.base import n_remembered
from asgrad.recipes.grammar import recipe_of, rooms
from asgrad.registry import catalogue
from asgrad.trace import Fate, consistency
from parts import ROWS, N, spelt

FIELD = {
    "int": st.integers(1, 2 * N),
    "int | None": st.none() | st.integers(1, 2 * N),
    "bool": st.booleans(),
}
"""What a parameter of a method may be, by its type; others stay what they are by default."""
SECONDS = st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0])
DISTRIBUTIONS = [ag.times.Fixed, ag.times.Poisson, ag.times.Normal, ag.times.Exponential]
CONDITIONS = [
    [ag.times.Links(latency=0.1), ag.times.Links([0.0, 0.1, 0.2, 0.7], 100.0, 50.0, size=20.0)],
    [
        ag.times.Outages(2.0, [0.1, 0.5, 0.5, 1.0]),
        ag.times.Away([1, 2, 1], [0.3, 0.7, 2.0], [0.9, 6.5, 2.1]),
    ],
    [ag.times.Phases(3.0, 1.0, 0.5)],
    [ag.times.Mixture(0.3, 2.0)],
]
"""What workers meet; times take one of each row at most."""


class Wilful(ag.Method):
    """Says itself of how many gradients a job is made; drops, holds, calls off, steps by chance."""

    name = "wilful"

    def n_entries(self, n_workers):
        return 2

    def n_alarms(self, n_workers):
        return 2

    def start(self, server):
        server.set_alarm(1, 0.5)
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        rng = server.rng
        entry, other = (int(rng.integers(limit)) for limit in (2, server.n_workers))
        verdict = rng.integers(4)
        if verdict == 0:
            server.drop()
        elif verdict == 1:
            server.clear(entry)
            server.hold(entry)
            server.weigh(entry, float(rng.choice([0.0, 0.5])))
        else:
            server.apply(float(rng.choice([1.0, 0.5, -0.25])))
        if server.now > 2 * server.job_time:
            server.take_step()
        if rng.random() < 0.2:
            (server.cancel if rng.random() < 0.5 else server.restart)(other)
        server.assign(worker, work=int(rng.integers(1, 4)))
        if rng.random() < 0.1:
            server.assign(other)
        if rng.random() < 0.2:
            server.set_alarm(0, float(rng.choice([0.0, 0.1, 0.3, np.inf])))

    def alarm(self, server, alarm):
        if server.rng.random() < 0.5:
            server.take_step()
        if alarm == 1:
            server.restart(int(server.rng.integers(server.n_workers)), work=2)
            server.set_alarm(1, 0.7)


class Case(NamedTuple):
    """A recipe, its workers, and when it ends."""

    recipe: ag.Recipe
    times: ag.times.AnyTimes
    limits: dict[str, Any]
    seed: int
    dtype: str

    def play(self) -> ag.Trace:
        """Simulate it."""
        options = {"n_workers": N, "seed": self.seed, **self.limits}
        return ag.simulate(self.recipe, self.times, **options)

    def train(self, **options: Any) -> Any:
        """Run it in virtual time."""
        options = {**self.limits, "seed": self.seed, "dtype": self.dtype, **options}
        return ag.train(
            a_problem(), self.recipe, 0.05, workers=ag.Virtual(self.times), evaluate_every=None,
            **options,
        )  # fmt: skip


def a_problem() -> ag.Problem:
    """A noisy quadratic whose workers differ."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 5), n_workers=N, heterogeneity=1.0, noise=0.1
    )


def method_of(kind: type, values: dict[str, Any]) -> ag.methods.AnyMethod:
    """Make a method for N workers; no case where its parameters contradict each other."""
    try:
        method = kind(**values)
        method.begin(N, 0)
    except ag.AsgradError as error:
        if "must be at most" not in str(error):
            raise
        reject()
    return method


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw one."""
    kind = draw(st.sampled_from([*catalogue(methods).values(), Wilful]))
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    values = {f.name: draw(FIELD[str(f.type)]) for f in fields if str(f.type) in FIELD}
    things: list[Any] = [method_of(kind, values)]
    for words, room in rooms().items():
        if words not in ("method", "recipe") and draw(st.booleans()):
            name = draw(st.sampled_from([*catalogue(room)]))
            things.append(spelt(name, draw(st.sampled_from(ROWS[name].settings))))
    recipe = recipe_of("test", tuple(things))
    scale = draw(st.lists(SECONDS, min_size=N, max_size=N))
    paces = draw(st.sampled_from(DISTRIBUTIONS))(scale)
    met = [draw(st.sampled_from(row)) for row in CONDITIONS if draw(st.integers(0, 3)) == 0]
    paces = ag.times.Conditions(paces, tuple(met)) if met else paces
    limits = {"jobs": draw(st.integers(0, 60))}
    if draw(st.booleans()):
        limits["steps"] = draw(st.integers(0, 40))
    if draw(st.booleans()):
        limits["until_time"] = draw(st.sampled_from([0.05, 0.6, 2.1, 4.2]))
    return Case(
        recipe, paces, limits, draw(st.integers(0, 2**40)),
        draw(st.sampled_from(["float64", "float32"])),
    )  # fmt: skip


def check_trace(case: Case, folder: Path) -> None:
    """Its tables agree with each other, with its summary, its limits, its file and its label."""
    recipe, trace = case.recipe, case.play()
    jobs = trace.jobs
    consistency.check(trace.tables, N, "trace")
    assert (trace.delays >= 0).all()
    ended = np.isin(jobs.fate, (Fate.APPLIED, Fate.DROPPED))
    assert len(set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))) == trace.n_jobs
    assert not np.isnan(jobs.arrival_time[ended]).any()

    # Jobs in flight, counted after all that happens at one moment.
    moments = np.unique(np.append(jobs.assign_time, jobs.arrival_time))
    moments = moments[np.isfinite(moments) & (moments <= trace.header.end_time)]
    begun = np.searchsorted(np.sort(jobs.assign_time), moments, side="right")
    over = np.searchsorted(np.sort(jobs.arrival_time), moments, side="right")
    assert trace.summary.tau_c == (begun - over).max(initial=0)

    given_up = np.isin(jobs.fate, (Fate.CANCELLED, Fate.LOST))
    limits, arrived = case.limits, ~np.isnan(jobs.arrival_time) & ~given_up
    assert trace.n_steps <= limits.get("steps", np.inf)
    assert arrived.sum() <= limits["jobs"]
    assert trace.header.end_time <= limits.get("until_time", np.inf)
    reached = {"steps": trace.n_steps, "jobs": int(arrived.sum())}
    stopped = trace.header.stopped_by
    assert stopped == "time" or reached[stopped] == limits[stopped]

    # One that is lost is made up for by as many gradients, whoever computes them.
    says_work = recipe.method.begin(N, 0).says_work
    if recipe.work is not None and not says_work and not (jobs.fate == Fate.LOST).any():
        assert_array_equal(jobs.work, recipe.work.gradients(N)[jobs.worker])
    assert ag.Trace.load(trace.save(folder / "trace")).equals(trace)
    if not isinstance(recipe.method, Wilful):  # a text does not say what that is
        assert recipe_of("test", trace.header.recipe) == recipe


def check_live(case: Case, folder: Path) -> None:
    """In virtual time it is what simulate and replay say, also if it was cut off on the way."""
    if isinstance(case.recipe.method, Wilful):
        # It uses a worker's gradients in any order: what its encoder remembers is not replayed.
        assume(n_remembered(case.recipe.encoder) == 0)
    run, trace = case.train(), case.play()
    bound = run.trace.header.bound
    assert run.trace.equals(
        dataclasses.replace(trace, header=dataclasses.replace(trace.header, bound=bound))
    )
    options = {"evaluations": 0, "dtype": case.dtype, "recipe": case.recipe}
    again = ag.replay(run.trace, a_problem(), 0.05, **options)
    assert_array_equal(again.models[:, 0], run.model)
    # The live run takes the number of first jobs for τ_C.
    if bound.get("concurrency", trace.summary.tau_c) == trace.summary.tau_c:
        again = ag.replay(trace, a_problem(), 0.05, **options)
        assert_array_equal(again.models[:, 0], run.model)
    kept = ag.Checkpoints(folder / "kept")
    case.train(jobs=case.limits["jobs"] // 3, checkpoints=kept)
    resumed = case.train(checkpoints=kept, resume=True)
    assert resumed.trace.equals(run.trace)
    assert_array_equal(resumed.model, run.model)


def in_a_folder(check: Any, case: Case) -> None:
    """Check a case in a folder of its own; Hypothesis makes none."""
    folder = Path(tempfile.mkdtemp())
    try:
        check(case, folder)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_a_trace_of_any_recipe_agrees_with_itself(case):
    in_a_folder(check_trace, case)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_a_run_of_any_recipe_in_virtual_time_is_what_simulate_and_replay_say(case):
    pytest.importorskip("safetensors")
    in_a_folder(check_live, case)


@pytest.mark.soak
@settings(max_examples=5000, deadline=None)
@given(cases())
def test_traces_of_any_recipe_for_long(case):
    in_a_folder(check_trace, case)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None)
@given(cases())
def test_runs_of_any_recipe_for_long(case):
    in_a_folder(check_live, case)
