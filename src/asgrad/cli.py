"""The command line: asgrad compare, train, profile, simulate, replay, show, methods."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asgrad.errors import AsgradError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["app", "main"]

# Newer releases of typer carry their own copy of click: this is the usage error of either.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Plan, run and replay stochastic gradient descent on workers of unequal speed.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Workers = Annotated[int | None, typer.Option(help="Number of workers.")]
TimesText = Annotated[str | None, typer.Option(help="Worker times, e.g. normal:scale=sqrt.")]
Steps = Annotated[int | None, typer.Option(help="Stop after this many server steps.")]
UntilTime = Annotated[float | None, typer.Option(help="Stop at this time, in seconds.")]
Stepsizes = Annotated[
    str | None, typer.Option("--stepsizes", "--stepsize", help="Stepsizes, e.g. 0.01,0.1,1.")
]
DataText = Annotated[
    str | None, typer.Option(help="digits, breast-cancer, a LIBSVM file, CIFAR-10's folder.")
]
ProblemText = Annotated[
    str | None,
    typer.Option(help="auto, logistic, softmax, least-squares, tridiagonal, mlp, cnn or resnet20."),
]
SplitText = Annotated[str | None, typer.Option(help="contiguous, shuffled, label or dirichlet.")]
Batch = Annotated[int | None, typer.Option(help="Rows of a stochastic gradient; 0: all.")]
EngineName = Annotated[
    str | None, typer.Option(help="Who the workers are: threads of this process, or ray.")
]
Address = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster; by default Ray is started here.")
]
Slowdown = Annotated[str | None, typer.Option(help="A factor >= 1 for every worker, e.g. 1,1,5.")]
Out = Annotated[str | None, typer.Option(help="Folder to write to.")]


def main() -> None:
    """Run the command line; an error is one plain line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except AsgradError as error:
        print(f"asgrad: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"asgrad: {error.strerror or error}: {error.filename}.", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        print(f"asgrad: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("asgrad: interrupted.", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        from asgrad import __version__

        print(f"asgrad {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compare(
    config: Annotated[Path | None, typer.Argument(help="CONFIG.toml; options override it.")] = None,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
    workers: Workers = None,
    times: TimesText = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods joined by spaces, each METHOD[:PARAMETERS][+STEPSIZE]."),
    ] = None,
    stepsizes: Stepsizes = None,
    steps: Steps = None,
    until_time: UntilTime = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    target: Annotated[float | None, typer.Option(help="Gradient norm to reach.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations of each run.")] = None,
    regularizer: Annotated[str | None, typer.Option(help="l2 or nonconvex.")] = None,
    strength: Annotated[float | None, typer.Option(help="λ of the regularizer.")] = None,
    alpha: Annotated[float | None, typer.Option(help="α of the Dirichlet split.")] = None,
    out: Out = None,
) -> None:
    """Compare methods on one problem, each with its best stepsize, by step and by time.

    Without arguments: softmax on the bundled digits, split by label over ten workers with linear
    speeds.
    """
    from asgrad import times as times_room
    from asgrad.experiments import CompareConfig
    from asgrad.experiments import compare as run
    from asgrad.registry import build

    said = {
        "data": data,
        "problem": problem,
        "split": split,
        "batch": batch,
        "workers": workers,
        "times": times,
        "methods": None if methods is None else methods.split(),
        "stepsizes": _numbers("stepsizes", stepsizes),
        "steps": steps,
        "until_time": until_time,
        "seeds": seeds,
        "target": target,
        "evaluations": evaluations,
        "regularizer": regularizer,
        "strength": strength,
        "alpha": alpha,
        "out": out,
    }
    settings = CompareConfig.read(config, {k: v for k, v in said.items() if v is not None})
    from asgrad.experiments.run import check_writable

    check_writable(settings.out)
    built = settings.build_problem()
    with _progress("comparing") as tell:
        comparison = run(
            built,
            build("worker times", times_room, settings.times),
            settings.methods,
            stepsizes=settings.stepsizes,
            seeds=settings.seeds,
            steps=settings.steps,
            until_time=settings.until_time,
            target=settings.target,
            evaluations=settings.evaluations,
            progress=tell,
        )
    out = settings.out
    if not comparison.complete and Path(out).exists():  # what is whole is worth more
        out = f"{out}-interrupted"
    folder = comparison.save(out, settings.model_dump())
    limit = (
        f"{settings.steps} steps" if settings.until_time is None else f"{settings.until_time:g} s"
    )
    said_seeds = "1 seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    print(f"{_label(built)}, times {settings.times}, {limit}, {said_seeds}, "
          f"L = {comparison.smoothness:.4g}")  # fmt: skip
    _print_table(comparison.lines, comparison.target, comparison.smoothness)
    print(f"Run: {folder}   Figures: {folder / 'figures'}")
    if not comparison.complete:
        print("asgrad: interrupted; what was finished is kept.", file=sys.stderr)
        raise typer.Exit(130)


