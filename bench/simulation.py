"""Simulating alone: jobs a second."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator

import asgrad as ag


def plain(n_workers: int, n_jobs: int) -> float:
    """Jobs a second of a plain heap loop for Pure that keeps only times and delays."""
    start = time.perf_counter()
    heap = [(random.expovariate(1.0), worker, 0) for worker in range(n_workers)]
    heapq.heapify(heap)
    delays = 0
    for step in range(n_jobs):
        now, worker, read_step = heap[0]
        delays += step - read_step
        heapq.heapreplace(heap, (now + random.expovariate(1.0), worker, step + 1))
    return n_jobs / (time.perf_counter() - start)


def ours(
    n_workers: int, n_jobs: int, record: bool, method: str = "pure",
    times: str = "exponential:scale=1",
) -> float:  # fmt: skip
    """Jobs a second of `simulate`, the best of three runs."""
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        ag.simulate(
            method,
            times,
            n_workers=n_workers,
            jobs=n_jobs,
            record=record,
        )
        rates.append(n_jobs / (time.perf_counter() - start))
    return max(rates)


def run(path: str | None) -> Iterator[dict[str, object]]:
    """Measure."""
    ours(2, 100, True)
    loop = plain(100, 300_000)
    for n_workers, record, goal in ((100, True, 5e6), (100, False, 10e6), (1_000_000, True, 1e6)):
        rate = ours(n_workers, 5_000_000, record)
        what = "whole trace" if record else "statistics only"
        yield {
            "job": f"simulate Pure, {n_workers} workers, exponential times, {what}",
            "asgrad": f"{rate / 1e6:.2f} M jobs/s (goal {goal / 1e6:g})",
            "plain": f"{loop / 1e6:.2f} M jobs/s (100 workers)",
            "ratio": rate / loop,
            "goal": None,
        }
    for n_workers in (1_000, 10_000, 100_000):
        rate = ours(n_workers, 2_000_000, False, "ringleader")
        yield {
            "job": f"simulate Ringleader, {n_workers} workers, exponential times, statistics only",
            "asgrad": f"{rate / 1e6:.2f} M jobs/s",
            "plain": f"{loop / 1e6:.2f} M jobs/s (100 workers, Pure)",
            "ratio": rate / loop,
            "goal": None,
        }
    links = "links:latency=0.1,bandwidth=1e7,size=1e6"
    for conditions in (links, f"outages:uptime=100,downtime=10+{links}"):
        rate = ours(10_000, 1_000_000, True, times=f"exponential:scale=1+{conditions}")
        what = "links and outages" if conditions != links else "links"
        yield {
            "job": f"simulate Pure, 10000 workers, exponential times, {what}, whole trace",
            "asgrad": f"{rate / 1e6:.2f} M jobs/s (goal 2)",
            "plain": f"{loop / 1e6:.2f} M jobs/s (100 workers, no conditions)",
            "ratio": rate / loop,
            "goal": None,
        }
