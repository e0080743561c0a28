"""Gradients that wait for a step in a live run: added up where that changes no bit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import asgrad as ag
from asgrad.numerics.walk import refresh_after
from asgrad.training.arithmetic import Arithmetic
from asgrad.training.server import Server

DIM = 20_000


def served(recipe: ag.Recipe, n_workers: int) -> Server:
    """A server on which gradients can be handed in."""
    problem = ag.problems.Tridiagonal(DIM, n_workers=n_workers)
    opening = recipe.method.begin(n_workers, 0)
    numbers = Arithmetic(problem, recipe, opening, np.ones(DIM), 0.1, "float64")
    return Server(recipe.method, opening, n_workers, numbers)


def grown(server: Server, n_arrivals: int) -> float:
    """How many model-sized vectors more are held after gradients of the fastest worker."""
    jobs = {job.worker: job for job in server.start(0.0).assigned}
    tracemalloc.start()
    for moment in range(n_arrivals):
        gradient = np.full((DIM, 1), 1.0 + moment)
        for job in server.arrive(jobs[0], gradient, float(moment)).assigned:
            jobs[job.worker] = job
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / (8 * DIM)


@pytest.mark.parametrize("method", ["ringleader", "malenia", "rennala:batch=1000"])
def test_waiting_costs_a_vector_whatever_it_lasts(method):
    """Two hundred gradients wait for one slow worker, or for the batch; they are one sum."""
    server = served(ag.Recipe(ag.recipes.recipe_of("test", method).method), 3)
    assert grown(server, 200) < 3
    assert server.n_steps == 0


def test_a_rule_of_the_delay_keeps_each_gradient():
    """Its factor is not known yet, and differs from one to the other."""
    server = served(ag.recipes.recipe_of("test", "ringleader+polynomial"), 3)
    assert 50 <= grown(server, 50) < 53


class Mixed(ag.Method):
    """Holds several gradients in an entry that a step uses already, and in fresh ones; clears."""

    name = "mixed"

    def n_entries(self, n_workers):
        return 2

    def start(self, server):
        self.count = 0
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        self.count += 1
        entry = self.count // 5 % 2
        if self.count % 4 == 3:
            server.apply(0.3)
        else:
            server.hold(entry)
        if self.count % 11 == 10:
            server.clear(1 - entry)
        if self.count % 3 == 2:
            server.weigh(entry, 0.2 + 0.1 * (self.count % 2))
        if self.count % 3 == 0:
            server.take_step()
        server.assign(worker)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", [(), ("koloskova",), ("delay-compensation",)])
def test_sums_have_the_bits_of_a_replay(rule, dtype, tmp_path):
    """Also over a checkpoint that is taken while they wait."""
    problem = ag.problems.Quadratic(np.linspace(0.1, 1, 7), n_workers=3, noise=0.5)
    options = {"dtype": dtype, "workers": ag.Virtual("normal"), "evaluate_every": None}
    recipe = (Mixed(), *rule)
    run = ag.train(problem, recipe, 0.05, steps=60, **options)
    again = ag.replay(run.trace, problem, 0.05, dtype=dtype, recipe=recipe)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    for steps in (7, 20, 41, 60):
        kept = {"checkpoints": ag.Checkpoints(tmp_path / "kept")}
        resumed = ag.train(problem, recipe, 0.05, steps=steps, resume=steps > 7, **kept, **options)
    np.testing.assert_array_equal(resumed.model, run.model)
    assert resumed.trace.equals(run.trace)


@pytest.mark.parametrize("method", ["ace", "ringleader"])
def test_a_large_table_is_summed_up_afresh_at_the_same_steps_live_and_replayed(method):
    """Of 70 workers every 280 steps."""
    assert [refresh_after(n) for n in (1, 64, 70, 1000)] == [256, 256, 280, 4000]
    problem = ag.problems.Quadratic(np.linspace(0.1, 1, 7), n_workers=70, noise=0.5)
    workers = ag.Virtual(ag.times.Fixed([1.0] * 6 + [5.0] * 64))
    run = ag.train(problem, method, 0.05, workers=workers, evaluate_every=None, steps=330)
    again = ag.replay(run.trace, problem, 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    assert run.trace.n_steps == 330
