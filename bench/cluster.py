"""Ray, eight workers: updates a second against a plain loop over actors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import asgrad as ag

N_WORKERS, STEPSIZE = 8, 0.1


class Half(ag.Problem):
    """f = ‖x‖²/4: a gradient costs one pass, so that the rest shows."""

    n_workers = N_WORKERS

    def __init__(self, dim: int):
        self.dim = dim

    def kernels(self):
        """The gradient writes where it is told, without a generator or a copy."""

        def gradient(values, indices, layout, x, worker, draw, key, out, scratch, picks):
            np.multiply(x, 0.5, out=out)

        return gradient, super().kernels()[1]

    def gradient(self, x, worker, draw=0, rng=None):
        """x/2."""
        return 0.5 * x

    def loss(self, x):
        """‖x‖²/4."""
        return float(x @ x) / 4

    def full_gradient(self, x):
        """x/2."""
        return 0.5 * x


def plain(ray: Any, dim: int, steps: int) -> float:
    """Updates a second: wait for one, get, update, call again with the array."""

    @ray.remote(num_cpus=1)
    class Worker:
        def gradient(self, x):
            return 0.5 * x

    workers = [Worker.remote() for _ in range(N_WORKERS)]
    x = np.ones(dim)
    ray.get([worker.gradient.remote(x) for worker in workers])
    start = time.perf_counter()
    pending = {worker.gradient.remote(x): worker for worker in workers}
    for _ in range(steps):
        done, _ = ray.wait(list(pending), num_returns=1)
        g = ray.get(done[0])
        worker = pending.pop(done[0])
        x = x - STEPSIZE * g
        pending[worker.gradient.remote(x)] = worker
    rate = steps / (time.perf_counter() - start)
    for worker in workers:
        ray.kill(worker)
    return rate


def ours(dim: int, steps: int) -> float:
    """Updates a second of `train` on Ray."""
    run = ag.train(
        Half(dim), ag.methods.Pure(), STEPSIZE, engine=ag.Ray(), steps=steps, x0=np.ones(dim),
        evaluate_every=1e9,
    )  # fmt: skip
    return steps / float(run.trace.step_times[-1])


def run(path: str | None) -> list[dict[str, object]]:
    """Alternate the two, take the best of three of each."""
    import sys

    import ray

    ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False,
             logging_level="error")  # fmt: skip
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    rows = []
    for dim, steps, goal in ((300, 3000, 1.0), (100_000, 800, 1.5), (10_000_000, 60, 2.5)):
        rates = [(plain(ray, dim, steps), ours(dim, steps)) for _ in range(3)]
        loop, own = (max(column) for column in zip(*rates, strict=True))
        rows.append(
            {
                "job": f"train on Ray, {N_WORKERS} workers, d = {dim}",
                "asgrad": f"{own:.0f} updates/s",
                "plain": f"{loop:.0f} updates/s",
                "ratio": own / loop,
                "goal": goal,
            }
        )
    ray.shutdown()
    return rows