@app.command()
def simulate(
    method: Annotated[str, typer.Argument(help="METHOD[:PARAMETERS], see asgrad methods.")],
    times: TimesText = "linear",
    workers: Workers = 10,
    steps: Steps = None,
    until_time: UntilTime = None,
    jobs: Annotated[int | None, typer.Option(help="Stop after this many arrivals.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Out = None,
) -> None:
    """Play a method in virtual time; write its trace with --out, print what can be read off it."""
    from asgrad import methods as method_room
    from asgrad import times as times_room
    from asgrad.engines import simulate as run
    from asgrad.registry import build

    if steps is None and until_time is None and jobs is None:
        steps = 1000
    trace = run(
        build("method", method_room, method),
        build("worker times", times_room, times or "linear"),
        n_workers=10 if workers is None else workers,
        steps=steps,
        until_time=until_time,
        jobs=jobs,
        seed=seed,
    )
    _print_summary(trace)
    if out:
        print(f"Trace: {trace.save(out)}")


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="CONFIG.toml; options override it.")] = None,
    method: Annotated[str | None, typer.Option(help="METHOD[:PARAMETERS][+STEPSIZE].")] = None,
    stepsize: Annotated[float | None, typer.Option(help="γ; by default 1/(4L).")] = None,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
    workers: Workers = None,
    steps: Steps = None,
    until_time: UntilTime = None,
    target: Annotated[float | None, typer.Option(help="Stop at this gradient norm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    engine: EngineName = None,
    address: Address = None,
    slowdown: Slowdown = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run from its newest checkpoint; new limits may be set."),
    ] = None,
    out: Out = None,
) -> None:
    """Run a method on real workers; the run survives crashes and can be replayed bit for bit."""
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import (
        check_training,
        resume_training,
        run_training,
        save_training,
    )

    said = {
        "method": method,
        "stepsize": stepsize,
        "data": data,
        "problem": problem,
        "split": split,
        "batch": batch,
        "workers": workers,
        "steps": steps,
        "until_time": until_time,
        "target": target,
        "seed": seed,
        "engine": engine,
        "address": address,
        "slowdown": _numbers("slowdown", slowdown),
        "out": out,
    }
    said = {k: v for k, v in said.items() if v is not None}
    if resume is not None:
        others = sorted(
            {*said, *(["CONFIG"] if config else [])} - {"steps", "until_time", "target"}
        )
        if others:
            raise AsgradError(
                f"train: a resumed run keeps its settings; leave out {', '.join(others)}."
            )
        settings = resume_training(resume, said)
        built = settings.build_problem()
    else:
        settings = TrainConfig.read(config, said)
        check_training(settings.out)
        built = settings.build_problem()
    with _live_line(settings.method) as callbacks:
        done = run_training(settings, built, resume=resume is not None, **callbacks)
    folder = save_training(done, settings)
    print(f"{_label(built)}: stopped by {done.status}")
    _print_summary(done.trace)
    print(f"‖∇f‖ {done.gradient_norm[0]:.3e} → {done.gradient_norm[-1]:.3e}, "
          f"loss {done.loss[-1]:.5g}, accuracy {done.accuracy[-1]:.1%}")  # fmt: skip
    if done.failures:
        print(f"{len(done.failures)} jobs failed, first: {done.failures[0]}")
    print(f"Run: {folder}   Check it: asgrad replay {folder} --verify")


