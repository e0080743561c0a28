"""The job of the AsGrad notebook: three methods × ten stepsizes × 500 steps, ‖∇f‖ at every step."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import sparse

import asgrad as ag
from asgrad.machine import processors

N_WORKERS, N_ROWS, N_STEPS, STRENGTH = 10, 24_600, 500, 0.1
STEPSIZES = np.geomspace(1e-4, 5e-2, 10)
METHODS = {
    "pure": ag.methods.Pure(),
    "random": ag.methods.Random(),
    "shuffled": ag.methods.Shuffled(),
}


def data(path: str | None) -> tuple[sparse.csr_matrix, np.ndarray, str]:
    """Return w7a where the user has it, else random data of the same size and sparsity."""
    if path and Path(path).is_file():
        loaded = ag.problems.load(path)
        return loaded.features[:N_ROWS], loaded.targets[:N_ROWS], Path(path).name
    rng = np.random.default_rng(0)
    features = sparse.random(N_ROWS, 300, 0.039, "csr", rng=rng)
    features.data[:] = 1.0
    return features, np.where(rng.random(N_ROWS) < 0.03, 1.0, -1.0), "random data like w7a"


def ours(features: sparse.csr_matrix, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Simulate three traces and replay ten stepsizes on each; return all gradient norms."""
    problem = ag.problems.Logistic(
        (features, targets), n_workers=N_WORKERS, split="contiguous",
        regularizer="nonconvex", strength=STRENGTH,
    )  # fmt: skip
    threads = processors()
    traces = {
        name: ag.simulate(method, ag.times.Normal(), n_workers=N_WORKERS, steps=N_STEPS)
        for name, method in METHODS.items()
    }
    tasks = [(name, part) for name in traces for part in np.array_split(STEPSIZES, threads)]

    def run(task: tuple[str, np.ndarray]) -> np.ndarray:
        name, stepsizes = task
        result = ag.replay(traces[name], problem, stepsizes, evaluations=N_STEPS, threads=1)
        return result.gradient_norm

    with ThreadPoolExecutor(threads) as pool:
        norms = list(pool.map(run, tasks))
    return {
        name: np.concatenate(
            [n for (m, _), n in zip(tasks, norms, strict=True) if m == name], axis=1
        )
        for name in traces
    }


def loop(
    features: np.ndarray, targets: np.ndarray, name: str, stepsize: float, steps: int
) -> list[float]:
    """One run as a notebook writes it: dense matrices, one job after the other, eager gradients."""
    rng = np.random.default_rng(0)
    shards = np.array_split(np.arange(targets.size), N_WORKERS)
    parts = [(features[rows], targets[rows]) for rows in shards]

    def local(x: np.ndarray, worker: int) -> np.ndarray:
        a, y = parts[worker]
        sigma = 1.0 / (1.0 + np.exp(y * (a @ x)))
        return -(a.T @ (y * sigma)) / y.size + 2 * STRENGTH * x / (1 + x * x) ** 2

    def norm(x: np.ndarray) -> float:
        sigma = 1.0 / (1.0 + np.exp(targets * (features @ x)))
        gradient = -(features.T @ (targets * sigma)) / targets.size
        return float(np.linalg.norm(gradient + 2 * STRENGTH * x / (1 + x * x) ** 2))

    def seconds(worker: int) -> float:
        return abs(rng.normal(worker + 1, worker + 1)) + 1

    x = np.zeros(features.shape[1])
    norms = [norm(x)]
    running: list[tuple[float, int, int]] = []
    queues: list[list[np.ndarray]] = [[x] for _ in range(N_WORKERS)]
    order = 0
    for worker in range(N_WORKERS):
        heapq.heappush(running, (seconds(worker), order, worker))
        order += 1
    permutation: list[int] = []
    for _ in range(steps):
        now, _, worker = heapq.heappop(running)
        x = x - stepsize * local(queues[worker].pop(0), worker)
        norms.append(norm(x))
        chosen = worker
        if name == "random":
            chosen = int(rng.integers(N_WORKERS))
        elif name == "shuffled":
            permutation = permutation or list(rng.permutation(N_WORKERS))
            chosen = int(permutation.pop())
        queues[chosen].append(x)
        for ready in {worker, chosen}:
            busy = any(w == ready for _, _, w in running)
            if queues[ready] and not busy:
                heapq.heappush(running, (now + seconds(ready), order, ready))
                order += 1
    return norms


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure; the plain loop runs a part of the job and is scaled up to the whole."""
    features, targets, name = data(path)
    ours(features[:500], targets[:500])  # compiled or loaded beforehand
    start = time.perf_counter()
    ours(features, targets)
    took = time.perf_counter() - start
    dense = features.toarray()
    steps = 20
    start = time.perf_counter()
    for method in METHODS:
        loop(dense, targets, method, 1e-3, steps)
    plain = (time.perf_counter() - start) / (len(METHODS) * steps)
    plain *= len(METHODS) * STEPSIZES.size * N_STEPS
    yield {
        "job": f"notebook: 3 methods × 10 stepsizes × {N_STEPS} steps, {name}",
        "asgrad": f"{took:.2f} s",
        "plain": f"{plain:.0f} s",
        "ratio": plain / took,
        "goal": 30.0,
    }
