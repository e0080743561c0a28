"""Stragglers staged for real: the numbers and the figure of docs/stragglers.md.

python -m bench.stragglers [--seconds 15] [--seeds 3] [--equal] [--figure docs/stragglers.png]

Four worker threads train a small convolutional network on the digits; every job sleeps, three
workers 20 ms and the fourth so long that its job takes five times as long (with --equal 20 ms too).
The stepsize of every method is tuned beforehand by replay, on traces that are simulated with the
workers' measured times.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import asgrad as ag
from asgrad.problems.networks import digits_cnn

METHODS = {
    "sync": ag.methods.Sync(),
    "m-sync, m = 3": ag.methods.MSync(m=3),
    "pure": ag.methods.Pure(),
    "ringmaster": ag.methods.Ringmaster(max_delay=4),
    "shuffled": ag.methods.Shuffled(),
}
SPLITS = {"shuffled": 0.97, "label": 0.9}
"""Split of the data and the test accuracy to reach."""
STEPSIZES = 0.0125 * 2.0 ** np.arange(8)
FAST, SLOW = 0.020, 0.110


def workers(slow: float) -> ag.Threads:
    """Three workers, and one that sleeps `slow` seconds a job."""
    return ag.Threads(sleep=ag.times.Fixed(scale=[FAST, FAST, FAST, slow]))


def first_time(times: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    """When the target is first seen, in seconds; infinity if never."""
    reached = np.flatnonzero(accuracy >= target)
    return float(times[reached[0]]) if reached.size else np.inf


def tuned(problem: Any, method: Any, times: Any, seconds: float, target: float) -> float:
    """The stepsize that reaches the target first in a replay, or comes nearest to it."""
    trace = ag.simulate(method, times, n_workers=4, until_time=seconds, seed=100)
    result = ag.replay(trace, problem, STEPSIZES, dtype="float32", evaluations=60)
    accuracy = np.nan_to_num(result.accuracy)
    keys = [
        (first_time(result.times, accuracy[:, lane], target), -accuracy[:, lane].max())
        for lane in range(STEPSIZES.size)
    ]
    return float(STEPSIZES[min(range(len(keys)), key=keys.__getitem__)])


def main() -> None:
    """Tune, train, print a table, draw the figure."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(prog="bench.stragglers")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--figure", default="docs/stragglers.png")
    said = parser.parse_args()
    slow = FAST if said.equal else SLOW
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (split, target) in zip(axes, SPLITS.items(), strict=True):
        problem = digits_cnn(4, split=split, batch=32)
        with tempfile.TemporaryDirectory() as folder:
            profile = ag.train(
                problem, ag.methods.Pure(), 1e-9, workers=workers(slow), until_time=8.0,
                dtype="float32", evaluate_every=0.5,
            )  # fmt: skip
            times = ag.times.FromRun(str(profile.trace.save(Path(folder) / "trace")))
            took = profile.trace.jobs.arrival_time - profile.trace.jobs.start_time
            medians = [np.nanmedian(took[profile.trace.jobs.worker == w]) for w in range(4)]
            print(f"split {split}: median job times {np.round(1e3 * np.array(medians), 1)} ms")
            stepsizes = {
                name: tuned(problem, method, times, said.seconds, target)
                for name, method in METHODS.items()
            }
        print(f"| method | stepsize | steps/s | s to {target:.0%} | accuracy at the end |")
        print("|---|---|---|---|---|")
        for name, method in METHODS.items():
            runs = [
                ag.train(
                    problem, method, stepsizes[name], workers=workers(slow),
                    until_time=said.seconds, dtype="float32", evaluate_every=0.25, seed=seed,
                )
                for seed in range(said.seeds)
            ]  # fmt: skip
            reached = [first_time(run.times, run.accuracy, target) for run in runs]
            spread = ", ".join("never" if t == np.inf else f"{t:.1f}" for t in sorted(reached))
            speed = np.median([run.trace.n_steps / said.seconds for run in runs])
            final = np.median([run.accuracy[-1] for run in runs])
            print(f"| {name} | {stepsizes[name]:g} | {speed:.0f} | {spread} | {final:.1%} |",
                  flush=True)  # fmt: skip
            grid = np.linspace(0.25, said.seconds, 120)
            curves = np.array([np.interp(grid, run.times, run.accuracy) for run in runs])
            (line,) = axis.plot(grid, np.median(curves, axis=0), label=name)
            axis.fill_between(
                grid, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.15
            )
        axis.axhline(target, color="0.6", linewidth=0.8)
        axis.set(title=f"data split: {split}", xlabel="seconds", ylabel="test accuracy")
        axis.set_ylim(0.4, 1.0)
        axis.legend()
    figure.savefig(said.figure, dpi=120)
    print(f"figure: {said.figure}")


if __name__ == "__main__":
    main()
