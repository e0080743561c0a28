"""compare: many methods on one problem, each with its best stepsize, by step and by time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asgrad import methods as method_room
from asgrad import stepsizes as stepsize_room
from asgrad.engines import Interrupted, Result, Status, replay, simulate
from asgrad.engines.replay import checked_threads
from asgrad.errors import AsgradError, KindError, check_integer, check_kind, check_positive, shown
from asgrad.experiments.grid import Cell, Line, choose, summarize_method
from asgrad.methods import Method
from asgrad.problems import Problem
from asgrad.problems.base import check_problem
from asgrad.registry import build
from asgrad.stepsizes import Constant, Stepsize
from asgrad.times import Times
from asgrad.trace import Trace

__all__ = ["Comparison", "Contender", "compare", "default_stepsizes"]


_TARGET = 1.25  # above what is reached at the end, where noise decides


@dataclass(frozen=True)
class Contender:
    """A method and how its stepsize depends on the delay."""

    method: Method
    stepsize: Stepsize = dataclasses.field(default_factory=Constant)

    @property
    def label(self) -> str:
        """The contender as the command line takes it: METHOD or METHOD+STEPSIZE."""
        if isinstance(self.stepsize, Constant):
            return self.method.label
        return f"{self.method.label}+{self.stepsize.label}"

    @classmethod
    def of(cls, said: str | Method | tuple[Method, Stepsize]) -> Contender:
        """Make a contender of "METHOD+STEPSIZE", a method, or a pair."""
        if isinstance(said, Method):
            return cls(said)
        if isinstance(said, tuple):
            return cls(*said)
        if not isinstance(said, str):
            raise KindError(
                "compare: a method is a text such as 'pure', an object such as ag.methods.Pure(), "
                f"or a pair of method and stepsize rule, got {shown(said)}."
            )
        method, _, stepsize = said.partition("+")
        rule = build("stepsize", stepsize_room, stepsize) if stepsize else Constant()
        return cls(build("method", method_room, method), rule)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    cells : list of Cell
        One for every method, stepsize and seed: the whole grid.
    results : dict
        By method and seed, the `Result` with a lane for every stepsize.
    traces : dict
        By method and seed.
    target : float
        The gradient norm to which "time to target" refers.
    smoothness : float
        L of the problem; NaN where it is not known.
    complete : bool
        False if the comparison was interrupted; methods that were not finished are left out.
    """

    cells: list[Cell]
    results: dict[tuple[str, int], Result]
    traces: dict[tuple[str, int], Trace]
    target: float
    smoothness: float
    complete: bool

    @property
    def lines(self) -> list[Line]:
        """One line for every method, at its chosen stepsize."""
        names = dict.fromkeys(cell.method for cell in self.cells)
        return [summarize_method([c for c in self.cells if c.method == name]) for name in names]

    def save(
        self,
        path: str | Path,
        config: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
    ) -> Path:
        """Write the run as a folder: results, metrics, traces, figures; return its path.

        `config` is written as config.toml, with which the command line repeats the run; `said` is
        noted in run.json.
        """
        from asgrad.experiments.run import save

        return save(self, path, config, said or {})

    def __str__(self) -> str:
        """The table that the command line shows."""
        from asgrad.report import table_text

        return table_text(self.lines, self.target, self.smoothness)


def default_stepsizes(smoothness: float) -> list[float]:
    """Return the default grid: 2^k / L for k = −7, ..., 4.

    Raises
    ------
    AsgradError
        If L is not known.
    """
    if not (np.isfinite(smoothness) and smoothness > 0):
        raise AsgradError(
            "compare: the problem's smoothness constant is not known; give the stepsizes, on the "
            "command line as in --stepsizes 0.01,0.1."
        )
    return [2.0**k / smoothness for k in range(-7, 5)]