@app.command()
def profile(
    config: Annotated[Path | None, typer.Argument(help="CONFIG.toml; options override it.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 60.0,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
    workers: Workers = None,
    engine: EngineName = None,
    address: Address = None,
    slowdown: Slowdown = None,
    out: Out = "runs/profile",
) -> None:
    """Measure how long each worker takes for a gradient; compare can then simulate on them."""
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import check_training, run_training, save_training
    from asgrad.times.measured import measured_times

    said = {
        "data": data,
        "problem": problem,
        "split": split,
        "batch": batch,
        "workers": workers,
        "engine": engine,
        "address": address,
        "slowdown": _numbers("slowdown", slowdown),
        "out": out,
        "method": "pure",
        "stepsize": 1e-9,  # the model hardly moves: only the times count
        "steps": None,
        "target": None,
        "until_time": seconds,
        "evaluate_every": max(seconds, 1e-3),
    }
    limits = ("steps", "target")
    settings = TrainConfig.read(
        config, {k: v for k, v in said.items() if v is not None or k in limits}
    )
    check_training(settings.out)
    built = settings.build_problem()
    with _live_line("profile") as callbacks:
        done = run_training(settings, built, **callbacks)
    folder = save_training(done, settings)
    print(f"{_label(built)}, {settings.engine}: {done.trace.header.end_time:.3g} s measured")
    _print_times(measured_times(done.trace))
    if done.failures:
        print(f"{len(done.failures)} jobs failed, first: {done.failures[0]}")
    print(f"Compare methods on these workers: asgrad compare --workers {built.n_workers} "
          f"--times from-run:{folder}")  # fmt: skip


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="A trace, or a run that train wrote.")],
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
    stepsizes: Stepsizes = None,
    method_stepsize: Annotated[
        str | None,
        typer.Option(help="How the stepsize depends on the delay, e.g. koloskova."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.toml of a run, which names the problem.")
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Recompute a run that train wrote and compare the model's bits.")
    ] = False,
) -> None:
    """Compute the run that a trace describes, for every stepsize.

    The problem is that of --config, else the default of compare with the options given here.
    """
    from asgrad import stepsizes as stepsize_room
    from asgrad.engines import replay as run
    from asgrad.experiments import CompareConfig
    from asgrad.experiments.comparison import default_stepsizes
    from asgrad.experiments.training import StoredTraining, is_training
    from asgrad.registry import build
    from asgrad.trace import Trace

    rule = build("stepsize", stepsize_room, method_stepsize) if method_stepsize else None
    numbers = _numbers("stepsizes", stepsizes)
    said = {"data": data, "problem": problem, "split": split, "batch": batch}
    said = {key: value for key, value in said.items() if value is not None}
    if config is None and not said:  # a trace that compare wrote stands beside its config
        beside = trace.absolute().parent.parent / "config.toml"
        config = beside if trace.absolute().parent.name == "traces" and beside.exists() else None
    if is_training(trace):
        if said:
            raise AsgradError(
                "replay: a training run names its own problem; leave the options out."
            )
        stored = StoredTraining.load(trace)
        read, built = stored.trace, stored.config.build_problem()
        if verify:
            steps = stored.verify(built)
            print(
                f"{trace}: the replay gives back the model bit for bit, compared at "
                f"{'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))}."
            )
            return
        with _progress("replaying") as tell:
            result = stored.replay(built, numbers, rule, progress=tell)
    elif verify:
        raise AsgradError(
            f"replay: {trace} is no run that train wrote; there is no model to verify."
        )
    else:
        read = Trace.load(trace)
        built = CompareConfig.read(config, {**said, "workers": read.n_workers}).build_problem()
        with _progress("replaying") as tell:
            grid = numbers or default_stepsizes(built.smoothness)
            result = run(read, built, grid, method_stepsize=rule, progress=tell)
    print(
        f"{read.header.method}, {read.n_steps} steps, {read.header.end_time:g} s; {_label(built)}"
    )
    _print_lanes(result)


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A folder that compare wrote.")]) -> None:
    """Print the table of a finished comparison."""
    from asgrad.experiments.run import load

    stored = load(run)
    _print_table(stored.lines, stored.target, stored.smoothness)
    if not stored.complete:
        print("This comparison was interrupted; methods that were not finished are missing.")


