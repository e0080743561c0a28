"""The replays of a comparison: spread over threads, widened at the edges, each kept as it ends."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from asgrad.engines import Interrupted, Result, replay
from asgrad.engines.books import latest_of
from asgrad.engines.plan import model_times
from asgrad.errors import check_integer, check_positive
from asgrad.problems import Problem
from asgrad.stepsizes import Stepsize
from asgrad.trace import Trace

__all__ = ["Horizon", "Key", "Work", "join_lanes", "take_lanes"]

_LANES = ("loss", "gradient_norm", "accuracy", "test_loss")
_SAME = 1e-12  # stepsizes nearer than this, relatively, are one: L may differ in its last bit


class Key(NamedTuple):
    """What a `Result` belongs to; its lanes are stepsizes."""

    panel: str
    method: str
    seed: int


@dataclass(frozen=True)
class Horizon:
    """How far every run goes, and at which moments it is looked at."""

    steps: int | None
    until_time: float | None
    evaluations: int

    def moments(self, trace: Trace) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps whose models are looked at, and when.

        With a limit in time the moments are evenly spread in time and common to all methods and
        seeds: at each stands the model that is there then, so that one which takes few steps
        holds its model. With a limit in steps they are evenly spread in steps.
        """
        if self.until_time is None:
            count = min(self.evaluations, trace.n_steps)
            steps = np.linspace(0, trace.n_steps, count + 1).round().astype(np.int64)
            return steps, model_times(trace, steps)
        times = np.linspace(0.0, self.until_time, self.evaluations + 1)
        # What differs from a moment by rounding only counts as there, as in the event loop.
        steps = np.searchsorted(trace.step_times, latest_of(times), side="right")
        steps[0] = 0
        return steps, times

    def checked(self) -> Horizon:
        """Return the same in plain numbers, refusing what is none."""
        steps, time = self.steps, self.until_time
        return Horizon(
            None if steps is None else check_integer("compare", "steps", steps, minimum=0),
            None if time is None else check_positive("compare", "until_time", time, zero=True),
            check_integer("compare", "evaluations", self.evaluations, minimum=1),
        )

    @property
    def most_moments(self) -> int:
        """At how many moments a run is looked at, at most."""
        if self.until_time is None and self.steps is not None:
            return min(self.evaluations, self.steps) + 1
        return self.evaluations + 1

    @property
    def words(self) -> str:
        """The horizon in words."""
        if self.until_time is None:
            return f"{self.steps} steps, looked at {min(self.evaluations, self.steps or 1)} times"
        every = self.until_time / self.evaluations
        limit = "" if self.steps is None else f" or {self.steps} steps"
        return f"{self.until_time:g} s{limit}, looked at every {every:.3g} s"