def compare(
    problem: Problem,
    times: Times,
    methods: Sequence[str | Method | tuple[Method, Stepsize]],
    *,
    stepsizes: Sequence[float] | None = None,
    seeds: int | Sequence[int] = 3,
    steps: int | None = None,
    until_time: float | None = None,
    target: float | None = None,
    evaluations: int = 60,
    out: str | Path | None = None,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Run every method with every stepsize and seed; choose each method's best stepsize.

    A trace is simulated once per method and seed and serves all stepsizes. To compare at equal
    time, give `until_time`; to compare at equal steps, `steps`.

    Parameters
    ----------
    problem : Problem
    times : Times
    methods : sequence
        Methods, pairs (method, stepsize rule), or texts such as "pure", "ringmaster:max_delay=8",
        "pure+koloskova".
    stepsizes : sequence of float, optional
        The grid; by default 2^k / L, k = −7, ..., 4.
    seeds : int or sequence of int
        How many seeds (0, 1, ...), or which. A seed fixes worker times, choices, rows and noise.
    steps : int, optional
    until_time : float, optional
        Seconds of virtual time.
    target : float > 0, optional
        Gradient norm for "time to target"; by default 1.25 times what tuned "sync" reaches at the
        end, or the best method where "sync" is not compared.
    evaluations : int >= 1
    out : path, optional
        Write the run to this folder; its run.json says what was compared.
    threads : int >= 1, optional
        By default one a core.
    progress : callable, optional
        Called with the share of the work done since the last call.

    Returns
    -------
    Comparison
        After Ctrl-C, with the methods that were finished and complete=False.

    Raises
    ------
    AsgradError
        If an argument is refused.
    KeyboardInterrupt
        If Ctrl-C came before any method was finished.

    Examples
    --------
    >>> import asgrad as ag
    >>> problem = ag.problems.Tridiagonal(8, n_workers=3)
    >>> found = ag.compare(problem, ag.times.Linear(), ["sync", "pure"], until_time=60, seeds=1)
    >>> [line.method for line in found.lines]
    ['sync', 'pure']
    """
    check_problem("compare", problem)
    check_kind("compare", "times", times, Times, "ag.times.Linear()")
    several = [methods] if isinstance(methods, str | Method) else methods
    contenders = [Contender.of(said) for said in several]
    if not contenders:
        raise AsgradError("compare: give at least one method.")
    labels = [contender.label for contender in contenders]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise AsgradError(
            f"compare: method {twice!r} is given twice; a method of your own with parameters "
            "needs a name of its own, or to be a dataclass."
        )
    grid = _checked_grid(default_stepsizes(problem.smoothness) if stepsizes is None else stepsizes)
    seed_list = _checked_seeds(seeds)
    for contender in contenders:  # a rule that needs an unknown L is refused before any work
        if not isinstance(contender.stepsize, Constant):
            contender.stepsize.parameters(problem.smoothness, 1, problem.n_workers)
    if target is not None:
        check_positive("compare", "target", target)
    check_integer("compare", "evaluations", evaluations, minimum=1)
    threads = checked_threads("compare", threads)
    if out is not None:
        from asgrad.experiments.run import check_writable

        check_writable(out)

    traces = {
        (contender.label, seed): simulate(
            contender.method,
            times,
            n_workers=problem.n_workers,
            steps=steps,
            until_time=until_time,
            seed=seed,
        )
        for contender in contenders
        for seed in seed_list
    }
    work = _Work(problem, contenders, traces, grid, evaluations, threads, progress)
    results, complete = work.run()
    finished = [c for c in contenders if all((c.label, seed) in results for seed in seed_list)]
    if not finished:
        raise KeyboardInterrupt  # before any method was finished
    comparison = _conclude(finished, seed_list, traces, results, target, problem, complete)
    if out is not None:
        said = {
            "problem": str(getattr(problem, "label", problem.name)),
            "times": times.label,
            "methods": labels,
            "stepsizes": grid.tolist(),
            "seeds": seed_list,
            "steps": steps,
            "until_time": until_time,
            "evaluations": evaluations,
        }
        comparison.save(out, said=said)
    return comparison


class _Work:
    """The replays of a comparison, spread over threads; Ctrl-C keeps what is finished."""

    def __init__(
        self,
        problem: Problem,
        contenders: list[Contender],
        traces: dict[tuple[str, int], Trace],
        grid: np.ndarray,
        evaluations: int,
        threads: int,
        progress: Callable[[float], None] | None,
    ):
        self.problem, self.traces, self.evaluations = problem, traces, evaluations
        self.contenders = {contender.label: contender for contender in contenders}
        self.threads, self.progress, self.n_lanes = threads, progress, grid.size
        self.stop = threading.Event()
        # Enough parts to keep all threads busy to the end.
        n_parts = min(grid.size, -(-4 * threads // len(traces)))
        self.parts = np.array_split(grid, n_parts)
        load = {
            key: trace.contributions.job.size + 20 * evaluations for key, trace in traces.items()
        }
        total = sum(load.values())
        self.share = {key: value / total for key, value in load.items()}

    def run(self) -> tuple[dict[tuple[str, int], Result], bool]:
        """Return the finished results by method and seed, and whether all are."""
        done: dict[tuple[tuple[str, int], int], Result] = {}
        complete = True
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: dict[Future, tuple[tuple[str, int], int]] = {
                pool.submit(self._replay, key, part): (key, i)
                for key in self.traces
                for i, part in enumerate(self.parts)
            }
            try:
                pending = set(waiting)
                while pending:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    done.update({waiting[future]: future.result() for future in finished})
            except KeyboardInterrupt:
                complete = False
            finally:
                self.stop.set()
                for future in waiting:
                    future.cancel()
        results = {
            key: _joined([done[key, i] for i in range(len(self.parts))])
            for key in self.traces
            if all((key, i) in done for i in range(len(self.parts)))
        }
        return results, complete

    def _replay(self, key: tuple[str, int], stepsizes: np.ndarray) -> Result:
        """Replay one trace for some stepsizes."""
        label, seed = key

        def tell(share: float) -> None:
            if self.progress:
                self.progress(share * self.share[key] * stepsizes.size / self.n_lanes)

        if self.stop.is_set():
            raise Interrupted
        return replay(
            self.traces[key],
            self.problem,
            stepsizes,
            seeds=seed,
            method_stepsize=self.contenders[label].stepsize,
            evaluations=self.evaluations,
            threads=1,
            progress=tell,
            stop=self.stop,
        )


def _conclude(
    contenders: list[Contender],
    seeds: list[int],
    traces: dict[tuple[str, int], Trace],
    results: dict[tuple[str, int], Result],
    target: float | None,
    problem: Problem,
    complete: bool,
) -> Comparison:
    """Choose stepsizes and put the grid together."""
    choice: dict[str, int | None] = {}
    final: dict[str, float] = {}
    for contender in contenders:
        runs = [results[contender.label, seed] for seed in seeds]
        norms = np.array([run.gradient_norm[-1] for run in runs])
        diverged = np.array([[s == Status.DIVERGED for s in run.status] for run in runs])
        best = choose(runs[0].stepsizes, norms, diverged)
        choice[contender.label] = best
        if best is not None:
            final[contender.label] = float(np.median(norms[:, best]))
    if target is None:
        target = _TARGET * final.get("sync", min(final.values(), default=float("nan")))
    cells = [
        cell
        for contender in contenders
        for seed in seeds
        for cell in _cells(
            contender.label,
            seed,
            results[contender.label, seed],
            traces[contender.label, seed],
            choice[contender.label],
            target,
        )
    ]
    kept = {(c.label, seed) for c in contenders for seed in seeds}
    return Comparison(
        cells=cells,
        results={key: results[key] for key in results if key in kept},
        traces={key: traces[key] for key in traces if key in kept},
        target=float(target),
        smoothness=float(problem.smoothness),
        complete=complete,
    )


def _cells(
    label: str, seed: int, result: Result, trace: Trace, best: int | None, target: float
) -> list[Cell]:
    """Return the cells of one method and seed."""
    summary = trace.summary
    cells = []
    for lane, stepsize in enumerate(result.stepsizes):
        hit = np.flatnonzero(result.gradient_norm[:, lane] <= target)
        cells.append(
            Cell(
                method=label,
                stepsize=float(stepsize),
                seed=seed,
                status=str(result.status[lane]),
                chosen=lane == best,
                gradient_norm=float(result.gradient_norm[-1, lane]),
                loss=float(result.loss[-1, lane]),
                accuracy=float(result.accuracy[-1, lane]),
                time_to_target=float(result.times[hit[0]]) if hit.size else float("inf"),
                n_steps=summary.n_steps,
                end_time=summary.end_time,
                n_computed=summary.n_computed,
                wasted=summary.wasted_share,
                tau_avg=summary.tau_avg,
                tau_max=summary.tau_max,
                tau_c=summary.tau_c,
            )
        )
    return cells


def _joined(parts: list[Result]) -> Result:
    """Put the lanes of several results on one trace side by side."""
    lanes = ("loss", "gradient_norm", "accuracy", "models")
    return dataclasses.replace(
        parts[0],
        stepsizes=np.concatenate([part.stepsizes for part in parts]),
        seeds=np.concatenate([part.seeds for part in parts]),
        status=[status for part in parts for status in part.status],
        **{name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in lanes},
    )


def _checked_grid(stepsizes: Sequence[float]) -> np.ndarray:
    """Return the stepsizes, checked and rising."""
    if np.ndim(stepsizes) != 1:
        raise KindError(f"compare: stepsizes must be a list of numbers, got {shown(stepsizes)}.")
    grid = sorted({check_positive("compare", "stepsize", s) for s in stepsizes})
    if not grid:
        raise AsgradError("compare: give at least one stepsize.")
    return np.array(grid)


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds as a list, checked."""
    if not isinstance(seeds, str) and np.ndim(seeds) == 1:
        found = [
            check_integer("compare", "seed", seed, minimum=0) for seed in np.asarray(seeds).tolist()
        ]
        if not found or len(set(found)) < len(found):
            raise AsgradError("compare: give at least one seed, each only once.")
        return found
    return list(range(check_integer("compare", "seeds", seeds, minimum=1)))
