"""asgrad profile."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer

from asgrad.cli.options import Config, Out, Overwrite, with_options
from asgrad.cli.output import label, live_line, print_failures, print_times
from asgrad.errors import check_positive
from asgrad.experiments.config import TrainConfig

__all__ = ["profile"]

_OF_A_RUN = {
    *("method", "stepsize", "steps", "until_time", "target", "max_refused", "evaluate_every"),
    *("checkpoint_seconds", "checkpoint_steps", "out"),
}
"""What does not matter where only times are measured."""


@with_options(TrainConfig, leave_out=_OF_A_RUN)
def profile(
    said: dict[str, Any],
    config: Config = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 60.0,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure how long each worker takes for a gradient; compare can then simulate on them.

    What is written is a trace: runs/profile, runs/profile-2, ... unless --out says where.
    """
    from asgrad.experiments.training import profile as measure
    from asgrad.files import check_target, free_name
    from asgrad.registry import label as text_of
    from asgrad.times import FromRun
    from asgrad.times.measured import measured_times
    from asgrad.trace.parquet import TRACE, is_trace

    check_positive("profile", "seconds", seconds)
    settings = TrainConfig.read(config, said)
    if out is None:
        folder = free_name("runs/profile")
    else:
        folder = check_target(out, TRACE, overwrite=overwrite)
    built = settings.build_problem()
    with live_line("profile") as callbacks:
        done = measure(settings, built, seconds, **callbacks)
    trace, interrupted = done.trace, done.status == "interrupted"
    if interrupted and overwrite and is_trace(folder):  # what is whole is worth more
        folder, overwrite = free_name(f"{folder}-interrupted"), False
    folder = trace.save(folder, overwrite=overwrite, elsewhere=True)
    print_failures(done)
    print(f"{label(built)}, {settings.on}: {trace.header.end_time:.3g} s measured")
    print_times(measured_times(trace))
    times = shlex.quote(text_of(FromRun(str(folder))))
    print(f"Compare methods on these workers: asgrad compare --workers {trace.n_workers} "
          f"--times {times}")  # fmt: skip
    if interrupted:
        print("asgrad: interrupted; what was measured until then is kept.", file=sys.stderr)
        raise typer.Exit(130)
