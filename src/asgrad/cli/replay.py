"""asgrad replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asgrad.cli.options import (
    Alpha,
    Batch,
    DataText,
    Equal,
    ProblemText,
    Regularizer,
    SplitText,
    StartText,
    Stepsizes,
    Strength,
    TestText,
    given,
    numbers,
    test_rows,
)
from asgrad.cli.output import label, print_lanes, print_notes, progress
from asgrad.errors import AsgradError

__all__ = ["replay"]


def replay(
    trace: Annotated[Path, typer.Argument(help="A trace, or a run that train wrote.")],
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
    stepsizes: Stepsizes = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Parts other than the trace's own, e.g. koloskova+heavy-ball."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.toml of a run, which names the problem.")
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Recompute a run that train wrote and compare the model's bits.")
    ] = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Compute what takes more memory than there is.")
    ] = False,
) -> None:
    """Compute the run that a trace describes, for every stepsize.

    The problem is that of the run in which the trace lies, or of --config, else the default of
    train; of a comparison's trace the options given here override it.
    """
    from asgrad.experiments.config import ProblemConfig
    from asgrad.experiments.question import default_stepsizes
    from asgrad.experiments.training import StoredTraining
    from asgrad.experiments.training_folder import is_training, refuse_unfinished
    from asgrad.numerics import replay as run
    from asgrad.trace import Trace
    from asgrad.trace.parquet import is_trace

    if verify and (stepsizes or recipe):
        raise AsgradError(
            "replay: --verify recomputes the run as it was; leave stepsizes and recipe "
            "out, or ask without --verify."
        )
    grid = numbers("stepsizes", stepsizes)
    said = given(
        data=data, problem=problem, split=split, alpha=alpha, equal=equal, test=test_rows(test),
        batch=batch, x0=x0, regularizer=regularizer, strength=strength,
    )  # fmt: skip
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
        if verify:
            steps = stored.verify(built)
            print(
                f"{trace}: the replay gives back the run bit for bit: {len(steps)} models "
                f"compared, from step {steps[0]} to {steps[-1]}."
            )
            return
        with progress("replaying") as tell:
            result = stored.replay(built, grid, recipe=recipe, progress=tell, insist=insist)
    elif verify and is_trace(trace):
        raise AsgradError(
            f"replay: {trace} is no run that train wrote; there is no model to verify."
        )
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
