"""train: run a method over real workers, and record the run as a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asgrad.corrections import Correction
from asgrad.encoders import Encoder
from asgrad.errors import AsgradError, check_callable, check_kind, check_positive
from asgrad.files import need_safetensors
from asgrad.methods.base import Method
from asgrad.numerics.prepared import checked_dtype
from asgrad.numerics.replay import checked_start, resolved_parts
from asgrad.optimizers import Optimizer
from asgrad.problems.base import Problem, check_problem
from asgrad.problems.fingerprint import fingerprint, hashed
from asgrad.registry import label, resolve
from asgrad.simulation.simulate import versions
from asgrad.stepsizes import Stepsize
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Header, Trace
from asgrad.training.arithmetic import ARITHMETIC, Arithmetic
from asgrad.training.checkpoint import Checkpoints, Keeper, list_checkpoints, load_newest
from asgrad.training.evaluation import Evaluation, Evaluator, check_beginning, check_target
from asgrad.training.live import Bounds, Ending, Facts, Live, Stopwatch, ctrl_c_ends
from asgrad.training.server import Server
from asgrad.workers.base import Engine, Job, RunContext
from asgrad.workers.threads import Threads

__all__ = ["Training", "train"]

_WAY_ON = "asgrad: the run is kept in {}; go on with resume=True, as a command with --resume."


@dataclass(frozen=True, eq=False)
class Training:
    """A finished live run.

    Attributes
    ----------
    trace : Trace
        Replaying it with the same problem, stepsize and rules gives back `model` bit for bit.
    model : numpy.ndarray
        float of shape (dim,).
    status : Ending
    stepsize : float
    steps, times, loss, gradient_norm, accuracy, test_loss : numpy.ndarray
        The evaluations, each of shape (n_evaluations,), as in `replay`.
    failures : list of str
        What went wrong with jobs that were lost, at most the first hundred.
    n_refused : int
        Gradients refused because they held NaN or infinity.
    settings : dict
        What the numbers follow from, by name, as checkpoints have it.
    """

    trace: Trace
    model: np.ndarray
    status: Ending
    stepsize: float
    steps: np.ndarray
    times: np.ndarray
    loss: np.ndarray
    gradient_norm: np.ndarray
    accuracy: np.ndarray
    test_loss: np.ndarray
    failures: list[str] = field(default_factory=list)
    n_refused: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What it is, in one line."""
        header = self.trace.header
        return (
            f"<Training by {header.method} on {header.n_workers} workers: {self.trace.n_steps} "
            f"steps in {header.end_time:.3g} s, stopped by {self.status}>"
        )


