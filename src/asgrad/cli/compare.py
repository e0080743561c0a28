"""asgrad compare, asgrad show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asgrad.cli.options import (
    Alpha,
    Batch,
    Config,
    DataText,
    Equal,
    Out,
    Overwrite,
    ProblemText,
    Regularizer,
    SplitText,
    StartText,
    Steps,
    Stepsizes,
    Strength,
    TestText,
    TimesText,
    UntilTime,
    Workers,
    given,
    numbers,
    test_rows,
)
from asgrad.cli.output import print_notes, print_summary, print_table, print_training, progress
from asgrad.errors import AsgradError

__all__ = ["compare", "show"]

_ADDABLE = {"methods", "seeds", "stepsizes", "best", "window", "target", "widen"}
"""What may be said of a comparison that goes on."""


def compare(
    config: Config = None,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    alpha: Alpha = None,
    equal: Equal = None,
    test: TestText = None,
    batch: Batch = None,
    x0: StartText = None,
    regularizer: Regularizer = None,
    strength: Strength = None,
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
    best: Annotated[
        str | None,
        typer.Option(
            help="What stepsizes are chosen by: gradient_norm, loss, test_loss, accuracy or "
            "time_to_target."
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="The last share of the run whose median counts.")
    ] = None,
    widen: Annotated[
        int | None, typer.Option(help="How far a grid may grow on either side.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Values to reach, e.g. 0.1,0.05: of what is chosen by.")
    ] = None,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations of each run.")] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Compute what is guessed to be too large.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run, interrupted or finished; methods, seeds and stepsizes that "
            "are given are added, and nothing is computed twice."
        ),
    ] = None,
) -> None:
    """Compare methods, each with its best stepsize, by step and by time.

    Without arguments: softmax on the bundled digits over ten workers with linear speeds, once with
    equal data, once split by label.
    """
    from asgrad import times as times_room
    from asgrad.experiments import CompareConfig
    from asgrad.experiments import compare as run
    from asgrad.experiments.run import open_run, stored_config
    from asgrad.registry import label as text_of

    if times == times_room.FromRun.name and config is not None and config.is_dir():
        times, config = text_of(times_room.FromRun(str(config))), None  # --times from-run RUN
    said = given(
        data=data,
        problem=problem,
        split=_one_or_several(split),
        alpha=alpha,
        equal=equal,
        test=test_rows(test),
        batch=batch,
        x0=x0,
        regularizer=regularizer,
        strength=strength,
        workers=workers,
        times=times,
        methods=None if methods is None else _method_names(methods),
        stepsizes=numbers("stepsizes", stepsizes),
        widen=widen,
        steps=steps,
        until_time=until_time,
        seeds=seeds,
        best=best,
        window=window,
        target=numbers("target", target),
        evaluations=evaluations,
        out=out,
    )
    if resume is not None:
        others = sorted({*said, *(["CONFIG"] if config else [])} - _ADDABLE)
        if others:
            raise AsgradError(
                f"compare: a comparison that goes on keeps its settings; leave out "
                f"{', '.join(others)}."
            )
        config = stored_config(resume)
    settings = CompareConfig.read(config, said)
    built = settings.build_problems()
    print_notes(*(built.values() if isinstance(built, dict) else [built]))
    place = resume or settings.out
    # The folder's own name is not in its config: with that the run can be made again elsewhere.
    stored = settings.model_dump(exclude={"out"})
    with (
        open_run(place, config=stored, overwrite=overwrite, resume=resume is not None) as folder,
        progress("comparing") as tell,
    ):
        try:
            comparison = run(
                built,
                settings.times,
                settings.methods,
                stepsizes=settings.stepsizes,
                extra_stepsizes=settings.extra_stepsizes,
                widen=settings.widen,
                seeds=settings.seeds,
                steps=settings.steps,
                until_time=settings.until_time,
                best=settings.best,
                window=settings.window,
                target=settings.target,
                evaluations=settings.evaluations,
                out=folder,
                progress=tell,
                insist=insist,
            )
        except KeyboardInterrupt:
            print(f"asgrad: interrupted. {folder.way_on}", file=sys.stderr)
            raise typer.Exit(130) from None
    for panel in comparison.panels:
        if not panel.name:
            print(panel.problem)
    print(f"times {settings.times}")
    print_table(comparison)
    if not comparison.complete:
        print(f"asgrad: interrupted. {folder.way_on}", file=sys.stderr)
        raise typer.Exit(130)
    print(f"Run: {folder.target}   Figures: {folder.target / 'figures'}")


def _one_or_several(text: str | None) -> str | list[str] | None:
    """Return the words of a text, a single one as it is."""
    if text is None:
        return None
    words = text.split()
    return words[0] if len(words) == 1 else words


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
    run: Annotated[Path, typer.Argument(help="A folder that compare, train or simulate wrote.")],
) -> None:
    """Print the table of a finished comparison, how a training ended, or what a trace holds."""
    from asgrad.experiments import Comparison
    from asgrad.experiments.run import is_run, refuse_begun
    from asgrad.experiments.training import StoredTraining
    from asgrad.experiments.training_folder import is_training, refuse_unfinished
    from asgrad.trace import Trace
    from asgrad.trace.parquet import is_trace

    if is_training(run):
        print_training(str(run), StoredTraining.load(run))
        return
    if is_trace(run):
        print_summary(Trace.load(run))
        return
    if not is_run(run):
        refuse_begun(run)
        refuse_unfinished(run)
    print_table(Comparison.load(run))
