"""The commands put together, and usage errors in one line."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from asgrad.cli.compare import compare
from asgrad.cli.methods import methods
from asgrad.cli.profile import profile
from asgrad.cli.replay import replay
from asgrad.cli.show import show
from asgrad.cli.simulate import simulate
from asgrad.cli.train import train
from asgrad.cli.verify import verify

__all__ = ["app", "run"]

# Newer releases of typer carry their own copy of click: this is the usage error of either.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Plan, run and replay stochastic gradient descent on workers of unequal speed.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> int:
    """Run the command that the process was started with; return its exit code.

    Errors pass through, but for those of usage; so does Ctrl-C, of which typer would say nothing.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("asgrad", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    except _UsageError as error:
        print(f"asgrad: {_in_words(error)}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def _in_words(error: Any) -> str:
    """Return a usage error as one line: what, the rule, and the value."""
    values = getattr(error.__cause__, "errors", None)  # of pydantic, which newer typer asks
    parameter = getattr(error, "param", None)
    text = " ".join(error.format_message().split())
    if parameter is None:
        return text
    if values is not None:
        first = values()[0]
        rule = first["msg"].partition(",")[0].replace("Input should", "must")
        value = repr(first["input"])
    else:
        value, _, kind = error.message.rstrip(".").partition(" is not ")
        rule = f"must be {kind.replace('float', 'number')}"
        if not kind:
            return text
    return f"{parameter.opts[0]} {rule}, got {value}. It means: {parameter.help}"


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        from asgrad import __version__

        print(f"asgrad {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (compare, simulate, train, profile, replay, verify, show, methods):
    app.command()(command)
