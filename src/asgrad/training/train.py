"""train: run a method over real workers, and record the run as a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, check_callable, check_kind, check_positive
from asgrad.files import need_safetensors
from asgrad.methods.base import AnyMethod
from asgrad.numerics.prepared import checked_dtype
from asgrad.numerics.replay import checked_start
from asgrad.problems.base import Problem, check_problem
from asgrad.problems.fingerprint import fingerprint, hashed
from asgrad.recipes import Recipe, recipe_of
from asgrad.simulation.simulate import versions
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Header, Trace
from asgrad.training.arithmetic import ARITHMETIC, Arithmetic
from asgrad.training.checkpoint import Checkpoints, Keeper, list_checkpoints, load_newest
from asgrad.training.evaluation import (
    Evaluation,
    Evaluator,
    OnEvaluation,
    check_beginning,
    check_target,
)
from asgrad.training.live import Bounds, Ending, Facts, Live, ctrl_c_ends
from asgrad.training.server import Server
from asgrad.workers.base import Job, RunContext, Session, Workers
from asgrad.workers.threads import Threads

__all__ = ["Training", "train"]

_WAY_ON = "asgrad: the run is kept in {}; go on with resume=True, as a command with --resume."


@dataclass(frozen=True, eq=False)
class Training:
    """A finished live run.

    Attributes
    ----------
    trace : Trace
        Replaying it with the same problem and stepsize gives back `model` bit for bit.
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
            f"<Training by {header.recipe} on {header.n_workers} workers: {self.trace.n_steps} "
            f"steps in {header.end_time:.3g} s, stopped by {self.status}>"
        )


