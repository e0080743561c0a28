"""asgrad train."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from asgrad.cli.options import Config, with_options
from asgrad.cli.output import label, live_line, print_failures, print_notes, print_training
from asgrad.errors import AsgradError
from asgrad.experiments.config import TrainConfig

__all__ = ["train"]

_GO_ON = "go on with: asgrad train --resume {}"
_AFTER = {
    "interrupted": (_GO_ON, 130),
    "too few workers": (_GO_ON, 1),
    "diverged": ("try a smaller stepsize", 1),
}


@with_options(TrainConfig)
def train(
    said: dict[str, Any],
    config: Config = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run from its newest checkpoint; new limits may be set, and where "
            "files are: --data, --test, --x0."
        ),
    ] = None,
) -> None:
    """Run a method on real workers; the run survives crashes and can be replayed bit for bit.

    With --on virtual the workers take the --times that are asked for, in virtual time.

    Without arguments: pure on the bundled digits, softmax split by label over ten threads, for ten
    seconds. The exit code is 130 after Ctrl-C, 1 if the run diverged or lost its workers.
    """
    from asgrad.experiments.training import StoredTraining, run_training, save_training
    from asgrad.experiments.training_folder import check_training, resume_training

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
    print_failures(done)
    print_training(label(built), StoredTraining.load(folder))
    quoted = shlex.quote(str(folder))
    print(f"Run: {folder}   Check it: asgrad verify {quoted}")
    remedy, code = _AFTER.get(done.status, ("", 0))
    if remedy:
        print(f"asgrad: {done.status}; {remedy.format(quoted)}", file=sys.stderr)
        raise typer.Exit(code)