@app.command()
def methods() -> None:
    """List methods, stepsize rules and worker times, with their parameters and references."""
    from rich.console import Console
    from rich.table import Table

    from asgrad import methods as method_room
    from asgrad import stepsizes as stepsize_room
    from asgrad import times as times_room
    from asgrad.registry import references

    console = Console() if sys.stdout.isatty() else Console(width=200)
    rooms = (("method", method_room), ("+stepsize", stepsize_room), ("--times", times_room))
    for title, room in rooms:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in (title, "parameters", "what it does", "reference"):
            table.add_column(column)
        for row in references(room):
            table.add_row(*row)
        console.print(table)
        print()
    print("Write name:parameter=value,parameter=value; one number for each worker as 1/2/5.")


def _numbers(name: str, text: str | None) -> list[float] | None:
    """Return the numbers of a list joined by commas."""
    if text is None:
        return None
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise AsgradError(f"{name}: write numbers joined by commas, got {text!r}.") from None


def _label(problem: Any) -> str:
    """Return a problem in a few words."""
    return str(getattr(problem, "label", problem.name))


def _print_times(times: Any) -> None:
    """Print how long the jobs of every worker took."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in (
        "worker",
        "jobs",
        "median s",
        "mean s",
        "deviation",
        "slowest 1%",
        "times slower",
    ):
        table.add_column(title, justify="right")
    medians = [float(np.median(took)) if took.size else np.nan for took in times]
    for worker, took in enumerate(times):
        numbers = (medians[worker], took.mean(), took.std(), np.quantile(took, 0.99),
                   medians[worker] / np.nanmin(medians)) if took.size else ()  # fmt: skip
        table.add_row(str(worker), str(took.size), *(f"{number:.3g}" for number in numbers))
    Console().print(table)


def _print_lanes(result: Any) -> None:
    """Print how every lane of a replay ended."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("stepsize", "status", "final ‖∇f‖", "loss", "accuracy"):
        table.add_column(title, justify="right")
    for lane, stepsize in enumerate(result.stepsizes):
        table.add_row(
            f"{stepsize:.4g}",
            result.status[lane],
            f"{result.gradient_norm[-1, lane]:.3e}",
            f"{result.loss[-1, lane]:.5g}",
            f"{result.accuracy[-1, lane]:.1%}",
        )
    Console().print(table)


def _print_table(lines: Any, target: float, smoothness: float) -> None:
    """Print the table of a comparison, as wide as it needs where nobody watches."""
    from rich.console import Console

    from asgrad.report import print_comparison

    console = Console() if sys.stdout.isatty() else Console(width=160)
    print_comparison(console, lines, target, smoothness)


def _print_summary(trace: Any) -> None:
    """Print what can be read off a trace."""
    summary = trace.summary
    print(f"{trace.header.method}, times {trace.header.times}, {trace.n_workers} workers")
    print(f"steps {summary.n_steps} in {summary.end_time:g} s")
    print(f"jobs {summary.n_jobs}: applied {summary.n_applied}, dropped {summary.n_dropped}, "
          f"cancelled {summary.n_cancelled}, in flight {summary.n_in_flight}")  # fmt: skip
    print(f"delay: average {summary.tau_avg:.2f}, largest {summary.tau_max}; "
          f"concurrency {summary.tau_c}")  # fmt: skip
    idle = summary.idle_times.sum() / max(summary.end_time * trace.n_workers, 1e-300)
    print(f"idle {idle:.1%} of all workers' time; largest share of the work "
          f"{summary.work_shares.max():.1%}, smallest {summary.work_shares.min():.1%}")  # fmt: skip


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None] | None]:
    """Show a progress bar on a terminal; stay quiet elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.advance(task, share)


@contextmanager
def _live_line(title: str) -> Iterator[dict[str, Any]]:
    """Follow a live run on a terminal; stay quiet elsewhere."""
    if not sys.stderr.isatty():
        yield {}
        return
    from asgrad.report.live import live_line

    with live_line(title) as callbacks:
        yield callbacks


if __name__ == "__main__":
    main()
