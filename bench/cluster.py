"""Ray, eight workers: updates a second against a plain loop over actors."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
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

        return super().kernels()._replace(gradient=gradient)

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
    """Updates a second of the last half: wait for one, get, update, call again with the array."""

    @ray.remote(num_cpus=1)
    class Worker:
        def gradient(self, x):
            return 0.5 * x

    workers = [Worker.remote() for _ in range(N_WORKERS)]
    x = np.ones(dim)
    ray.get([worker.gradient.remote(x) for worker in workers])
    pending = {worker.gradient.remote(x): worker for worker in workers}
    start = 0.0
    for step in range(steps):
        if step == steps // 2:  # by then the object store's memory has been used once
            start = time.perf_counter()
        done, _ = ray.wait(list(pending), num_returns=1)
        g = ray.get(done[0])
        worker = pending.pop(done[0])
        x = x - STEPSIZE * g
        pending[worker.gradient.remote(x)] = worker
    rate = steps / 2 / (time.perf_counter() - start)
    for worker in workers:
        ray.kill(worker)
    return rate


def ours(dim: int, steps: int) -> float:
    """Updates a second of the last half of `train`, on a Ray that it starts itself."""
    run = ag.train(
        Half(dim), ag.methods.Pure(), STEPSIZE, workers=ag.Ray(), steps=steps, x0=np.ones(dim),
        evaluate_every=1e9,
    )  # fmt: skip
    times = run.trace.step_times
    return steps / 2 / float(times[-1] - times[steps // 2])


def rates(dim: int, steps: int) -> tuple[float, float]:
    """The plain loop, then ours."""
    import ray

    ray.init(address="local", num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False,
             logging_level="error")  # fmt: skip
    loop = plain(ray, dim, steps)
    ray.shutdown()
    return loop, ours(dim, steps)


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Alternate the two several times; the ratio is the median of the pairs' ratios."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for dim, steps, pairs, goal in (
        (300, 3000, 9, 1.0),
        (100_000, 1000, 3, 1.5),
        (10_000_000, 160, 3, 2.5),
    ):
        loop, own = np.array([rates(dim, steps) for _ in range(pairs)]).T
        yield {
            "job": f"train on Ray, {N_WORKERS} workers, d = {dim}",
            "asgrad": f"{np.median(own):.0f} updates/s",
            "plain": f"{np.median(loop):.0f} updates/s",
            "ratio": float(np.median(own / loop)),
            "goal": goal,
        }
