"""Replay of a perceptron over 16 stepsizes at once, against one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import asgrad as ag

N_LANES, STEPS = 16, 400


def seconds(trace: ag.Trace, problem: ag.Problem, stepsizes: np.ndarray, dtype: str) -> float:
    """How long the replay takes."""
    start = time.perf_counter()
    ag.replay(trace, problem, stepsizes, evaluations=1, dtype=dtype)
    return time.perf_counter() - start


def run(path: str | None) -> Iterator[dict[str, object]]:
    """A perceptron on the digits, ten workers, batch 32, in both precisions."""
    from asgrad.problems.networks import digits_mlp

    problem = digits_mlp(10, split="label", batch=32)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=10, steps=STEPS)
    stepsizes = 0.01 * 1.3 ** np.arange(N_LANES)
    for dtype in ("float32", "float64"):
        seconds(trace, problem, stepsizes, dtype)
        together = min(seconds(trace, problem, stepsizes, dtype) for _ in range(3))
        single = min(
            sum(seconds(trace, problem, stepsizes[i : i + 1], dtype) for i in range(N_LANES))
            for _ in range(2)
        )
        yield {
            "job": f"replay a perceptron over {N_LANES} stepsizes, {STEPS} steps, {dtype}",
            "asgrad": f"{together:.2f} s together",
            "plain": f"{single:.2f} s one by one",
            "ratio": single / together,
            "goal": 4.0,
        }