@dataclass
class Work:
    """The replays of all contenders on all panels.

    Parameters
    ----------
    problems : mapping
        By panel.
    rules : mapping
        The stepsize rule of every method, by its label.
    traces : mapping
        By method and seed.
    horizon : Horizon
    known : dict
        Lanes that need no computing.
    keep : callable, optional
        Called with key and result as soon as a replay ends.
    progress : callable, optional
        Called with the share of the work done since the last call; they sum to 1.
    insist : bool
        Whether replays that take more memory than there is are computed too.
    """

    problems: Mapping[str, Problem]
    rules: Mapping[str, Stepsize]
    traces: Mapping[tuple[str, int], Trace]
    horizon: Horizon
    threads: int
    known: dict[Key, Result]
    keep: Callable[[Key, Result], None] | None = None
    progress: Callable[[float], None] | None = None
    insist: bool = False
    results: dict[Key, Result] = field(default_factory=dict)
    """What is computed, or was known and asked for; lanes rise."""
    complete: bool = True
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _left: float = 0.0
    _told: float = 0.0

    def run(
        self,
        grids: Mapping[tuple[str, str], np.ndarray],
        widen: Callable[[tuple[str, str]], np.ndarray],
    ) -> None:
        """Replay every method of every panel at its stepsizes; Ctrl-C keeps what is finished.

        `grids` are the stepsizes by panel and method; once all seeds of such a pair are there,
        `widen` says at which further stepsizes it is to be tried.
        """
        open_pairs: dict[tuple[str, str], int] = {}
        whole: set[tuple[str, str]] = set()  # those whose first grid is done
        waiting: dict[Future, Key] = {}
        with ThreadPoolExecutor(self.threads) as pool:

            def ask(pair: tuple[str, str], stepsizes: np.ndarray) -> None:
                """Submit a pair's stepsizes; widen at once what needs no computing."""
                while stepsizes.size:
                    pieces = list(self._pieces(pair, stepsizes))
                    open_pairs[pair] = len(pieces)
                    self._left += sum(self._load(key, part) for key, part in pieces)
                    for key, part in pieces:
                        waiting[pool.submit(self._replay, key, part)] = key
                    if pieces:
                        return
                    whole.add(pair)
                    stepsizes = widen(pair)

            def take(future: Future) -> tuple[str, str]:
                """Keep what a replay has ended with; return whose it was."""
                key = waiting.pop(future)
                self._take(key, future.result())
                pair = key.panel, key.method
                open_pairs[pair] -= 1
                if open_pairs[pair] == 0:
                    whole.add(pair)
                return pair

            try:
                for pair, grid in grids.items():
                    ask(pair, grid)
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        pair = take(future)
                        if open_pairs[pair] == 0:
                            ask(pair, widen(pair))
            except KeyboardInterrupt:
                self.complete = False
                self._stop.set()
                for future in [future for future in waiting if future.done()]:
                    if future.exception() is None:  # ended, and not looked at yet
                        take(future)
                for pair in grids:  # also of one that was just to be widened
                    self._keep_common(pair, pair in whole)
            finally:
                self._stop.set()
                for future in waiting:
                    future.cancel()

    def _keep_common(self, pair: tuple[str, str], any_lane: bool) -> None:
        """Keep of an interrupted pair the stepsizes that all seeds have, or nothing."""
        keys = [Key(*pair, seed) for method, seed in self.traces if method == pair[1]]
        mine = [self.results.pop(key, None) for key in keys]
        if not any_lane:  # nothing can be chosen among a part of the grid
            return
        found = [result for result in mine if result is not None]
        common = set.intersection(*(set(result.stepsizes.tolist()) for result in found))
        for key, result in zip(keys, found, strict=True):
            self.results[key] = take_lanes(result, np.isin(result.stepsizes, sorted(common)))

    def _pieces(
        self, pair: tuple[str, str], stepsizes: np.ndarray
    ) -> Iterable[tuple[Key, np.ndarray]]:
        """Yield what has to be computed; what is known is taken at once."""
        seeds = [seed for method, seed in self.traces if method == pair[1]]
        for seed in seeds:
            key = Key(*pair, seed)
            missing = stepsizes
            if key in self.known:
                old = self.known[key].stepsizes
                near = np.abs(old[:, None] - stepsizes) <= _SAME * stepsizes
                if near.any():
                    self._add(key, take_lanes(self.known[key], near.any(axis=1)))
                missing = stepsizes[~near.any(axis=0)]
            # Enough parts to keep all threads busy to the end.
            n_parts = -(-4 * self.threads // (len(self.traces) * len(self.problems)))
            for part in np.array_split(missing, min(n_parts, max(missing.size, 1))):
                if part.size:
                    yield key, part

    def _replay(self, key: Key, stepsizes: np.ndarray) -> Result:
        """Replay one trace for some stepsizes, looked at as the horizon says."""
        if self._stop.is_set():
            raise Interrupted
        trace = self.traces[key.method, key.seed]
        steps, times = self.horizon.moments(trace)
        evaluated, inverse = np.unique(steps, return_inverse=True)
        load = self._load(key, stepsizes)
        result = replay(
            trace,
            self.problems[key.panel],
            stepsizes,
            seeds=key.seed,
            method_stepsize=self.rules[key.method],
            evaluations=evaluated.tolist(),
            threads=1,
            progress=lambda share: self._tell(share * load),
            stop=self._stop,
            insist=self.insist,
        )
        held = {name: getattr(result, name)[inverse] for name in ("gradients", *_LANES)}
        return dataclasses.replace(result, steps=steps, times=times, **held)

    def _take(self, key: Key, result: Result) -> None:
        """Keep a finished replay."""
        if self.keep:
            self.keep(key, result)
        self._add(key, result)

    def _add(self, key: Key, result: Result) -> None:
        """Put lanes beside those that are there."""
        mine = [self.results[key], result] if key in self.results else [result]
        self.results[key] = join_lanes(mine)

    def _load(self, key: Key, stepsizes: np.ndarray) -> float:
        """Return how much work a replay is, in gradients; an evaluation is some 20."""
        trace = self.traces[key.method, key.seed]
        return float(
            stepsizes.size * (trace.contributions.job.size + 20 * self.horizon.evaluations)
        )

    def _tell(self, load: float) -> None:
        """Report progress; what is left may still grow, so that a share is one of what is left."""
        if not self.progress:
            return
        with self._lock:
            share = (1.0 - self._told) * min(1.0, load / max(self._left, load))
            self._left = max(self._left - load, 0.0)
            self._told += share
        self.progress(share)


def take_lanes(result: Result, lanes: np.ndarray) -> Result:
    """Return some lanes of a result."""
    return dataclasses.replace(
        result,
        stepsizes=result.stepsizes[lanes],
        seeds=result.seeds[lanes],
        status=[result.status[i] for i in np.arange(result.stepsizes.size)[lanes]],
        models=result.models[:, lanes],
        **{name: getattr(result, name)[:, lanes] for name in _LANES},
    )


def join_lanes(parts: Sequence[Result]) -> Result:
    """Put the lanes of several results on one trace side by side, stepsizes rising."""
    # Models are not stored: where one part has none, the whole has none.
    n_rows = min(len(part.models) for part in parts)
    joined = dataclasses.replace(
        parts[0],
        stepsizes=np.concatenate([part.stepsizes for part in parts]),
        seeds=np.concatenate([part.seeds for part in parts]),
        status=[status for part in parts for status in part.status],
        models=np.concatenate([part.models[:n_rows] for part in parts], axis=1),
        **{name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in _LANES},
    )
    return take_lanes(joined, np.argsort(joined.stepsizes, kind="stable"))
