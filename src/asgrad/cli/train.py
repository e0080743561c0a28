"""asgrad train, asgrad profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asgrad.cli.options import (
    Address,
    Batch,
    Config,
    DataText,
    EngineName,
    Out,
    ProblemText,
    Slowdown,
    SplitText,
    Steps,
    UntilTime,
    Workers,
    given,
    numbers,
)
from asgrad.cli.output import label, live_line, print_summary, print_times
from asgrad.errors import AsgradError, check_positive

if TYPE_CHECKING:
    from asgrad.engines import Training
    from asgrad.experiments import TrainConfig

__all__ = ["profile", "train"]


def train(
    config: Config = None,
    method: Annotated[str | None, typer.Option(help="METHOD[:PARAMETERS][+STEPSIZE].")] = None,
    stepsize: Annotated[float | None, typer.Option(help="γ; by default 1/(4L).")] = None,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
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
        typer.Option(help="Go on with this run from its newest checkpoint; new limits may be set."),
    ] = None,
    out: Out = None,
) -> None:
    """Run a method on real workers; the run survives crashes and can be replayed bit for bit."""
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import check_training, resume_training

    said = given(
        method=method,
        stepsize=stepsize,
        data=data,
        problem=problem,
        split=split,
        batch=batch,
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
            {*said, *(["CONFIG"] if config else [])} - {"steps", "until_time", "target"}
        )
        if others:
            raise AsgradError(
                f"train: a resumed run keeps its settings; leave out {', '.join(others)}."
            )
        settings = resume_training(resume, said)
    else:
        settings = TrainConfig.read(config, said)
        check_training(settings.out)
    problem_label, done, folder = _carry_out(settings, settings.method, resume is not None)
    print(f"{problem_label}: stopped by {done.status}")
    print_summary(done.trace)
    print(f"‖∇f‖ {done.gradient_norm[0]:.3e} → {done.gradient_norm[-1]:.3e}, "
          f"loss {done.loss[-1]:.5g}, accuracy {done.accuracy[-1]:.1%}")  # fmt: skip
    print(f"Run: {folder}   Check it: asgrad replay {folder} --verify")


def profile(
    config: Config = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 60.0,
    data: DataText = None,
    problem: ProblemText = None,
    split: SplitText = None,
    batch: Batch = None,
    workers: Workers = None,
    engine: EngineName = None,
    address: Address = None,
    slowdown: Slowdown = None,
    out: Out = "runs/profile",
) -> None:
    """Measure how long each worker takes for a gradient; compare can then simulate on them."""
    from asgrad.experiments import TrainConfig
    from asgrad.experiments.training import check_training
    from asgrad.times.measured import measured_times

    check_positive("profile", "seconds", seconds)
    said = given(
        data=data,
        problem=problem,
        split=split,
        batch=batch,
        workers=workers,
        engine=engine,
        address=address,
        slowdown=numbers("slowdown", slowdown),
        out=out,
        method="pure",
        stepsize=1e-9,  # the model hardly moves: only the times count
        until_time=seconds,
        evaluate_every=max(seconds, 1e-3),
    )
    no_limits = {"steps": None, "target": None}
    settings = TrainConfig.read(config, {**said, **no_limits})
    check_training(settings.out)
    problem_label, done, folder = _carry_out(settings, "profile")
    print(f"{problem_label}, {settings.engine}: {done.trace.header.end_time:.3g} s measured")
    print_times(measured_times(done.trace))
    print(f"Compare methods on these workers: asgrad compare --workers {done.trace.n_workers} "
          f"--times from-run:{folder}")  # fmt: skip


def _carry_out(
    settings: TrainConfig, title: str, resume: bool = False
) -> tuple[str, Training, Path]:
    """Run what the settings say and write it; return the problem's label, the run, its folder."""
    from asgrad.experiments.training import run_training, save_training

    problem = settings.build_problem()
    with live_line(title) as callbacks:
        done = run_training(settings, problem, resume=resume, **callbacks)
    folder = save_training(done, settings)
    if done.failures:
        print(f"{len(done.failures)} jobs failed, first: {done.failures[0]}")
    return label(problem), done, folder
