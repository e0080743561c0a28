"""asgrad replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asgrad.cli.options import Insist, numbers, with_options
from asgrad.cli.output import label, print_lanes, print_notes, progress
from asgrad.errors import AsgradError
from asgrad.experiments.config import ProblemConfig

__all__ = ["replay"]


@with_options(ProblemConfig, leave_out={"workers"})
def replay(
    said: dict[str, Any],
    trace: Annotated[Path, typer.Argument(help="A trace, or a run that train wrote.")],
    stepsizes: Annotated[
        str | None,
        typer.Option("--stepsizes", "--stepsize", help="Stepsizes, joined by commas."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Parts other than the trace's own, e.g. koloskova+heavy-ball."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.toml of a run, which names the problem.")
    ] = None,
    insist: Insist = False,
) -> None:
    """Compute the run that a trace describes, for every stepsize.

    The problem is that of the run in which the trace lies, or of --config, else the default of
    train; of a comparison's trace the options given here override it.
    """
    from asgrad.experiments.question import default_stepsizes
    from asgrad.experiments.training import StoredTraining
    from asgrad.experiments.training_folder import is_training, refuse_unfinished
    from asgrad.numerics import replay as run
    from asgrad.trace import Trace
    from asgrad.trace.parquet import is_trace

    grid = None if stepsizes is None else numbers("stepsizes", stepsizes)
    if config is None:  # the run that a trace lies in knows the problem
        within = trace.absolute().parent
        beside = within.parent / "config.toml"
        if trace.name == "trace" and is_training(within) and not said:
            trace = within
        elif within.name == "traces" and is_trace(trace) and beside.exists():
            config = beside
    if is_training(trace):
        if config is not None or said.keys() - {"data", "test", "x0"}:
            raise AsgradError(
                f"replay: {trace} names its own problem; of --config and the options of the "
                "problem only --data, --test and --x0 may be given, where files have moved."
            )
        stored = StoredTraining.load(trace)
        read, built = stored.trace, stored.config.model_copy(update=said).build_problem()
        print_notes(built)
        with progress("replaying") as tell:
            result = stored.replay(built, grid, recipe=recipe, progress=tell, insist=insist)
    else:
        if not is_trace(trace):
            refuse_unfinished(trace)
        read = Trace.load(trace)
        built = ProblemConfig.read(config, {**said, "workers": read.n_workers}).build_problem()
        print_notes(built)
        with progress("replaying") as tell:
            grid = grid or default_stepsizes(built.smoothness)
            result = run(read, built, grid, recipe=recipe, progress=tell, insist=insist)
    print(f"{read.header.recipe}, {read.n_steps} steps, {read.header.end_time:g} s; {label(built)}")
    print_lanes(result)
