"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asgrad.errors import AsgradError

__all__ = [
    "Address",
    "Alpha",
    "Batch",
    "Config",
    "DataText",
    "EngineName",
    "Equal",
    "Out",
    "Overwrite",
    "ProblemText",
    "Regularizer",
    "Slowdown",
    "SplitText",
    "StartText",
    "Steps",
    "Stepsizes",
    "Strength",
    "TestText",
    "TimesText",
    "UntilTime",
    "Workers",
    "given",
    "numbers",
    "test_rows",
]

Config = Annotated[Path | None, typer.Argument(help="CONFIG.toml; options override it.")]
Workers = Annotated[int | None, typer.Option(help="Number of workers.")]
TimesText = Annotated[
    str | None,
    typer.Option(help="Worker times, e.g. normal:scale=sqrt, from-run:RUN, from-table:CSV."),
]
Steps = Annotated[int | None, typer.Option(help="Stop after this many server steps.")]
UntilTime = Annotated[float | None, typer.Option(help="Stop at this time, in seconds.")]
Stepsizes = Annotated[
    str | None, typer.Option("--stepsizes", "--stepsize", help="Stepsizes, e.g. 0.01,0.1,1.")
]
DataText = Annotated[
    str | None, typer.Option(help="digits, breast-cancer, a LIBSVM file, CIFAR-10's folder.")
]
ProblemText = Annotated[
    str | None,
    typer.Option(help="auto, logistic, softmax, least-squares, tridiagonal, mlp, cnn or resnet20."),
]
SplitText = Annotated[
    str | None, typer.Option(help="contiguous, shuffled, label, dirichlet or shared.")
]
Alpha = Annotated[float | None, typer.Option(help="α of the Dirichlet split.")]
TestText = Annotated[
    str | None, typer.Option(help="Rows for testing: a share such as 0.2, or a LIBSVM file.")
]
Equal = Annotated[
    bool | None,
    typer.Option("--equal", help="Leave rows out so that all workers have as many."),
]
StartText = Annotated[
    str | None, typer.Option("--x0", help="Where runs start: zeros, ones, normal or a .npy file.")
]
Batch = Annotated[int | None, typer.Option(help="Rows of a stochastic gradient; 0: all.")]
Regularizer = Annotated[str | None, typer.Option(help="l2 or nonconvex.")]
Strength = Annotated[float | None, typer.Option(help="λ of the regularizer.")]
EngineName = Annotated[
    str | None, typer.Option(help="Who the workers are: threads of this process, or ray.")
]
Address = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster; by default Ray is started here.")
]
Slowdown = Annotated[str | None, typer.Option(help="A factor >= 1 for every worker, e.g. 1,1,5.")]
Out = Annotated[str | None, typer.Option(help="Folder to write to.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out names.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def numbers(name: str, text: str | None) -> list[float] | None:
    """Return the numbers of a list joined by commas."""
    if text is None:
        return None
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise AsgradError(f"{name}: write numbers joined by commas, got {text!r}.") from None


def test_rows(text: str | None) -> float | str | None:
    """Return a share as a number, and the name of a file as it is."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
