"""What a gradient costs at its worker: local steps beside as many gradients, and compression."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

import asgrad as ag
from asgrad.encoders.base import encode_job
from asgrad.kernels import multiply
from asgrad.workers.base import Computation

N_LOCAL, DIM = 10, 1_000_000


def shortest(act: Callable[[], object], times: int) -> float:
    """Return the seconds that it takes at best."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        took.append(time.perf_counter() - start)
    return min(took)


def local_steps(name: str, problem: ag.Problem) -> dict[str, object]:
    """Ten local steps beside ten jobs of one gradient; each as a worker computes them."""
    work = ag.work.LocalSteps(N_LOCAL, 0.01)
    compute = Computation(problem, "float64", 0, 0, None, work)
    x, out = np.zeros((problem.dim, 1)), np.empty((problem.dim, 1))

    def singly() -> None:
        for draw in range(N_LOCAL):
            compute(x, draw, out)

    together = shortest(lambda: compute(x, 0, out, N_LOCAL), 200)
    apart = shortest(singly, 200)
    return {
        "job": f"{N_LOCAL} local steps, {name}, beside {N_LOCAL} gradients",
        "asgrad": f"{together * 1e6:.0f} µs",
        "plain": f"{apart * 1e6:.0f} µs",
        "ratio": apart / together,
        "goal": 0.91,
    }


def in_replay(problem: ag.Problem) -> dict[str, object]:
    """The same in a replay, whose steps have ten gradients either way."""
    took = []
    for recipe in ("pure+local-steps:n=10,stepsize=0.01", "rennala:batch=10"):
        n = problem.n_workers
        trace = ag.simulate(recipe, "linear", n_workers=n, steps=500)
        took.append(shortest(lambda t=trace: ag.replay(t, problem, 0.1, evaluations=0), 4))
    together, apart = took
    return {
        "job": f"500 steps of {N_LOCAL} local steps, digits, beside {N_LOCAL} gradients a step",
        "asgrad": f"{together * 1e3:.0f} ms",
        "plain": f"{apart * 1e3:.0f} ms",
        "ratio": apart / together,
        "goal": 0.91,
    }


def compression(encoder: ag.encoders.Encoder) -> dict[str, object]:
    """A gradient's encoding in passes over it, one pass being `x *= c` in place."""
    g = np.random.default_rng(0).normal(size=(DIM, 1))
    memory, out = np.zeros((int(encoder.feedback), DIM, 1)), g.copy()
    parameters, scratch = encoder.parameters(), np.zeros(encoder.n_scratch(DIM), np.int64)
    kernel, factor, took, passes = type(encoder).kernel, np.array([1.0000001]), [], []
    for draw in range(40):
        out[:] = g
        passes.append(shortest(lambda: multiply(out, factor), 1))
        out[:] = g
        took.append(
            shortest(
                lambda d=draw: encode_job(
                    kernel, parameters, encoder.feedback, out, 0, d, 0, memory, scratch
                ),
                1,
            )
        )
    one, all_of_it = np.median(passes), np.median(took)
    return {
        "job": f"{encoder}, d = {DIM}",
        "asgrad": f"{all_of_it * 1e3:.2f} ms, {all_of_it / one:.1f} passes",
        "plain": f"8 passes are {8e3 * one:.2f} ms",
        "ratio": 8 * one / all_of_it,
        "goal": 1.0,
    }


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure."""
    digits = ag.problems.Softmax("digits", n_workers=4, batch=16)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 300)), np.sign(rng.normal(size=4000))
    yield local_steps("digits", digits)
    yield local_steps("300 features", ag.problems.Logistic(rows, n_workers=4, batch=16))
    yield in_replay(digits)
    yield compression(ag.encoders.TopK(0.01, feedback=True))
    yield compression(ag.encoders.TopK(0.01))
    yield compression(ag.encoders.RandK(0.01))
