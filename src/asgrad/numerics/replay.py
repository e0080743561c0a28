"""replay: walk a trace and do its numerical work, for many stepsizes and seeds at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from asgrad.encoders.base import feedback_of, n_remembered
from asgrad.errors import AsgradError, check_callable, check_integer, check_positive
from asgrad.machine import check_memory, processors
from asgrad.numerics.blocks import Blocks, bytes_of_blocks, keep_lanes, new_blocks
from asgrad.numerics.plan import Plan
from asgrad.numerics.prepared import Prepared, listed, prepare
from asgrad.numerics.walk import (
    EVALUATION,
    N_CURSORS,
    PAUSE,
    STEP,
    TAKEN,
    Calls,
    Rules,
    bound,
    calls_of,
    compiled_walk,
    refresh_after,
    walk,
)
from asgrad.problems.base import CompiledProblem, Packed, Problem
from asgrad.problems.start import checked_model
from asgrad.progress import progress_bar
from asgrad.recipes import Bound, Part, Parts, parts_of
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Trace

__all__ = [
    "BLOW_UP",
    "Interrupted",
    "Result",
    "Status",
    "bound_to",
    "checked_start",
    "checked_threads",
    "replay",
    "replayed_models",
    "rules_of",
]

_LANES_A_BLOCK = 32
_REMEDY = (
    "replay fewer stepsizes or seeds at once, on fewer threads or in float32, or insist: "
    "insist=True, on the command line --insist"
)
BLOW_UP = 1e8
_SHORT = 0.05  # seconds that a request to stop may well go unheard
_MOST_STEPS = 1 << 20  # at a time


class Status(StrEnum):
    """How a lane ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"


class Interrupted(Exception):
    """A replay was told to stop before its end."""


@dataclass(frozen=True, eq=False)
class Result:
    """A replayed run, lane by lane; lanes are all pairs of a seed and a stepsize, seeds outermost.

    Attributes
    ----------
    stepsizes, seeds : numpy.ndarray
        float64 and int64 of shape (n_lanes,).
    status : list of Status
        "diverged": at an evaluation a number was infinite or NaN, or ‖∇f‖ above
        1e8 · max(1, ‖∇f(x_0)‖); the lane was stopped and its metrics from there on are NaN. Where
        the problem does not evaluate ∇f, by |f| likewise; without evaluations, if the last model
        holds an infinite number or NaN.
    steps : numpy.ndarray
        int64 of shape (n_evaluations,): the evaluated models x_s.
    times : numpy.ndarray
        float64 of shape (n_evaluations,): when each came to be, in seconds.
    gradients : numpy.ndarray
        int64 of shape (n_evaluations,): gradients that workers had delivered by then.
    loss, gradient_norm, accuracy : numpy.ndarray
        float64 of shape (n_evaluations, n_lanes): f, ‖∇f‖ (NaN where the problem does not evaluate
        ∇f), and the share of correct predictions on the training data, or on the problem's test
        rows (NaN where there are no labels).
    test_loss : numpy.ndarray
        float64 of shape (n_evaluations, n_lanes): the loss on the problem's test rows, without a
        regulariser; NaN where it has none.
    models : numpy.ndarray
        float of shape (dim, n_lanes): the last models; for a diverged lane the one at which it was
        stopped.
    """

    stepsizes: np.ndarray
    seeds: np.ndarray
    status: list[Status]
    steps: np.ndarray
    times: np.ndarray
    gradients: np.ndarray
    loss: np.ndarray
    gradient_norm: np.ndarray
    accuracy: np.ndarray
    test_loss: np.ndarray
    models: np.ndarray

    def __repr__(self) -> str:
        """What it is, in one line."""
        n_diverged = sum(status == Status.DIVERGED for status in self.status)
        return (
            f"<Result of {self.stepsizes.size} lanes, {n_diverged} diverged: dim "
            f"{len(self.models)}, {self.steps.size} evaluations up to step "
            f"{max(self.steps, default=0)}>"
        )


