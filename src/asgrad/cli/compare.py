"""asgrad compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from asgrad.cli.options import Config, Insist, Overwrite, with_options
from asgrad.cli.output import print_notes, print_table, progress
from asgrad.errors import AsgradError
from asgrad.experiments.config import CompareConfig

__all__ = ["compare"]

_ADDABLE = {"methods", "seeds", "stepsizes", "best", "window", "target", "widen"}
"""What may be said of a comparison that goes on."""


@with_options(CompareConfig, leave_out={"extra_stepsizes"})
def compare(
    said: dict[str, Any],
    config: Config = None,
    overwrite: Overwrite = False,
    insist: Insist = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run, interrupted or finished; methods, seeds and stepsizes that "
            "are given are added, and nothing is computed twice."
        ),
    ] = None,
) -> None:
    """Compare methods, each with its best stepsize, by step and by time.

    Without arguments: softmax on the bundled digits over ten workers with linear speeds, once with
    equal data, once split by label.
    """
    from asgrad.experiments import compare as run
    from asgrad.experiments.run import open_run, stored_config
    from asgrad.registry import label as text_of
    from asgrad.times import FromRun

    if said.get("times") == FromRun.name and config is not None and config.is_dir():
        said["times"], config = text_of(FromRun(str(config))), None  # --times from-run RUN
    if resume is not None:
        others = sorted({*said, *(["CONFIG"] if config else [])} - _ADDABLE)
        if others:
            raise AsgradError(
                f"compare: a comparison that goes on keeps its settings; leave out "
                f"{', '.join(others)}."
            )
        config = stored_config(resume)
    settings = CompareConfig.read(config, said)
    built = settings.build_problems()
    print_notes(*(built.values() if isinstance(built, dict) else [built]))
    place = resume or settings.out
    # The folder's own name is not in its config: with that the run can be made again elsewhere.
    stored = settings.model_dump(exclude={"out"})
    with (
        open_run(place, config=stored, overwrite=overwrite, resume=resume is not None) as folder,
        progress("comparing") as tell,
    ):
        try:
            comparison = run(
                built,
                settings.times,
                settings.methods,
                stepsizes=settings.stepsizes,
                extra_stepsizes=settings.extra_stepsizes,
                widen=settings.widen,
                seeds=settings.seeds,
                steps=settings.steps,
                until_time=settings.until_time,
                best=settings.best,
                window=settings.window,
                target=settings.target,
                evaluations=settings.evaluations,
                out=folder,
                progress=tell,
                insist=insist,
            )
        except KeyboardInterrupt:
            print(f"asgrad: interrupted. {folder.way_on}", file=sys.stderr)
            raise typer.Exit(130) from None
    for panel in comparison.panels:
        if not panel.name:
            print(panel.problem)
    print(f"times {settings.times}")
    print_table(comparison)
    if not comparison.complete:
        print(f"asgrad: interrupted. {folder.way_on}", file=sys.stderr)
        raise typer.Exit(130)
    print(f"Run: {folder.target}   Figures: {folder.target / 'figures'}")
