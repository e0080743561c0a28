"""asgrad compare, asgrad show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asgrad.cli.options import (
    Batch,
    Config,
    DataText,
    Out,
    ProblemText,
    SplitText,
    Steps,
    Stepsizes,
    TimesText,
    UntilTime,
    Workers,
    given,
    numbers,
)
from asgrad.cli.output import label, print_table, print_training, progress
from asgrad.errors import AsgradError

__all__ = ["compare", "show"]


def compare(
    config: Config = None,
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
    from asgrad.experiments.run import check_writable
    from asgrad.registry import build

    if times == times_room.FromRun.name and config is not None and config.is_dir():
        times, config = f"{times}:{config}", None  # --times from-run RUN
    said = given(
        data=data,
        problem=problem,
        split=split,
        batch=batch,
        workers=workers,
        times=times,
        methods=None if methods is None else _method_names(methods),
        stepsizes=numbers("stepsizes", stepsizes),
        steps=steps,
        until_time=until_time,
        seeds=seeds,
        target=target,
        evaluations=evaluations,
        regularizer=regularizer,
        strength=strength,
        alpha=alpha,
        out=out,
    )
    settings = CompareConfig.read(config, said)
    check_writable(settings.out)
    built = settings.build_problem()
    with progress("comparing") as tell:
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
    smoothness = comparison.smoothness
    known = f"L = {smoothness:.4g}" if smoothness > 0 else "L unknown"
    print(f"{label(built)}, times {settings.times}, {limit}, {said_seeds}, {known}")
    print_table(comparison.lines, comparison.target, smoothness)
    print(f"Run: {folder}   Figures: {folder / 'figures'}")
    if not comparison.complete:
        print("asgrad: interrupted; what was finished is kept.", file=sys.stderr)
        raise typer.Exit(130)


def _method_names(text: str) -> list[str]:
    """Return the methods of a list joined by spaces."""
    names = text.split()
    for name in names:
        if "," in name.partition(":")[0]:  # after a colon it stands between parameters
            raise AsgradError(
                f"methods: write them joined by spaces, got {name!r}: --methods "
                f'"{name.replace(",", " ")}".'
            )
    return names


def show(
    run: Annotated[Path, typer.Argument(help="A folder that compare or train wrote.")],
) -> None:
    """Print the table of a finished comparison, or how a training ended."""
    from asgrad.experiments.run import is_run, load
    from asgrad.experiments.training import StoredTraining
    from asgrad.experiments.training_folder import is_training, refuse_unfinished

    if is_training(run):
        print_training(str(run), StoredTraining.load(run))
        return
    if not is_run(run):
        refuse_unfinished(run)
    stored = load(run)
    print_table(stored.lines, stored.target, stored.smoothness)
    if not stored.complete:
        print("This comparison was interrupted; methods that were not finished are missing.")