@dataclass
class _Job:
    """What all blocks of lanes of a replay share."""

    problem: Problem
    plan: Plan
    n_slots: int
    n_entries: int
    dtype: str
    x0: np.ndarray
    rules: Rules
    parts: Parts
    packed: Packed
    n_lanes: int = 1
    progress: Callable[[float], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def local(self) -> bool:
        """Whether there are jobs of several gradients."""
        return bool((self.plan.work > 1).any())

    def tell(self, lanes: float) -> None:
        """Report progress, in lanes."""
        if self.progress and lanes > 0:
            self.progress(lanes / self.n_lanes)

    def walk(self) -> tuple[Callable, Calls]:
        """Return the walk and what it calls."""
        calls = calls_of(self.problem.kernels().gradient, self.parts)
        if isinstance(self.problem, CompiledProblem):
            return compiled_walk(self.dtype), bound(calls, self.dtype)
        return walk, calls

    def check_memory(self, n_lanes: int, at_once: int) -> None:
        """Refuse what memory cannot hold: working spaces of so many lanes each, and the result."""
        working = bytes_of_blocks(
            self.problem, self.parts, n_lanes, self.dtype, self.n_slots, self.n_entries,
            local=self.local,
        )  # fmt: skip
        models = 2 * np.dtype(self.dtype).itemsize * self.problem.dim  # joined in the end
        result = self.n_lanes * (models + 2 * 4 * 8 * self.plan.evaluated.size)
        kept = f"{self.n_slots} models and {self.n_entries} table entries"
        check_memory(
            "replay",
            f"{self.n_lanes} lanes with {kept} of dimension {self.problem.dim}",
            at_once * working + result,
            _REMEDY,
        )

    def blocks(self, stepsizes: np.ndarray) -> Blocks:
        """Return the working space of some lanes, at x_0."""
        blocks = new_blocks(
            self.problem, self.parts, stepsizes, self.dtype, self.n_slots, self.n_entries,
            local=self.local,
        )  # fmt: skip
        blocks.models[self.plan.slot[0]] = self.x0[:, None]
        return blocks


def replay(
    trace: Trace,
    problem: Problem,
    stepsizes: float | Sequence[float] | np.ndarray,
    *,
    seeds: int | Sequence[int] | None = None,
    recipe: Parts | Part | str | tuple[Any, ...] | None = None,
    x0: np.ndarray | None = None,
    evaluations: int | Sequence[int] = 100,
    dtype: str | None = None,
    threads: int | None = None,
    progress: Callable[[float], None] | bool | None = None,
    stop: threading.Event | None = None,
    prepared: Prepared | None = None,
    insist: bool = False,
) -> Result:
    """Compute the run that `trace` describes, on `problem`, for every stepsize and seed.

    x_{s+1} = x_s − γ d_s, d_s = Σ weight · factor(τ, γ) · correction(encoder(g)), g the gradient of
    a job at x_{read_step}. Only gradients that enter a step are computed, and those that an
    encoder which remembers has seen beside them.
    A lane's bits do not depend on what other lanes stand beside it, nor on the number of threads;
    lanes of a PyTorch module agree to rounding.

    Memory: (V + E + 4 + M + B n) · dim · lanes floats, V the most model versions that later steps
    still read, E the entries of the method's table, M the blocks that correction and optimizer
    remember, B those that an encoder remembers of each of n workers; plus about
    200 · dim floats a thread for evaluation, and the problem's data.

    Parameters
    ----------
    trace : Trace
    problem : Problem
        Its n_workers must be the trace's.
    stepsizes : float or sequence of float, > 0
        γ, a lane each.
    seeds : int or sequence of int, optional
        Fix the sampled rows and the noise; a number means that seed. By default the trace's.
        Several seeds on one trace are independent runs only where the trace does not depend on its
        seed.
    recipe : Recipe, part, tuple of parts or str, optional
        What happens to stepsizes, gradients and directions: objects, or a text as on the command
        line, "koloskova:stale=drop+heavy-ball"; the method is left out, or is the trace's. By
        default the trace's own recipe; what is given replaces all of it. What a part takes from the
        run (τ_C, n, L) is what a live run has bound in its trace, else that of trace and problem.
    x0 : numpy.ndarray, optional
        float of shape (dim,); by default the problem's.
    evaluations : int >= 0, or sequence of int
        How many times the run is evaluated after x_0, at even distances of steps and at the end;
        the number of steps or more evaluates every model. 0: never, not even x_0. A sequence names
        the steps whose models x_s are evaluated: 0 first, by which a blow-up is judged, then
        rising.
    dtype : "float64" or "float32", optional
        By default the problem's own: float64, and for a PyTorch module that of its parameters.
    threads : int >= 1, optional
        By default one a processor that this process may use.
    progress : callable or bool, optional
        Called with the share of the work done since the last call, from any thread; they sum to 1.
        True shows a bar, on a terminal or in a notebook.
    stop : threading.Event, optional
        Once set, the replay raises `Interrupted` at the next evaluation.
    prepared : Prepared, optional
        From `numerics.prepare(trace, problem, evaluations, dtype)`, for many replays of one trace
        on one problem; evaluations and dtype are what it was made with.
    insist : bool
        Compute also what takes more memory than there is; otherwise such a replay is refused.

    Returns
    -------
    Result

    Raises
    ------
    AsgradError
        If an argument is out of range, the trace does not fit the problem, or the replay is too
        large.

    Examples
    --------
    >>> import asgrad as ag
    >>> problem = ag.problems.Tridiagonal(8, n_workers=2)
    >>> trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed(), n_workers=2, steps=100)
    >>> result = ag.replay(trace, problem, [0.1, 0.5])
    >>> bool(result.gradient_norm[-1, 1] < result.gradient_norm[0, 1])
    True
    """
    if prepared is None:
        prepared = prepare(trace, problem, evaluations, dtype)
    elif not (prepared.trace is trace and prepared.problem is problem):
        raise AsgradError("replay: what is prepared must be of this very trace and problem.")
    parts = parts_of("replay", recipe, trace.header)
    threads = checked_threads("replay", threads)
    lanes = [check_positive("replay", "stepsize", s) for s in listed(stepsizes)]

    chosen: Any = trace.header.seed if seeds is None else seeds
    if not lanes or np.size(chosen) == 0:
        raise AsgradError("replay: give at least one stepsize and one seed.")
    seed_list = [check_integer("replay", "seed", seed, minimum=0) for seed in listed(chosen)]

    job = _job(prepared, parts, x0)
    job.n_lanes = len(lanes) * len(seed_list)
    job.stop = stop or job.stop
    n_blocks = threads if problem.gains_by_threads else 1
    share = min(_LANES_A_BLOCK, -(-len(lanes) * len(seed_list) // n_blocks))
    blocks = [
        (seed, np.array(lanes[i : i + share]))
        for seed in seed_list
        for i in range(0, len(lanes), share)
    ]
    if not insist:
        job.check_memory(max(part.size for _, part in blocks), min(threads, len(blocks)))
    if progress is not True and progress is not False:
        check_callable("replay", "progress", progress)
    with progress_bar("replaying") if progress is True else nullcontext(progress or None) as tell:
        job.progress = tell
        done = _run_blocks(job, blocks, threads)
    metrics = np.concatenate([part[0] for part in done], axis=2)
    return Result(
        stepsizes=np.tile(lanes, len(seed_list)),
        seeds=np.repeat(np.array(seed_list, np.int64), len(lanes)),
        status=[status for part in done for status in part[2]],
        steps=prepared.plan.evaluated,
        times=prepared.times,
        gradients=prepared.gradients,
        loss=metrics[:, 0],
        gradient_norm=np.sqrt(metrics[:, 1]),
        accuracy=metrics[:, 2],
        test_loss=metrics[:, 3],
        models=np.concatenate([part[1] for part in done], axis=1),
    )


def _run_blocks(
    job: _Job, blocks: list[tuple[int, np.ndarray]], threads: int
) -> list[tuple[np.ndarray, np.ndarray, list[Status]]]:
    """Run all blocks of lanes, on several threads where there are several."""
    if threads == 1 or len(blocks) == 1:
        return [_run_block(job, seed, part) for seed, part in blocks]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_run_block, job, *block) for block in blocks]
        try:
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C as well: the others are told to stop
            job.stop.set()
            raise


def replayed_models(
    trace: Trace,
    problem: Problem,
    stepsize: float,
    steps: Sequence[int],
    *,
    dtype: str | None = None,
) -> Iterator[np.ndarray]:
    """Yield x_s, of shape (dim,), for each of some rising steps, as `replay` computes it.

    Nothing is evaluated. An array is valid until the next one is asked for.
    """
    parts = parts_of("replay", None, trace.header)
    job = _job(prepare(trace, problem, 0, dtype), parts, None)
    job.check_memory(1, 1)
    blocks = job.blocks(np.array([stepsize]))
    key = stream_key(trace.header.seed, Purpose.GRADIENT)
    go_on, calls = job.walk()
    cursor = np.zeros(N_CURSORS, np.int64)
    for step in steps:
        cursor[PAUSE] = step - cursor[STEP]
        with np.errstate(all="ignore"):
            go_on(calls, job.packed, key, job.plan, job.rules, blocks, cursor)
        yield blocks.models[job.plan.slot[step], :, 0]


def _job(prepared: Prepared, parts: Parts, x0: np.ndarray | None) -> _Job:
    """Return what every block of lanes needs."""
    problem, trace = prepared.problem, prepared.trace
    run = bound_to(problem, lambda: trace.summary.tau_c, trace.header.bound)
    planned = prepared.plan, prepared.n_slots, prepared.n_entries
    plan, n_slots, n_entries = prepared.remembering if n_remembered(parts.encoder) else planned
    return _Job(
        problem=problem,
        plan=plan,
        n_slots=n_slots,
        n_entries=n_entries,
        dtype=prepared.dtype,
        x0=checked_start("replay", problem, x0),
        rules=rules_of(parts, run, problem.n_workers),
        parts=parts,
        packed=prepared.packed,
    )


def _run_block(
    job: _Job, seed: int, stepsizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[Status]]:
    """Run some lanes; return metrics (n_evaluations, 4, n_lanes), last models, status."""
    n_evaluations, n_lanes = job.plan.evaluated.size, stepsizes.size
    metrics = np.full((n_evaluations, 4, n_lanes), np.nan)
    models = np.empty((job.problem.dim, n_lanes), job.dtype)
    alive = np.arange(n_lanes)
    limits = np.full(n_lanes, np.inf)
    key = stream_key(seed, Purpose.GRADIENT)
    blocks = job.blocks(stepsizes)
    evaluate = job.problem.kernels().evaluation
    go_on, calls = job.walk()
    cursor = np.zeros(N_CURSORS, np.int64)
    cursor[PAUSE] = 64
    n_steps = job.plan.first_row.size - 1
    evaluated, unevaluated = 0, n_steps if n_evaluations == 0 else 0
    with np.errstate(all="ignore"):
        while alive.size and (evaluated < n_evaluations or cursor[STEP] < unevaluated):
            if job.stop.is_set():
                raise Interrupted
            start, before = time.perf_counter(), cursor[STEP]
            go_on(calls, job.packed, key, job.plan, job.rules, blocks, cursor)
            if time.perf_counter() - start < _SHORT:  # coming back costs some 50 µs
                cursor[PAUSE] = min(2 * cursor[PAUSE], _MOST_STEPS)
            if n_evaluations == 0:
                job.tell((cursor[STEP] - before) * n_lanes / n_steps)
                continue
            if job.plan.evaluated.size > cursor[EVALUATION] and not _is_full(blocks, cursor):
                continue
            values = _evaluate(job, evaluate, blocks, int(cursor[TAKEN]))
            values = values.reshape(4, -1, alive.size).swapaxes(0, 1)
            judged = _judged(job.problem, values)
            if evaluated == 0:
                limits[alive] = BLOW_UP * np.maximum(1.0, judged[0])
            # A lane has diverged from its first bad evaluation on.
            good = np.isfinite(values[:, 0]) & np.isfinite(judged) & (judged <= limits[alive])
            good = np.logical_and.accumulate(good, axis=0)
            shown = np.where(good[:, None], values, np.nan)
            metrics[evaluated : evaluated + len(values), :, alive] = shown
            models[:, alive] = blocks.models[job.plan.slot[cursor[STEP]]]
            evaluated += len(values)
            job.tell(len(values) * n_lanes / n_evaluations)
            cursor[TAKEN] = 0
            if not good[-1].all():
                blocks = keep_lanes(blocks, good[-1])
                alive = alive[good[-1]]
    if n_evaluations == 0:
        models[:] = blocks.models[job.plan.slot[n_steps]]
        alive = alive[np.isfinite(models).all(axis=0)]
    else:
        job.tell((n_evaluations - evaluated) * n_lanes / n_evaluations)  # all lanes have diverged
    done = set(alive.tolist())
    status = [Status.FINISHED if lane in done else Status.DIVERGED for lane in range(n_lanes)]
    return metrics, models, status


def _judged(problem: Problem, values: np.ndarray) -> np.ndarray:
    """Return what divergence is judged by: ‖∇f‖, or |f| where it is not computed."""
    judged: np.ndarray = np.sqrt(values[:, 1]) if problem.evaluates_gradient else abs(values[:, 0])
    return judged


def _is_full(blocks: Blocks, cursor: np.ndarray) -> bool:
    """Say whether no further snapshot fits."""
    return bool(cursor[TAKEN] + blocks.stepsizes.size > blocks.snapshots.shape[1])


def _evaluate(job: _Job, evaluate: Callable, blocks: Blocks, taken: int) -> np.ndarray:
    """Return the metrics of the models that wait, float64 of shape (4, taken)."""
    x = np.ascontiguousarray(blocks.snapshots[:, :taken])
    metrics = np.full((4, taken), np.nan)
    evaluate(*job.packed, x, metrics, np.empty_like(x), blocks.scratch, blocks.picks)
    return metrics


def bound_to(problem: Problem, concurrency: Callable[[], int], known: Mapping[str, float]) -> Bound:
    """Return what parts may take from a run on this problem; L is computed only if it is asked for.

    `known` is what the run has bound before.
    """
    return Bound(
        known,
        concurrency=concurrency,
        n_workers=lambda: problem.n_workers,
        smoothness=lambda: problem.smoothness,
    )


def rules_of(parts: Parts, run: Mapping[str, float], n_workers: int) -> Rules:
    """Return the parameters of the kernels."""
    nothing = np.zeros(1)
    encoder, correction = parts.encoder, parts.correction
    return Rules(
        parts.stepsize.numbers(parts.stepsize.parameters(run)),
        encoder.numbers(encoder.parameters()) if encoder else nothing,
        correction.numbers(correction.parameters()) if correction else nothing,
        parts.optimizer.numbers(parts.optimizer.parameters()),
        encodes=parts.encoder is not None,
        corrects=parts.correction is not None,
        feedback=feedback_of(parts.encoder),
        local_stepsize=parts.work.local_stepsize if parts.work else 0.0,
        refresh=refresh_after(n_workers),
    )


def checked_threads(owner: str, threads: int | None) -> int:
    """Return the number of threads; by default one a processor."""
    if threads is None:
        return processors()
    return check_integer(owner, "threads", threads, minimum=1)


def checked_start(owner: str, problem: Problem, x0: np.ndarray | None) -> np.ndarray:
    """Return x_0, checked; by default the problem's own."""
    if x0 is None:
        return checked_model(type(problem).__name__, problem.x0, problem.dim)
    return checked_model(owner, x0, problem.dim)