def train(
    problem: Problem,
    method: Method | str,
    stepsize: float,
    *,
    engine: Engine | None = None,
    steps: int | None = None,
    jobs: int | None = None,
    until_time: float | None = None,
    target: float | None = None,
    seed: int = 0,
    method_stepsize: Stepsize | str | None = None,
    encoder: Encoder | str | None = None,
    correction: Correction | str | None = None,
    optimizer: Optimizer | str | None = None,
    x0: np.ndarray | None = None,
    dtype: str | None = None,
    evaluate_every: float | None = 1.0,
    max_refused: int = 10,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_arrival: Callable[[Job], None] | None = None,
    on_evaluation: Callable[[int, float, float, float], None] | None = None,
) -> Training:
    """Run `method` over real workers until the first limit that is reached.

    The server's step is the compiled code of `replay`. A gradient enters at most once: what arrives
    for a job that was cancelled or given up is ignored. If a worker fails, or its gradient holds
    NaN or infinity, the job is marked lost and the worker given another at the current model. If a
    worker is gone for good, methods that assign jobs to any worker give its jobs to the next one.

    Parameters
    ----------
    problem : Problem
    method : Method or str
        An object, or a text as on the command line: "ringmaster:max_delay=8".
    stepsize : float > 0
        γ.
    engine : Engine, optional
        By default `Threads()`.
    steps, jobs : int >= 0, optional
        Stop after so many server steps, or arrivals.
    until_time : float > 0, optional
        Seconds.
    target : float > 0, optional
        Stop once ‖∇f‖ is seen at or below this; for a problem that evaluates ∇f.
    seed : int >= 0
        Fixes the method's choices, the sampled rows and the noise; not who is how fast.
    method_stepsize, encoder, correction, optimizer, x0, dtype
        As in `replay`; the encoder runs where the worker is. A stepsize that needs the concurrency
        takes the number of first jobs.
    evaluate_every : float > 0, optional
        Seconds between evaluations, which a thread of their own does; x_0 and the last model are
        evaluated too. None: nothing is ever evaluated, and a run that diverges is noticed only by
        `max_refused`.
    max_refused : int >= 0
        Stop as diverged after more gradients than this with NaN or infinity.
    checkpoints : Checkpoints, optional
        Where and how often the run is saved.
    resume : bool
        Go on from the newest whole checkpoint, with the same problem and settings; the limits count
        from the run's beginning. Jobs that were under way are given out again.
    on_step : callable, optional
        Called with the step's number and time after every step, from any thread, one at a time.
    on_arrival : callable, optional
        Called with every job that arrives, likewise.
    on_evaluation : callable, optional
        Called with step, time, f and ‖∇f‖, from the evaluating thread. What a callback raises ends
        the run, and is raised here once the run is saved.

    Returns
    -------
    Training
        After Ctrl-C, what was done until then, with status "interrupted".

    Raises
    ------
    AsgradError
        If an argument is refused.

    Examples
    --------
    >>> import asgrad as ag
    >>> problem = ag.problems.Tridiagonal(8, n_workers=2, noise=0.01)
    >>> run = ag.train(problem, ag.methods.Pure(), 0.1, steps=200)
    >>> again = ag.replay(run.trace, problem, 0.1)
    >>> bool((again.models[:, 0] == run.model).all())
    True
    """
    check_problem("train", problem)
    decisions: Method = resolve("train", "method", method, Method, "ag.methods.Pure()")
    if engine is not None:
        check_kind("train", "engine", engine, Engine, "ag.Threads()")
    if checkpoints is not None:
        check_kind("train", "checkpoints", checkpoints, Checkpoints, "ag.Checkpoints('kept')")
    method_stepsize, encoder, correction, optimizer = resolved_parts(
        "train", method_stepsize, encoder, correction, optimizer
    )
    check_callable("train", "on_step", on_step)
    check_callable("train", "on_arrival", on_arrival)
    check_callable("train", "on_evaluation", on_evaluation)
    bounds = Bounds.checked(steps, jobs, until_time, target, evaluate_every, max_refused)
    check_target(problem, target, evaluate_every)
    check_positive("train", "stepsize", stepsize)
    dtype = checked_dtype(problem, dtype)
    start = checked_start("train", problem, x0)
    opening = decisions.begin(problem.n_workers, seed)
    numbers = Arithmetic(
        problem, opening, method_stepsize, correction, optimizer, start, stepsize, dtype
    )
    server = Server(decisions, opening, problem.n_workers, numbers)
    settings = {
        "method": decisions.label,
        "dtype": dtype,
        "seed": seed,
        "stepsize": float(stepsize),
        "method_stepsize": label(method_stepsize),
        "encoder": label(encoder) if encoder else "none",
        "correction": label(correction) if correction else "none",
        "optimizer": label(optimizer),
        "arithmetic": ARITHMETIC,
        "x0": hashed([start]),
        "problem": fingerprint(problem) if checkpoints is not None else {},
    }
    facts, done, digests = _before(server, checkpoints, settings, resume)
    if resume:
        check_beginning(problem, dtype, start, done)
    engine, clock = engine or Threads(), Stopwatch(facts.elapsed)
    run = Live(server, engine, bounds, facts, clock)
    run.on_step, run.on_arrival = on_step, on_arrival
    key = stream_key(seed, Purpose.GRADIENT)
    engine.open(RunContext(problem, key, dtype, seed, clock, run.deliver, run.ended, encoder))
    evaluator = Evaluator(problem, dtype, done, on_evaluation, never=evaluate_every is None)
    keeper = None
    if checkpoints is not None:
        keeper = Keeper(checkpoints, settings, server.n_steps, facts.elapsed, digests)
    status, end_time = _played(run, evaluator, keeper)
    header = Header(
        method=decisions.label,
        times=f"measured:{type(engine).__name__.lower()}",
        n_workers=problem.n_workers,
        seed=seed,
        end_time=end_time,
        stopped_by=str(status),
        versions=versions(),
    )
    names = ("steps", "times", "loss", "gradient_norm", "accuracy", "test_loss")
    evaluations: Any = zip(*evaluator.done, strict=True) if evaluator.done else [()] * len(names)
    found: dict[str, Any] = {
        name: np.array(column) for name, column in zip(names, evaluations, strict=True)
    }
    found["steps"] = found["steps"].astype(np.int64)
    return Training(
        trace=Trace(*server.tables(), header),
        model=server.x[:, 0].copy(),
        status=status,
        stepsize=stepsize,
        failures=facts.failures,
        n_refused=facts.n_refused,
        settings=settings,
        **found,
    )


def _played(run: Live, evaluator: Evaluator, keeper: Keeper | None) -> tuple[Ending, float]:
    """Run to the end, save the run, and stop its workers; return why and when it ended.

    Raises
    ------
    BaseException
        As `Live.play`, once all that is done; with a note on how to go on.
    """
    try:
        try:
            with ctrl_c_ends(run):
                status = run.play(evaluator, keeper)
        finally:
            end_time = run.clock()
            try:
                run.engine.close()
            finally:
                run.end(end_time)
        if evaluator.error is not None:
            raise evaluator.error
    except Exception as error:
        if keeper is not None:
            error.add_note(_WAY_ON.format(keeper.folder))
        raise
    return (Ending.DIVERGED if evaluator.blown_up() else status), end_time


def _before(
    server: Server, checkpoints: Checkpoints | None, settings: dict[str, Any], resume: bool
) -> tuple[Facts, list[Evaluation], dict[str, str]]:
    """Return what was before this part of the run; bring a new server to where that ended."""
    if checkpoints is not None:
        need_safetensors()
    if not resume:
        if checkpoints is not None and list_checkpoints(checkpoints.folder):
            raise AsgradError(
                f"train: {checkpoints.folder} holds the checkpoints of another run; resume it, or "
                "choose another folder."
            )
        return Facts(0.0, 0, 0, [], []), [], {}
    if checkpoints is None:
        raise AsgradError("train: to resume, say from which checkpoints: Checkpoints(folder).")
    state, facts = load_newest(checkpoints.folder, settings)
    server.restore(state)
    done = [(int(step), *numbers) for step, *numbers in facts.pop("evaluations")]
    digests = facts.pop("digests")
    return Facts(**facts), done, digests
