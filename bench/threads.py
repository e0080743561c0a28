"""Live runs on two threads: updates a second, and what the run itself costs an update."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import asgrad as ag

DIM, N_WORKERS = 300, 2


def problem(n_rows: int) -> ag.Problem:
    """Dense logistic regression, d = 300, full local gradients over `n_rows` rows a worker."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N_WORKERS * n_rows, DIM)) / np.sqrt(DIM)
    targets = np.where(rng.random(N_WORKERS * n_rows) < 0.5, 1.0, -1.0)
    return ag.problems.Logistic((features, targets), n_workers=N_WORKERS)


def sequential(chosen: ag.Problem, steps: int) -> float:
    """Updates a second of one thread that calls the same compiled gradient in a loop."""
    compute = chosen.kernels().gradient
    packed = chosen.pack(np.float64)
    scratch, picks = chosen.buffers(1, np.float64)
    x, g = np.zeros((DIM, 1)), np.empty((DIM, 1))
    compute(*packed, x, 0, 0, 0, g, scratch, picks)
    start = time.perf_counter()
    for step in range(steps):
        compute(*packed, x, step % N_WORKERS, step, 0, g, scratch, picks)
        x -= 0.01 * g
    return steps / (time.perf_counter() - start)


def live(chosen: ag.Problem, steps: int) -> float:
    """Updates a second of `train` on threads."""
    run = ag.train(chosen, ag.methods.Pure(), 0.01, steps=steps, evaluate_every=1e9)
    return steps / run.trace.header.end_time


def server_cost(steps: int) -> float:
    """Microseconds that the server alone takes an update: arrivals are handed to it at once."""
    from asgrad.training.arithmetic import Arithmetic
    from asgrad.training.server import Server

    chosen = problem(2)
    method = ag.methods.Pure()
    opening = method.begin(2, 0)
    numbers = Arithmetic(chosen, ag.recipes.Parts(), opening, chosen.x0, 0.01, "float64")
    server = Server(method, opening, 2, numbers)
    gradient = np.zeros((DIM, 1))
    waiting = list(server.start(0.0).assigned)
    start = time.perf_counter()
    for step in range(steps):
        waiting += server.arrive(waiting.pop(0), gradient, float(step)).assigned
    return 1e6 * (time.perf_counter() - start) / steps


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure gradients of about 20 µs, 200 µs, 1 ms and 2 ms."""
    yield {
        "job": "server's cost an update, d = 300 (goal 50 µs)",
        "asgrad": f"{min(server_cost(5000) for _ in range(3)):.1f} µs",
        "plain": "",
        "ratio": None,
        "goal": None,
    }
    for n_rows, steps in ((15, 8000), (150, 6000), (900, 2000), (1800, 1000)):
        chosen = problem(n_rows)
        live(chosen, 10)
        rates = [(sequential(chosen, steps), live(chosen, steps)) for _ in range(3)]
        plain, rate = (max(column) for column in zip(*rates, strict=True))
        own = N_WORKERS / rate - 1 / plain  # of a worker's time for one update
        share = f", the run itself takes {100 * own * rate / N_WORKERS:.0f}%"
        yield {
            "job": f"train on {N_WORKERS} threads, gradients of {1e6 / plain:.0f} µs",
            "asgrad": f"{rate:.0f} updates/s{share}",
            "plain": f"{plain:.0f} updates/s (one thread)",
            "ratio": rate / plain,
            "goal": 1.8 if plain < 1000 else None,
        }
