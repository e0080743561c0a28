"""Replaying alone: what a gradient costs with a table, with a buffer, and in large models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

import asgrad as ag
from asgrad.numerics import prepare

DIM, N_WORKERS, N_GRADIENTS, N_LANES = 1729, 1000, 12_000, 10
LARGE, LARGE_JOBS = 100_000, (40, 240)
RECIPES = {"FedBuff": ("fedbuff", 1.3), "ACE": ("ace", 2.0), "Ringleader": ("ringleader", 2.0)}


def replayed(
    recipe: str, problem: ag.Problem, stepsizes: np.ndarray, jobs: int
) -> Callable[[], float]:
    """Return a function that replays a run and says how many seconds a gradient of a lane took."""
    times = ag.times.HalfNormal()
    trace = ag.simulate(recipe, times, n_workers=problem.n_workers, jobs=jobs)
    ready = prepare(trace, problem, 1)
    n_gradients = int(ready.plan.computes.sum())

    def seconds() -> float:
        start = time.thread_time()
        ag.replay(trace, problem, stepsizes, threads=1, prepared=ready)
        return (time.thread_time() - start) / (n_gradients * stepsizes.size)

    return seconds


def in_turns(runs: list[Callable[[], float]], n_turns: int = 4) -> list[float]:
    """Return the least that each has taken, run one after the other, again and again."""
    taken = [[run() for run in runs] for _ in range(n_turns)]
    return [min(times) for times in zip(*taken, strict=True)]


def bandwidth() -> float:
    """Bytes a second that a = b + c moves in large arrays; a is read, too, before it is written."""
    a, b, c = (np.ones(20_000_000) for _ in range(3))
    taken = []
    for _ in range(5):
        start = time.thread_time()
        np.add(b, c, out=a)
        taken.append(time.thread_time() - start)
    return 4 * a.nbytes / min(taken)


def tables() -> Iterator[dict[str, object]]:
    """A gradient's cost against that of Pure's, with 1000 workers."""
    for name, problem in {
        f"quadratic, d = {DIM}": ag.problems.Tridiagonal(DIM, n_workers=N_WORKERS, noise=0.01),
        "softmax on digits": ag.problems.Softmax("digits", n_workers=N_WORKERS, batch=1),
    }.items():
        stepsizes = 0.05 * 0.9 ** np.arange(N_LANES)
        recipes = ["pure", *(recipe for recipe, _ in RECIPES.values())]
        runs = [replayed(recipe, problem, stepsizes, N_GRADIENTS) for recipe in recipes]
        pure, *others = in_turns(runs)
        for (what, (_, most)), taken in zip(RECIPES.items(), others, strict=True):
            yield {
                "job": f"replay {what}, {name}, n = {N_WORKERS}, {N_LANES} lanes",
                "asgrad": f"{taken * 1e9:.0f} ns a gradient (at most {most:g}× Pure)",
                "plain": f"{pure * 1e9:.0f} ns (Pure)",
                "ratio": taken / pure,
                "goal": None,
            }


def large() -> Iterator[dict[str, object]]:
    """A step's cost in a large model, a lane and coordinate, once all memory has been touched.

    No step can move less than the gradient's and the step's reads and writes: seven float64.
    """
    problem = ag.problems.Tridiagonal(LARGE, n_workers=10, noise=0.01)
    floor = 7 * 8 / bandwidth()
    for n_lanes in (1, 8, 32):
        stepsizes = 0.05 * 0.9 ** np.arange(n_lanes)
        short, long = in_turns(
            [replayed("pure", problem, stepsizes, jobs) for jobs in LARGE_JOBS], 3
        )
        more = (long * LARGE_JOBS[1] - short * LARGE_JOBS[0]) / (LARGE_JOBS[1] - LARGE_JOBS[0])
        yield {
            "job": f"replay Pure, quadratic, d = {LARGE}, n = 10, {n_lanes} lanes",
            "asgrad": f"{more / LARGE * 1e9:.2f} ns a step, lane, coordinate",
            "plain": f"{floor * 1e9:.2f} ns (memory)",
            "ratio": more / LARGE / floor,
            "goal": None,
        }


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure, in turns, in processor time."""
    yield from tables()
    yield from large()
