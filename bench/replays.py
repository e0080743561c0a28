"""Replaying alone: what a gradient costs with a table, with a buffer, and in large models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

import asgrad as ag
from asgrad.numerics import prepare

DIM, N_WORKERS, N_GRADIENTS, N_LANES = 1729, 1000, 12_000, 10
LARGE, LARGE_STEPS = 100_000, 100
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


def triad() -> float:
    """Seconds that a = b + c takes a number, in arrays far beyond the caches."""
    a, b, c = (np.ones(20_000_000) for _ in range(3))
    taken = []
    for _ in range(5):
        start = time.thread_time()
        np.add(b, c, out=a)
        taken.append(time.thread_time() - start)
    return min(taken) / a.size


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
    """A step's cost in a large model, a lane and coordinate, by the number of lanes."""
    problem = ag.problems.Tridiagonal(LARGE, n_workers=10, noise=0.0)
    lanes = (1, 4, 8, 32)
    runs = [replayed("pure", problem, 0.05 * 0.9 ** np.arange(k), LARGE_STEPS) for k in lanes]
    taken = in_turns(runs, 3)
    number = triad()
    for k, seconds in zip(lanes, taken, strict=True):
        yield {
            "job": f"replay Pure, quadratic, d = {LARGE}, {k} lanes (at most 1.3× one lane)",
            "asgrad": f"{seconds / LARGE * 1e9:.2f} ns a step, lane, coordinate",
            "plain": f"{number * 1e9:.2f} ns (a + b, NumPy)",
            "ratio": seconds / taken[0],
            "goal": None,
        }


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure, in turns, in processor time."""
    yield from tables()
    yield from large()