def train(
    problem: Problem,
    recipe: Recipe | AnyMethod | str | tuple[Any, ...],
    stepsize: float,
    *,
    workers: Workers | None = None,
    steps: int | None = None,
    jobs: int | None = None,
    until_time: float | None = None,
    target: float | None = None,
    seed: int = 0,
    x0: np.ndarray | None = None,
    dtype: str | None = None,
    evaluate_every: float | None = 1.0,
    max_refused: int = 10,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    on_open: Callable[[Session], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_arrival: Callable[[Job], None] | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Training:
    """Run a recipe over real workers until the first limit that is reached.

    The server's step is the compiled code of `replay`. A gradient enters at most once: what arrives
    for a job that was cancelled or given up is ignored. If a worker fails, or its gradient holds
    NaN or infinity, the job is marked lost and the worker given another at the current model. If a
    worker is gone for good, methods that assign jobs to any worker give its jobs to the next one.

    Parameters
    ----------
    problem : Problem
    recipe : Recipe, method, tuple of them and parts, or str
        Objects, or a text as on the command line: "ringmaster:max_delay=8+heavy-ball". A part that
        needs the concurrency takes the number of first jobs.
    stepsize : float > 0
        γ.
    workers : Workers, optional
        Who computes; by default `Threads()`.
    steps, jobs : int >= 0, optional
        Stop after so many server steps, or arrivals.
    until_time : float > 0, optional
        Seconds.
    target : float > 0, optional
        Stop once ‖∇f‖ is seen at or below this; for a problem that evaluates ∇f.
    seed : int >= 0
        Fixes the method's choices, the sampled rows and the noise; not who is how fast.
    x0, dtype
        As in `replay`.
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
    on_open : callable, optional
        Called once, before the first jobs are given out, with the session of the workers: of `Ray`
        it has `leave`, `join` and `pids`.
    on_step : callable, optional
        Called with the step's number and time after every step, from any thread, one at a time.
    on_arrival : callable, optional
        Called with every job that arrives, likewise.
    on_evaluation : callable, optional
        Called with step, time, f and ‖∇f‖, from the evaluating thread; where it has parameters of
        the names `accuracy` and `test_loss`, it is given them too. What a callback raises ends the
        run, and is raised here once the run is saved.

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
    recipe = recipe_of("train", recipe)
    decisions: Any = recipe.method
    workers = Threads() if workers is None else workers
    check_kind("train", "workers", workers, Workers, "ag.Threads()")
    if checkpoints is not None:
        check_kind("train", "checkpoints", checkpoints, Checkpoints, "ag.Checkpoints('kept')")
    check_callable("train", "on_open", on_open)
    check_callable("train", "on_step", on_step)
    check_callable("train", "on_arrival", on_arrival)
    check_callable("train", "on_evaluation", on_evaluation)
    bounds = Bounds.checked(steps, jobs, until_time, target, evaluate_every, max_refused)
    check_target(problem, target, evaluate_every)
    check_positive("train", "stepsize", stepsize)
    dtype = checked_dtype(problem, dtype)
    start = checked_start("train", problem, x0)
    opening = decisions.begin(problem.n_workers, seed)
    numbers = Arithmetic(problem, recipe, opening, start, stepsize, dtype)
    works = recipe.work.gradients(problem.n_workers) if recipe.work else None
    server = Server(decisions, opening, problem.n_workers, numbers, works)
    settings = {
        "recipe": recipe.label,
        "dtype": dtype,
        "seed": seed,
        "stepsize": float(stepsize),
        **numbers.bound,
        "arithmetic": ARITHMETIC,
        "x0": hashed([start]),
        "times": workers.times_label if workers.is_virtual else "measured",
        "problem": fingerprint(problem) if checkpoints is not None else {},
    }
    facts, done, digests, segments, memories = _before(server, checkpoints, settings, resume)
    if resume:
        check_beginning(problem, dtype, start, done)
    run = Live(server, bounds, facts, workers.clock(facts.elapsed))
    run.on_step, run.on_arrival = on_step, on_arrival
    key = stream_key(seed, Purpose.GRADIENT)
    context = RunContext(
        problem, key, dtype, seed, run.clock, run.deliver, run.ended, kept=facts.workers,
        max_steps=bounds.steps, max_jobs=bounds.jobs, until_time=bounds.until_time,
        encoder=recipe.encoder, work=recipe.work, next_alarm=lambda: server.next_alarm,
        resumed=resume, memories=memories,
    )  # fmt: skip
    session = _opened(workers, context, on_open)
    server.sends = session.sends
    beside, never = not workers.is_virtual, evaluate_every is None
    evaluator = Evaluator(problem, dtype, done, on_evaluation, never=never, beside=beside)
    keeper = None
    if checkpoints is not None:
        keeper = Keeper(checkpoints, settings, server.n_steps, facts.elapsed, digests, segments)
    status, end_time = _played(run, session, evaluator, keeper)
    header = Header(
        method=decisions.label,
        times=workers.times_label,
        n_workers=problem.n_workers,
        seed=seed,
        end_time=end_time,
        stopped_by=str(status),
        versions=versions(),
        recipe=recipe.label,
        bound=dict(numbers.bound),
    )
    return Training(
        trace=Trace.of(server.tables(), header),
        model=server.x[:, 0].copy(),
        status=status,
        stepsize=stepsize,
        failures=facts.failures,
        n_refused=facts.n_refused,
        settings=settings,
        **evaluator.columns(),
    )


def _opened(
    workers: Workers, context: RunContext, on_open: Callable[[Session], None] | None
) -> Session:
    """Start the workers, and show them to whoever wants to see them."""
    session = workers.open(context)
    try:
        if on_open:
            on_open(session)
    except BaseException:
        session.close()
        raise
    return session


def _played(
    run: Live, session: Session, evaluator: Evaluator, keeper: Keeper | None
) -> tuple[Ending, float]:
    """Run to the end, save the run, and stop its workers; return why and when it ended.

    Raises
    ------
    BaseException
        As `Live.play`, once all that is done; with a note on how to go on.
    """
    try:
        try:
            with ctrl_c_ends(run):
                status = run.play(session, evaluator, keeper)
        finally:
            end_time = run.clock()
            try:
                session.close()
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
) -> tuple[Facts, list[Evaluation], dict[str, str], list[list[Any]], np.ndarray | None]:
    """Return what was before this part of the run; bring a new server to where that ended."""
    if checkpoints is not None:
        need_safetensors()
    if not resume:
        if checkpoints is not None and list_checkpoints(checkpoints.folder):
            raise AsgradError(
                f"train: {checkpoints.folder} holds the checkpoints of another run; resume it, or "
                "choose another folder."
            )
        return Facts(0.0, 0, 0, []), [], {}, [], None
    if checkpoints is None:
        raise AsgradError("train: to resume, say from which checkpoints: Checkpoints(folder).")
    state, parts, head = load_newest(checkpoints.folder, settings)
    facts = head["facts"]
    server.restore(parts, state)
    done = [(int(step), *numbers) for step, *numbers in facts.pop("evaluations")]
    digests = facts.pop("digests")
    return Facts(**facts), done, digests, head["journal"], state.get("memories")
