"""asgrad simulate."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from asgrad.cli.options import Out, Steps, TimesText, UntilTime, Workers
from asgrad.cli.output import print_summary

__all__ = ["simulate"]


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
    print_summary(trace)
    if out:
        print(f"Trace: {trace.save(os.path.expanduser(out))}")
