"""asgrad simulate."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from asgrad.cli.options import Insist, Out, Overwrite, with_options
from asgrad.cli.output import print_summary, progress
from asgrad.experiments.config import CompareConfig

__all__ = ["simulate"]


@with_options(CompareConfig, only=("times", "workers", "steps", "until_time"))
def simulate(
    said: dict[str, Any],
    recipe: Annotated[str, typer.Argument(help="METHOD[:PARAMETERS][+PART]…, see asgrad methods.")],
    jobs: Annotated[int | None, typer.Option(help="Stop after this many arrivals.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    insist: Insist = False,
) -> None:
    """Play a method in virtual time; write its trace with --out, print what can be read off it."""
    from asgrad.files import check_target
    from asgrad.simulation import simulate as run
    from asgrad.trace.parquet import TRACE

    if jobs is None and not said.keys() & {"steps", "until_time"}:
        said["steps"] = 1000
    times, n_workers = said.pop("times", "linear"), said.pop("workers", 10)
    if out is not None:  # before the work, not after it
        out = os.path.expanduser(out)
        check_target(out, TRACE, overwrite=overwrite)
    with progress("simulating") as tell:
        trace = run(
            recipe,
            times,
            n_workers=n_workers,
            jobs=jobs,
            **said,
            seed=seed,
            progress=tell,
            insist=insist,
        )
    print_summary(trace)
    if out is not None:
        print(f"Trace: {trace.save(out, overwrite=overwrite, elsewhere=True)}")
