"""Noisy tridiagonal quadratic with 1000 workers: updates a second."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator

import numpy as np

import asgrad as ag

DIM, N_WORKERS, NOISE, STEPSIZE = 1729, 1000, 0.01, 0.05
THRESHOLD = N_WORKERS // 8


def loop(method: str, n_arrivals: int) -> tuple[int, float]:
    """A plain heap loop that computes every gradient when its job is given out."""
    rng = np.random.default_rng(0)

    def gradient(x: np.ndarray) -> np.ndarray:
        g = 0.5 * x
        g[:-1] -= 0.25 * x[1:]
        g[1:] -= 0.25 * x[:-1]
        g[0] += 0.25
        return g + NOISE * rng.standard_normal(DIM)

    def seconds(worker: int) -> float:
        return worker + 1 + abs(rng.normal(0.0, np.sqrt(worker + 1.0)))

    x = np.zeros(DIM)
    x[0] = np.sqrt(DIM)
    heap = [(seconds(w), w, 0, gradient(x)) for w in range(N_WORKERS)]
    heapq.heapify(heap)
    steps, gathered, batch = 0, 0, np.zeros(DIM)
    start = time.perf_counter()
    for _ in range(n_arrivals):
        now, worker, read_step, g = heap[0]
        delay = steps - read_step
        if method == "pure" or (method == "ringmaster" and delay < THRESHOLD):
            x = x - STEPSIZE * g
            steps += 1
        elif method == "rennala" and delay == 0:
            batch += g
            gathered += 1
            if gathered == THRESHOLD:
                x = x - STEPSIZE * batch / THRESHOLD
                steps, gathered, batch = steps + 1, 0, np.zeros(DIM)
        heapq.heapreplace(heap, (now + seconds(worker), worker, steps, gradient(x)))
    return steps, time.perf_counter() - start


def ours(method: ag.Method, steps: int, n_lanes: int) -> float:
    """Updates a second over all lanes, simulation and replay together, evaluated at the ends."""
    problem = ag.problems.Tridiagonal(DIM, n_workers=N_WORKERS, noise=NOISE)
    stepsizes = STEPSIZE * 0.9 ** np.arange(n_lanes)
    start = time.perf_counter()
    trace = ag.simulate(method, ag.times.HalfNormal(), n_workers=N_WORKERS, steps=steps)
    ag.replay(trace, problem, stepsizes, evaluations=1)
    return steps * n_lanes / (time.perf_counter() - start)


def cases() -> Iterator[tuple[str, ag.Method, int, int, float]]:
    """Yield name, method, arrivals for the plain loop, steps for ours, goal."""
    yield "pure", ag.methods.Pure(), 20_000, 40_000, 4.0
    yield "ringmaster", ag.methods.Ringmaster(max_delay=THRESHOLD), 20_000, 20_000, 20.0
    yield "rennala", ag.methods.Rennala(batch=THRESHOLD), 20_000, 400, 15.0


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure one stepsize, and ten at once; the plain loop runs ten one after the other."""
    for name, method, arrivals, steps, goal in cases():
        n_steps, took = loop(name, arrivals)
        for n_lanes in (1, 10):
            ours(method, 2, n_lanes)
            rate = max(ours(method, steps, n_lanes) for _ in range(3))
            what = "one stepsize" if n_lanes == 1 else f"{n_lanes} stepsizes"
            yield {
                "job": f"quadratic, d = {DIM}, n = {N_WORKERS}, {name}, {what}",
                "asgrad": f"{rate:.0f} updates/s",
                "plain": f"{n_steps / took:.0f} updates/s",
                "ratio": rate * took / n_steps,
                "goal": goal,
            }
