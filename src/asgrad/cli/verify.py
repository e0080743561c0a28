"""asgrad verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asgrad.cli.options import with_options
from asgrad.cli.output import print_notes
from asgrad.errors import AsgradError
from asgrad.experiments.config import ProblemConfig

__all__ = ["verify"]


@with_options(ProblemConfig, only=("data", "test", "x0"))
def verify(
    said: dict[str, Any],
    run: Annotated[Path, typer.Argument(help="A run that train wrote.")],
) -> None:
    """Compute a run that train wrote anew from its trace, and compare the bits of its models.

    The options say where files of the problem are, if they have moved.
    """
    from asgrad.experiments.training import StoredTraining
    from asgrad.experiments.training_folder import is_training
    from asgrad.trace.parquet import is_trace

    if run.name == "trace" and is_training(run.absolute().parent):
        run = run.absolute().parent
    if is_trace(run):
        raise AsgradError(f"verify: {run} is no run that train wrote; there is no model to verify.")
    stored = StoredTraining.load(run)
    problem = stored.config.model_copy(update=said).build_problem()
    print_notes(problem)
    steps = stored.verify(problem)
    print(
        f"{run}: the replay gives back the run bit for bit: {len(steps)} models compared, from "
        f"step {steps[0]} to {steps[-1]}."
    )
