"""asgrad simulate."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from asgrad.cli.options import Out, Overwrite, Steps, TimesText, UntilTime, Workers
from asgrad.cli.output import print_summary, progress

__all__ = ["simulate"]


def simulate(
    recipe: Annotated[str, typer.Argument(help="METHOD[:PARAMETERS][+PART]…, see asgrad methods.")],
    times: TimesText = "linear",
    workers: Workers = 10,
    steps: Steps = None,
    until_time: UntilTime = None,
    jobs: Annotated[int | None, typer.Option(help="Stop after this many arrivals.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Play a run that is guessed to be too large.")
    ] = False,
) -> None:
    """Play a method in virtual time; write its trace with --out, print what can be read off it."""
    from asgrad.files import check_target
    from asgrad.simulation import simulate as run
    from asgrad.trace.parquet import TRACE

    if steps is None and until_time is None and jobs is None:
        steps = 1000
    if out is not None:  # before the work, not after it
        out = os.path.expanduser(out)
        check_target(out, TRACE, overwrite=overwrite)
    with progress("simulating") as tell:
        trace = run(
            recipe,
            times or "linear",
            n_workers=10 if workers is None else workers,
            steps=steps,
            until_time=until_time,
            jobs=jobs,
            seed=seed,
            progress=tell,
            insist=insist,
        )
    print_summary(trace)
    if out is not None:
        print(f"Trace: {trace.save(out, overwrite=overwrite, elsewhere=True)}")
