"""Parts that a user writes: a kernel as a plain function, and the numbers that it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asgrad as ag


class Halved(ag.encoders.Encoder):
    """g ← g/2."""

    def parameters(self) -> Any:
        return [0.5]

    @staticmethod
    def kernel(parameters, g, worker, draw, key, memory, scratch):
        for i in range(g.shape[0]):
            for lane in range(g.shape[1]):
                g[i, lane] *= parameters[0]


class Shifted(ag.corrections.Correction):
    """g ← g + x_now − x_read; written as a method is, which it is not."""

    def parameters(self) -> Any:
        return np.ones(1, np.float32)

    def kernel(parameters, g, x_read, x_now, delay, stepsizes, worker, memory):
        for i in range(g.shape[0]):
            for lane in range(g.shape[1]):
                g[i, lane] += x_now[i, lane] - x_read[i, lane]


class Squared(ag.stepsizes.Stepsize):
    """γ/(1 + τ)²."""

    def parameters(self, run: Any) -> Any:
        return (2,)

    @staticmethod
    def kernel(parameters, stepsize, delay):
        return (1.0 + delay) ** -parameters[0]


class Signs(ag.optimizers.Optimizer):
    """x − γ (sign d + m), m the sum of all signs before."""

    def parameters(self) -> Any:
        return [0]

    def n_blocks(self) -> int:
        return 1

    @staticmethod
    def kernel(parameters, stepsizes, step, delay, direction, memory, x, x_new):
        for i in range(x.shape[0]):
            for lane in range(x.shape[1]):
                memory[0, i, lane] += np.sign(direction[i, lane])
                x_new[i, lane] = x[i, lane] - stepsizes[lane] * memory[0, i, lane]


PARTS = (Halved(), Shifted(), Squared(), Signs())


def a_problem() -> ag.Problem:
    """f = Σ ‖x‖²/2 on three workers, without noise."""
    return ag.problems.Quadratic(np.ones(3), n_workers=3)


def test_they_do_what_they_say():
    """Step by step along the trace; live, under threads and in virtual time, likewise."""
    problem, gamma = a_problem(), 0.05
    run = ag.train(problem, ("pure", *PARTS), gamma, workers=ag.Virtual("linear"), steps=30)
    jobs, rows = run.trace.jobs, run.trace.contributions
    x, memory = [problem.x0], 0.0
    for step, job in enumerate(rows.job.tolist()):
        read = x[jobs.read_step[job]]
        g = problem.gradient(read, int(jobs.worker[job])) / 2 + x[-1] - read
        memory = memory + np.sign(g / (1 + step - jobs.read_step[job]) ** 2)
        x.append(x[-1] - gamma * memory)
    np.testing.assert_allclose(run.model, x[-1], rtol=1e-12)
    live = ag.train(problem, ("pure", *PARTS), gamma, steps=30)
    for each in (run, live):
        again = ag.replay(each.trace, problem, gamma, recipe=PARTS)
        np.testing.assert_array_equal(again.models[:, 0], each.model)


class Empty(ag.corrections.Correction):
    """Without a kernel."""

    def parameters(self) -> Any:
        return [1.0]


@pytest.mark.parametrize("found", [None, 1.0, "1", [[1.0]], ["a"], object()])
def test_numbers_that_are_none_are_refused(found, refused, monkeypatch):
    """By `replay` and by `train`."""
    problem, trace = a_problem(), ag.simulate("pure", "linear", n_workers=3, steps=3)
    for part in PARTS:
        monkeypatch.setattr(type(part), "parameters", lambda *_: found)
        name = type(part).__name__
        for call in (
            lambda part=part: ag.replay(trace, problem, 0.1, recipe=part),
            lambda part=part: ag.train(problem, ("pure", part), 0.1, steps=3),
        ):
            assert f"{name}: parameters() must return a row of numbers, got" in refused(call)


def test_a_part_without_a_kernel_is_refused(refused):
    text = refused(lambda: ag.Recipe(ag.methods.Pure(), correction=Empty()))
    assert text.startswith("Empty: kernel must be a function, got none; its parameters stand in")


def two_arguments(parameters, g):
    """Take less than there is."""


def allocating(parameters, g, worker, draw, key, memory, scratch):
    """Make an array."""
    g[:] = np.zeros(g.shape)


def unknown(parameters, g, worker, draw, key, memory, scratch):
    """Ask for what arrays do not have."""
    g.sign()


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (two_arguments, "function takes 2 arguments"),
        (allocating, "built-in function zeros"),
        (unknown, "Unknown attribute 'sign'"),
    ],
)
def test_a_kernel_that_cannot_be_compiled_is_refused(kernel, said, refused):
    """Before a run begins."""
    part = type("Own", (ag.encoders.Encoder,), {"parameters": lambda _: [1.0], "kernel": kernel})()
    trace = ag.simulate("pure", "linear", n_workers=3, steps=3)
    for call in (
        lambda: ag.replay(trace, a_problem(), 0.1, recipe=part),
        lambda: ag.train(a_problem(), ("pure", part), 0.1, steps=3),
    ):
        text = refused(call)
        assert text.startswith(f"{kernel.__name__}: a kernel must take 7 arguments, be what Numba")
        assert said in text
