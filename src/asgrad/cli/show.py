"""asgrad show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asgrad.cli.output import print_summary, print_table, print_training

__all__ = ["show"]


def show(
    run: Annotated[Path, typer.Argument(help="A folder that compare, train or simulate wrote.")],
) -> None:
    """Print the table of a finished comparison, how a training ended, or what a trace holds."""
    from asgrad.experiments import Comparison
    from asgrad.experiments.run import refuse_begun
    from asgrad.experiments.stored import is_run
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
