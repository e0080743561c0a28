"""asgrad train, asgrad profile."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asgrad.cli.options import (
    Address,
    Alpha,
    Batch,
    Config,
    DataText,
    EngineName,
    Equal,
    Out,
    Overwrite,
    ProblemText,
    Regularizer,
    Slowdown,
    SplitText,
    StartText,
    Steps,
    Strength,
    TestText,
    UntilTime,
    Workers,
    given,
    numbers,
    test_rows,
)
from asgrad.cli.output import label, live_line, print_notes, print_times, print_training
from asgrad.errors import AsgradError, check_positive

if TYPE_CHECKING:
    from asgrad.training import Training

__all__ = ["profile", "train"]

_GO_ON = "go on with: asgrad train --resume {}"
_AFTER = {
    "interrupted": (_GO_ON, 130),
    "too few workers": (_GO_ON, 1),
    "diverged": ("try a smaller stepsize", 1),
}


def train(
    config: Config = None,
    method: Annotated[
        str | None, typer.Option(help="METHOD[:PARAMETERS][+PART]…, a recipe.")
    ] = None,
    stepsize: Annotated[float | None, typer.Option(help="γ; by default 1/(4L).")] = None,
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
    steps: Steps = None,
    until_time: UntilTime = None,
    target: Annotated[float | None, typer.Option(help="Stop at this gradient norm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    engine: EngineName = None,
    address: Address = None,
    slowdown: Slowdown = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run from its newest checkpoint; new limits may be set, and where "
            "files are: --data, --test, --x0."
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Run a method on real workers; the run survives crashes and can be replayed bit for bit.

    Without arguments: pure on the bundled digits, softmax split by label over ten threads, for ten
    seconds. The exit code is 130 after Ctrl-C, 1 if the run diverged or lost its workers.
    """
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import StoredTraining, run_training, save_training
    from asgrad.experiments.training_folder import check_training, resume_training

    said = given(
        method=method,
        stepsize=stepsize,
        data=data,
        problem=problem,
        split=split,
        alpha=alpha,
        equal=equal,
        test=test_rows(test),
        batch=batch,
        x0=x0,
        regularizer=regularizer,
        strength=strength,
        workers=workers,
        steps=steps,
        until_time=until_time,
        target=target,
        seed=seed,
        engine=engine,
        address=address,
        slowdown=numbers("slowdown", slowdown),
        out=out,
    )
    if resume is not None:
        others = sorted(
            {*said, *(["CONFIG"] if config else [])}
            - {"steps", "until_time", "target", "data", "test", "x0"}
        )
        if others:
            raise AsgradError(
                f"train: a resumed run keeps its settings; leave out {', '.join(others)}."
            )
        settings = resume_training(resume, said)
    else:
        settings = TrainConfig.read(config, said)
        check_training(settings.out)
    built = settings.build_problem()
    print_notes(built)
    with live_line(settings.method) as callbacks:
        done = run_training(settings, built, resume=resume is not None, **callbacks)
    folder = save_training(done, settings)
    _say_failures(done)
    print_training(label(built), StoredTraining.load(folder))
    quoted = shlex.quote(str(folder))
    print(f"Run: {folder}   Check it: asgrad replay {quoted} --verify")
    remedy, code = _AFTER.get(done.status, ("", 0))
    if remedy:
        print(f"asgrad: {done.status}; {remedy.format(quoted)}", file=sys.stderr)
        raise typer.Exit(code)


def profile(
    config: Config = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 60.0,
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
    engine: EngineName = None,
    address: Address = None,
    slowdown: Slowdown = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure how long each worker takes for a gradient; compare can then simulate on them.

    What is written is a trace: runs/profile, runs/profile-2, ... unless --out says where.
    """
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import profile as measure
    from asgrad.files import check_target, free_name
    from asgrad.registry import label as text_of
    from asgrad.times import FromRun
    from asgrad.times.measured import measured_times
    from asgrad.trace.parquet import TRACE, is_trace

    check_positive("profile", "seconds", seconds)
    said = given(
        data=data,
        problem=problem,
        split=split,
        alpha=alpha,
        equal=equal,
        test=test_rows(test),
        batch=batch,
        x0=x0,
        regularizer=regularizer,
        strength=strength,
        workers=workers,
        engine=engine,
        address=address,
        slowdown=numbers("slowdown", slowdown),
    )
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
    _say_failures(done)
    print(f"{label(built)}, {settings.engine}: {trace.header.end_time:.3g} s measured")
    print_times(measured_times(trace))
    times = shlex.quote(text_of(FromRun(str(folder))))
    print(f"Compare methods on these workers: asgrad compare --workers {trace.n_workers} "
          f"--times {times}")  # fmt: skip
    if interrupted:
        print("asgrad: interrupted; what was measured until then is kept.", file=sys.stderr)
        raise typer.Exit(130)


def _say_failures(done: Training) -> None:
    """Print how many jobs failed, if any, and how the first did."""
    if done.failures:
        print(f"{len(done.failures)} jobs failed, first: {done.failures[0]}")
